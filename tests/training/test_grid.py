"""A grid of runs that train side by side, against each of them trained alone."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import launch
from safetensors.torch import load_file

from vidadapt.data import skips
from vidadapt.distributed import Stopped
from vidadapt.evaluation import load_scores
from vidadapt.models import NonFinite
from vidadapt.training import side_by_side
from vidadapt.training.steps import DivergedElsewhere, Step, Told
from vidadapt.video import ReadError

# Method and head -> what the command line says beyond `TinySet.options`.
RECIPES = {
    "linear": ("--method.name", "linear", "--model.head", "batchnorm_linear"),
    "attentive": ("--method.name", "linear", "--model.head", "attentive"),
    "vjepa_probe": (
        *("--method.name", "linear", "--model.head", "vjepa_attentive", "--model.head_depth", "2"),
        *("--model.backbone", "vjepa2_tiny", "--model.weights", "random"),
        *("--data.sampling", "vjepa2_ssv2", "--data.num_frames", "8", "--data.stride", "1"),
    ),
    "losa": ("--method.name", "losa", "--model.head", "linear", "--method.dropout", "0.2"),
    "upper": ("--method.layers", "5-6", "--model.head", "linear", "--method.dropout", "0.2"),
}
AUGMENTED = (
    *("--data.train_crop", "random_resized", "--data.flip", "true", "--data.random_erasing", "0.5"),
)
# What else a recipe may have; each with a method that it means something for.
MORE = {
    "linear": ("--train.accumulation", "2", "--train.batch_size", "2", "--train.clip_grad", "1"),
    "attentive": ("--train.optimizer", "adamw", "--train.ema", "0.9"),
    "vjepa_probe": ("--train.optimizer", "adamw"),
    "losa": ("--train.mixup", "0.8", "--train.precision", "bf16"),
    "upper": ("--train.layer_decay", "0.8", "--train.checkpoint_steps", "1"),
}
RATES, DECAYS = (0.01, 1.0), (0.0, 0.05)
GRID = ("--grid.base_lr", "[0.01,1]", "--grid.weight_decay", "[0,0.05]")
NAMES = [f"lr{rate:g}_wd{decay:g}" for rate in RATES for decay in DECAYS]


def lines_of(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def grid_of(root: Path) -> dict[str, Any]:
    return json.loads((root / "grid.json").read_text(encoding="utf-8"))


def assert_same_run(one: Path, other: Path) -> None:
    """The same weights bit by bit, and the same figures but for times and places."""
    for kept in ("last", "best"):
        first, second = (load_file(run / kept / "adapter.safetensors") for run in (one, other))
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            assert torch.equal(tensor, second[name]), name
        about = [(run / kept / "adapter.json").read_text() for run in (one, other)]
        assert about[0] == about[1]
    assert lines_of(one / "steps.jsonl") == lines_of(other / "steps.jsonl")
    times = {"clips_per_second", "loader_wait_share", "train_seconds", "validate_seconds"}
    logs = [
        [{k: v for k, v in line.items() if k not in times} for line in lines_of(run / "log.jsonl")]
        for run in (one, other)
    ]
    assert logs[0] == logs[1]
    config, its = ((run / "config.yaml").read_text().splitlines() for run in (one, other))
    assert [a for a, b in zip(config, its, strict=True) if a != b] in ([], [f"run_dir: {one}"])


def train_alone(run_tool: Callable[..., None], options: list[str], name: str, folder: Path) -> Path:
    rate, decay = name.removeprefix("lr").split("_wd")
    own = ("--train.base_lr", rate, "--train.weight_decay", decay)
    run_tool("train", *options, *own, "--run_dir", folder / name)
    return folder / name


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_run_is_that_trained_alone(tiny_set, run_tool, tmp_path, recipe):
    options = [*tiny_set.options(), *RECIPES[recipe], *AUGMENTED, *MORE[recipe]]
    run_tool("train", *options, *GRID, "--run_dir", tmp_path / "grid")
    for name in NAMES:
        alone = train_alone(run_tool, options, name, tmp_path)
        assert_same_run(tmp_path / "grid" / name, alone)
        assert (alone / "summary.json").exists() and (alone / "report.html").exists()
    # They differ from each other, and the best is chosen by the development list.
    assert len({json.dumps(lines_of(tmp_path / name / "steps.jsonl")) for name in NAMES}) > 1
    found = grid_of(tmp_path / "grid")
    top1 = {one["run"]: one["dev_top1"] for one in found["runs"]}
    assert list(top1) == NAMES
    assert found["best"] == max(NAMES, key=lambda name: top1[name])
    for name in NAMES:
        best = json.loads((tmp_path / "grid" / name / "summary.json").read_text())["best"]
        assert top1[name] == best["dev_top1"]
    run_tool("evaluate", "--run_dir", tmp_path / "grid" / found["best"])


@pytest.mark.parametrize("recipe", ["attentive", "losa", "vjepa_probe"])
def test_features_of_a_cache_serve_a_grid(tiny_set, run_tool, tmp_path, recipe):
    cache = ("--cache.dir", tmp_path / "cache")
    options = [*tiny_set.options(), *RECIPES[recipe], *map(str, cache)]
    run_tool("train", *options, *GRID, "--run_dir", tmp_path / "grid")
    for name in NAMES[1:3]:
        assert_same_run(tmp_path / "grid" / name, train_alone(run_tool, options, name, tmp_path))


def test_no_video_of_the_test_list_changes_the_choice_of_a_rate(tiny_set, run_tool, tmp_path):
    """They show something else in the second run, which is the same bit by bit."""
    videos = tmp_path / "videos"
    shutil.copytree(tiny_set.root, videos)
    options = [*tiny_set.options(data__root=videos), *RECIPES["linear"], *GRID]
    files = {
        split: [
            videos / line.rsplit(" ", 1)[0]
            for line in tiny_set.lists[split].read_text(encoding="utf-8").splitlines()
        ]
        for split in ("train", "test")
    }
    logits = []
    for root in (tmp_path / "first", tmp_path / "second"):
        run_tool("train", *options, "--run_dir", root)
        out = tmp_path / f"{root.name}_eval"
        run_tool("evaluate", "--run_dir", root / NAMES[0], "--out", out)
        logits.append(load_scores(out / "scores.npz")[0].logits)
        for file in files["test"]:
            shutil.copyfile(files["train"][0], file)
    assert grid_of(tmp_path / "first") == grid_of(tmp_path / "second")
    for name in NAMES:
        assert_same_run(tmp_path / "first" / name, tmp_path / "second" / name)
    assert (logits[0] != logits[1]).any()  # an evaluation does read them


def test_one_that_stops_early_does_not_stop_the_others(tiny_set, run_tool, tmp_path):
    changes = {"train__epochs": 5, "train__early_stopping_patience": 1}
    options = [*tiny_set.options(**changes), *RECIPES["linear"]]
    grid = ("--grid.base_lr", "[0,1,300]")
    run_tool("train", *options, *grid, "--run_dir", tmp_path / "grid")
    ended = []
    for name in ("lr0_wd0", "lr1_wd0", "lr300_wd0"):
        alone = train_alone(run_tool, options, name, tmp_path)
        assert_same_run(tmp_path / "grid" / name, alone)
        ended.append(len(lines_of(alone / "log.jsonl")))
    assert len(set(ended)) > 1


# --- a run that diverges, a kill ----------------------------------------------------------------


def test_one_that_diverges_ends_alone(tiny_set, run_tool, tmp_path):
    options = [*tiny_set.options(), *RECIPES["losa"]]
    grid = ("--grid.base_lr", "[1,1e30]")
    run_tool("train", *options, *grid, "--run_dir", tmp_path / "grid")
    assert_same_run(
        tmp_path / "grid" / "lr1_wd0", train_alone(run_tool, options, "lr1_wd0", tmp_path)
    )
    found = grid_of(tmp_path / "grid")
    assert found["best"] == "lr1_wd0"
    diverged = next(one for one in found["runs"] if one["run"] == "lr1e+30_wd0")
    assert "step" in diverged["diverged"]
    failure = json.loads((tmp_path / "grid" / "lr1e+30_wd0" / "failure.json").read_text())
    assert failure["kind"] == "diverged" and failure["step"] is not None
    # It would diverge again, and is not trained again.
    run_tool("train", *options, *grid, "--run_dir", tmp_path / "grid", "--resume")
    assert grid_of(tmp_path / "grid")["runs"][1]["diverged"] == diverged["diverged"]


def test_one_that_has_diverged_is_not_trained_again_after_a_kill(
    tiny_set, run_tool, tmp_path, monkeypatch
):
    """The first of the grid, whose frozen half computes the features of all."""
    options = [*tiny_set.options(), *RECIPES["upper"], *AUGMENTED]
    grid = ("--grid.base_lr", "[1e30,1]", "--run_dir", tmp_path / "grid")

    def killed(*about: Any, **more: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(side_by_side, "close_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            run_tool("train", *options, *grid)
    run_tool("train", *options, *grid, "--resume")
    alone = train_alone(run_tool, options, "lr1_wd0", tmp_path)
    assert_same_run(tmp_path / "grid" / "lr1_wd0", alone)
    assert grid_of(tmp_path / "grid")["runs"][0]["diverged"]
    assert not (tmp_path / "grid" / "lr1e+30_wd0" / "last").exists()


def test_a_grid_that_diverges_as_a_whole_fails(tiny_set, run_tool, tmp_path):
    options = [*tiny_set.options(), *RECIPES["losa"], "--grid.base_lr", "[1e30,1e35]"]
    with pytest.raises(NonFinite):
        run_tool("train", *options, "--run_dir", tmp_path / "grid")
    assert grid_of(tmp_path / "grid")["best"] is None
    assert json.loads((tmp_path / "grid" / "failure.json").read_text())["kind"] == "diverged"


@pytest.fixture(scope="module")
def whole(tiny_set, tmp_path_factory) -> Path:
    """A grid that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "grid"
    launch("train", *resumed_options(tiny_set), *GRID, "--run_dir", folder)
    return folder


def resumed_options(tiny_set: Any) -> list[str]:
    options = tiny_set.options(train__epochs=3)
    return [*options, *RECIPES["losa"], *AUGMENTED, "--train.precision", "fp32"]


@pytest.mark.parametrize("call", [1, 6, 17])  # of 4 runs x 3 steps x 3 epochs
def test_a_grid_that_was_stopped_by_a_signal_goes_on(
    tiny_set, run_tool, tmp_path, monkeypatch, whole, call
):
    """The signal comes between two members, which end at different steps."""
    options = [*resumed_options(tiny_set), *GRID, "--run_dir", tmp_path / "grid"]
    honest, calls = side_by_side.take_step, iter(range(1, 1000))

    def stopping(*about: Any) -> torch.Tensor:
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return honest(*about)

    with monkeypatch.context() as patched:
        patched.setattr(side_by_side, "take_step", stopping)
        with pytest.raises(Stopped):
            run_tool("train", *options)
    run_tool("train", *options, "--resume")
    for name in NAMES:
        assert_same_run(tmp_path / "grid" / name, whole / name)


@pytest.mark.parametrize("call", [1, 3, 6])  # of 4 runs x 3 epochs
def test_a_grid_that_was_killed_between_two_checkpoints_goes_on(
    tiny_set, run_tool, tmp_path, monkeypatch, whole, call
):
    options = [*resumed_options(tiny_set), *GRID, "--run_dir", tmp_path / "grid"]
    honest, calls = side_by_side.close_epoch, iter(range(1, 1000))

    def killed(*about: Any, **more: Any) -> Any:
        if next(calls) == call:
            raise KeyboardInterrupt
        return honest(*about, **more)

    with monkeypatch.context() as patched:
        patched.setattr(side_by_side, "close_epoch", killed)
        with pytest.raises(KeyboardInterrupt):
            run_tool("train", *options)
    run_tool("train", *options, "--resume")
    for name in NAMES:
        assert_same_run(tmp_path / "grid" / name, whole / name)


def test_a_value_may_be_added_and_a_run_may_go_on_alone(tiny_set, run_tool, tmp_path, whole):
    options, root = resumed_options(tiny_set), tmp_path / "grid"
    few = ("--grid.base_lr", "[0.01]", "--grid.weight_decay", "[0,0.05]", "--run_dir", root)
    run_tool("train", *options, *few)
    run_tool("train", *options, *GRID, "--run_dir", root, "--resume")
    for name in NAMES:
        assert_same_run(root / name, whole / name)
    own = ("--train.base_lr", "1", "--train.weight_decay", "0.05")
    run_tool("train", *options, *own, "--run_dir", root / NAMES[3], "--resume")
    assert_same_run(root / NAMES[3], whole / NAMES[3])


def test_skipped_clips_are_listed_in_every_run(tiny_set, run_tool, tmp_path):
    """A video that breaks after it was counted."""
    root = tmp_path / "videos"
    shutil.copytree(tiny_set.root, root)
    changes = {"data__root": root, "data__train_list": root / "train.txt", "train__epochs": 1}
    options = [*tiny_set.options(**changes), *RECIPES["linear"], "--data.max_skipped", "4"]
    run_tool("train", *options, "--run_dir", tmp_path / "counted")
    broken = root / "train 7 [x]#.mp4"
    facts = broken.stat()
    broken.write_bytes(bytes(facts.st_size))
    os.utime(broken, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    run_tool("train", *options, *GRID, "--run_dir", tmp_path / "grid")
    for name in NAMES:
        run = tmp_path / "grid" / name
        [skip] = skips.read_skips(run / "skipped.jsonl")
        assert skip.path == broken.name
        assert json.loads((run / "summary.json").read_text())["skipped"] == 1
    with pytest.raises(ReadError):
        strict = ("--data.max_skipped", "0")
        run_tool("train", *options, *strict, *GRID, "--run_dir", tmp_path / "strict")


# --- two processes ------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["linear", "upper"])
def test_two_processes_train_a_grid_as_they_train_each_run(tiny_set, tmp_path, recipe):
    changes = {"train__batch_size": 2, "train__sync_batchnorm": recipe == "linear" or None}
    changes = {key: str(value).lower() for key, value in changes.items() if value is not None}
    options = [*tiny_set.options(**changes), *RECIPES[recipe], *AUGMENTED]
    grid = ("--grid.base_lr", "[1,1e38]", "--grid.weight_decay", "[0.05]")
    launch("train", *options, *grid, "--run_dir", tmp_path / "grid", processes=2)
    own = ("--train.base_lr", "1", "--train.weight_decay", "0.05")
    launch("train", *options, *own, "--run_dir", tmp_path / "alone", processes=2)
    assert_same_run(tmp_path / "grid" / "lr1_wd0.05", tmp_path / "alone")
    [_, diverged] = grid_of(tmp_path / "grid")["runs"]
    assert diverged["diverged"]
    failure = json.loads((tmp_path / "grid" / "lr1e+38_wd0.05" / "failure.json").read_text())
    assert failure["kind"] == "diverged"


def test_a_process_hears_in_the_same_step_that_the_loss_of_another_diverged():
    """Its own loss is finite; a run of its own is then left by all processes together."""
    figures = torch.tensor([0.5, 1.0, 2.0, 1.0, 0.0, 0.0, 0.0])  # loss, hits, share, diverged, told
    with pytest.raises(DivergedElsewhere, match="step 7"):
        Step.taken(7, 0.1, ["a.mp4"], figures).heard()
    figures[3] = 0
    assert Step.taken(7, 0.1, ["a.mp4"], figures).heard() == Told()


# --- what cannot work is said before anything is trained ----------------------------------------


@pytest.mark.parametrize(
    ("changes", "grid", "named"),
    [
        ({}, "[0.1]", r"--grid.*method\.name adaptformer trains .*linear.*losa"),
        ({"method__name": "full"}, "[0.1]", r"--grid.*method\.name full trains patch_embed"),
        ({"method__name": "bitfit"}, "[0.1]", r"--grid.*method\.name bitfit"),
        ({"data__dev_list": None}, "[0.1]", r"data\.dev_list"),
        ({"train__compile": "true"}, "[0.1]", r"train\.compile.*--grid"),
        ({"train__shard": "true"}, "[0.1]", r"train\.shard.*--grid"),
        ({}, "[0.1,0.1]", r"--grid\.base_lr"),
        ({}, "[]", r"--grid\.base_lr"),
        ({}, "[-1]", r"train\.base_lr"),
        ({}, "lots", r"grid\.base_lr"),
        ({"profile": 3}, "[0.1]", r"--profile"),
    ],
    ids=str,
)
def test_what_a_grid_cannot_do_is_refused(tiny_set, run_tool, tmp_path, changes, grid, named):
    options = [*tiny_set.options(**changes), "--grid.base_lr", grid]
    with pytest.raises(ValueError, match=rf"(?s){named}"):
        run_tool("train", *options, "--run_dir", tmp_path / "grid")
    assert not list((tmp_path / "grid").rglob("adapter.json"))


def test_a_grid_and_a_run_do_not_share_a_folder(tiny_set, run_tool, tmp_path):
    options = [*tiny_set.options(train__epochs=1), *RECIPES["linear"]]
    run_tool("train", *options, "--run_dir", tmp_path / "run")
    run_tool("train", *options, *GRID, "--run_dir", tmp_path / "grid")
    for words in (
        (*GRID, "--run_dir", tmp_path / "run"),
        (*GRID, "--run_dir", tmp_path / "run", "--resume"),
        (*GRID, "--run_dir", tmp_path / "grid"),
        ("--run_dir", tmp_path / "grid"),
        ("--run_dir", tmp_path / "grid", "--resume"),
    ):
        with pytest.raises(ValueError, match="run_dir"):
            run_tool("train", *options, *words)
