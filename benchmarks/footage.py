"""Generate videos that are as large, and as slow to decode, as those of real data sets.

For benchmarks of reading. The classes of `vidadapt.apps.synthetic` can be learned, but its videos
are small and quickly drawn, and its files are not like real ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from vidadapt.apps.synthetic import encode, in_processes


@dataclass(frozen=True)
class Footage:
    """A kind of video.

    Attributes:
        size: height and width.
        frames: fewest and most.
        rate: frames a second.
        noise: standard deviation in grey levels.
        codec, options: of FFmpeg.
    """

    suffix: str
    size: tuple[int, int]
    frames: tuple[int, int]
    rate: int
    noise: float
    codec: str
    options: dict[str, str]


# Lengths and sizes are those of the real sets. Bit rates and noise make files as large as theirs:
# about 88 kB a video in Something-Something V2 (19.4 GB for 220,847), 310 kB in HMDB51 (2.1 GB for
# 6,766), which also has B-frames, so that no reader may seek in it. mp4 is as long as Kinetics'
# clips, 2 to 10 s, and encoded with x264's defaults (B-frames, their pyramid, a key frame every 250
# frames). Its 20 to 25 kB a second take as long to decode, 0.2 ms a frame, as the 426x240 clip of
# H.264 among decord's examples, whose 30 kB a second have no B-frames.
FOOTAGE = {
    "webm": Footage(
        ".webm",
        (240, 426),
        (30, 60),
        12,
        2.0,
        "libvpx-vp9",
        {"b": "150k", "deadline": "realtime", "cpu-used": "6", "g": "128"},
    ),
    "avi": Footage(
        ".avi", (240, 320), (70, 110), 30, 4.0, "mpeg4", {"b": "800k", "bf": "2", "g": "250"}
    ),
    "mp4": Footage(".mp4", (240, 426), (60, 300), 30, 3.0, "libx264", {}),
}


def generate(kind: Footage, number: int, folder: Path) -> Path:
    """Write the missing videos and `train.txt` to the folder; return the path of that list."""
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{i:05d}{kind.suffix}" for i in range(number)]
    missing = [i for i, name in enumerate(names) if not (folder / name).exists()]
    work = partial(_write, kind, folder)
    in_processes(work, missing, label=f"generate {kind.suffix}")
    listed = folder / "train.txt"
    listed.write_text("".join(f"{name} {i % 10}\n" for i, name in enumerate(names)))
    return listed


def _write(kind: Footage, folder: Path, number: int) -> None:
    """Encode one video."""
    rng = np.random.default_rng([number, *kind.size])
    frames = scene(
        rng, int(rng.integers(kind.frames[0], kind.frames[1] + 1)), kind.size, kind.noise
    )
    path = folder / f"{number:05d}{kind.suffix}"
    encode(path, frames, kind.rate, kind.codec, kind.options)


def scene(rng: np.random.Generator, count: int, size: tuple[int, int], noise: float) -> np.ndarray:
    """Frames (T, H, W, 3) uint8: a hand-held camera on a still scene through which a thing moves.

    The amplitude of scene and thing falls with frequency as f^-1.6, and there is some noise: as
    JPEGs of the same quality, the frames are then as large as those of real clips (HMDB51, others).
    """
    height, width = size
    margin, side = 40, 96
    still = _texture(rng, height + 2 * margin, width + 2 * margin)
    thing = _texture(rng, side, side)
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    cover = np.clip(side / 2 - 2 - np.hypot(y, x), 0, 1)[..., None].astype(np.float32)
    shake = np.cumsum(rng.normal(scale=1.5, size=(count, 2)), axis=0)
    shake = np.clip(shake - shake.mean(axis=0), 2 - margin, margin - 2) + margin
    start, end = rng.uniform(0, 1, (2, 2)) * (height - side, width - side)
    frames = np.empty((count, height, width, 3), np.uint8)
    for i in range(count):
        top, left = shake[i].astype(int)
        down, right = (shake[i] - (top, left)).astype(np.float32)
        part = still[top : top + height + 1, left : left + width + 1]
        part = part[:-1] * (1 - down) + part[1:] * down
        part = part[:, :-1] * (1 - right) + part[:, 1:] * right
        at = (start + (end - start) * i / max(count - 1, 1)).astype(int)
        place = (slice(at[0], at[0] + side), slice(at[1], at[1] + side))
        part[place] = part[place] * (1 - cover) + thing * cover
        part += rng.normal(scale=noise, size=(height, width, 1)).astype(np.float32)
        frames[i] = part.clip(0, 255)
    return frames


def _texture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Random picture (H, W, 3) float32, mostly of greys."""
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf

    def plane(slope: float) -> np.ndarray:
        noise = rng.normal(size=frequency.shape) + 1j * rng.normal(size=frequency.shape)
        values = np.fft.irfft2(noise / frequency**slope, s=(height, width))
        return values / values.std()

    grey = 128 + 50 * plane(1.6)
    return np.stack([grey + 18 * plane(2.0) for _ in range(3)], axis=-1).astype(np.float32)
