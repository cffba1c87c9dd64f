"""Weights shared out over the processes: the same training as without."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import on_two_processes
import pytest
import torch
from conftest import ALONE, TinySet, launch, load_tool, run_program
from safetensors.torch import load_file
from test_resuming import assert_same_run, interrupted, resumed
from test_training import log_of, trainer_of

from vidadapt.config import CacheConfig, Config, ConfigError, DataConfig, TrainConfig, check
from vidadapt.data.skips import SKIPPED, read_skips

pytestmark = pytest.mark.slow  # whole runs in processes of their own

FULL: dict[str, object] = {
    "method__name": "full",
    "model__head": "linear",
    "model__drop_path": 0.2,
    "train__optimizer": "adamw",
    "train__base_lr": 0.05,
    "train__weight_decay": 0.05,
    "train__layer_decay": 0.75,
    "train__clip_grad": 1.0,
    "train__ema": 0.9,
    "train__mixup": 0.8,
    "train__batch_size": 2,
}
SGD: dict[str, object] = {
    "method__name": "full",
    "model__head": "linear",
    "train__base_lr": 0.05,
    "train__batch_size": 2,
}
FROZEN: dict[str, object] = {"train__batch_size": 3, "train__base_lr": 0.5}
RECIPES: dict[str, dict[str, object]] = {
    "full": FULL | {"train__accumulation": 2, "data__repeated_augmentation": 4},
    "full_recomputed": FULL | {"train__recompute": "block"},
    "full_sgd": SGD | {"train__accumulation": 2, "data__repeated_augmentation": 4},
    "full_batchnorm": SGD | {"model__head": "batchnorm_linear", "train__batch_size": 3},
    "full_bf16": SGD | {"train__precision": "bf16", "train__recompute": "block"},
    "full_fp16": SGD | {"train__precision": "fp16"},
    "full_skipping": SGD | {"train__batch_size": 1, "data__max_skipped": 1},
    **{name: FROZEN | {"method__name": name} for name in ("arc", "losa", "vpt")},
    "adaptformer_divided": FROZEN
    | {"model__backbone": "timesformer_tiny", "model__weights": "random"},
    "lora_recomputed": FROZEN | {"method__name": "lora", "train__recompute": "mlp"},
    "adaptformer_bf16": FROZEN | {"train__precision": "bf16"},
    "adaptformer_skipping": FROZEN
    | {"model__head": "linear", "train__batch_size": 1, "data__max_skipped": 1},
}


@pytest.fixture(scope="module")
def broken(tiny_set: TinySet, tmp_path_factory) -> Path:
    """The set's videos, of which one breaks after its frames were counted."""
    root = tmp_path_factory.mktemp("broken") / "videos"
    shutil.copytree(tiny_set.root, root)
    options = tiny_set.options(data__root=root, train__epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["train.py", *options, "--run_dir", str(root.parent / "run")])
        load_tool("train").main(ALONE)
    video = root / "train 3 [x]#.mp4"
    facts = video.stat()
    video.write_bytes(bytes(facts.st_size))
    os.utime(video, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    return root


@pytest.fixture(scope="module")
def trained(tiny_set: TinySet, broken: Path, tmp_path_factory) -> Path:
    """A folder with the run of every recipe, NAME and NAME_sharded, by two processes."""
    out = tmp_path_factory.mktemp("sharded")
    runs = [
        [
            *tiny_set.options(**recipe),
            *("--run_dir", str(out / (name + "_sharded" * sharded))),
            *(["--train.shard", "true"] * sharded),
            *(["--data.root", str(broken)] * name.endswith("_skipping")),
        ]
        for name, recipe in RECIPES.items()
        for sharded in (False, True)
    ]
    run_program(on_two_processes.__file__, json.dumps(runs), out / "kept.json")
    return out


@pytest.mark.parametrize("name", RECIPES)
def test_losses_and_weights_are_those_without_sharding(trained, tiny_set, name):
    """Frozen weights that are gathered are the same bits; sums of gradients round differently."""
    plain, sharded = trained / name, trained / f"{name}_sharded"
    losses, others = losses_of(plain), losses_of(sharded)
    tensors, its = (load_file(run / "last/adapter.safetensors") for run in (plain, sharded))
    assert len(losses) >= 2
    assert its.keys() == tensors.keys()
    if not name.startswith("full"):
        assert others == losses
        assert all(torch.equal(its[key], tensors[key]) for key in tensors)
        return
    in_half = name.endswith(("bf16", "fp16"))
    np.testing.assert_allclose(others, losses, rtol=0, atol=2e-3 if in_half else 1e-5)
    start = load_file(tiny_set.weights)
    keys = start.keys() & tensors.keys()
    moved = math.dist(*(flat(of, keys) for of in (tensors, start)))
    assert moved > 0
    apart = math.dist(*(flat(of, keys) for of in (its, tensors)))
    assert apart < (0.1 if in_half else 0.01) * moved
    if not in_half:
        assert log_of(sharded)[-1]["dev_top1"] == log_of(plain)[-1]["dev_top1"]


def losses_of(run: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run / "steps.jsonl").open()]


def flat(tensors: dict[str, torch.Tensor], keys: set[str]) -> list[float]:
    return torch.cat([tensors[key].double().flatten() for key in sorted(keys)]).tolist()


def test_clips_were_skipped_by_a_process_that_had_no_other(trained):
    for name in ("full_skipping", "adaptformer_skipping"):
        assert len(read_skips(trained / f"{name}_sharded" / SKIPPED)) == 2  # epochs


def test_each_process_keeps_its_part_alone(trained):
    """Of full fine-tuning half of everything; with adapters half of what is frozen."""
    kept = json.loads((trained / "kept.json").read_text())
    for name, kind in {"full": "trained", "adaptformer": "frozen"}.items():
        whole = kept[name][0]["whole"][kind]
        parts = [of_one["kept"][kind] for of_one in kept[name]]
        assert sum(parts) == whole
        assert max(parts) < 0.55 * whole
    for of_one in kept["adaptformer"]:
        assert of_one["kept"]["trained"] == of_one["whole"]["trained"] > 0


def test_one_process_evaluates_what_two_trained_in_parts(trained, tmp_path):
    launch("evaluate", "--run_dir", trained / "full_sharded", "--checkpoint", "last",
           "--out", tmp_path / "scores")  # fmt: skip
    assert json.loads((tmp_path / "scores/metrics.json").read_text())["num_videos"] == 7


@pytest.fixture(scope="module")
def options(tiny_set) -> list[str]:
    recipe = RECIPES["full"] | {"train__checkpoint_steps": 1}
    return [*tiny_set.options(**recipe), "--train.shard", "true"]


def test_a_stopped_run_goes_on_as_if_it_had_not_been(trained, options, tmp_path):
    """With the same bits on as many processes; on one, with what they keep put together."""
    run = tmp_path / "run"
    status, said = interrupted(options, run, signal.SIGTERM, processes=2)
    assert status != 0, said
    alone = tmp_path / "alone"
    shutil.copytree(run, alone)
    resumed(options, run, processes=2)
    assert_same_run(run, trained / "full_sharded")
    assert "1 processes after 2" in resumed(options, alone)
    one, two = trainer_of(alone), trainer_of(run)
    for part in ("trained", "average"):
        for name, tensor in one[part].items():
            torch.testing.assert_close(tensor, two[part][name], rtol=0.05, atol=2e-3)
    assert one["optimizer"]["state"].keys() == two["optimizer"]["state"].keys()


@pytest.mark.parametrize(
    ("other", "config"),
    [
        ("train.compile", Config("runs/x", train=TrainConfig(shard=True, compile=True))),
        (
            "cache.dir",
            Config("runs/x", train=TrainConfig(shard=True), cache=CacheConfig(dir="features")),
        ),
    ],
)
def test_what_sharding_does_not_work_with_is_refused(other, config):
    config = Config(**{**vars(config), "data": DataConfig(train_list="train.txt")})
    with pytest.raises(ConfigError, match=rf"train\.shard: does not work with {other}"):
        check(config, 2)
