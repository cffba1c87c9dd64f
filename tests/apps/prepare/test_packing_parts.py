"""vidadapt prepare frames on many machines: parts that are joined, as one machine would have it."""

import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import load_tool
from videos import textured_frames, write_video

from vidadapt.apps.prepare.copies import Copy, load_table
from vidadapt.launching.failures import kind_of
from vidadapt.lists import Sample, frame_counts, known_root, read_list, read_prepared

pytestmark = [
    pytest.mark.slow,  # whole commands
    pytest.mark.filterwarnings("ignore:The image decoding"),  # of torchvision 0.29
]
GOOD = ["a b/1.mp4", "2.mp4", "3.mp4", "4.mp4", "5.mp4", "6.mp4"]
LISTS = {"train.txt": [3, 0, 6, 2, 5], "val.txt": [1, 4, 7]}


def call(*words: object) -> tuple[int, str]:
    """Exit status of vidadapt prepare frames, and its error."""
    try:
        load_tool("prepare").main(["frames", *map(str, words)])
    except SystemExit as end:
        return (end.code if isinstance(end.code, int) else 2), ""
    except Exception as error:
        return kind_of(error).status, str(error)
    return 0, ""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six good videos, a broken one and one that is missing, in two lists."""
    root = tmp_path_factory.mktemp("source")
    (root / "a b").mkdir()
    for seed, name in enumerate(GOOD):
        write_video(root / name, textured_frames(6 + seed, seed=seed))
    (root / "broken.mp4").write_text("no video")
    names = [*GOOD, "broken.mp4", "missing.mp4"]
    for list_name, listed in LISTS.items():
        (root / list_name).write_text("".join(f"{names[i]} {i % 3}\n" for i in listed))
    (root / "labels.txt").write_text("up\ndown\nstill\n")
    return root


@pytest.fixture(scope="module")
def packed(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a fresh folder of the copies of one machine (0), or of the parts of N."""
    kept = tmp_path_factory.mktemp("kept")

    def made(number: int, to: Path) -> Path:
        home = kept / str(number)
        for n in range(max(1, number)) if not home.exists() else ():
            part = ("--shard", f"{n + 1}/{number}") if number else ()
            call(*given(source), "--out", home, *part)
        return Path(shutil.copytree(home, to))

    return made


def given(source: Path) -> list[object]:
    """The options that every call has; several tars a machine."""
    lists = [source / name for name in LISTS]
    small = ("--short_side", 64, "--shard_size", 0.03, "--processes", 1, "--min_psnr", 20)
    return [*lists, "--root", source, *small]


def jpegs(out: Path) -> dict[str, bytes]:
    """Bytes of every packed frame by its name, whichever tar it is in."""
    found: dict[str, bytes] = {}
    for tar in out.rglob("*.tar"):
        with tarfile.open(tar) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None and member.name not in found
                found[member.name] = file.read()
    return found


def rows(out: Path) -> list[Copy]:
    """The table of copies without the names of tars, in its order."""
    return [replace(row, copy=plain(row.copy)) for row in load_table(out).values()]


def plain(path: str) -> str:
    """The name of a packed video in its tar."""
    return path.partition(".tar/")[2]


def test_joined_parts_are_the_copies_of_one_machine(
    source: Path, packed: Callable[..., Path], tmp_path: Path
) -> None:
    number = 3
    one, many = packed(0, tmp_path / "one"), packed(number, tmp_path / "many")
    assert len(list(many.rglob("*.tar"))) > number
    status, error = call(*given(source), "--out", many, "--join", number)
    assert (status, error) == (1, "")  # two are no good
    assert jpegs(many) == jpegs(one)
    assert rows(many) == rows(one) and len(rows(one)) == len(GOOD)
    assert (many / "labels.txt").read_bytes() == (one / "labels.txt").read_bytes()
    for name in LISTS:
        listed, expected = (read_list(out / name, out, 3) for out in (many, one))
        assert [Sample(plain(s.path), s.label) for s in listed] == [
            Sample(plain(s.path), s.label) for s in expected
        ]
        checks = [
            [facts.checks.tolist() for facts in frame_counts(out / name, out, paths).values()]
            for out, paths in ((many, listed.paths()), (one, expected.paths()))
        ]
        assert checks[0] == checks[1]
    both = [sorted((out / "report.txt").read_text().splitlines()) for out in (many, one)]
    assert both[0] == both[1] and any("broken.mp4" in line for line in both[0])
    prepared = [read_prepared(out) for out in (many, one)]
    assert prepared[0].lists == prepared[1].lists and known_root(many / "train.txt") == many
    before = {file: file.read_bytes() for file in many.rglob("*.tx?")}
    assert call(*given(source), "--out", many, "--join", number)[0] == 1  # again, the same
    assert before == {file: file.read_bytes() for file in many.rglob("*.tx?")}


def test_a_part_goes_on_where_it_was(
    source: Path, packed: Callable[..., Path], tmp_path: Path
) -> None:
    many = packed(3, tmp_path / "many")
    tars = {file: file.stat().st_mtime_ns for file in many.rglob("*.tar")}
    (many / "2-of-3" / "part.json").unlink()  # as if it had been killed
    status, error = call(*given(source), "--out", many, "--join", 3)
    assert status not in (0, 1) and "2-of-3: it is not done" in error and "--shard 2/3" in error
    call(*given(source), "--out", many, "--shard", "2/3")
    assert tars == {file: file.stat().st_mtime_ns for file in many.rglob("*.tar")}
    assert call(*given(source), "--out", many, "--join", 3) == (1, "")


def test_what_cannot_be_joined_is_refused_by_name(
    source: Path, packed: Callable[..., Path], tmp_path: Path
) -> None:
    many = packed(3, tmp_path / "many")
    join = (*given(source), "--out", many, "--join", 3)
    (many / "2-of-3").rename(tmp_path / "away")
    status, error = call(*join)
    assert status not in (0, 1) and "2-of-3" in error and "--shard 2/3" in error
    assert not (many / "train.txt").exists()
    (tmp_path / "away").rename(many / "2-of-3")
    status, error = call(*join, "--quality", 80)
    assert status not in (0, 1) and "quality 90" in error
    tar = min(many.glob("3-of-3/shards/*.tar"))
    whole = tar.read_bytes()
    tar.unlink()
    status, error = call(*join)
    assert status not in (0, 1) and str(tar) in error
    tar.write_bytes(whole[: len(whole) // 2])  # as of a copy that was cut short
    tar.with_name(f"{tar.name}.index").unlink()
    status, error = call(*join)
    assert status not in (0, 1) and str(tar) in error
    tar.write_bytes(whole)
    (source / "more.txt").write_text(f"{GOOD[0]} 1\nbroken.mp4 1\n")
    more = (source / "more.txt", "--root", source, "--short_side", 64, "--out", many, "--join", 3)
    status, error = call(*more)
    assert status not in (0, 1)
    assert call(*join) == (1, "")
    status, error = call(*given(source), "--out", many)  # of one machine, into the same folder
    assert status not in (0, 1) and "parts" in error
    assert json.loads((many / "copy.json").read_text())["parts"] == 3
