"""Checksums of frames: over all that is seen, and over nothing else."""

import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from encoded import X264, numbered, write

from vidadapt.video import frame_checksum
from vidadapt.video.checksums import array_checksum, row_bytes
from vidadapt.video.survey import survey

# As decoders put out: planar, odd depths, alpha, packed, semi-planar, palettes, bits, floats.
FORMATS = [
    *("yuv420p", "yuvj422p", "yuv444p", "yuv410p", "yuv420p10le", "yuv422p12le", "yuva420p"),
    *("yuva444p10le", "gbrp", "gbrap", "gbrp10le", "gbrpf32le", "gray", "gray10le", "gray16be"),
    *("ya8", "ya16le", "rgb24", "bgra", "0rgb", "rgb48le", "rgb565le", "rgb555be", "rgb8"),
    *("rgb4", "rgb4_byte", "x2rgb10le", "yuyv422", "uyvy422", "uyyvyy411", "y210le", "nv12"),
    *("nv21", "nv24", "p010le", "pal8", "monow", "monob", "bayer_rggb8", "xyz12le"),
]
SIZES = [(17, 11), (64, 8), (33, 3)]


def blank(name: str, width: int, height: int) -> av.VideoFrame:
    frame = av.VideoFrame(width, height, name)
    for plane in frame.planes:
        plane.update(bytes(plane.buffer_size))
    return frame


@pytest.mark.parametrize("name", FORMATS)
def test_all_of_a_row_that_is_seen_counts_and_no_padding(name: str) -> None:
    for width, height in SIZES:
        frame = blank(name, width, height)
        expected = frame_checksum(frame)
        for plane, (rows, used) in zip(frame.planes, row_bytes(name, width, height), strict=True):
            stride = plane.line_size or used
            data = np.frombuffer(plane, np.uint8)  # the frame's own memory
            for row, column in ((0, 0), (rows - 1, used - 1), (rows // 2, used // 2)):
                data[row * stride + column] ^= 128
                assert frame_checksum(frame) != expected, (width, height, row, column)
                data[row * stride + column] ^= 128
            for row in range(rows if used < stride else 0):
                data[row * stride + used : (row + 1) * stride] = 255
        assert frame_checksum(frame) == expected


@pytest.mark.parametrize("name", FORMATS)
def test_rows_have_the_size_that_ffmpeg_gives_them(name: str) -> None:
    for width, height in SIZES:
        context = av.CodecContext.create("rawvideo", "w")
        context.width, context.height, context.pix_fmt = width, height, name
        context.time_base = Fraction(1, 25)
        raw = context.encode(blank(name, width, height))[0]  # without any padding
        assert sum(rows * used for rows, used in row_bytes(name, width, height)) == raw.size


def test_what_decides_how_pixels_are_shown_counts() -> None:
    frame = blank("yuv420p", 16, 8)
    seen = {frame_checksum(frame), frame_checksum(blank("yuv420p", 8, 16))}
    seen |= {frame_checksum(blank(name, 16, 8)) for name in ("yuvj420p", "yuv444p", "nv12")}
    frame.colorspace = 1
    seen.add(frame_checksum(frame))
    frame.color_range = 2
    seen.add(frame_checksum(frame))
    assert len(seen) == 7
    array = np.zeros((4, 6, 3), np.uint8)
    assert array_checksum(array) != array_checksum(array.reshape(6, 4, 3))
    assert array_checksum(array[:, ::-1]) == array_checksum(array)


def test_pictures_that_are_stored_bottom_up_are_told_apart(tmp_path: Path) -> None:
    """Uncompressed AVI, whose rows FFmpeg counts backwards."""
    path, frames = tmp_path / "raw.avi", numbered(4)
    frames[3] = frames[2]
    frames[3, -1, -1] ^= 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("rawvideo", rate=25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "bgr24"
        for frame in frames[:, ::-1]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame[..., ::-1], "bgr24")))
        container.mux(stream.encode(None))
    checks = survey(str(path)).checks
    assert checks is not None and len(set(checks.tolist())) == 4


def test_other_processes_find_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "libx264", {"x264-params": X264}, numbered(9)[:, :, :122])
    program = (
        "from vidadapt.video.survey import survey\n"
        f"print([int(c) for c in survey({str(path)!r}).checks])"
    )
    told = {
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True).stdout
        for _ in range(2)
    }
    checks = survey(str(path)).checks
    assert checks is not None and told == {f"{[int(check) for check in checks]}\n"}
