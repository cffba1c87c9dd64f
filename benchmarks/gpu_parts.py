"""What `benchmarks.gpu` measures: its parts, in order of worth.

A part is a function that names its measurements; each of them returns the figures of a row. None is
taken before it is its turn.
"""

from __future__ import annotations

import sys
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL, TimeoutExpired, run
from typing import Any

import torch

from benchmarks import gpu_loaded
from benchmarks.step import free, is_want_of_memory, measured
from benchmarks.step_contenders import Size, batch, prepared, read_contender

ROOT = Path(__file__).parents[1]
SMALL: dict[str, Any] = {"num_frames": 2, "crop_size": 32, "batch_size": 2}  # of every trial

Row = dict[str, Any]
Measurements = Mapping[str, Callable[[], Row]]


@dataclass(frozen=True)
class Place:
    """Where and how long a part measures.

    Attributes:
        device: `cuda` or `cpu`.
        tiny: of small models and few steps, to try the script; the figures mean nothing.
        folder: for videos and runs, kept.
        deadline: of the part, by `time.monotonic`.
    """

    device: str
    tiny: bool
    folder: Path
    deadline: float

    def left(self) -> float:
        """Seconds until the deadline."""
        return self.deadline - time.monotonic()


@dataclass(frozen=True)
class Part:
    """A part of the benchmark.

    Attributes:
        title: of its section of the page.
        measurements: names them for a place.
        least: seconds that a GPU needs at least; with less time left the part is not begun. A
            guess.
        most: seconds after which it is ended, so that it does not take the time of all others.
    """

    title: str
    measurements: Callable[[Place], Measurements]
    least: float
    most: float


def device_tests(place: Place) -> Measurements:
    """The tests of the device: each method on each kind of backbone, and resumed runs."""
    where = ["tests/test_gpu.py", "tests/methods/test_on_devices.py"]
    marked = ["-m", "gpu", *(["-n", "4"] if find_spec("xdist") else [])]
    if place.device == "cpu":
        marked = ["-m", "not gpu and not slow", "-k", "cpu-linear"]
    return {"tests marked gpu": lambda: outcome([*where, *marked], place)}


def outcome(words: list[str], place: Place) -> Row:
    """Run pytest; a failed test, or none that passes, is a problem.

    Returns:
        How many passed, failed and were skipped, and the names of those that failed.
    """
    written = place.folder / "tests.xml"
    written.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", *words, f"--junitxml={written}"]
    try:
        done = run(command, cwd=ROOT, stdout=DEVNULL, check=False, timeout=place.left())
    except TimeoutExpired:
        return {"problem": f"tests were not through after {place.left():.0f} s"}
    if not written.exists():
        return {"problem": f"pytest ended with status {done.returncode}; is it installed?"}
    cases = [*ElementTree.parse(written).iter("testcase")]
    bad = [one for one in cases if {"failure", "error"} & {child.tag for child in one}]
    skipped = [one for one in cases if one.find("skipped") is not None]
    names = [f"{one.get('classname')}::{one.get('name')}" for one in bad]
    passed = len(cases) - len(bad) - len(skipped)
    problem = None if done.returncode == 0 and passed else f"failed: {', '.join(names) or 'all'}"
    found = {"passed": passed, "failed": len(bad), "skipped": len(skipped), "which": names}
    return {**found, "problem": problem}


def steps(place: Place) -> Measurements:
    """Training steps of ViT-B on 8 frames: methods, kernels of attention, torch.compile."""
    size = sized(place, "vit_base", "vit_tiny", num_frames=8, batch_size=64)
    specs = ["adaptformer", "losa", "full", "transformers-lora", "adaptformer+compile"]
    specs += ["adaptformer+flash", "adaptformer+plain", "linear", "full+compile"]
    return {spec: partial(step_row, place, size, spec) for spec in specs}


def vjepa(place: Place) -> Measurements:
    """Training steps of V-JEPA 2 on 16 frames of 256 pixels."""
    large = sized(place, "vjepa2_large", "vjepa2_tiny", num_frames=16, crop_size=256, batch_size=16)
    giant = large if place.tiny else replace(large, backbone="vjepa2_giant", batch_size=8)
    asked = {
        "V-JEPA 2 L": (large, ["adaptformer", "losa", "linear", "transformers-adaptformer"]),
        "V-JEPA 2 g": (giant, ["adaptformer", "losa", "linear"]),
    }
    return {
        f"{model} {spec}": partial(step_row, place, size, spec)
        for model, (size, specs) in asked.items()
        for spec in specs
    }


def large(place: Place) -> Measurements:
    """Models of 4 and 1 billion parameters on 8 frames: memory, time and the largest batch."""
    most = 4 if place.tiny else 128
    methods = ["losa", "adaptformer+block", "adaptformer", "full"]
    sizes = {
        "4 B": sized(place, "vit_e", "vit_tiny", num_frames=8, batch_size=8),
        "1 B": sized(place, "vit_giant", "vit_tiny", num_frames=8, batch_size=8),
    }
    return {
        f"{model} {spec}": partial(large_row, place, size, spec, most)
        for model, size in sizes.items()
        for spec in methods
    }


def frames(place: Place) -> Measurements:
    """AdaptFormer on ViT-B, L and H and 2 to 16 frames: what an epoch of the benchmark costs."""
    batches = {"vit_base": 64, "vit_large": 32, "vit_huge": 16}
    counts = (2, 4) if place.tiny else (2, 4, 8, 16)
    rows = {}
    for backbone, number in batches.items():
        for count in counts:
            size = sized(place, backbone, "vit_tiny", num_frames=count, batch_size=number)
            size = replace(size, num_frames=count)
            rows[f"{backbone}, {count} frames"] = partial(step_row, place, size, "adaptformer")
    return rows


def sized(place: Place, backbone: str, tiny: str, **shape: int) -> Size:
    """What contenders have in common; of a trial small, and compiled without a compiler."""
    device = torch.device(place.device)
    if place.tiny:
        return Size(tiny, **SMALL, num_classes=5, device=device, compiler="eager")
    sizes: dict[str, Any] = {"crop_size": 224, **shape}
    return Size(backbone, **sizes, num_classes=174, device=device)


def step_row(place: Place, size: Size, spec: str) -> Row:
    """The row of `benchmarks.step` of one contender in bf16, which has the device to itself."""
    rounds, steps = (1, 1) if place.tiny else (3, 10)
    contender = read_contender(spec, "bf16")
    [row] = measured([contender], size, rounds=rounds, steps=steps)[0]
    facts = {"backbone": size.backbone, "frames": size.num_frames, "batch": size.batch_size}
    return {**row, **facts}


def large_row(place: Place, size: Size, spec: str, most: int) -> Row:
    """`step_row`, and the largest batch that fits; it is looked for where `size`'s does not, too.

    Args:
        most: larger batches are not tried.
    """
    row = step_row(place, size, spec)
    free()
    step = prepared(read_contender(spec, "bf16"), size)

    def fits(number: int) -> bool:
        try:
            step.finish(step.loss(*batch(replace(size, batch_size=number))))
            if size.device.type == "cuda":
                torch.cuda.synchronize()
        except RuntimeError as error:
            if not is_want_of_memory(error):
                raise
            return False
        finally:
            step.model.zero_grad(set_to_none=True)
        return True

    def tried(number: int) -> bool:
        free()  # here, where no error holds what the last try made
        return fits(number)

    return {**row, "largest_batch": largest(tried, most), "largest_tried": most}


def largest(fits: Callable[[int], bool], most: int) -> int:
    """The largest number up to `most` that fits, found by doubling and bisection.

    Args:
        fits: of a number of 2 or more; what is larger than one that does not fit does not either.

    Returns:
        At most an eighth below the true one; 0: not even 2 fit.

    >>> [largest(lambda number: number <= true, 128) for true in (1, 2, 7, 11, 500)]
    [0, 2, 7, 11, 128]
    """
    if most < 2 or not fits(2):
        return 0
    low, high = 2, min(4, most)
    while low < high and fits(high):
        low, high = high, min(2 * high, most)
    while high - low > max(1, low // 8):
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


PARTS = {
    "tests": Part("Tests of the device", device_tests, least=20, most=150),
    "steps": Part("Training steps, ViT-B, 8 frames, bf16", steps, least=20, most=200),
    "large": Part("Models of 1 and 4 billion parameters, 8 frames, bf16", large, 40, most=180),
    "loader": Part(
        "Training from packed clips, ViT-B, 8 frames", gpu_loaded.loader, least=40, most=120
    ),
    "vjepa": Part("V-JEPA 2, 16 frames of 256 pixels, bf16", vjepa, least=20, most=120),
    "views": Part("Evaluation, 4 clips x 3 crops", gpu_loaded.views, least=40, most=90),
    "frames": Part("AdaptFormer by backbone and frames, bf16", frames, least=15, most=150),
}
