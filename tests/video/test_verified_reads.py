"""Frames read alone and in patterns, by fresh readers, against a sequential decode, where decoding
from the middle on gives other pixels and nothing tells so."""

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.reformatter import VideoReformatter
from encoded import decode_with_pyav, numbered, write
from test_readers import CLIPS, SHARED, available_readers

from vidadapt.video import ReadError, open_counted, open_video, sparse
from vidadapt.video.sequential import upright_rgb
from vidadapt.video.survey import counted

FAULTS = SHARED.parent / "faults"
FILES = {clip: SHARED / clip for clip, count in CLIPS.items() if count}
if FAULTS.is_dir():
    FILES |= {path.name: path for path in sorted(FAULTS.iterdir()) if path.suffix != ".md"}
    del FILES["cover_art_only.mp4"]
PYRAMID = "keyint=20:bframes=3:b-adapt=0:b-pyramid=normal"


def assert_exact(path: Path, reader: str, truth: list[np.ndarray], patterns: int) -> str:
    """Read frames in random patterns, alone, and all; return who served them."""
    count = len(truth)
    with open_video(path, reader) as video:
        assert len(video) == count
        facts = video.facts
    patterns = 1 if facts.reader == "pyav" else patterns  # which always reads all from the first on
    rng = np.random.default_rng(count)
    wanted = [rng.integers(0, count, rng.integers(1, 9)) for _ in range(patterns)]
    alone = rng.permutation(count)[: 2 * patterns]
    for indices in [*wanted, *np.array(alone)[:, None]]:
        with open_counted(path, facts) as video:
            found = video.frames(indices)
            assert video.changed == ""
        for index, frame in zip(indices, found, strict=True):
            assert np.array_equal(frame, truth[index]), f"frame {index} of {indices}"
    with open_counted(path, facts) as video:
        assert all(map(np.array_equal, video.frames(range(count)), truth))
    return facts.reader


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_real_and_faulty_files_are_exact_in_any_pattern(name: str) -> None:
    path = FILES[name]
    truth = decode_with_pyav(path)
    assert len(truth) == CLIPS.get(name, len(truth))
    pixels = len(truth) * truth[0].size
    patterns = int(np.clip(6e8 / pixels, 2, 40))
    served = {
        assert_exact(path, reader, truth, patterns if reader == "pyav_sparse" else 2)
        for reader in available_readers()
        if reader != "auto"
    }
    with open_video(path) as video:
        assert video.facts.reader in served & {"pyav", "pyav_sparse"}


def test_an_encoder_that_names_itself_in_the_first_packet_alone(tmp_path: Path) -> None:
    """FFmpeg decodes as an old x264 encoded where the first packet names one.

    A decoder that begins behind it, or has left frames out, does not know.
    """
    path = tmp_path / "old.mp4"
    x264 = "keyint=12:min-keyint=12:scenecut=0:qp=30:bframes=6:b-adapt=0:direct=spatial"
    write(path, "libx264", {"x264-params": f"{x264}:b-pyramid=normal"}, numbered(36))
    data = path.read_bytes()
    at = data.index(b"x264 - core ") + len(b"x264 - core ")
    path.write_bytes(data[:at] + b"030" + data[at + 3 :])
    truth, facts = decode_with_pyav(path), counted(str(path))
    assert facts.cause == facts.uneven == "" and facts.checks is not None
    lost = [i for i in range(36) if sparse.read_sparsely(str(path), facts.checks, [i]) is None]
    assert lost, "the file is no longer of this kind"
    for reader in available_readers():
        assert_exact(path, reader, truth, 10)


def damaged(whole: bytes, seed: int) -> bytes:
    """Lost and overwritten stretches behind the first tenth."""
    rng = np.random.default_rng(seed)
    data = bytearray(whole)
    for _ in range(1 + rng.integers(3)):
        at, length = int(rng.integers(len(data) // 10, len(data))), int(rng.integers(1, 60))
        if rng.integers(2):
            del data[at : at + length]
        else:
            left = len(data[at : at + length])
            data[at : at + length] = rng.integers(0, 256, left, dtype=np.uint8).tobytes()
    return bytes(data)


@pytest.mark.parametrize(
    ("name", "seeds"), [("a.ts", (143, 261, 273, 339, 388)), ("a.flv", (185, 261, 300, 357))]
)
def test_damage_that_no_decoder_reports(tmp_path: Path, name: str, seeds: tuple[int, ...]) -> None:
    path, lost = tmp_path / name, 0
    whole = write(path, "libx264", {"x264-params": PYRAMID}, numbered(40)).read_bytes()
    for seed in seeds:
        path.write_bytes(damaged(whole, seed))
        truth, facts = decode_with_pyav(path), counted(str(path))
        assert facts.checks is not None
        if assert_exact(path, "auto", truth, 10) == "pyav_sparse":
            reads = [sparse.read_sparsely(str(path), facts.checks, [i]) for i in range(len(truth))]
            lost += sum(read is None for read in reads)
    assert lost, "no file is of this kind any more: look for other seeds"


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.avi", "mjpeg", "yuvj420p"),
        ("a.webm", "libvpx", "yuv420p"),
        ("a.mkv", "ffv1", "yuv420p"),
        ("a.mov", "png", "rgb24"),
    ],
)
def test_damaged_frames_are_the_same_at_each_read(
    tmp_path: Path, name: str, codec: str, pixels: str
) -> None:
    """Where a decoder leaves a part of a frame as it found the memory."""
    path = tmp_path / name
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no {codec} encoder")
    whole = write(path, codec, {}, numbered(16), pixels).read_bytes()
    for seed in range(8):
        path.write_bytes(damaged(whole, seed))
        try:
            facts = counted(str(path))
        except ReadError:
            continue
        assert facts.num_frames is not None
        for some in (range(16), [15], [2, 7], [0, 5, 8]):
            wanted = [place for place in some if place < facts.num_frames] or [0]
            with open_counted(path, replace(facts, reader="pyav")) as video:
                video.frames(wanted)
                assert video.changed == "", (seed, wanted)


def test_frames_that_are_read_leave_the_decoder_its_memory(tmp_path: Path) -> None:
    """Also where nothing has to be converted: it would give later frames other memory."""
    path = write(tmp_path / "a.mov", "png", {}, numbered(3), "rgb24")
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            shown = upright_rgb(VideoReformatter(), frame, (frame.width, frame.height))
            assert not np.shares_memory(shown, np.frombuffer(frame.planes[0], np.uint8))


def cover(path: Path, with_video: bool) -> Path:
    """An mp4 with a picture of 128 x 96 pixels as cover, and a video of 64 x 48 or none."""
    with av.open(str(path), "w") as container:
        audio = container.add_stream("aac", rate=44100)
        stream = container.add_stream("libx264", rate=25) if with_video else None
        if stream is not None:
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
        picture = container.add_stream("mjpeg", rate=1)
        picture.height, picture.width, picture.pix_fmt = 96, 128, "yuvj420p"
        picture.disposition = av.stream.Disposition.attached_pic
        for frame in numbered(20)[:, ::2, ::2] if stream is not None else ():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        if stream is not None:
            container.mux(stream.encode(None))
        for at in range(0, 44100, 1024):
            sound = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", "stereo")
            sound.sample_rate, sound.pts = 44100, at
            container.mux(audio.encode(sound))
        container.mux(picture.encode(av.VideoFrame.from_ndarray(numbered(1)[0], format="rgb24")))
        for other in (audio, picture):
            container.mux(other.encode(None))
    return path


@pytest.mark.parametrize("reader", available_readers())
def test_a_cover_is_no_video(tmp_path: Path, reader: str) -> None:
    for path in (cover(tmp_path / "song.mp4", False), FAULTS / "cover_art_only.mp4"):
        if path.exists():
            with pytest.raises(ReadError, match=rf"{path.name}: .*cover"):
                len(open_video(path, reader))
    with open_video(cover(tmp_path / "film.mp4", True), reader) as video:
        assert len(video) == 20
        assert video.frames([0]).shape == (1, 48, 64, 3)
