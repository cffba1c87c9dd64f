"""Counting frames: each file once, again where it changed, whatever a decoder does."""

import errno
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from videos import grey_frames, indices_of, textured_frames, write_video

from vidadapt.lists import (
    CountJob,
    add_to_index,
    count_file,
    counting,
    frame_counts,
    index_path,
    read_index,
)
from vidadapt.processes import run_isolated
from vidadapt.video import VideoFacts, open_counted, open_video, survey

SHARED = Path(__file__).parents[3] / "shared" / "clips"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, count in (("a.mp4", 10), ("b #1, c.mp4", 20), ("sub/c.mp4", 30)):
        write_video(tmp_path / "videos" / name, grey_frames(count, 96, 96))
    (tmp_path / "videos" / "bad.mp4").write_text("no video")
    return tmp_path


PATHS = ["a.mp4", "b #1, c.mp4", "sub/c.mp4", "bad.mp4"]


def count(folder: Path, paths: list[str] = PATHS, **options: object) -> dict[str, VideoFacts]:
    return frame_counts(folder / "list.txt", folder / "videos", paths, progress=False, **options)


def test_counts_are_exact_and_errors_are_named(folder: Path) -> None:
    counts = count(folder)
    assert [counts[path].num_frames for path in PATHS] == [10, 20, 30, 0]
    assert [counts[path].header_frames for path in PATHS] == [10, 20, 30, None]
    assert [bool(counts[path].error) for path in PATHS] == [False, False, False, True]
    assert "bad.mp4" in counts["bad.mp4"].error
    assert counts["a.mp4"].codec == "h264"
    with open_video(folder / "videos" / "a.mp4") as video:
        assert counts["a.mp4"].reader == video.facts.reader
    assert (folder / "list.txt.index").is_file()


def test_only_what_changed_is_counted_again(folder: Path) -> None:
    known = count(folder)
    index = index_path(folder / "list.txt")
    for path in PATHS[:3]:  # would not survive a decode
        add_to_index(index, [replace(known[path], num_frames=777)])
    write_video(folder / "videos" / "a.mp4", grey_frames(12, 96, 96))
    counts = count(folder)
    assert [counts[path].num_frames for path in PATHS] == [12, 777, 777, 0]
    assert counts == count(folder)
    os.utime(folder / "videos" / "sub" / "c.mp4", ns=(1, 1))
    assert count(folder)["sub/c.mp4"].num_frames == 30


def test_the_index_grows_with_the_list_and_keeps_other_readers(folder: Path) -> None:
    index = index_path(folder / "list.txt")
    assert list(count(folder, PATHS[:1])) == PATHS[:1]
    first = index.read_bytes()
    count(folder, reader="pyav")
    before = index.read_bytes()
    assert before.startswith(first), "what was there stays where it was"
    assert count(folder, reader="pyav")["a.mp4"].reader == "pyav"
    assert index.read_bytes() == before
    count(folder)
    assert rows_of(index).keys() == {(p, reader) for p in PATHS for reader in ("auto", "pyav")}


def test_parallel_is_serial(folder: Path, tmp_path: Path) -> None:
    found = []
    for workers in (0, 3):
        index_dir = tmp_path / f"index{workers}"
        counts = count(folder, num_workers=workers, index_dir=index_dir)
        assert list(counts) == PATHS
        found.append(rows_of(index_dir / "list.txt.index"))
    assert found[0] == found[1]


def rows_of(index: Path) -> dict[tuple[str, str], VideoFacts]:
    found = read_index(index)
    assert found is not None
    facts = [found[row] for row in found.newest().tolist()]
    return {(one.path, one.requested): one for one in facts}


def paths_of(index: Path) -> set[str]:
    return {path for path, _ in rows_of(index)}


def test_what_is_known_is_told_without_decoding(folder: Path) -> None:
    assert count(folder, decode=False) == {} and not index_path(folder / "list.txt").exists()
    known = count(folder, PATHS[1:])
    found = count(folder, [*PATHS, "gone.mp4"], decode=False)
    assert found.pop("gone.mp4").error.startswith(f"{folder / 'videos' / 'gone.mp4'}: No such file")
    assert found == known
    assert len(rows_of(index_path(folder / "list.txt"))) == 3


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
    with pytest.raises(ValueError, match=r"list\.txt\.index: .*delete"):
        count(folder)


def test_an_index_of_an_earlier_version_is_not_used(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "list.txt.frames.csv").write_text("path,size\na.mp4,1\n")
    assert count(folder)["a.mp4"].num_frames == 10
    assert "list.txt.frames.csv" in capsys.readouterr().err
    count(folder, [*PATHS, "later.mp4"])
    assert capsys.readouterr().err == ""


def test_an_index_that_cannot_be_read_names_the_key(folder: Path) -> None:
    index_path(folder / "list.txt").mkdir()  # unreadable to the superuser too
    with pytest.raises(OSError, match=r"list\.txt\.index: .* cannot be read .*data\.index_dir"):
        count(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_a_forbidden_index_names_the_key(folder: Path) -> None:
    count(folder)
    index_path(folder / "list.txt").chmod(0)
    with pytest.raises(OSError, match=r"cannot be read .*data\.index_dir"):
        count(folder)


KILLED = """
import sys, time
from vidadapt.lists import counting

def stuck(*arguments):
    for number, result in enumerate(honest(*arguments)):
        if number == 3:
            time.sleep(1000)
        yield result

honest, counting.run_isolated = counting.run_isolated, stuck
folder, *paths = sys.argv[1:]
counting.frame_counts(
    f"{folder}/list.txt", f"{folder}/videos", paths, progress=False, store_every=0
)
"""


@pytest.mark.slow
def test_what_was_counted_survives_a_kill(folder: Path) -> None:
    index = index_path(folder / "list.txt")
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), *PATHS])
    try:
        while child.poll() is None and not (index.exists() and len(rows_of(index)) == 3):
            time.sleep(0.05)
    finally:
        child.kill()
        child.wait()
    assert {path: facts.num_frames for (path, _), facts in rows_of(index).items()} == {
        "a.mp4": 10, "b #1, c.mp4": 20, "sub/c.mp4": 30
    }  # fmt: skip
    assert [known.num_frames for known in count(folder).values()] == [10, 20, 30, 0]


def test_two_runs_at_once_keep_each_other_s_rows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = counting.run_isolated

    def interrupted(*arguments: object) -> Iterator[object]:
        """The other run begins and ends while this one is counting."""
        for number, result in enumerate(honest(*arguments)):  # type: ignore[arg-type]
            if number == 0:
                monkeypatch.setattr(counting, "run_isolated", honest)
                count(folder, PATHS[2:])
                count(folder, PATHS[1:2], reader="pyav")
            yield result

    monkeypatch.setattr(counting, "run_isolated", interrupted)
    count(folder, PATHS[:2])
    expected = {(path, "auto") for path in PATHS} | {(PATHS[1], "pyav")}
    assert rows_of(index_path(folder / "list.txt")).keys() == expected


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs Linux")
def test_faults_of_the_machine_are_told_but_not_kept(folder: Path) -> None:
    (folder / "videos" / "io.mp4").symlink_to("/proc/self/mem")  # reading it gives EIO
    counts = count(folder, ["a.mp4", "io.mp4", "bad.mp4"])
    assert "io.mp4: Input/output error" in counts["io.mp4"].error
    assert paths_of(index_path(folder / "list.txt")) == {"a.mp4", "bad.mp4"}
    (folder / "videos" / "io.mp4").unlink()
    write_video(folder / "videos" / "io.mp4", grey_frames(7, 96, 96))
    assert count(folder, ["io.mp4"])["io.mp4"].num_frames == 7


def test_errors_that_stop_within_a_file_are_not_kept_either(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FFmpeg calls damage an input/output error, too: what decodes counts, for this run."""
    honest = av.open

    class Failing:
        """A container that breaks off after four packets."""

        def __init__(self, *arguments: object, **options: object) -> None:
            self.container = honest(*arguments, **options)  # type: ignore[call-overload]
            self.streams, self.format = self.container.streams, self.container.format

        def __enter__(self) -> "Failing":
            return self

        def __exit__(self, *_: object) -> None:
            self.container.close()

        def demux(self, stream: av.VideoStream) -> Iterator[av.Packet]:
            for number, packet in enumerate(self.container.demux(stream)):
                if number == 4:
                    raise OSError(errno.EIO, "Input/output error")
                yield packet

    monkeypatch.setattr(av, "open", Failing)
    job = CountJob(str(folder / "videos" / "a.mp4"), "a", "pyav", 0, 0)
    known = count_file(job)
    assert (known.num_frames, known.header_frames, known.error, known.holds) == (4, 10, "", False)
    monkeypatch.setattr(survey, "unreadable_bytes", lambda path: "Stale file handle")
    known = count_file(job)
    assert known.error == "Stale file handle" and not known.holds


def test_a_process_that_dies_costs_its_file_this_run_only(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "count_file", die_on_b)
    counts = count(folder)
    assert "b #1, c.mp4: the decoder process died" in counts["b #1, c.mp4"].error
    assert paths_of(index_path(folder / "list.txt")) == set(PATHS) - {"b #1, c.mp4"}
    monkeypatch.undo()
    assert count(folder)["b #1, c.mp4"].num_frames == 20


def die_on_b(job: CountJob) -> VideoFacts:
    if job.path.startswith("b "):
        os.kill(os.getpid(), signal.SIGSEGV)
    return count_file(job)


def hide(video: Path, first: int, kept: int) -> None:
    """Let the edit list of an mp4 of 24 frames a second show only some frames."""
    data = bytearray(video.read_bytes())
    at = data.index(b"elst") + 12
    _, start = struct.unpack(">Ii", data[at : at + 8])
    scale = 512  # of PyAV's mp4: ticks of one frame
    data[at : at + 8] = struct.pack(">Ii", kept * 1000 // 24, start + first * scale)
    video.write_bytes(data)


@pytest.mark.parametrize(("first", "kept"), [(4, 26), (16, 14), (0, 20), (16, 8)])
@pytest.mark.parametrize("reader", ["auto", "decord", "pyav"])
def test_frames_that_an_edit_list_hides_are_not_missing(
    tmp_path: Path, first: int, kept: int, reader: str
) -> None:
    video = tmp_path / "videos" / "trimmed.mp4"
    write_video(video, grey_frames(30, 96, 96), key_every=10)
    hide(video, first, kept)
    known = count(tmp_path, [video.name], reader=reader)[video.name]
    assert (known.num_frames, known.header_frames) == (kept, kept)
    with open_counted(video, known) as opened:
        clip = opened.frames(np.arange(kept))
    assert indices_of(clip.transpose(3, 0, 1, 2)) == list(range(first, first + kept))


def test_a_truncated_file_with_an_edit_list_is_still_truncated(tmp_path: Path) -> None:
    video = tmp_path / "videos" / "cut.mp4"
    write_video(video, grey_frames(30, 96, 96), header_first=True, key_every=10)
    hide(video, 4, 26)
    data = video.read_bytes()
    start = data.index(b"mdat")
    video.write_bytes(data[: start + (len(data) - start) * 2 // 3])
    known = count(tmp_path, [video.name])[video.name]
    assert known.header_frames == 26
    assert known.truncated and known.num_frames > 0


@pytest.mark.parametrize("ending", ["mkv", "webm"])
def test_a_cut_matroska_file_is_truncated(tmp_path: Path, ending: str) -> None:
    """Its header gives no number of frames; Something-Something V2 comes so."""
    whole, cut = (tmp_path / "videos" / f"{name}.{ending}" for name in ("whole", "cut"))
    write_matroska(whole, seconds_of_sound=0)
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    known = count(tmp_path, [whole.name, cut.name])
    assert known[whole.name].num_frames == 40
    assert not known[whole.name].truncated
    assert 2 < known[cut.name].num_frames < 38
    assert known[cut.name].header_frames > known[cut.name].num_frames + 1  # by its bytes
    assert known[cut.name].truncated


def test_sound_that_is_longer_than_the_frames_does_not_make_a_file_truncated(tmp_path: Path):
    video = tmp_path / "videos" / "long_sound.mkv"
    write_matroska(video, seconds_of_sound=9)
    known = count(tmp_path, [video.name])[video.name]
    assert known.num_frames == 40
    assert not known.truncated


def write_matroska(path: Path, *, seconds_of_sound: int) -> None:
    """Write 40 frames at 12 a second, as Something-Something V2 has them, in VP9."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx-vp9", rate=12, options={"cpu-used": "8"})
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        sound = container.add_stream("pcm_s16le", rate=8000) if seconds_of_sound else None
        for picture in textured_frames(40, seed=0):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
        if sound is not None:
            samples = np.zeros((1, 8000 * seconds_of_sound), np.int16)
            tone = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
            tone.sample_rate = 8000
            container.mux([*sound.encode(tone), *sound.encode(None)])


def test_truncated_tolerates_one_frame() -> None:
    known = VideoFacts("a.avi", "pyav", num_frames=89, header_frames=90)
    assert not known.truncated
    assert replace(known, num_frames=88).truncated
    assert not replace(known, header_frames=None).truncated


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the clips of ../shared/clips")
def test_truncated_real_files_are_told_from_hmdb51(tmp_path: Path) -> None:
    files = sorted(SHARED.rglob("*.avi"))
    paths = [str(file.relative_to(SHARED)) for file in files]
    counts = frame_counts(tmp_path / "list.txt", SHARED, paths, num_workers=2, progress=False)
    assert {Path(path).name for path in paths if counts[path].truncated} == {
        "hmdb_avi_header_only_4k.avi",
        "hmdb_avi_trunc60pct.avi",
        "hmdb_avi_zeroed_40_50pct.avi",
    }
    assert sum(bool(count.error) for count in counts.values()) == 2
    files = [file for file in sorted(SHARED.rglob("*")) if file.suffix in (".mkv", ".webm")]
    paths = [str(file.relative_to(SHARED)) for file in files]
    counts = frame_counts(tmp_path / "list.txt", SHARED, paths, num_workers=2, progress=False)
    assert len(files) > 10
    truncated = {path for path in paths if counts[path].truncated}
    assert "broken/mkv_trunc60pct.mkv" in truncated
    assert all(path.startswith("broken/") for path in truncated)


def act(job: str) -> str:
    """Stands for a decoder: does what the job says."""
    if job == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if job == "ctrl-c":  # from a terminal it reaches all processes; the first one ends the others
        os.kill(os.getpid(), signal.SIGINT)
    if job == "exit":
        os._exit(3)
    if job == "hang":
        time.sleep(1000)
    return job.upper()


@pytest.mark.parametrize("num_workers", [1, 3])
def test_crashes_and_hangs_cost_only_their_own_job(num_workers: int) -> None:
    jobs = ["a", "crash", "b", "hang", "exit", "c", "ctrl-c", "d"]
    list(run_isolated(act, ["warm up"], 1, time_limit=60))  # starts the fork server
    done = {job: (result, error) for job, result, error in run_isolated(act, jobs, num_workers, 3)}
    assert {job: result for job, (result, _) in done.items()} == {
        "a": "A", "b": "B", "c": "C", "d": "D", "ctrl-c": "CTRL-C",
        "crash": None, "exit": None, "hang": None,
    }  # fmt: skip
    assert "died (Segmentation fault)" in done["crash"][1]
    assert "died (exit status 3)" in done["exit"][1]
    assert "within 3 s" in done["hang"][1]
    assert not any(done[job][1] for job in ("a", "b", "c", "ctrl-c", "d"))


def test_indices_of_the_whole_list_agree_with_reading(folder: Path) -> None:
    for path, known in count(folder).items():
        if not known.error:
            with open_counted(folder / "videos" / path, known) as video:
                frames = video.frames(np.arange(len(video)))
            assert len(frames) == known.num_frames


@pytest.mark.slow
def test_a_script_needs_no_main_guard(folder: Path) -> None:
    script = folder / "script.py"
    script.write_text(
        "from vidadapt.lists.counting import frame_counts\n"
        f"frame_counts({str(folder / 'list.txt')!r}, {str(folder / 'videos')!r}, {PATHS})\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert paths_of(index_path(folder / "list.txt")) == set(PATHS)


def hang_on_b(job: CountJob) -> VideoFacts:
    if job.path.startswith("b "):
        time.sleep(1000)
    return count_file(job)


def test_a_hung_count_names_the_key_of_its_limit(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    list(run_isolated(act, ["warm up"], 1, time_limit=60))  # starts the fork server
    monkeypatch.setattr(counting, "count_file", hang_on_b)
    counts = count(folder, PATHS[:2], time_limit=3)
    assert "within 3 s (data.count_timeout)" in counts["b #1, c.mp4"].error
    assert paths_of(index_path(folder / "list.txt")) == {"a.mp4"}
    monkeypatch.undo()
    assert count(folder, PATHS[:2], time_limit=None)["b #1, c.mp4"].num_frames == 20
