"""prepare.py transcode and frames: copies that hold what their sources hold, whatever happens."""

import contextlib
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tarfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import ROOT, load_tool
from videos import textured_frames, write_video

from benchmarks import copies
from vidadapt.apps import synthetic
from vidadapt.apps.prepare import copying
from vidadapt.apps.prepare.copies import (
    Copy,
    CopyJob,
    Outcome,
    Settings,
    load_table,
    make_copy,
    run_jobs,
)
from vidadapt.apps.prepare.report import Report
from vidadapt.data.clips import EvalViews, TrainClips
from vidadapt.data.sampling import SAMPLINGS
from vidadapt.data.transforms import Augmentation, cut_views
from vidadapt.files.writing import WriteError
from vidadapt.launching.failures import kind_of
from vidadapt.lists import Sample, Videos, frame_counts, known_root, read_list, read_prepared
from vidadapt.video import open_video

pytestmark = [
    pytest.mark.slow,  # whole commands
    pytest.mark.filterwarnings("ignore:The image decoding"),  # of torchvision 0.29
]
TOOL = ROOT / "tools" / "prepare.py"
SMALL_SHARDS = ("--shard_size", "0.15")
STEP, DARKEST = 9, 16  # grey levels of the patch that tells a frame's index


def moving(count: int, height: int, width: int, seed: int) -> np.ndarray:
    """A picture that drifts, and in its middle half a grey that tells the index."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(30, 220, (8, 8, 3)).astype(np.float32)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    frames = np.empty((count, height, width, 3), np.uint8)
    for i in range(count):
        wave = np.sin((x + 2 * i) / 9)[..., None] * 20 + np.sin((y - i) / 13)[..., None] * 20
        frames[i] = np.clip(coarse[(seed + 3) % 8, seed % 8] + wave, 0, 255)
        frames[i, height // 4 : -(height // 4), width // 4 : -(width // 4)] = DARKEST + STEP * i
    return frames


def write_odd(path: Path, frames: np.ndarray) -> None:
    """H.264 without colour sub-sampling, which may have odd sides."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@dataclass(frozen=True)
class Source:
    """A folder of videos of all kinds; two lists, in which two lines are of no use."""

    root: Path
    lists: list[Path]
    sizes: dict[str, tuple[int, int, int]]  # good ones: frames, height, width


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Source:
    root = tmp_path_factory.mktemp("source")
    (root / "a b").mkdir()
    sizes = {
        "a b/1.webm": (24, 96, 128),
        "a b/1.avi": (24, 96, 128),
        "Golf #1 [x], 300+!!!.mp4": (20, 160, 240),
        "odd.mp4": (12, 95, 131),
        "one.mp4": (1, 96, 96),
        "tall.mp4": (16, 256, 128),
    }
    for seed, (name, (count, height, width)) in enumerate(sizes.items()):
        frames = moving(count, height, width, seed)
        write = write_odd if name == "odd.mp4" else lambda p, f: synthetic.write_video(p, f, 12)
        write(root / name, frames)
    (root / "broken.mp4").write_text("no video")
    names = [*sizes, "broken.mp4", "missing.mp4"]
    labels = {name: number % 3 for number, name in enumerate(names)}
    order = {"train.txt": (4, 6, 0, 2, 3), "val.txt": (5, 1, 7)}
    for list_name, listed in order.items():
        lines = [f"{names[i]} {labels[names[i]]}\n" for i in listed]
        (root / list_name).write_text("".join(lines))
    (root / "labels.txt").write_text("up\ndown\nstill\n")
    return Source(root, [root / name for name in order], sizes)


def prepare(*arguments: object) -> int:
    """Run the tool in this process; its exit status."""
    try:
        load_tool("prepare").main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    except Exception as error:
        return kind_of(error).status
    return 0


@pytest.fixture(scope="module")
def made(source: Source, tmp_path_factory) -> dict[str, Path]:
    """Both kinds of copies, made in two processes, and what was said."""
    folders = {}
    for command, more in (("transcode", ()), ("frames", SMALL_SHARDS)):
        out = folders[command] = tmp_path_factory.mktemp("made") / command
        options = ("--root", source.root, "--short_side", 96, "--processes", 2, *more)
        with contextlib.redirect_stdout(io.StringIO()) as told:
            assert prepare(command, *source.lists, "--out", out, *options) == 1  # two are no good
        (out.parent / "told").write_text(told.getvalue())
    return folders


KINDS = pytest.mark.parametrize("kind", ["transcode", "frames"])


def sources_of(out: Path) -> dict[str, str]:
    """Source path by the copy's list path."""
    return {copy.copy: copy.path for copy in load_table(out).values()}


@KINDS
def test_lists_keep_their_order_without_what_failed(source: Source, made, kind: str) -> None:
    out = made[kind]
    origin = sources_of(out)
    for path in source.lists:
        before = read_list(path, source.root, 3)
        after = read_list(out / path.name, out, 3)
        assert [Sample(origin[s.path], s.label) for s in after] == [
            s for s in before if s.path in source.sizes
        ]
    assert (out / "labels.txt").read_text() == (source.root / "labels.txt").read_text()
    prepared = read_prepared(out)
    assert prepared.lists == {"train": "train.txt", "test": "val.txt"}
    assert known_root(out / "train.txt") == out
    assert json.loads((out / "prepared.json").read_text())["root"] == "."  # it can be moved
    told = (out.parent / "told").read_text()
    for text in (told, (out / "report.txt").read_text()):
        assert "broken.mp4: Invalid data" in text
        assert "videos without a file (1)" in text and "missing.mp4" in text
    assert "train.txt: 4 of 5 videos" in told and "val.txt: 2 of 3 videos" in told
    assert "disk: " in told and "clips/s" in told and "PSNR: median" in told
    assert ("odd.mp4: 131x95 became 130x94" in told) == (kind == "transcode")
    assert not list(out.rglob("*partial*"))


def test_a_cut_matroska_source_is_told(tmp_path: Path) -> None:
    """Its header gives no number of frames, but that of its bytes."""
    whole, cut = tmp_path / "whole.mkv", tmp_path / "cut.mkv"
    write_video(whole, textured_frames(40, seed=0))
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    (tmp_path / "train.txt").write_text("whole.mkv 0\ncut.mkv 1\n")
    out = tmp_path / "copies"
    options = ("--root", tmp_path, "--short_side", 64, "--processes", 1)
    prepare("frames", tmp_path / "train.txt", "--out", out, *options)
    noted = [line for line in (out / "report.txt").read_text().splitlines() if "promises" in line]
    assert len(noted) == 1
    assert "cut.mkv: the header promises " in noted[0]


@KINDS
def test_every_copy_is_its_source_scaled(source: Source, made, kind: str) -> None:
    """Against a decode and a scaling of the test's own."""
    out = made[kind]
    for row in load_table(out).values():
        with av.open(str(source.root / row.path)) as container:
            frames = list(container.decode(video=0))
        with open_video(out / row.copy) as video:
            copied = video.frames(range(len(video)))
        count, height, width = source.sizes[row.path]
        tall, wide = copied.shape[1:3]
        assert len(copied) == len(frames) == row.frames == count
        assert (row.height, row.width) == (tall, wide)
        if min(height, width) > 96:
            assert (tall, wide) in {(96, 144), (192, 96)}
            scaled = [f.reformat(wide, tall, "rgb24", interpolation="AREA") for f in frames]
            rgb, floor = np.stack([frame.to_ndarray() for frame in scaled]), 27  # another filter
        else:
            cut = kind == "transcode" and row.path == "odd.mp4"
            assert (tall, wide) == ((94, 130) if cut else (height, width))
            rgb = np.stack([frame.to_ndarray(format="rgb24") for frame in frames])[:, :tall, :wide]
            floor = row.worst_psnr - 0.5
        error = np.square(rgb.astype(float) - copied).mean(axis=(1, 2, 3))
        assert 10 * np.log10(255**2 / error.max()) > floor
        assert row.worst_psnr >= 30 and row.psnr >= row.worst_psnr


@KINDS
def test_the_frame_index_is_filled_with_what_a_reader_finds(made, kind: str) -> None:
    out = made[kind]
    for name in ("train.txt", "val.txt"):
        paths = [sample.path for sample in read_list(out / name, out, 3)]
        known = frame_counts(out / name, out, paths, decode=False)
        fresh = frame_counts(out.parent / "elsewhere" / name, out, paths, progress=False)
        assert known == fresh and list(known) == paths
        if kind == "transcode":  # also the copies of AVI may be entered at their key frames
            assert {count.reader for count in known.values()} == {"pyav_sparse"}


def indices_seen(clip: np.ndarray) -> list[int]:
    """Frame indices of a (3, T, S, S) clip by its centre."""
    side = clip.shape[-1]
    inner = clip[..., side // 2 - 3 : side // 2 + 3, side // 2 - 3 : side // 2 + 3]
    grey = inner.astype(float).mean(axis=(0, 2, 3))
    return np.rint((grey - DARKEST) / STEP).astype(int).tolist()


@pytest.mark.parametrize("preset", list(SAMPLINGS))
def test_presets_choose_the_same_frames_everywhere(source: Source, made, preset: str) -> None:
    """Clips of the copies show the same frames, in pixels that differ as a copy may."""
    views: dict[str, list[np.ndarray]] = {}
    for name, out in {"source": None, **made}.items():
        root = source.root if out is None else out
        copy_of = {path: path for path in source.sizes}
        if out is not None:
            copy_of = {path: copy for copy, path in sources_of(out).items()}
        samples = [Sample(copy_of[path], 0) for path in ("a b/1.webm", "a b/1.avi")]
        paths = [sample.path for sample in samples]
        counts = frame_counts(source.root.parent / f"{name}.txt", root, paths, progress=False)
        videos = Videos.of(str(root), samples, counts)
        train = TrainClips(
            videos,
            SAMPLINGS[preset],
            crop_size=64,
            augmentation=Augmentation(),
            seed=3,
        )
        views[name] = [train[(epoch, i, 0)]["clip"].numpy() for epoch in (0, 1) for i in (0, 1)]
        clips = min(2, SAMPLINGS[preset].num_clips)  # segments are read as one clip
        whole = EvalViews(videos, SAMPLINGS[preset], num_clips=clips, num_crops=1, crop_size=64)
        items = [whole[i] for i in (0, 1)]
        centre = []
        for item in items:
            views_of_one = cut_views(item["frames"], item["clips"], item["corners"])
            centre += [view.numpy() for view in views_of_one[item["view_of"]]]
        views[name] += centre
        views[f"{name} indices"] = [indices_seen(view) for view in centre]
    for kind in made:
        assert views[f"{kind} indices"] == views["source indices"]
        for ours, theirs in zip(views[kind], views["source"], strict=True):
            error = np.square(ours.astype(float) - theirs).mean()
            assert 10 * np.log10(255**2 / max(error, 1e-9)) > 30


def snapshot(out: Path) -> dict[str, bytes]:
    """What has to be the same however the copies were made."""
    files = [*out.glob("shards/*.tar"), *out.glob("*.txt"), *out.rglob("*.mp4")]
    return {str(file.relative_to(out)): file.read_bytes() for file in files}


def test_shards_are_plain_tars_of_bounded_size(source: Source, made) -> None:
    out = made["frames"]
    rows = load_table(out)
    shards = sorted(out.glob("shards/*.tar"))
    assert len(shards) > 1
    listed = []
    for shard in shards:
        assert shard.with_name(shard.name + ".index").is_file()
        with tarfile.open(shard) as archive:
            members = archive.getnames()
        videos = list(dict.fromkeys(name.rpartition("/")[0] for name in members))
        listed += videos
        assert shard.stat().st_size <= 150_000 or len(videos) == 1
        assert members == [
            f"{name}/{i:06d}.jpg" for name in videos for i in range(rows[name].frames)
        ]
    order = [s.path for p in source.lists for s in read_list(p, source.root, 3)]
    assert listed == [path for path in order if path in source.sizes]


def few(source: Source, folder: Path) -> Path:
    """A list of the good videos."""
    path = folder / "train.txt"
    path.write_text("".join(f"{name} 0\n" for name in source.sizes))
    return path


@pytest.mark.slow
def test_a_killed_call_goes_on_and_comes_to_the_same(source: Source, tmp_path: Path) -> None:
    listed, whole, out = few(source, tmp_path), tmp_path / "whole", tmp_path / "out"
    call = ["frames", str(listed), "--root", str(source.root), *SMALL_SHARDS]
    assert prepare(*call, "--out", whole, "--processes", 1) == 0
    running = subprocess.Popen(
        [sys.executable, str(TOOL), *call, "--out", str(out), "--processes", "2"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not load_table(out) and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(running.pid, signal.SIGKILL)
    running.wait()
    assert load_table(out) and not (out / "train.txt").exists()
    with (out / "copies.csv").open("a") as table:
        table.write("tall.mp4,,12")  # a row that was cut short
    assert prepare(*call, "--out", out, "--processes", 1) == 0
    assert snapshot(out) == snapshot(whole)
    assert load_table(out).keys() == source.sizes.keys()
    before = {file: file.stat().st_mtime_ns for file in out.glob("shards/*.tar")}
    assert prepare(*call, "--out", out, "--processes", 1) == 0  # nothing is left to do
    assert snapshot(out) == snapshot(whole)
    assert before == {file: file.stat().st_mtime_ns for file in before}


def copy_within_limit(job: CopyJob) -> Outcome:
    """Copies a video in a process whose files may not become larger than a file says."""
    limit_files(int((job.partial.parents[2] / "limit").read_text()))
    return make_copy(job)


def limit_files(size: int) -> None:
    """Makes writing fail beyond a size, as a full disk does; -1: no limit."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


@KINDS
def test_a_full_disk_is_one_line_and_the_next_call_finishes(
    source: Source, tmp_path: Path, made, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed, out = tmp_path / "train.txt", tmp_path / "out"
    bytes_of = {path: row.bytes for path, row in load_table(made[kind]).items()}
    smallest_first = sorted(bytes_of, key=bytes_of.__getitem__)
    listed.write_text("".join(f"{path} 0\n" for path in smallest_first))
    limit = bytes_of[smallest_first[-1]] + (-1000 if kind == "transcode" else 1000)
    (tmp_path / "limit").write_text(str(limit))
    options = ("--root", source.root, "--out", out, "--short_side", 96, "--processes", 1)
    call = [kind, str(listed), *map(str, options)]
    with monkeypatch.context() as patch, pytest.raises(WriteError) as error:
        patch.setattr(copying, "make_copy", copy_within_limit)
        limit_files(limit)  # the shards are written here
        try:
            load_tool("prepare").main(call)
        finally:
            limit_files(-1)
    line = str(error.value)
    assert kind_of(error.value).status == 6 and "\n" not in line
    assert "the disk is full" in line and "give the same command again" in line
    assert not (out / "train.txt").exists() and not list(out.glob("shards/*.tar"))
    early = load_table(out)
    assert f"{len(early)} videos are copied" in line
    if kind == "transcode":  # the largest copy does not fit, the others do
        assert len(early) == len(source.sizes) - 1
        times = {file: file.stat().st_mtime_ns for file in out.rglob("*.mp4")}
        assert len(times) == len(early)
    else:  # the parts fit, the shard does not
        assert len(early) == len(source.sizes)
        times = {}
    assert prepare(*call) == 0
    listed_now = [sample.path for sample in read_list(out / "train.txt", out, 1)]
    assert listed_now == [row.copy for row in load_table(out).values()]
    assert len(listed_now) == len(source.sizes)
    assert times == {file: file.stat().st_mtime_ns for file in times}
    for file in out.rglob("*.mp4"):  # the same bytes at every call
        assert file.read_bytes() == (made[kind] / file.relative_to(out)).read_bytes()


def work(job: CopyJob) -> Outcome:
    """Copies nothing; one video hangs, another kills its process."""
    if job.path == "hangs":
        time.sleep(600)
    if job.path == "dies":
        os.kill(os.getpid(), signal.SIGSEGV)
    return Outcome(Copy(job.path, job.name, 1, 1, 1, 1, 2, 2, 40.0, 40.0))


@pytest.mark.slow
def test_a_video_that_hangs_or_kills_is_one_problem(tmp_path: Path) -> None:
    names = ["a", "hangs", "b", "dies", "c"]
    settings = Settings("jpeg", 256, 90, 30.0)
    job = CopyJob("", "", "", tmp_path / "x", tmp_path / "y", settings)
    jobs = [replace(job, path=name, source=name, name=name) for name in names]
    options = {"num_processes": 2, "time_limit": 8, "progress": False}
    report = Report()
    found = run_jobs(jobs, work, tmp_path, report, **options)
    errors = {one.path: outcome.error for one, outcome in found}
    assert len(report.problems["videos that were not copied"]) == 2
    assert "did not finish within 8 s" in errors.pop("hangs")
    assert "died (Segmentation fault)" in errors.pop("dies")
    assert set(errors.values()) == {""}
    assert load_table(tmp_path).keys() == {"a", "b", "c"}


def test_what_is_below_the_floor_is_not_listed(source: Source, tmp_path, capsys) -> None:
    listed = few(source, tmp_path)
    call = ["frames", listed, "--root", source.root, "--out", tmp_path / "out", "--processes", 1]
    assert prepare(*call, "--quality", 60, "--min_psnr", 50) == 1
    told = capsys.readouterr().out
    assert "below the floor of 50" in told and "train.txt: 0 of 6 videos" in told
    assert (tmp_path / "out" / "train.txt").read_text() == ""
    assert prepare(*call, "--quality", 60) == 0
    assert (tmp_path / "out" / "train.txt").read_text().count("\n") == 6
    assert prepare(*call, "--quality", 61) == 2  # would be mixed with those of another quality


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (
            "transcode {list} --out {tmp}/out",
            "train.txt: no folder of videos is known; give --root",
        ),
        ("frames {list} {tmp}/x/train.txt --out {tmp}/o --root .", "another list is called"),
        ("frames {list} --out {tmp} --root .", "is not empty and holds no copy.json"),
        ("frames {tmp}/none.txt --out {tmp}/o --root .", "cannot read .*none.txt"),
        ("frames {list} --out {tmp}/o --root . --quality 101", "at most 100"),
    ],
)
def test_what_cannot_be_meant_is_one_line(tmp_path: Path, command: str, message: str) -> None:
    (tmp_path / "train.txt").write_text("a.mp4 0\n")
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "train.txt").write_text("a.mp4 0\n")
    arguments = command.format(list=tmp_path / "train.txt", tmp=tmp_path).split()
    with pytest.raises((ValueError, OSError), match=message) as error:
        load_tool("prepare").main(arguments)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@KINDS
def test_training_runs_on_copies(tiny_set, run_tool, tmp_path: Path, kind: str, capsys) -> None:
    lists = list(tiny_set.lists.values())
    call = [kind, *lists, "--root", tiny_set.root, "--out", tmp_path / "fast", "--processes", 2]
    assert prepare(*call, "--min_psnr", 15) == 0  # noise is what codecs do worst
    changes = {
        "data__root": tmp_path / "fast",
        "data__label_names": tmp_path / "fast" / "labels.txt",
        "train__epochs": 1,
        "run_dir": tmp_path / "run",
        **{
            f"data__{name}_list": tmp_path / "fast" / path.name
            for name, path in tiny_set.lists.items()
        },
    }
    run_tool("train", *tiny_set.options(**changes))
    assert "12 videos" in capsys.readouterr().out


def test_the_benchmark_compares_lists_and_folders(made, tmp_path: Path, capsys) -> None:
    raw = tmp_path / "rates.json"
    options = ("--frames", 2, 4, "--workers", 0, "--rounds", 2, "--clips", 8, "--json", raw)
    sets = [made["transcode"] / "train.txt", made["frames"]]
    copies.main([str(part) for part in (*sets, *options)])
    told = capsys.readouterr().out
    result = json.loads(raw.read_text())
    rows = result["rows"]
    assert (result["table"], result["targets"]) == ("copies", [])
    first, second = str(sets[0]), str(sets[1] / "train.txt")
    listed = read_list(second, made["frames"], 3)
    shards = {made["frames"] / "/".join(s.path.split("/")[:2]) for s in listed}
    assert [row["frames"] for row in rows] == [2, 4]
    for row in rows:
        assert row["videos"] == 4 and {len(rates) for rates in row["rates"].values()} == {2}
        expected = np.median(np.divide(row["rates"][second], row["rates"][first]))
        assert row["gains"] == {second: pytest.approx(expected)}
        assert row["bytes"][second] == sum(shard.stat().st_size for shard in shards)
        assert f"| 4 sets | {row['frames']} | " in told
        per_core = np.median(row["rates"][second])
        needed = [str(int(np.ceil(rate / per_core))) for rate in (100, 500, 1000)]
        lines = [line.split() for line in told.splitlines() if f" {second} " in line]
        of_row = [line for line in lines if line[2] == str(row["frames"])]
        assert [[word for word in line if word != "|"][-3:] for line in of_row] == [needed]
    with pytest.raises(SystemExit, match="does not list the same videos"):
        copies.main([str(sets[0]), str(sets[0].with_name("val.txt"))])
