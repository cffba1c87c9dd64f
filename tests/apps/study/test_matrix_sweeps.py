"""The shipped sweeps: every variant is a training, of as many parameters as its formula gives."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from vidadapt import config, methods
from vidadapt.apps.study import benchmark
from vidadapt.apps.study.matrix import read_matrix
from vidadapt.config import Config, command_line, yaml_files

pytestmark = pytest.mark.slow  # whole commands

SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))

# The training configuration of SSv2 that a sweep is written for.
BASES = {
    "bottleneck": "adaptformer",
    "layers": "adaptformer",
    "scale": "adaptformer",
    "vpt_prompts": "vpt",
    "image_backbone": "adaptformer",
    "arc": "arc",
    "losa": "losa",
}
NOT_IN_THE_DEMO = {"image_backbone"}


@dataclass(frozen=True)
class Shape:
    """A backbone at 8 frames: layers, width, times, places, and classes of the data set."""

    L: int
    D: int
    t: int
    s: int
    K: int

    def readout(self) -> int:
        return 2 * self.D + self.D * self.K + self.K


SHAPES = {"ssv2": Shape(12, 768, 4, 196, 174), "demo": Shape(6, 192, 4, 16, 12)}


def adapters(bottleneck: int, layers: Callable[[int], int] = lambda depth: depth):
    return lambda g: layers(g.L) * (2 * g.D * bottleneck + bottleneck + g.D)


def half(depth: int) -> int:
    return depth // 2


def arc(rank: int, positions: int = 2, per_layer: bool = False):
    return lambda g: positions * ((g.L if per_layer else 1) * g.D * rank + g.L * rank + g.L * g.D)


def losa(channels: int = 32, times: int = 8, places: int = 16, layers=lambda depth: depth):
    def added(g: Shape) -> int:
        total = 2 * g.D * channels + channels + g.D if channels else 0
        for count, rank in ((g.t, times), (g.s, places)):
            total += (2 * count * rank + rank + (count if channels else 0)) if rank else 0
        return layers(g.L) * total

    return added


# What a variant adds to fc_norm and the head.
ADDED: dict[str, dict[str, Callable[[Shape], int]]] = {
    "bottleneck": {f"bottleneck_{n}": adapters(n) for n in (1, 4, 16, 32, 64, 256)},
    "layers": {
        "lower_half": adapters(64, half),
        "upper_half": adapters(64, half),
        "parallel": adapters(64),
        "sequential": adapters(64),
    },
    "scale": {f"scale_{s}": adapters(64) for s in ("0.01", "0.05", "0.1", "0.2", "1")},
    "vpt_prompts": {f"prompts_{n}": lambda g, n=n: g.L * n * g.D for n in (1, 2, 4, 8, 16, 32)},
    "arc": {
        **{f"rank_{rank}": arc(rank) for rank in (10, 25, 50, 100)},
        "attention": arc(50, positions=1),
        "per_layer": arc(50, per_layer=True),
        "per_layer_4": arc(4, per_layer=True),
        "per_layer_8": arc(8, per_layer=True),
    },
    "losa": {
        "all_mixers": losa(),
        "no_time": losa(times=0),
        "no_space": losa(places=0),
        "channels_only": losa(times=0, places=0),
        "no_channels": losa(channels=0),
        **{f"channel_rank_{rank}": losa(channels=rank) for rank in (8, 16, 64)},
        "upper_half": losa(layers=half),
        "every_second": losa(layers=half),
    },
    # 4 x 768 positions in time are trained where the first block trains something. A ViT of timm's
    # has a class token, 197 positions, biases for q, k and v, and a norm behind its last block.
    "image_backbone": {
        "full": lambda g: (
            g.L * (12 * g.D**2 + 13 * g.D) + (2 * 256 * 3 + 1 + 1 + 197 + 2 + g.t) * g.D
        ),
        "linear": lambda g: 0,
        "vpt": lambda g: g.L * g.D + g.t * g.D,
        "adaptformer": lambda g: adapters(64)(g) + g.t * g.D,
    },
}
CASES = [
    (base, sweep, variant)
    for base in SHAPES
    for sweep, variants in ADDED.items()
    if not (base == "demo" and sweep in NOT_IN_THE_DEMO)
    for variant in variants
]


def settings(base: str, sweep: str, variant: str) -> dict:
    file = ROOT / "configs" / ("demo.yaml" if base == "demo" else f"{base}/{BASES[sweep]}.yaml")
    read = read_matrix(file, ROOT / "configs" / "sweeps" / f"{sweep}.yaml")
    return read.cell(variant, 8, 0).settings


def parsed(base: str, sweep: str, variant: str, folder: Path) -> Config:
    file = folder / "config.yaml"
    file.write_text(yaml_files.as_yaml(settings(base, sweep, variant)), encoding="utf-8")
    words = ["--config", str(file), "--run_dir", "x", "--data.train_list", "train.txt"]
    return command_line.parse_train(words, methods.METHODS)[0]


def test_every_sweep_and_variant_is_among_the_cases():
    files = {path.stem: read_matrix(ROOT / "configs/demo.yaml", path) for path in SWEEPS}
    assert {name: set(read.variants) for name, read in files.items()} == {
        name: set(variants) for name, variants in ADDED.items()
    }


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_the_number_in_a_name_is_an_override(path):
    variants = read_matrix(ROOT / "configs/demo.yaml", path).variants
    for name, overrides in variants.items():
        number = name.rpartition("_")[2]
        if number[0].isdigit():
            assert float(number) in overrides.values(), name
    assert len({str(overrides) for overrides in variants.values()}) == len(variants)


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_says_what_it_is_and_how_to_run_it(path):
    header = path.read_text(encoding="utf-8").partition("\nvariants:")[0]
    assert all(line.startswith("#") for line in header.splitlines())
    assert "arXiv" in header
    assert f"--sweep sweeps/{path.stem} " in header


@pytest.mark.parametrize(("base", "sweep", "variant"), CASES)
def test_a_variant_is_a_training_of_as_many_parameters_as_the_formula(
    base, sweep, variant, tmp_path
):
    cfg = parsed(base, sweep, variant, tmp_path)
    config.check(cfg, 2)
    shape = SHAPES[base]
    setting = benchmark.Setting(
        backbone=cfg.model.backbone,
        num_frames=8,
        crop_size=cfg.data.crop_size,
        num_classes=shape.K,
        from_image=cfg.model.from_image,
        head=cfg.model.head,
    )
    with torch.device("meta"):
        model = benchmark.adapted_random_model(setting, cfg.method)
    expected = ADDED[sweep][variant](shape) + shape.readout()
    assert methods.count_parameters(model)[0] == expected


@pytest.mark.parametrize("base", SHAPES)
def test_the_header_of_arc_gives_these_counts(base):
    text = (ROOT / "configs" / "sweeps" / "arc.yaml").read_text(encoding="utf-8")
    column = list(SHAPES).index(base) + 1
    rows = [line.strip("# ").split() for line in text.splitlines() if line.startswith("#   ")]
    said = {row[0]: row[column] for row in rows if row and row[0] in ADDED["arc"]}
    assert said == {name: f"{added(SHAPES[base]):,}" for name, added in ADDED["arc"].items()}


def test_flops_of_token_mixers_without_channels_are_their_products(tmp_path):
    g = SHAPES["demo"]
    cfg = parsed("demo", "losa", "no_channels", tmp_path)
    setting = benchmark.Setting(backbone="vit_tiny", num_frames=8, crop_size=64, num_classes=g.K)
    linear = benchmark.count(setting, {"name": "linear"})
    found = benchmark.count(setting, cfg.method)
    products = sum(2 * 2 * rank * g.t * g.s * g.D for rank in (8, 16))
    assert found.forward_flops_per_clip - linear.forward_flops_per_clip == g.L * products


@pytest.mark.parametrize(
    ("sweep", "variant"),
    [
        ("layers", "upper_half"),
        ("layers", "sequential"),
        ("vpt_prompts", "prompts_32"),
        ("arc", "per_layer_8"),
        ("losa", "no_channels"),
        ("losa", "channels_only"),
    ],
)
def test_a_variant_trains_and_evaluates(sweep, variant, tiny_set, tmp_path, run_tool):
    file, run = tmp_path / "config.yaml", tmp_path / "run"
    given = settings("demo", sweep, variant)
    file.write_text(yaml_files.as_yaml(given), encoding="utf-8")
    own = ("--config", file, "--run_dir", run)
    run_tool("train", *own, *tiny_set.options(train__epochs=1, train__base_lr=0.1))
    run_tool("evaluate", "--run_dir", run, "--out", tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text(encoding="utf-8"))
    assert metrics["num_videos"] == 7
    saved = yaml_files.load(run / "config.yaml")["method"]
    assert saved == methods.default_options(saved["name"]) | given["method"]
