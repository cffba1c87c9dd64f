"""The frame-count index: counted once, refreshed where a file changed, whatever a decoder does."""

import csv
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from videos import grey_frames, write_video

from vidadapt.data.frame_index import FrameCount, frame_counts, index_path, truncated
from vidadapt.data.isolated import run_isolated
from vidadapt.data.readers import open_video

SHARED = Path(__file__).parents[3] / "shared" / "clips"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, count in (("a.mp4", 10), ("b #1, c.mp4", 20), ("sub/c.mp4", 30)):
        write_video(tmp_path / "videos" / name, grey_frames(count, 96, 96))
    (tmp_path / "videos" / "bad.mp4").write_text("no video")
    return tmp_path


PATHS = ["a.mp4", "b #1, c.mp4", "sub/c.mp4", "bad.mp4"]


def count(folder: Path, paths: list[str] = PATHS, **options: object) -> dict[str, FrameCount]:
    return frame_counts(folder / "list.txt", folder / "videos", paths, progress=False, **options)


def test_counts_are_exact_and_errors_are_named(folder: Path) -> None:
    counts = count(folder)
    assert [counts[path].num_frames for path in PATHS] == [10, 20, 30, 0]
    assert [counts[path].header_frames for path in PATHS] == [10, 20, 30, None]
    assert [bool(counts[path].error) for path in PATHS] == [False, False, False, True]
    assert "bad.mp4" in counts["bad.mp4"].error
    assert counts["a.mp4"].codec == "h264"
    with open_video(folder / "videos" / "a.mp4") as video:
        assert counts["a.mp4"].reader == video.reader
    assert (folder / "list.txt.frames.csv").is_file()


def test_only_what_changed_is_counted_again(folder: Path) -> None:
    count(folder)
    index = index_path(folder / "list.txt")
    rows = list(csv.reader(index.open(newline="")))
    for row in rows[1:]:
        row[4] = "777" if row[0] != "bad.mp4" else row[4]  # would not survive a decode
    with index.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    write_video(folder / "videos" / "a.mp4", grey_frames(12, 96, 96))
    counts = count(folder)
    assert [counts[path].num_frames for path in PATHS] == [12, 777, 777, 0]
    assert counts == count(folder)
    os.utime(folder / "videos" / "sub" / "c.mp4", ns=(1, 1))
    assert count(folder)["sub/c.mp4"].num_frames == 30


def test_the_index_grows_with_the_list_and_keeps_other_readers(folder: Path) -> None:
    assert list(count(folder, PATHS[:1])) == PATHS[:1]
    count(folder, reader="pyav")
    before = index_path(folder / "list.txt").read_text()
    assert count(folder, reader="pyav")["a.mp4"].reader == "pyav"
    assert index_path(folder / "list.txt").read_text() == before
    count(folder)
    rows = list(csv.reader(index_path(folder / "list.txt").open(newline="")))
    assert sorted((row[0], row[3]) for row in rows[1:]) == sorted(
        (path, reader) for path in PATHS for reader in ("decord", "pyav")
    )


def test_parallel_is_serial(folder: Path, tmp_path: Path) -> None:
    indices = []
    for workers in (0, 3):
        index_dir = tmp_path / f"index{workers}"
        counts = count(folder, num_workers=workers, index_dir=index_dir)
        assert list(counts) == PATHS
        indices.append((index_dir / "list.txt.frames.csv").read_bytes())
    assert indices[0] == indices[1]


def test_missing_files_are_errors_that_are_not_kept(folder: Path) -> None:
    counts = count(folder, ["later.mp4", "sub", "a.mp4"])
    assert "later.mp4: No such file" in counts["later.mp4"].error
    assert "not a regular file" in counts["sub"].error
    write_video(folder / "videos" / "later.mp4", grey_frames(5, 96, 96))
    assert count(folder, ["later.mp4"])["later.mp4"].num_frames == 5


def test_a_folder_that_cannot_be_written_names_the_key(folder: Path) -> None:
    (folder / "file").write_text("")
    with pytest.raises(OSError, match=r"data\.index_dir"):
        count(folder, index_dir=folder / "file")
    assert count(folder, index_dir=folder / "new" / "index")["a.mp4"].num_frames == 10


def test_a_file_that_is_no_index_is_refused(folder: Path) -> None:
    index_path(folder / "list.txt").write_text("a.mp4 3\n")
    with pytest.raises(ValueError, match=r"frames\.csv:1: .*delete"):
        count(folder)


def test_truncated_tolerates_one_frame() -> None:
    known = FrameCount("a.avi", 89, 90, "mpeg4", "pyav", "")
    assert not truncated(known)
    assert truncated(replace(known, num_frames=88))
    assert not truncated(replace(known, header_frames=None))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the clips of ../shared/clips")
def test_truncated_real_files_are_told_from_hmdb51(tmp_path: Path) -> None:
    files = sorted(SHARED.rglob("*.avi"))
    paths = [str(file.relative_to(SHARED)) for file in files]
    counts = frame_counts(tmp_path / "list.txt", SHARED, paths, num_workers=2, progress=False)
    assert {Path(path).name for path in paths if truncated(counts[path])} == {
        "hmdb_avi_header_only_4k.avi",
        "hmdb_avi_trunc60pct.avi",
        "hmdb_avi_zeroed_40_50pct.avi",
    }
    assert sum(bool(count.error) for count in counts.values()) == 2


def act(job: str) -> str:
    """Stands for a decoder: does what the job says."""
    if job == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == "exit":
        os._exit(3)
    if job == "hang":
        time.sleep(1000)
    return job.upper()


@pytest.mark.parametrize("num_workers", [1, 3])
def test_crashes_and_hangs_cost_only_their_own_job(num_workers: int) -> None:
    jobs = ["a", "crash", "b", "hang", "exit", "c", "d"]
    list(run_isolated(act, ["warm up"], 1, time_limit=60))  # starts the fork server
    done = {job: (result, error) for job, result, error in run_isolated(act, jobs, num_workers, 3)}
    assert {job: result for job, (result, _) in done.items()} == {
        "a": "A", "b": "B", "c": "C", "d": "D", "crash": None, "exit": None, "hang": None
    }  # fmt: skip
    assert "exit code -11" in done["crash"][1]
    assert "exit code 3" in done["exit"][1]
    assert "within 3 s" in done["hang"][1]
    assert not any(done[job][1] for job in "abcd")


def test_indices_of_the_whole_list_agree_with_reading(folder: Path) -> None:
    for path, known in count(folder).items():
        if not known.error:
            with open_video(folder / "videos" / path, known.reader, known.num_frames) as video:
                frames = video.frames(np.arange(len(video)))
            assert len(frames) == known.num_frames
