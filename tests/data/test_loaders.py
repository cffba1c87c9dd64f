"""Loader processes that hang and die: everything else comes once, in order, bit by bit."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import misbehaving
import pytest
import torch
from conftest import processes_with
from torch.utils.data import default_collate
from videos import grey_frames, write_video

from vidadapt.data.changes import Changes
from vidadapt.data.clips import EvalViews, TrainClips
from vidadapt.data.epochs import EpochBatches
from vidadapt.data.loaders import EvalLoader, TrainLoader
from vidadapt.data.sampling import SAMPLINGS
from vidadapt.data.skips import SkipLog, TooManySkipped, read_skips
from vidadapt.lists import Sample, Videos
from vidadapt.processes import LostProcess, Pool, Work
from vidadapt.video import VideoFacts

SIZE, BATCH = 24, 4
SAMPLES = [Sample(f"{index}.mp4", index % 3) for index in range(SIZE)]


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[Callable[..., TrainLoader]]:
    """Watched clips of this folder's run; closed after the test, which leaves nothing behind."""
    made: list[TrainLoader] = []

    def open_clips(
        faults: dict[int, str],
        *,
        num_workers: int = 2,
        most: int = 100,
        clip_timeout: float | None = 1.0,
        **split: int,
    ) -> TrainLoader:
        dataset = misbehaving.Clips(SIZE, faults, tmp_path / "begun.txt")
        loader = TrainLoader(
            cast(TrainClips, dataset),
            EpochBatches(SIZE, 0, **{"batch_size": BATCH, **split}),
            normalization="imagenet",
            clip_timeout=clip_timeout,
            num_workers=num_workers,
        )
        loader.log = SkipLog(tmp_path / "skipped.jsonl", SAMPLES, most)
        made.append(loader)
        return loader

    before, others = belongings(), children()
    yield open_clips
    for clips in made:
        clips.close()
    assert children() <= others
    made.clear()
    deadline = time.monotonic() + 20
    while (left := belongings() - before) and time.monotonic() < deadline:
        time.sleep(0.05)  # threads end when they see that their queue is gone
    assert left == set()


def children() -> set[int | None]:
    """Processes of this one; those of earlier tests' loaders live until these are collected."""
    return {process.pid for process in multiprocessing.active_children()}


def belongings() -> set[str]:
    """Files in /dev/shm that this process has mapped, and its Python threads."""
    return {str(each) for each in (*shared_by("self"), *threading.enumerate())}


def order(epoch: int, **split: int) -> list[list[int]]:
    """Indices of the batches of an epoch."""
    sampler = EpochBatches(SIZE, 0, **{"batch_size": BATCH, **split})
    sampler.set_epoch(epoch)
    return [[index for _, index, _ in keys] for keys in sampler]


def expected(epoch: int, missing: set[int], log: Path) -> list[dict[str, Any] | None]:
    """The batches of an undisturbed epoch, made here one by one, without some samples."""
    clips = misbehaving.Clips(SIZE, {}, log)
    kept = [[i for i in batch if i not in missing] for batch in order(epoch)]
    made = [default_collate([clips[epoch, i, 0] for i in batch]) if batch else {} for batch in kept]
    return [{k: v for k, v in b.items() if k != "changed"} if b else None for b in made]


def same(found: list[Any], wanted: list[Any]) -> bool:
    return len(found) == len(wanted) and all(
        (a is None and b is None)
        or (a.keys() == b.keys() and all(equal(a[name], b[name]) for name in b))
        for a, b in zip(found, wanted, strict=True)
    )


def equal(a: Any, b: Any) -> bool:
    return torch.equal(a, b) if isinstance(b, torch.Tensor) else a == b


def one_epoch(clips: TrainLoader, epoch: int) -> list[Any]:
    clips.batch_sampler.set_epoch(epoch)
    return list(clips)


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]


def begun(folder: Path, index: int) -> int:
    return (folder / "begun.txt").read_text().split().count(str(index))


def test_what_is_left_comes_once_in_order_and_bit_equal(tmp_path, opened):
    """Two workers at fault at once, two faults in one batch, and one in the last batch."""
    first, second, *_, last = order(0)
    faults = {first[1]: "hang", second[3]: "segfault", first[2]: "unreadable", last[3]: "exit"}
    clips = opened(faults)
    missing = set(faults)
    assert same(one_epoch(clips, 0), expected(0, missing, tmp_path / "other.txt"))
    assert clips.log.met == 4
    listed = {line["index"]: line for line in lines(tmp_path)}
    assert listed.keys() == missing and len(lines(tmp_path)) == 4
    for index, line in listed.items():
        assert (line["epoch"], line["path"], line["label"]) == (1, f"{index}.mp4", index % 3)
        assert line["quarantined"] == (faults[index] != "unreadable")
    assert "did not finish within 1 s" in listed[first[1]]["reason"]
    assert listed[first[1]]["seconds"] >= 1
    assert "died twice (Segmentation fault)" in listed[second[3]]["reason"]
    assert listed[first[2]]["reason"] == "file.mp4: moov atom not found"
    assert "died twice (exit status 1)" in listed[last[3]]["reason"]
    tried = {index: begun(tmp_path, index) for index in faults}
    assert tried[last[3]] == 2

    # In the next epoch nothing but the unreadable one is tried again.
    assert same(one_epoch(clips, 1), expected(1, missing, tmp_path / "other.txt"))
    assert clips.log.met == 4 and len(lines(tmp_path)) == 8
    assert {i for i in faults if begun(tmp_path, i) > tried[i]} == {first[2]}
    again = {line["index"]: line for line in lines(tmp_path)[4:]}
    assert {i: line["reason"] for i, line in again.items()} == {
        i: line["reason"] for i, line in listed.items()
    }
    assert again[first[1]]["seconds"] == 0 and again[first[1]]["epoch"] == 2


def test_a_resumed_run_skips_what_it_skipped(tmp_path, opened):
    faults = {order(0)[1][0]: "exit"}
    clips = opened(faults)
    whole = one_epoch(clips, 0)
    clips.close()
    resumed = opened(faults)
    resumed.batch_sampler.set_epoch(0, BATCH)  # the first batch has been trained on
    assert same(list(resumed), whole[1:])
    assert (resumed.log.met, resumed.log.known(), len(lines(tmp_path))) == (0, 1, 1)
    assert len(one_epoch(resumed, 1)) == 6
    assert (resumed.log.met, resumed.log.known(), len(lines(tmp_path))) == (1, 0, 2)
    assert begun(tmp_path, order(0)[1][0]) == 2


def test_a_run_resumed_before_the_fault_tries_what_it_tried_then(tmp_path, opened):
    """Quarantined in the second epoch: in the first, the clip had been fine."""
    index = order(1)[0][0]
    one_epoch(opened({}), 0)
    one_epoch(opened({index: "exit"}), 1)
    resumed = opened({})
    assert same(one_epoch(resumed, 0), expected(0, set(), tmp_path / "other.txt"))
    assert same(one_epoch(resumed, 1), expected(1, {index}, tmp_path / "other.txt"))


def test_a_worker_killed_from_outside_costs_no_clip(tmp_path, opened):
    clips = opened({order(0)[2][1]: "killed once"}, clip_timeout=None, most=0)
    assert same(one_epoch(clips, 0), expected(0, set(), tmp_path / "other.txt"))
    assert not (tmp_path / "skipped.jsonl").exists()


def test_half_a_result_of_a_worker_that_died_holds_up_nobody(tmp_path, opened):
    """Nothing is left that waits for the rest: see `opened`."""
    index = order(0)[2][1]
    clips = opened({index: "exit sending"})
    assert same(one_epoch(clips, 0), expected(0, {index}, tmp_path / "other.txt"))
    assert clips.log.met == 1


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_batch_of_which_nothing_is_left_is_none(tmp_path, opened, num_workers):
    gone = order(0)[3]
    clips = opened(dict.fromkeys(gone, "unreadable"), num_workers=num_workers)
    found = one_epoch(clips, 0)
    assert found[3] is None and sum(batch is None for batch in found) == 1
    assert same(found, expected(0, set(gone), tmp_path / "other.txt"))


@pytest.mark.parametrize(("fault", "num_workers"), [("unreadable", 0), ("exit", 1)])
def test_the_run_stops_where_too_many_are_skipped(tmp_path, opened, fault, num_workers):
    bad = order(0)[1][:3]
    clips = opened(dict.fromkeys(bad, fault), most=1, num_workers=num_workers)
    with pytest.raises(TooManySkipped, match=r"data\.max_skipped allows 1\.") as error:
        one_epoch(clips, 0)
    assert all(f"{index}.mp4\t" in str(error.value) for index in bad[:2])
    assert "--resume" in str(error.value) and "data.quarantine" in str(error.value)


def test_ranks_have_no_need_to_speak(tmp_path, opened):
    """Each lists what it skips; the sum over the ranks is what the cap counts."""
    split = {"batch_size": 4, "world_size": 2}
    bad = {order(0, **split)[0][0], order(0, rank=1, **split)[2][1]}
    ranks = [opened(dict.fromkeys(bad, "exit"), rank=r, num_workers=1, **split) for r in (0, 1)]
    for clips in ranks:
        one_epoch(clips, 0)
    assert [clips.log.met for clips in ranks] == [1, 1]
    assert {skip.index for skip in read_skips(tmp_path / "skipped.jsonl")} == bad
    assert len(lines(tmp_path)) == 2
    ranks[0].log.check(100)
    with pytest.raises(TooManySkipped) as error:
        ranks[0].log.check(101)
    assert all(f"{index}.mp4\t" in str(error.value) for index in bad)
    # In the next epoch either may get them, and neither tries them.
    met = [(one_epoch(clips, 1), clips.log.met)[1] for clips in ranks]
    assert sum(met) == 2 and all(begun(tmp_path, index) == 2 for index in bad)


def test_evaluation_marks_what_hangs_or_dies_and_leaves_nothing_out(tmp_path):
    others = children()
    paths = ["a.mp4", "b.mp4", "gone.mp4", "c.mp4", "d.mp4"]
    for path in paths:
        if path != "gone.mp4":
            write_video(tmp_path / path, grey_frames(9))
    samples = [Sample(path, label) for label, path in enumerate(paths)]
    counts = {path: VideoFacts(path, "pyav", num_frames=9, reader="pyav") for path in paths}
    videos = Videos.of(str(tmp_path), samples, counts)
    faults, log = {0: "hang", 4: "segfault"}, tmp_path / "begun.txt"
    options: dict[str, Any] = {"num_clips": 2, "num_crops": 1, "crop_size": 32, "patience": 0.1}
    whole = EvalViews(videos, SAMPLINGS["uniform8"], **options)
    views = misbehaving.Views(videos, SAMPLINGS["uniform8"], **options, faults=faults, log=log)
    items = EvalLoader(
        views,
        range(5),
        clip_timeout=0.6,
        num_workers=2,
        pin_memory=False,
        changes=Changes(None, "warn"),
    )
    for _ in range(2):
        found = list(items)
        assert [(item["index"], item["label"]) for item in found] == [(i, i) for i in range(5)]
        assert [bool(item["error"]) for item in found] == [True, False, True, False, True]
        hung, died = found[0]["error"], found[4]["error"]
        assert hung.startswith(f"{tmp_path / 'a.mp4'}: ") and "not finish within 1.2 s" in hung
        assert died.startswith(f"{tmp_path / 'd.mp4'}: ") and "Segmentation fault" in died
        for index in (1, 3):
            assert found[index].keys() == whole[index].keys() == found[0].keys()
            for name in ("frames", "clips", "corners", "view_of"):
                assert torch.equal(found[index][name], whole[index][name])
                assert found[0][name] is None and found[4][name] is None
    assert sorted(log.read_text().split()[-3:]) == ["1", "2", "3"]  # all of the second pass
    items.close()
    assert children() <= others


SCRIPT = """
import faulthandler
import sys
from pathlib import Path
from misbehaving import Clips
from vidadapt.data.epochs import EpochBatches
from vidadapt.data.loaders import TrainLoader
from vidadapt.data.skips import SkipLog
from vidadapt.lists.reading import Sample

if __name__ == "__main__":
    faulthandler.dump_traceback_later(150, exit=True)  # says where it hangs, if it does
    folder, limit, *faults = Path(sys.argv[1]), float(sys.argv[2]), *sys.argv[3:]
    loader = TrainLoader(
        Clips(2, dict(enumerate(faults)), folder / "begun.txt"),
        EpochBatches(2, 0, batch_size=1),
        normalization="imagenet", clip_timeout=limit, num_workers=2)
    loader.log = SkipLog(folder / "skipped.jsonl", [Sample("a", 0), Sample("b", 0)], 2)
    next(iter(loader))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("ending", "clip_timeout", "faults"),
    [
        (signal.SIGKILL, 8.0, ["hang", "hang locked"]),
        # Six seconds of processes that are started and ended: for `make chaos`.
        pytest.param(signal.SIGINT, 1000.0, ["hang", "hang"], marks=pytest.mark.chaos),
    ],
    ids=str,
)
def test_nothing_stays_behind_however_it_ends(
    tmp_path, tmp_path_factory, ending, clip_timeout, faults
):
    """Processes, shared memory; and files of its own unless it was killed."""
    script = tmp_path / "watch.py"
    script.write_text(SCRIPT)
    mark = f"VIDADAPT_ENDED={os.getpid()}_{ending}"
    temporary = tmp_path_factory.mktemp("t")  # its sockets' paths have to be short
    with subprocess.Popen(
        [sys.executable, script, tmp_path, str(clip_timeout), *faults],
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([*sys.path, str(Path(__file__).parent)]),
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(temporary),
            mark.partition("=")[0]: mark.partition("=")[2],
        },
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as child:
        try:
            begun = tmp_path / "begun.txt"
            while not (begun.exists() and len(begun.read_text().split()) == 2):
                assert child.poll() is None, child.communicate()[1]
                time.sleep(0.05)
            workers = pids_with(mark) - {child.pid}
            assert len(workers) >= 3
            named = {file for process in (child.pid, *workers) for file in shared_by(process)}
            os.killpg(child.pid, ending) if ending == signal.SIGINT else child.send_signal(ending)
            told = child.communicate(timeout=200)[1]
        finally:
            child.kill()
    deadline = time.monotonic() + 60
    while (pids_with(mark) or any(map(Path.exists, named))) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert processes_with(mark) == []
    assert [name for name in named if name.exists()] == []
    if ending == signal.SIGINT:
        assert "leaked" not in told and told.count("Traceback") == 1, told
        assert list(temporary.iterdir()) == []
    assert not (tmp_path / "skipped.jsonl").exists()


def shared_by(process: int | str) -> set[Path]:
    """Files in /dev/shm that a process has mapped; they lose the name that maps tells."""
    mapped = Path(f"/proc/{process}/maps").read_text().splitlines()
    inodes = {int(line.split()[4]) for line in mapped if "/dev/shm/" in line}
    return {Path(entry) for entry in os.scandir("/dev/shm") if entry.inode() in inodes}


def pids_with(mark: str) -> set[int]:
    """Running processes that were started with this variable."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.add(int(folder.name))
    return found


def test_workers_that_die_on_no_clip_are_an_error():
    clips = misbehaving.Clips(4, {}, Path(os.devnull))
    pool = Pool(Work(clips.__getitem__, misbehaving.die_joining), num_workers=1, limit=None)
    with (
        closing(pool),
        pytest.raises(LostProcess, match=r"ended 3 times .*exit status 7.* memory"),
    ):
        list(pool.results([[(0, 1, 0)]]))


def test_a_half_written_line_swallows_no_other(tmp_path):
    path = tmp_path / "skipped.jsonl"
    SkipLog(path, SAMPLES, 9).skip((0, 1, 0), "a", 1.0, quarantined=True)
    path.write_text(path.read_text() + '{"epoch": 1, "pa')
    log = SkipLog(path, SAMPLES, 9)
    log.begin(0)
    log.skip((0, 2, 0), "b", 1.0, quarantined=False)
    assert [skip.index for skip in read_skips(path)] == [1, 2]
    assert log.barred((1, 1, 0)) and not log.barred((1, 2, 0))
