"""vidadapt check_videos: every file decoded once, every defect told, whatever a decoder does."""

import csv
import io
import itertools
import os
import re
import runpy
import struct
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import av
import misbehaving
import numpy as np
import pytest
from conftest import TinySet, load_tool
from PIL import Image
from videos import grey_frames, write_video

import vidadapt.apps.prepare.check
from vidadapt.apps import synthetic
from vidadapt.apps.report.figures import RED
from vidadapt.lists import (
    CountJob,
    Prepared,
    counting,
    frame_counts,
    read_index,
    read_quarantine,
    write_prepared,
)
from vidadapt.video import VideoFacts

pytestmark = pytest.mark.slow  # whole commands

TOOL = Path(__file__).parents[3] / "tools" / "check_videos.py"
SHARED = Path(__file__).parents[4] / "shared" / "clips"


def check(*arguments: object) -> int:
    return load_tool("check_videos").main([str(argument) for argument in arguments])


def table_of(list_path: Path) -> dict[str, dict[str, str]]:
    with Path(f"{list_path}.check.csv").open(newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def frames_of(list_path: Path) -> dict[str, int]:
    return {path: int(row["num_frames"]) for path, row in table_of(list_path).items()}


def turn_left(video: Path) -> None:
    """Write a display matrix into an mp4 that shows it a quarter turn to the left."""
    data = bytearray(video.read_bytes())
    at = data.index(b"tkhd") + 44
    one = 1 << 16
    data[at : at + 36] = struct.pack(">9i", 0, -one, 0, one, 0, 0, 0, 0, 1 << 30)
    video.write_bytes(data)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A list with every kind of file, beside its folder of videos and labels.txt."""
    folder = tmp_path / "videos"
    (folder / "sub").mkdir(parents=True)
    for name, count, width, height, rate in (
        ("a b #1, [x].mp4", 20, 128, 96, 24),
        ("b.webm", 12, 96, 160, 12),
        ("sub/c.avi", 30, 112, 80, 30),
    ):
        synthetic.write_video(folder / name, grey_frames(count, height, width), rate)
    write_video(folder / "turned.mp4", grey_frames(10, 96, 128))
    turn_left(folder / "turned.mp4")
    write_video(folder / "whole.mp4", grey_frames(40, 96, 96), header_first=True, key_every=1)
    whole = (folder / "whole.mp4").read_bytes()
    (folder / "cut.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "bad.mp4").write_text("no video")
    names = [
        "a b #1, [x].mp4",
        "b.webm",
        "sub/c.avi",
        "turned.mp4",
        "cut.mp4",
        "bad.mp4",
        "gone.mp4",
    ]
    lines = [f"{name} {label}\n" for name, label in zip(names, (0, 0, 0, 1, 1, 3, 3), strict=True)]
    (tmp_path / "train.txt").write_text("".join(lines))
    (tmp_path / "labels.txt").write_text("walk\nrun\nswim ($5$ $)\njump\n")
    return tmp_path


def test_the_table_tells_what_was_encoded(videos: Path) -> None:
    assert check(videos / "train.txt", "--root", videos / "videos") == 1
    table = table_of(videos / "train.txt")
    assert list(table) == [
        line.rsplit(" ", 1)[0] for line in (videos / "train.txt").read_text().splitlines()
    ]
    columns = ("label", "container", "codec", "pixel_format", "width", "height", "rotation")
    columns += ("header_frames", "num_frames", "truncated", "holds")
    found = {path: tuple(row[column] for column in columns) for path, row in table.items()}
    cut = int(table["cut.mp4"]["num_frames"])
    with av.open(str(videos / "videos" / "cut.mp4")) as container:
        whole = [packet.size for packet in container.demux(video=0) if not packet.is_corrupt]
    assert cut == sum(size > 0 for size in whole) < 39
    p = "yuv420p"
    assert found == {
        "a b #1, [x].mp4": ("0", "mov", "h264", p, "128", "96", "0", "20", "20", "no", "yes"),
        "b.webm": ("0", "matroska", "vp9", p, "96", "160", "0", "", "12", "no", "yes"),
        "sub/c.avi": ("0", "avi", "mpeg4", p, "112", "80", "0", "30", "30", "no", "yes"),
        "turned.mp4": ("1", "mov", "h264", p, "96", "128", "90", "10", "10", "no", "yes"),
        "cut.mp4": ("1", "mov", "h264", p, "96", "96", "0", "40", str(cut), "yes", "yes"),
        "bad.mp4": ("3", "", "", "", "", "", "", "", "0", "no", "yes"),
        "gone.mp4": ("3", "", "", "", "", "", "", "", "0", "no", "no"),
    }
    for path, rate, seconds in (
        ("a b #1, [x].mp4", 24, 20 / 24),
        ("b.webm", 12, 1),
        ("sub/c.avi", 30, 1),
        ("turned.mp4", 24, 10 / 24),
        ("cut.mp4", 24, cut / 24),
    ):
        assert float(table[path]["frame_rate"]) == pytest.approx(rate, rel=1e-4)
        assert float(table[path]["duration"]) == pytest.approx(seconds, rel=0.01)
    for path, row in table.items():
        file = videos / "videos" / path
        if file.exists():
            stat = file.stat()
            assert (row["size"], row["mtime_ns"]) == (str(stat.st_size), str(stat.st_mtime_ns))
    assert table["sub/c.avi"]["reader"] == "pyav_sparse"
    assert table["sub/c.avi"]["doubt"] == "mpeg4 in avi"
    assert table["a b #1, [x].mp4"]["doubt"] == table["a b #1, [x].mp4"]["error"] == ""
    assert "Invalid data" in table["bad.mp4"]["error"] and table["bad.mp4"]["reader"] == ""
    assert table["gone.mp4"]["error"] == "No such file or directory"


def test_the_summary_the_quarantine_and_the_picture(
    videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train = videos / "train.txt"
    check(train, "--root", videos / "videos", "--processes", 1)
    told = capsys.readouterr().out
    cut = frames_of(train)["cut.mp4"]
    assert "train.txt: 7 videos checked: 5 readable, 1 of them truncated; 2 unreadable" in told
    assert f"total: {72 + cut} frames, " in told
    assert "codecs: h264 in mov (3), vp9 in matroska (1), mpeg4 in avi (1)" in told
    assert "sizes: 128x96 (1), 96x160 (1)" in told
    assert "classes: 4, of 0 (swim ($5$ $)) to 3 (walk) videos, median 2" in told
    assert "classes without a video (1): swim" in told
    assert "    bad.mp4: Invalid data" in told and "    gone.mp4: No such file" in told
    assert f"    cut.mp4: the header promises 40 frames, {cut} decode" in told
    quarantine = Path(f"{train}.quarantine.txt")
    assert read_quarantine(quarantine).keys() == {"bad.mp4", "gone.mp4"}
    assert quarantine.read_text().splitlines()[1] == "gone.mp4\tNo such file or directory"
    assert f"--data.quarantine {quarantine}" in told
    assert red_share(train) > 0.001
    for name in ("check.csv", "check.png", "quarantine.txt", "index"):
        assert str(Path(f"{train}.{name}")) in told
    assert not list(videos.glob(".*")), "a partial file was left"


def red_share(list_path: Path) -> float:
    """Share of the picture that shows unreadable files."""
    with Image.open(f"{list_path}.check.png") as image:
        assert image.width == 1800
        pixels = np.asarray(image.convert("RGB"))
    return float((pixels == list(bytes.fromhex(RED[1:]))).all(2).mean())


def test_a_whole_list_gives_0_and_an_empty_quarantine(
    videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = videos / "good.txt"
    good.write_text("b.webm 0\nsub/c.avi 7\n")
    assert check(good, "--root", videos / "videos") == 0
    assert Path(f"{good}.quarantine.txt").read_text() == "" and red_share(good) == 0
    told = capsys.readouterr().out
    assert "quarantine.txt (0 files)" in told and "--data.quarantine" not in told
    assert "labels without a name: 7" in told


def test_a_training_afterwards_decodes_nothing(tiny_set: TinySet, tmp_path: Path, run_tool) -> None:
    root = tmp_path / "videos"
    root.mkdir()
    for file in tiny_set.root.iterdir():
        if file.suffix != ".csv":
            (root / file.name).write_bytes(file.read_bytes())
    (root / "train 3 [x]#.mp4").write_bytes(b"no video")
    (root / "train 4 [x]#.mp4").unlink()
    lists = {name: root / f"{name}.txt" for name in ("train", "dev", "test")}
    assert check(*lists.values(), "--root", root) == 1
    indices = [Path(f"{path}.index") for path in lists.values()]
    before = [(index.read_bytes(), index.stat().st_mtime_ns) for index in indices]
    options = {f"data__{name}_list": path for name, path in lists.items()}
    options |= {"data__root": root, "data__quarantine": f"{lists['train']}.quarantine.txt"}
    run_tool("train", *tiny_set.options(**options, train__epochs=1), "--run_dir", tmp_path / "run")
    assert before == [(index.read_bytes(), index.stat().st_mtime_ns) for index in indices]


@pytest.mark.parametrize("reader", ["auto", "decord", "pyav"])
def test_the_index_is_that_of_a_training(videos: Path, tmp_path: Path, reader: str) -> None:
    """Row by row, whichever of the two counts the frames."""
    train, root = videos / "train.txt", videos / "videos"
    check(train, "--root", root, "--reader", reader, "--out", tmp_path / "out")
    paths = list(table_of(tmp_path / "out" / "train.txt"))
    counted = frame_counts(train, root, paths, reader, progress=False)
    checked = frame_counts(
        train, root, paths, reader, index_dir=tmp_path / "out", progress=False, decode=False
    )
    assert counted == checked
    spoil(root, ["bad.mp4", "b.webm"])  # rows that hold: nothing is decoded again
    assert check(train, "--root", root, "--reader", reader, "--out", tmp_path / "out") == 1
    assert frames_of(tmp_path / "out" / "train.txt")["b.webm"] == 12


def spoil(root: Path, names: list[str]) -> None:
    """Make files undecodable that keep their size and time: who decodes them again fails."""
    for name in names:
        stat = (root / name).stat()
        (root / name).write_bytes(b"\0" * stat.st_size)
        os.utime(root / name, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_only_what_changed_or_has_no_row_is_decoded_again(videos: Path) -> None:
    train, root = videos / "train.txt", videos / "videos"
    check(train, "--root", root)
    before = Path(f"{train}.check.csv").read_bytes()
    assert check(train, "--root", root) == 1 and Path(f"{train}.check.csv").read_bytes() == before
    spoil(root, ["b.webm", "sub/c.avi"])
    write_video(root / "bad.mp4", grey_frames(9, 96, 96))
    write_video(root / "gone.mp4", grey_frames(7, 96, 96))
    train.write_text(train.read_text().replace("b.webm 0", "b.webm 2"))
    assert check(train, "--root", root) == 0
    assert list(frames_of(train).values())[-2:] == [9, 7] and frames_of(train)["b.webm"] == 12
    assert table_of(train)["b.webm"]["label"] == "2"
    os.utime(root / "b.webm")
    assert check(train, "--root", root) == 1
    assert frames_of(train)["b.webm"] == 0 and frames_of(train)["sub/c.avi"] == 30
    assert check(train, "--root", root, "--reader", "pyav") == 1  # rows of another reader
    assert frames_of(train)["sub/c.avi"] == 0


def test_a_wrong_root_costs_nothing_that_was_found(videos: Path) -> None:
    train = videos / "train.txt"
    check(train, "--root", videos / "videos")
    written = [Path(f"{train}.{name}") for name in ("check.csv", "quarantine.txt", "index")]
    before = [path.read_bytes() for path in written]
    for root, message in (
        (videos / "video", r"there is no folder .*video; give --root"),
        (videos / "videos" / "sub", r"train\.txt: none of its 7 videos is there"),
    ):
        with pytest.raises(ValueError, match=message):
            check(train, "--root", root)
    assert [path.read_bytes() for path in written] == before


def known_to(index: Path) -> list[str]:
    found = read_index(index)
    return [] if found is None else [found[row].path for row in range(len(found))]


def test_an_interrupted_check_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A count that is killed is tested with the video index."""
    root = tmp_path / "videos"
    for number in range(12):
        write_video(root / f"{number}.mp4", grey_frames(5 + number % 7, 96, 96))
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{number}.mp4 0\n" for number in range(12)))
    index = Path(f"{listed}.index")

    def interrupted(results: Iterator[object], **options: object) -> Iterator[object]:
        yield from itertools.islice(results, 6)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(counting, "track", interrupted)
        check(listed, "--root", root, "--processes", 2)
    done = known_to(index)
    assert 6 <= len(done) < 12
    with index.open("ab") as file:
        file.write(bytes(1000))  # half a segment
    spoil(root, done)
    assert check(listed, "--root", root) == 0, "a finished file was decoded again"
    assert frames_of(listed) == {f"{number}.mp4": 5 + number % 7 for number in range(12)}
    assert f"12 videos checked, {len(done)} of them earlier: 12 readable" in capsys.readouterr().out
    counts = frame_counts(listed, root, done, progress=False)
    assert all(count.num_frames for count in counts.values())


def test_files_that_hang_or_kill_their_process_are_rows(
    videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    train, root = videos / "train.txt", videos / "videos"
    check(train, "--root", root, "--out", root.parent / "out")  # starts the fork server
    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(vidadapt.apps.prepare.check, "decode_whole", misbehaving.count)
        assert check(train, "--root", root, "--time_limit", 3, "--processes", 2) == 1
    told = capsys.readouterr().out
    assert "3 readable, 1 of them truncated; 4 unreadable" in told
    assert "b.webm: the decoder process did not finish within 3 s (--time_limit)" in told
    causes = read_quarantine(f"{train}.quarantine.txt")
    assert causes["sub/c.avi"] == "the decoder process died (Segmentation fault)"
    assert causes.keys() == {"b.webm", "sub/c.avi", "bad.mp4", "gone.mp4"}
    row = table_of(train)["b.webm"]
    assert (row["num_frames"], row["holds"]) == ("0", "no") and "did not finish" in row["error"]
    # it need not be the files' fault: the next run tries them again
    spoil(root, ["a b #1, [x].mp4"])
    check(train, "--root", root)
    assert list(frames_of(train).values())[:3] == [20, 12, 30]


def test_packed_frames_are_decoded_too(tmp_path: Path) -> None:
    """A training counts them without: only a check finds the damage within."""
    Image.fromarray(grey_frames(1, 96, 128)[0]).save(tmp_path / "0.jpg")
    jpeg = (tmp_path / "0.jpg").read_bytes()
    with tarfile.open(tmp_path / "0.tar", "w") as tar:
        for name, contents in (("a.webm", [jpeg] * 70), ("b.webm", [jpeg, jpeg[:-9], jpeg])):
            for number, content in enumerate(contents):
                member = tarfile.TarInfo(f"{name}/{number:03}.jpg")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    listed = tmp_path / "list.txt"
    listed.write_text("0.tar/a.webm 0\n0.tar/b.webm 0\n0.tar/c.webm 0\n")
    assert check(listed, "--root", tmp_path) == 1
    good, *bad = table_of(listed).values()
    assert (good["num_frames"], good["width"], good["height"]) == ("70", "128", "96")
    assert (good["reader"], good["container"], good["size"]) == (
        "packed", "tar", str((tmp_path / "0.tar").stat().st_size)
    )  # fmt: skip
    assert [row["num_frames"] for row in bad] == ["0", "0"]
    assert "frame 1: a JPEG that ends early" in bad[0]["error"] and "holds no" in bad[1]["error"]
    assert frame_counts(listed, tmp_path, ["0.tar/b.webm"], progress=False)["0.tar/b.webm"].error


def test_the_root_of_a_prepared_folder_is_known(videos: Path) -> None:
    train, root = videos / "train.txt", videos / "videos"
    with pytest.raises(ValueError, match=r"train\.txt: no folder of videos is known; give --root"):
        check(train)
    assert not Path(f"{train}.check.csv").exists()
    record = Prepared("custom", str(root), {"train": "train.txt"}, "labels.txt", {}, {})
    write_prepared(videos, record)
    assert check(train) == 1
    assert frames_of(train)["b.webm"] == 12


def test_several_lists_and_one_folder_for_all_reports(
    videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other, out = videos / "other.txt", tmp_path / "new" / "out"
    other.write_text("bad.mp4 0\nb.webm 1\n")
    assert check(other, videos / "train.txt", "--root", videos / "videos", "--out", out) == 1
    kinds = ("check.csv", "check.png", "index", "quarantine.txt")
    assert {path.name for path in out.iterdir()} == {
        f"{name}.txt.{kind}" for name in ("other", "train") for kind in kinds
    }
    told = capsys.readouterr().out
    quarantines = f"{out}/other.txt.quarantine.txt {out}/train.txt.quarantine.txt"
    assert f"cat {quarantines} > quarantine.txt" in told
    assert "train.txt: 7 videos checked, 2 of them earlier" in told, "shared videos decoded twice"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train.txt", "train.txt"], r"would both write .*train\.txt\.check\.csv"),
        (["absent.txt"], r"cannot read .*absent\.txt"),
        (["broken.txt"], r"broken\.txt:1: "),
        (["sub/train.txt"], r"labels\.txt:2: 'walk' is already on line 1"),
        (["index.txt"], r"index\.txt\.index: .*delete"),
        (["train.txt", "--out", "train.txt"], r"check\.csv cannot be written .*; give --out"),
        (["train.txt", "gone.txt"], r"gone\.txt: none of its 1 videos is there, .*give --root"),
        (["train.txt", "index.txt"], r"index\.txt\.index: "),
    ],
)
def test_what_cannot_be_done_is_said_at_once(
    videos: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    (videos / "broken.txt").write_text("b.webm\n")
    (videos / "gone.txt").write_text("gone.mp4 0\n")
    (videos / "sub").mkdir()
    (videos / "sub" / "train.txt").write_text("b.webm 0\n")
    (videos / "sub" / "labels.txt").write_text("walk\nwalk\n")
    (videos / "index.txt").write_text("b.webm 0\n")
    (videos / "index.txt.index").write_text("a.mp4 3\n")
    monkeypatch.chdir(videos)
    with pytest.raises((ValueError, OSError), match=message):
        check(*arguments, "--root", videos / "videos")
    assert not Path("train.txt.check.png").exists()


@pytest.mark.parametrize("limit", ["0", "-1", "soon", "nan"])
def test_a_time_limit_is_a_time(capsys: pytest.CaptureFixture[str], limit: str) -> None:
    with pytest.raises(SystemExit) as error:
        check("list.txt", f"--time_limit={limit}")
    assert error.value.code == 2 and "seconds above 0" in capsys.readouterr().err


def test_as_a_command_the_exit_status_tells(
    videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    check(videos / "train.txt", "--root", videos / "videos")
    for name, status in (("train.txt", 1), ("absent.txt", 2)):
        arguments = [TOOL, videos / name, "--root", videos / "videos"]
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in arguments])
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(TOOL), run_name="__main__")
        assert stopped.value.code == status
    said = capsys.readouterr()
    assert "2 unreadable" in said.out
    assert said.err.startswith("error: cannot read ") and "absent.txt" in said.err


def probed() -> dict[str, dict[str, str]]:
    """Probe table of CLIPS.md by file name: documented beside the clips, found by decoding."""
    columns = ("file", "codec", "size", "header", "n", "rotation", "decord")
    table = {}
    for line in (SHARED / "CLIPS.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == len(columns) and re.search(r"\.\w+$", cells[0]):
            table[cells[0]] = dict(zip(columns, cells, strict=True))
    # The row is of its first stream; the text names the best one, which is read.
    table["torchcodec_nasa_13013.mp4"] |= {"size": "480x270", "header": "390", "n": "390"}
    return table


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the clips of ../shared/clips")
def test_real_clips_agree_with_what_is_documented(tmp_path: Path, capsys) -> None:
    files = sorted(p for p in SHARED.rglob("*") if p.is_file() and p.name != "CLIPS.md")
    listed = tmp_path / "list.txt"
    listed.write_text("".join(f"{file.relative_to(SHARED)} 0\n" for file in files))
    assert check(listed, "--root", SHARED, "--processes", 2) == 1
    found = {Path(path).name: row for path, row in table_of(listed).items()}
    expected = probed()
    assert found.keys() == expected.keys() and len(found) == len(files) > 60
    decodable = {name for name, row in expected.items() if row["n"] not in ("0", "-")}
    assert {name for name, row in found.items() if row["num_frames"] != "0"} == decodable
    canonical = {"libdav1d": "av1", "msmpeg4": "msmpeg4v3"}
    for name in decodable:
        row, probe = found[name], expected[name]
        container, codec, pixel_format = probe["codec"].split("/")
        assert (row["num_frames"], row["rotation"]) == (probe["n"], probe["rotation"]), name
        assert (row["container"], row["pixel_format"]) == (container, pixel_format), name
        assert row["codec"] == canonical.get(codec, codec), name
        if (container, row["truncated"]) != ("matroska", "yes"):  # told by its bytes
            assert (row["header_frames"] or "0") == probe["header"], name
        upright = abs(int(probe["rotation"])) != 90
        shown = (row["width"], row["height"]) if upright else (row["height"], row["width"])
        assert "x".join(shown) == probe["size"], name
        assert float(row["frame_rate"]) > 0 and float(row["duration"]) > 0, name
    broken = [path for path in table_of(listed) if Path(path).name not in decodable]
    causes = read_quarantine(f"{listed}.quarantine.txt")
    assert list(causes) == broken and all(causes.values())
    assert all(path.startswith("broken/") for path in broken) and len(broken) >= 19
    told = capsys.readouterr().out
    assert f"{len(broken)} unreadable" in told
    assert all(f"\n    {path}: {cause}\n" in told for path, cause in causes.items())


def test_what_a_packed_video_raises_is_its_error_alone(monkeypatch):
    """The check of all others goes on, and the next one tries it again."""

    def counted(job):
        return VideoFacts(job.path, job.requested, num_frames=3, reader="packed")

    def opened(file):
        raise ZeroDivisionError("of its header")

    module = vidadapt.apps.prepare.check
    monkeypatch.setattr(module, "count_file", counted)
    monkeypatch.setattr(module, "open_video", opened)
    found = module.decode_whole(CountJob("/v/a.tar/b", "a.tar/b", "auto", 1, 2))
    assert (found.error, found.holds) == ("ZeroDivisionError('of its header')", False)
