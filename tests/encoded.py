"""Videos by codec and encoder options whose frames spell their index, and a slow plain decode."""

from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

from vidadapt.video import VideoFacts
from vidadapt.video.facts import NO_CHECKS

HEIGHT, WIDTH, BLOCK = 96, 128, 16
X264 = "keyint=12:min-keyint=1:bframes=3:b-adapt=0"


def decode_with_pyav(path: Path) -> list[np.ndarray]:
    """All frames of the best stream, packet by packet, undecodable packets left out."""
    frames: list[np.ndarray] = []
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        stream.codec_context.thread_count = 1  # more would conceal damage in another way
        for packet in [*container.demux(stream), None]:
            if packet is not None and packet.size == 0:
                continue
            try:
                decoded = stream.codec_context.decode(packet)
            except av.FFmpegError:
                continue
            for frame in decoded:
                matrix = frame.side_data.get("DISPLAYMATRIX")
                told = [0] * 9 if matrix is None else np.frombuffer(matrix, np.int32).tolist()
                frames.append(shown(frame.to_ndarray(format="rgb24"), told))
    return frames


def shown(frame: np.ndarray, matrix: Sequence[int]) -> np.ndarray:
    """A frame whose pixels are moved one by one as its display matrix tells, by whole quarters."""
    a, b, _, c, d = np.sign(matrix[:5])
    if not (a and d and not b and not c) and not (b and c and not a and not d):
        return frame
    rows, columns = np.mgrid[: frame.shape[0], : frame.shape[1]]
    across, down = a * columns + c * rows, b * columns + d * rows
    across, down = across - across.min(), down - down.min()
    moved = np.empty((down.max() + 1, across.max() + 1, 3), np.uint8)
    moved[down, across] = frame
    return moved


def facts_with(reader: str, num_frames: int, checks: np.ndarray = NO_CHECKS) -> VideoFacts:
    return VideoFacts("listed", reader=reader, num_frames=num_frames, checks=checks)


def numbered(count: int) -> np.ndarray:
    """(T, H, W, 3) noise whose first row of blocks spells the frame's index in binary."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (HEIGHT // BLOCK, WIDTH // BLOCK, 3), dtype=np.uint8)
    still = coarse.repeat(BLOCK, 0).repeat(BLOCK, 1)
    frames = np.stack([np.roll(still, 3 * i, axis=1) for i in range(count)])
    for i in range(count):
        for bit in range(WIDTH // BLOCK):
            frames[i, :BLOCK, bit * BLOCK : (bit + 1) * BLOCK] = 255 * (i >> bit & 1)
    return frames


def spelled(frames: np.ndarray) -> list[int]:
    bits = frames[:, 4:12, :, :].mean(axis=(1, 3)).reshape(len(frames), -1, BLOCK)[:, :, 4:12]
    return [int((row.mean(axis=1) > 128) @ (1 << np.arange(len(row)))) for row in bits]


def write(
    path: Path,
    codec: str,
    options: dict[str, str],
    frames: np.ndarray,
    pixels: str = "yuv420p",
) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixels
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path
