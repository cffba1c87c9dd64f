"""Small H.264 files whose frames tell their own index, and lists of them."""

from pathlib import Path

import av
import numpy as np

STEP, DARKEST = 4, 16  # grey levels between two frames, and of frame 0: H.264 is off by 1 or 2


def write_video(
    path: Path, frames: np.ndarray, header_first: bool = False, key_every: int = 250
) -> None:
    """Encode (T, H, W, 3) uint8 RGB, even sides, as it would come from a phone: H.264, 4:2:0."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"movflags": "faststart"} if header_first else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=24, options={"g": str(key_every)})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def grey_frames(count: int, height: int = 64, width: int = 80) -> np.ndarray:
    """Frame i is all of one grey, `DARKEST + STEP * i`: readable after any crop and resize."""
    levels = DARKEST + STEP * np.arange(count)
    assert levels[-1] <= 235, "too many frames for this code"
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).astype(np.uint8)


def indices_of(clip: np.ndarray) -> list[int]:
    """Frame indices of a (3, T, H, W) clip of such a video."""
    means = np.asarray(clip).astype(float).mean(axis=(0, 2, 3))
    return np.rint((means - DARKEST) / STEP).astype(int).tolist()


def textured_frames(count: int, seed: int, height: int = 64, width: int = 80) -> np.ndarray:
    """A bright square that moves over a random gradient."""
    rng = np.random.default_rng(seed)
    corner = rng.integers(0, 120, size=(2, 2, 3))
    y, x = np.linspace(0, 1, height)[:, None, None], np.linspace(0, 1, width)[None, :, None]
    still = (1 - y) * ((1 - x) * corner[0, 0] + x * corner[0, 1]) + y * (
        (1 - x) * corner[1, 0] + x * corner[1, 1]
    )
    frames = np.repeat(still.astype(np.uint8)[None], count, axis=0)
    for i in range(count):
        left = (3 * i) % (width - 20)
        frames[i, 10:30, left : left + 20] = 230
    return frames
