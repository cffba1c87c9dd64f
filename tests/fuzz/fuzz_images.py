"""Damaged images: each is refused, or is exactly what Pillow, called plainly, makes of it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import image_damage
import numpy as np
from fuzz_attempts import RIGHT, Defect, Job, Tally, judged, same
from fuzz_videos import MAX_PIXELS, SAVE, compare, slow_decode
from image_verdicts import verdict
from PIL import Image, ImageOps
from seed_images import READ, seed_images

from vidadapt.video import ReadError, open_counted, open_video

PER_JOB = 50
ENDINGS = ("jpg", "png", "webp", "tif", "bmp", "gif", "mp4", "txt", "heic", "")
KINDS = ("JPEG", "MPO", "PNG", "WEBP", "TIFF", "BMP")  # that are read, by Pillow's names
READ_KINDS = ("jpeg", "png", "webp", "tiff", "bmp")
REFUSED = "refused"
# A TIFF's tags where Pillow's 16-bit grey is not simply that.
BITS, PHOTOMETRIC = 258, 262


@dataclass(frozen=True)
class Case:
    """A damaged image.

    Attributes:
        seed, other: places of the whole image, and of one that a damage takes parts of.
        damages: name and number of each, in their order.
        ending: of its name, right or wrong.
    """

    seed: int
    other: int
    damages: tuple[tuple[str, int], ...]
    ending: str


def check_images(job: Job, scratch: Path, tally: Tally) -> None:
    """Judge `PER_JOB` images, and each once more in a process that has read none of them."""
    rng, found = job.rng(), {}
    for number in range(PER_JOB):
        case = drawn(rng)
        file = scratch / f"{number}.{case.ending}"
        file.write_bytes(made(case))
        try:
            outcome = judge(case, file)
            found[str(file)] = verdict(str(file))
        except Exception as error:
            outcome = type(error).__name__
            trace = "".join(traceback.format_exception(error)[-6:])
            tally.defects.append(f"{described(case, file, job, number)}\n{trace}")
        tally.outcomes[outcome] += 1
        for name in {name for name, _ in case.damages} or {"none"}:
            tally.parts["damage", name, outcome] += 1
        tally.parts["kind", seed_images()[case.seed].kind, outcome] += 1
    same(_in_a_process(list(found)), found, f"{job}: in another process")


def drawn(rng: np.random.Generator) -> Case:
    """A case: one damage or a few; none once in 16 times."""
    kinds = [seed.kind for seed in seed_images()]
    kind = str(rng.choice((*READ_KINDS, *READ_KINDS, *READ_KINDS, *dict.fromkeys(kinds))))
    mates = [place for place, other in enumerate(kinds) if other == kind]
    seed, other = (int(rng.choice(mates)) for _ in range(2))
    if rng.integers(2):
        other = int(rng.integers(len(kinds)))
    names = list(image_damage.DAMAGES)
    count = int(rng.choice([0, *[1] * 10, *[2] * 4, 3]))
    damages = tuple(
        (names[int(rng.integers(len(names)))], int(rng.integers(1 << 30))) for _ in range(count)
    )
    return Case(seed, other, damages, ENDINGS[int(rng.integers(len(ENDINGS)))])


def made(case: Case) -> bytes:
    """The damaged image. A damage for which it has nothing is taken from its bytes instead."""
    data, other = (seed_images()[place].data for place in (case.seed, case.other))
    for name, number in case.damages:
        rng = np.random.default_rng(number)
        changed = image_damage.DAMAGES[name](data, other, rng) if data else None
        data = image_damage.anything(data, other, rng) if changed is None else changed
    return data


def judge(case: Case, file: Path) -> str:
    """What became of an image.

    Raises:
        Defect: other pixels than the reference has, an error that is not the file's, an image of
            which a part is missing, or a whole one that is not read.
    """
    outcome, video = judged(lambda: open_video(file), (ReadError,), str(file))
    whole = seed_images()[case.seed]
    if not case.damages:
        end = REFUSED if video is None else READ if video.facts.reader == "image" else "video"
        # FFmpeg, which reads what is no image, goes by the name, too.
        if (end, whole.end) != (REFUSED, "video"):
            same(end, whole.end, f"{whole.kind}, {whole.name}, undamaged")
    if video is None:
        return outcome
    with video:
        frames = video.frames(range(len(video)))
    if video.facts.reader != "image":
        compare("as a video", slow_decode(file), range(len(frames)), frames)
        return "video"
    with open_counted(file, video.facts) as again:
        same(again.frames([0]).tobytes(), frames.tobytes(), "the pixels when read again")
        same(again.changed, "", "a file that nobody has changed")
    expected, why = reference(file.read_bytes())
    if expected is None:
        raise Defect(f"it is read, which is not right: {why}")
    if not np.array_equal(frames[0], expected):
        raise Defect(f"pixels differ: {_difference(frames[0], expected)}")
    if case.damages and {name for name, _ in case.damages} == {"truncated"}:
        entire, _ = reference(whole.data)
        if entire is None or not np.array_equal(entire, expected):
            raise Defect("a part of it is missing, and it is not refused")
    return RIGHT


def reference(data: bytes) -> tuple[np.ndarray | None, str]:
    """The picture as plainly as Pillow has it, upright, (H, W, 3); or None and why not."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data)) as image:
                if image.format not in KINDS:
                    return None, f"Pillow knows it as {image.format}"
                if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
                    return None, "several pictures"
                if image.width * image.height > MAX_PIXELS:
                    return None, "too many pixels"
                image.load()
                tags = dict(getattr(image, "tag_v2", {}))
                return _eight_bits(ImageOps.exif_transpose(image), tags)
    except Exception as error:
        return None, f"Pillow: {error!r}"


def _eight_bits(image: Image.Image, tags: dict[int, object]) -> tuple[np.ndarray | None, str]:
    if image.mode in ("F", "LAB", "HSV") or (image.mode == "I" and tags):
        return None, f"values of {image.mode}"
    if image.mode.startswith("I"):
        if tags.get(BITS, (16,)) != (16,) or tags.get(PHOTOMETRIC) == 0:
            return None, "grey of other than 16 bits, or with white at zero"
        if "transparency" in image.info:
            return None, "a transparent grey of 16 bits"
        grey = np.array([value // 256 for value in image.getdata()], np.uint8)
        return np.stack([grey.reshape(image.height, image.width)] * 3, -1), ""
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB")), ""


def _difference(found: np.ndarray, expected: np.ndarray) -> str:
    if found.shape != expected.shape:
        return f"{found.shape} where {expected.shape} is right"
    apart = np.abs(found.astype(int) - expected)
    return f"{(apart > 0).sum():,} of {apart.size:,} values, by {apart.max()} at most"


def _in_a_process(files: Sequence[str]) -> dict[str, object]:
    """See `image_verdicts`."""
    program = str(Path(__file__).with_name("image_verdicts.py"))
    done = subprocess.run(
        [sys.executable, program], input="\n".join(files), capture_output=True, text=True
    )
    if done.returncode:
        raise Defect(f"another process ended with {done.returncode}: {done.stderr[-2000:]}")
    return dict(json.loads(done.stdout))


def described(case: Case, file: Path, job: Job, number: int) -> str:
    """What a person does with a case that fails; its file is kept where `SAVE` names a folder."""
    seed = seed_images()[case.seed]
    lines = [
        f"image {number} of {job}: {seed.kind} {seed.name} as {file.name}, damages {case.damages}",
        f"again: python tests/fuzz/fuzz_run.py --only image --seed {job.seed} "
        f"--number {job.number} --save FOLDER",
    ]
    if folder := os.environ.get(SAVE):
        Path(folder).mkdir(parents=True, exist_ok=True)
        kept = Path(folder) / f"image_{job.seed}_{job.number}_{file.name}"
        kept.write_bytes(file.read_bytes())
        lines.append(f"kept: {kept}")
    return "\n".join(lines)
