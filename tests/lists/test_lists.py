import itertools
from pathlib import Path

import pytest

from vidadapt.lists import (
    ListError,
    Sample,
    manifest_hash,
    read_label_names,
    read_list,
    shared_paths,
    write_list,
)

AWKWARD = [
    "plain.mp4",
    "dir with spaces/a b  c.avi",
    "#1_[x]_(y)_&_;_best!.avi",
    'it\'s "quoted", twice, v2.mp4',
    "name 12.mp4",
    "ünïcode – 視頻.webm",
    "-dash-.mp4",
    "(Rad)Schlag_die_Bank!_cartwheel_f_cm_np1_le_med_0.avi",
]


def make_files(root, paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).touch()


@pytest.mark.parametrize("separator", [" ", "\t", ",", ", ", "   ", " , "])
def test_awkward_paths_with_every_separator(tmp_path, separator):
    make_files(tmp_path, AWKWARD)
    lines = [f"{path}{separator}{label}" for label, path in enumerate(AWKWARD)]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    samples = read_list(tmp_path / "list.txt", tmp_path, len(AWKWARD))
    assert samples == [Sample(path, label) for label, path in enumerate(AWKWARD)]


@pytest.mark.parametrize("header", ["path label", "path,label", "video\tclass", "\ufeffpath,Label"])
def test_header_empty_lines_and_windows_line_ends(tmp_path, header):
    text = f"\n{header}\n\na.mp4 0\n   \nb.mp4 1  \n"
    (tmp_path / "list.csv").write_bytes(text.replace("\n", "\r\n").encode())
    samples = read_list(tmp_path / "list.csv", tmp_path, 2)
    assert samples == [Sample("a.mp4", 0), Sample("b.mp4", 1)]


def test_a_malformed_first_line_is_not_taken_for_a_header(tmp_path):
    (tmp_path / "list.txt").write_text("a.mp4 x\nb.mp4 0\n")
    with pytest.raises(ListError, match=r"list.txt:1: expected 'path label'"):
        read_list(tmp_path / "list.txt", tmp_path, 2)


def test_a_header_later_in_the_file_is_an_error(tmp_path):
    (tmp_path / "list.txt").write_text("b.mp4 0\npath label\n")
    with pytest.raises(ListError, match=r"list.txt:2:"):
        read_list(tmp_path / "list.txt", tmp_path, 2)


def test_all_kinds_of_offenders_in_one_error(tmp_path):
    make_files(tmp_path, ["a.mp4", "b.mp4", "c.mp4"])
    lines = ["a.mp4 0", "lonely", "b.mp4 2", "c.mp4 -1", "./a.mp4 1", "gone.mp4 1", "c.mp4 1.5"]
    lines += [" , 0"]
    (tmp_path / "list.txt").write_text("\n".join(lines))
    with pytest.raises(ListError) as error:
        read_list(tmp_path / "list.txt", tmp_path, 2)
    shown = str(error.value).splitlines()[1:]
    expected = [
        (2, "expected 'path label'"),
        (3, "label 2 is outside 0..1 (2 classes)"),
        (4, "label -1 is outside"),
        (5, "'./a.mp4' is already on line 1"),
        (7, "expected 'path label' with an integer"),
        (8, "expected 'path label' with an integer"),
    ]
    assert len(shown) == len(expected)
    for line, (number, text) in zip(shown, expected, strict=True):
        assert f"list.txt:{number}: " in line and text in line


def test_many_offenders_are_counted(tmp_path):
    (tmp_path / "list.txt").write_text("".join(f"{i}.mp4 9\n" for i in range(25)))
    with pytest.raises(ListError, match=r"25 bad line\(s\)(?s:.*)list.txt:10:.*\n.*and 15 more"):
        read_list(tmp_path / "list.txt", tmp_path, 2)


@pytest.mark.parametrize("text", ["", "\n \n", "path label\n"])
def test_an_empty_list_is_an_error(tmp_path, text):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(ListError, match="lists no video"):
        read_list(tmp_path / "list.txt", tmp_path, 2)


def test_a_missing_or_binary_list_is_an_error(tmp_path):
    with pytest.raises(ListError, match=r"cannot read .*none\.txt"):
        read_list(tmp_path / "none.txt", tmp_path, 2)
    (tmp_path / "video.mp4").write_bytes(b"\xff\xfe\x00\xd8 0\n")
    with pytest.raises(ListError, match=r"cannot read .*video\.mp4"):
        read_list(tmp_path / "video.mp4", tmp_path, 2)


def test_written_lists_read_back(tmp_path):
    samples = [Sample(path, label) for label, path in enumerate(AWKWARD)]
    write_list(tmp_path / "list.txt", samples)
    assert read_list(tmp_path / "list.txt", tmp_path, len(AWKWARD)) == samples
    assert [path.name for path in tmp_path.iterdir()] == ["list.txt"]


@pytest.mark.parametrize("path", ["a\nb.mp4", " a.mp4", "a.mp4 ", "a.mp4,", ""])
def test_what_cannot_be_read_back_is_not_written(tmp_path, path):
    with pytest.raises(ListError, match="cannot be written"):
        write_list(tmp_path / "list.txt", [Sample(path, 0)])
    assert not list(tmp_path.iterdir())


def spellings(tmp_path: Path) -> list[str]:
    """Ways to name a.mp4 of the folder `videos`, which `link` leads to."""
    make_files(tmp_path / "videos", ["a.mp4"])
    (tmp_path / "link").symlink_to("videos")
    folders = [tmp_path / "videos", f"{tmp_path}//videos/.", tmp_path / "link"]
    return ["a.mp4", "./a.mp4", *(f"{folder}/a.mp4" for folder in folders)]


def test_a_file_is_the_same_by_its_absolute_path_and_below_the_root(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spelt, listed = spellings(tmp_path), tmp_path / "list.txt"
    for root in (tmp_path / "link", "link", "./link/"):
        for one, other in itertools.permutations(spelt, 2):
            listed.write_text(f"{one} 0\n{other} 0\n")
            with pytest.raises(ListError, match="is already on line 1"):
                read_list(listed, root, 1)
            listed.write_text(f"{one} 0\nb.mp4 0\n")
            known = read_list(listed, root, 1)
            listed.write_text(f"c.mp4 0\n{other} 0\n")
            assert shared_paths(known, read_list(listed, root, 1), root) == [other]


def test_an_object_of_a_store_is_the_same_by_its_url_and_below_the_root(tmp_path):
    root, listed = "s3://bucket/set", tmp_path / "list.txt"
    listed.write_text("a.mp4 0\ns3://bucket/set/a.mp4 0\n")
    with pytest.raises(ListError, match="is already on line 1"):
        read_list(listed, root, 1)
    listed.write_text("a.mp4 0\ns3://bucket/set2/a.mp4 0\n")
    assert len(read_list(listed, root, 1, allow_outside_root=True)) == 2


def test_label_names(tmp_path):
    (tmp_path / "names.txt").write_text("brush hair\ncart wheel \n\n")
    assert read_label_names(tmp_path / "names.txt") == ["brush hair", "cart wheel"]
    for text, message in [
        ("", "holds no label names"),
        ("a\n\nb\n", r"names.txt:2: empty line"),
        ("a\nb\na\n", r"names.txt:3: 'a' is already on line 1"),
    ]:
        (tmp_path / "names.txt").write_text(text)
        with pytest.raises(ListError, match=message):
            read_label_names(tmp_path / "names.txt")


def test_manifest_hash_sees_paths_labels_order_and_names():
    base = [Sample("a", 0), Sample("b", 1)]
    variants = [
        (base, ["x", "y"]),
        (base, None),
        (base, ["y", "x"]),
        (base[::-1], ["x", "y"]),
        ([Sample("a", 1), Sample("b", 1)], ["x", "y"]),
        ([Sample("c", 0), Sample("b", 1)], ["x", "y"]),
        (base[:1], ["x", "y"]),
    ]
    hashes = [manifest_hash(*variant) for variant in variants]
    assert len(set(hashes)) == len(variants) and all(len(h) == 64 for h in hashes)
    assert manifest_hash(tuple(base), ("x", "y")) == hashes[0]


def test_multi_label_lists_read_back_and_name_their_offenders(tmp_path):
    samples = [Sample("a b.mp4", (0, 3)), Sample("c,1", ()), Sample("d 7", (2,))]
    listed = tmp_path / "list.txt"
    write_list(listed, samples)
    found = read_list(listed, tmp_path, 4, multi_label=True)
    assert list(found) == samples
    assert found.labels.tolist() == [
        [True, False, False, True],
        [False] * 4,
        [False, False, True, False],
    ]
    assert manifest_hash(found, None) == manifest_hash(samples, None)
    assert manifest_hash(found, None) != manifest_hash([*samples[:2], Sample("d 7", (1,))], None)
    listed.write_text("path labels\na.mp4 4\nb.mp4 1,1\nc.mp4 1 2;3\nd.mp4,1\ne.mp4 3,0\n")
    with pytest.raises(ListError) as error:
        read_list(listed, tmp_path, 4, multi_label=True)
    assert all(f":{line}:" in str(error.value) for line in (2, 3, 4, 5))
    assert ":6:" not in str(error.value)
