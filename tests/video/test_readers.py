"""The reader contract, against independent sequential decodes with the library that serves."""

import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from encoded import HEIGHT, WIDTH, X264, decode_with_pyav, facts_with, numbered, spelled, write
from torch.utils.data import DataLoader

from vidadapt.video import (
    READERS,
    ReadError,
    TransientReadError,
    all_frames,
    check_reader,
    open_counted,
    open_video,
)
from vidadapt.video.sequential import upright_rgb

SHARED = Path(__file__).parents[3] / "shared" / "clips"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs the clips of ../shared/clips")


def available_readers() -> list[str]:
    names = []
    for name in READERS:
        try:
            check_reader(name)
        except ImportError:
            continue
        names.append(name)
    return names


def has_decord() -> bool:
    """Not on ARM, nor on a Mac: PyAV serves there."""
    try:
        import decord  # noqa: F401
    except (ImportError, OSError):
        return False
    return True


def listed_clips() -> dict[str, int]:
    """Path under SHARED -> frames of a full sequential decode, as documented beside the clips."""
    if not SHARED.is_dir():
        return {}
    table = {}
    for line in (SHARED / "CLIPS.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 7 and re.search(r"\.\w+$", cells[0]):
            table[cells[0]] = int(cells[4]) if cells[4].isdigit() else 0
    table["torchcodec_nasa_13013.mp4"] = 390  # the row is of its first stream, not of its best
    files = {p.name: p for p in SHARED.rglob("*") if p.is_file() and p.name != "CLIPS.md"}
    assert files.keys() == table.keys()
    return {str(files[name].relative_to(SHARED)): n for name, n in sorted(table.items())}


CLIPS = listed_clips()


def test_clips_are_there_where_they_are_expected() -> None:
    """.ci/run sets the variable where the clips lie: their tests must not be skipped unnoticed."""
    if os.environ.get("VIDADAPT_NEED_CLIPS"):
        assert CLIPS, f"VIDADAPT_NEED_CLIPS is set, but there are no clips in {SHARED}"
        assert sum(1 for count in CLIPS.values() if count) > 40


@functools.lru_cache(maxsize=2)
def sequential(path: Path) -> list[np.ndarray]:
    return decode_with_pyav(path)


def access_orders(count: int, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        np.array([count - 1]),
        np.linspace(0, count - 1, 8).astype(int),
        np.minimum(rng.integers(count) + 4 * np.arange(8), count - 1),
        np.array([0]),
        rng.integers(0, count, 6),
        np.sort(rng.integers(0, count, 6))[::-1],
        np.array([count // 2, count // 2]),
    ]


def assert_contract(path: Path, name: str, expected: int) -> str:
    """Check one file with one reader; return the name of the reader that served it."""
    truth = sequential(path)
    assert len(truth) == expected
    with open_video(path, name) as video:
        assert len(video) == expected
        for indices in access_orders(expected, seed=expected):  # on one handle
            frames = video.frames(indices)
            assert frames.dtype == np.uint8
            assert frames.shape == (len(indices), *truth[0].shape)
            for index, frame in zip(indices, frames, strict=True):
                assert np.array_equal(frame, truth[index]), f"frame {index}"
        facts = video.facts
    for indices in access_orders(expected, seed=expected + 1):  # on a handle each
        with open_counted(path, facts) as video:
            assert (video.facts.reader, len(video)) == (facts.reader, expected)
            for index, frame in zip(indices, video.frames(indices), strict=True):
                assert np.array_equal(frame, truth[index]), f"frame {index}"
            assert video.changed == ""
    return facts.reader


@needs_shared
@pytest.mark.parametrize("clip", [clip for clip, n in CLIPS.items() if not n])
@pytest.mark.parametrize("name", available_readers())
def test_files_without_a_frame_raise_read_error(clip: str, name: str) -> None:
    with pytest.raises(ReadError, match=re.escape(Path(clip).name)):
        len(open_video(SHARED / clip, name))
    with pytest.raises(ReadError, match=re.escape(Path(clip).name)):
        open_counted(SHARED / clip, facts_with(name, 10)).frames([0])


@needs_shared
@pytest.mark.parametrize(
    ("clip", "auto", "decord"),
    [
        ("decord_flipping_a_pancake.mkv", "pyav_sparse", "decord"),
        ("decord_video_90.mov", "pyav_sparse", "decord"),
        ("libwebm_bbb_480p_vp9_opus_1second.webm", "pyav_sparse", "decord"),
        ("torchcodec_nasa_13013.mp4", "pyav_sparse", "decord"),
        ("torchcodec_h265_video.mp4", "pyav", "pyav"),
        ("torchcodec_av1_video.mkv", "pyav", "pyav"),
        ("torchcodec_h264_10bits.mp4", "pyav_sparse", "pyav"),
        ("no_duration.webm", "pyav_sparse", "pyav"),
        ("decord_corrupted.mp4", "pyav", "pyav"),
        ("mp4parse_no_timescale.mp4", "pyav", "pyav"),
        ("broken/hmdb_avi_zeroed_40_50pct.avi", "pyav", "pyav"),
        ("-video-with-dash-.mp4", "pyav_sparse", "pyav"),
        (next((c for c in CLIPS if "golf" in c), "golf"), "pyav_sparse", "pyav"),
    ],
)
def test_who_serves_a_clip_is_observable(clip: str, auto: str, decord: str) -> None:
    with open_video(SHARED / clip) as video:
        assert video.facts.reader == auto
    with open_video(SHARED / clip, "decord") as video:
        assert video.facts.reader == (decord if has_decord() else "pyav")


@needs_shared
@pytest.mark.parametrize(
    ("clip", "shape"),
    [
        ("decord_video_0.mov", (320, 568)),
        ("decord_video_90.mov", (568, 320)),
        ("decord_video_180.mov", (320, 568)),
        ("mp4parse_no_timescale.mp4", (240, 320)),  # its rotation is -2147483648 degrees
    ],
)
@pytest.mark.parametrize("name", available_readers())
def test_rotation_is_applied(clip: str, shape: tuple[int, int], name: str) -> None:
    with open_video(SHARED / clip, name) as video:
        assert video.frames([0]).shape[1:3] == shape


PYRAMID = "keyint=30:bframes=6:b-adapt=0:b-pyramid=normal"
GENERATED = {  # file name: encoder, its options, who serves where auto, and where decord is asked
    "closed.mp4": ("libx264", {"x264-params": X264}, "pyav_sparse", "decord"),
    "closed.mkv": ("libx264", {"x264-params": X264}, "pyav_sparse", "decord"),
    "pyramid.mp4": ("libx264", {"x264-params": PYRAMID}, "pyav_sparse", "decord"),
    "all_key.mp4": ("libx264", {"x264-params": "keyint=1"}, "pyav_sparse", "decord"),
    "open.mp4": ("libx264", {"x264-params": f"{X264}:open-gop=1"}, "pyav_sparse", "pyav"),
    "refresh.mkv": (
        "libx264",
        {"x264-params": "keyint=12:intra-refresh=1"},
        "pyav_sparse",
        "pyav",
    ),
    "interlaced.mp4": ("libx264", {"x264-params": f"{X264}:tff=1"}, "pyav_sparse", "pyav"),
    "stream.ts": ("libx264", {"x264-params": X264}, "pyav_sparse", "pyav"),
    "no_times.avi": ("libx264", {"x264-params": X264}, "pyav", "pyav"),
    "b_frames.avi": ("mpeg4", {"bf": "2", "g": "12"}, "pyav_sparse", "pyav"),
    "b_frames.mp4": ("mpeg4", {"bf": "2", "g": "12"}, "pyav_sparse", "pyav"),
    "vp9.webm": (
        "libvpx-vp9",
        {"g": "12", "deadline": "realtime", "cpu-used": "8"},
        "pyav_sparse",
        "decord",
    ),
    "vp8.webm": (
        "libvpx",
        {"g": "12", "auto-alt-ref": "1", "lag-in-frames": "16"},
        "pyav",
        "pyav",
    ),
    "hevc.mp4": ("libx265", {"x265-params": "keyint=12:log-level=none"}, "pyav", "pyav"),
}


@pytest.mark.parametrize("name", GENERATED)
def test_generated_videos_tell_their_indices(name: str, tmp_path: Path) -> None:
    codec, options, auto, decord = GENERATED[name]
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec} encoder")
    path = write(tmp_path / name, codec, options, numbered(60))
    served = {asked: assert_contract(path, asked, 60) for asked in available_readers()}
    assert served["auto"] == served["pyav_sparse"] == auto
    assert served["decord"] == (decord if has_decord() else "pyav")
    for asked in served:
        indices = np.random.default_rng(1).permutation(60)
        with open_video(path, asked) as video:
            assert spelled(video.frames(indices)) == indices.tolist()


def test_damaged_packets_are_left_to_pyav(tmp_path: Path) -> None:
    path = write(tmp_path / "damaged.mp4", "libx264", {"x264-params": X264}, numbered(60))
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + len(data) // 3
    data[start : start + 300] = bytes(300)
    path.write_bytes(data)
    for asked in ("decord", "auto"):
        assert assert_contract(path, asked, len(decode_with_pyav(path))) == "pyav"


def test_frames_that_change_size_have_the_first_one_s(tmp_path: Path) -> None:
    frames = numbered(20)
    write(tmp_path / "a.ts", "mpeg4", {}, frames)
    write(tmp_path / "b.ts", "mpeg4", {}, frames[:, :64, :96])
    path = tmp_path / "both.ts"
    path.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    assert {frame.shape for frame in decode_with_pyav(path)} == {(96, 128, 3), (64, 96, 3)}
    with open_video(path) as video:
        assert video.frames([0, 30]).shape == (2, HEIGHT, WIDTH, 3)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "plain.mp4"
    return write(path, "libx264", {"x264-params": X264}, numbered(30))


@pytest.mark.parametrize("name", available_readers())
@pytest.mark.parametrize("counted", [False, True])
def test_indices_outside_the_video_are_errors(plain: Path, name: str, counted: bool) -> None:
    with open_counted(plain, facts_with(name, 30)) if counted else open_video(plain, name) as video:
        with pytest.raises(IndexError, match="frame 30 of a video of 30 frames"):
            video.frames([3, 30])
        with pytest.raises(IndexError, match="frame -1"):
            video.frames([-1])
        with pytest.raises(IndexError, match="no frame index"):
            video.frames([])
        assert spelled(video.frames([7, 3, 7])) == [7, 3, 7]
    with pytest.raises(ValueError, match="closed"):
        video.frames([0])


def test_a_file_shorter_than_its_recorded_count_is_an_error(plain: Path) -> None:
    with (
        open_counted(plain, facts_with("decord", 40)) as video,
        pytest.raises(ReadError, match=r"plain\.mp4: frame 35 .* counted as 40"),
    ):
        video.frames([2, 35])


@pytest.mark.parametrize("broken", [0, 15, 29])
@pytest.mark.parametrize("how", ["raises", "other shape", "other pixels"])
def test_a_file_that_decord_cannot_read_is_left_to_pyav_when_counted(
    plain: Path, monkeypatch: pytest.MonkeyPatch, broken: int, how: str
) -> None:
    decord = pytest.importorskip("decord")
    honest = decord.VideoReader.get_batch

    def fails(self: object, indices: list[int]) -> object:
        if broken not in indices:
            return honest(self, indices)
        if how == "raises":
            raise decord.DECORDError("avcodec_send_packet >= 0 (-11 vs. 0)")
        if how == "other pixels":
            frames = honest(self, indices).asnumpy()
            frames[indices.index(broken), 0, 0, 0] ^= 1
            return decord.nd.array(frames)
        return decord.nd.array(np.zeros((len(indices), HEIGHT // 2, WIDTH, 3), np.uint8))

    with open_video(plain, "decord") as video:
        assert video.facts.reader == "decord"
        facts = video.facts
    monkeypatch.setattr(decord.VideoReader, "get_batch", fails)
    with open_video(plain, "decord") as video:
        assert (video.facts.reader, len(video)) == ("pyav", 30)
        assert spelled(video.frames([broken])) == [broken]
    truth = decode_with_pyav(plain)
    with open_counted(plain, facts) as video:  # which has come to fail since
        assert np.array_equal(video.frames([3, broken]), np.stack([truth[3], truth[broken]]))
        assert video.changed == ""


def test_a_file_that_cannot_be_read_now_is_told_from_a_bad_one(tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_text("no video")
    for path, transient in ((tmp_path / "missing.mp4", True), (tmp_path / "bad.mp4", False)):
        with pytest.raises(ReadError) as error:
            open_video(path)
        assert isinstance(error.value, TransientReadError) == transient


@pytest.mark.parametrize("name", ["-dash.mp4", "a b#c!'.mp4", "x:y.mp4", "%03d.mp4", "ü [1].mp4"])
def test_any_file_name_opens(
    plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    (tmp_path / name).write_bytes(plain.read_bytes())
    monkeypatch.chdir(tmp_path)
    for reader in available_readers():
        with open_video(name, reader) as video:
            assert spelled(video.frames([29])) == [29]


def test_what_is_no_file_is_a_read_error(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"missing\.mp4: no such file"):
        open_video(tmp_path / "missing.mp4")
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path, tmp_path / "pipe.mp4"):
        with pytest.raises(ReadError, match="not a regular file"):
            open_video(path)


def test_unknown_reader_is_named() -> None:
    with pytest.raises(ValueError, match="'opencv' is none of auto, decord, pyav,"):
        check_reader("opencv")


def test_torchcodec_that_cannot_load_says_how_to_install() -> None:
    if "torchcodec" in available_readers():
        pytest.skip("torchcodec is installed")
    with pytest.raises(ImportError, match=r"pip install 'vidadapt\[torchcodec\]'.*FFmpeg"):
        check_reader("torchcodec")


def test_without_decord_pyav_reads_with_one_notice(plain: Path) -> None:
    program = (
        "import sys; sys.modules['decord'] = None\n"
        "from vidadapt.video.readers import open_video\n"
        f"print({{open_video({str(plain)!r}, 'decord').facts.reader for _ in range(3)}})"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "{'pyav'}", done.stderr
    assert done.stderr.count("PyAV reads all videos") == 1


def test_forked_loader_workers_read_what_the_parent_reads(plain: Path) -> None:
    orders = [np.array(order) for order in ([0, 5], [29, 1], [12, 13], [7, 7])]
    jobs = [(name, order) for name in available_readers() for order in orders]

    def read(job: tuple[str, np.ndarray]) -> np.ndarray:
        with open_counted(plain, facts_with(job[0], 30)) as video:
            return video.frames(job[1])

    mine = [read(job) for job in jobs]  # decoders have run in the parent before the fork
    loader = DataLoader(
        jobs,  # type: ignore[arg-type]
        batch_size=None,
        num_workers=2,
        collate_fn=read,
        multiprocessing_context="fork",
    )
    theirs = list(loader)
    assert len(theirs) == len(mine)
    for one, other in zip(mine, theirs, strict=True):
        assert np.array_equal(one, other)


@pytest.mark.parametrize("before", [0, 7])
@pytest.mark.parametrize("name", ["auto", "pyav", "pyav_sparse", "decord"])
def test_a_video_ends_before_the_first_frame_that_cannot_be_converted(
    tmp_path: Path, name: str, before: int
) -> None:
    """FFmpeg decodes YCgCo, and converts it to nothing."""
    if name == "decord" and not has_decord():
        pytest.skip("needs decord")
    parts = []
    plain = "keyint=12:bframes=0"
    for count, params in ((before, plain), (5, plain + ":colormatrix=YCgCo")):
        if count:
            part = tmp_path / f"part{len(parts)}.ts"
            write(part, "libx264", {"x264-params": params}, numbered(count), "yuv444p")
            parts.append(part.read_bytes())
    (tmp_path / "all.ts").write_bytes(b"".join(parts))
    if not before:
        with pytest.raises(ReadError, match=r"all\.ts: .*frame 0 cannot be converted to RGB"):
            len(open_video(tmp_path / "all.ts", name))
        return
    expected = decode_with_pyav(tmp_path / "part0.ts")
    with open_video(tmp_path / "all.ts", name) as video:
        assert len(video) == before
        for order in access_orders(before, 0):
            np.testing.assert_array_equal(video.frames(order), [expected[i] for i in order])


def test_a_lack_of_memory_is_no_end_of_a_video(
    plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = iter(range(1000))

    def short(*arguments: object) -> np.ndarray:
        if next(calls) == 3:
            raise MemoryError
        return upright_rgb(*arguments)

    monkeypatch.setattr("vidadapt.video.sequential.upright_rgb", short)
    with pytest.raises(ReadError, match="frame 3: MemoryError"):
        list(all_frames(str(plain)))
