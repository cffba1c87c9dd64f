"""Runs that an older version began go on, and checkpoints of other runs are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from test_training import assert_same_state, log_of, trainer_of

from vidadapt import config, methods
from vidadapt.config import SECTIONS, ConfigError
from vidadapt.files import checksum, write_json
from vidadapt.runs import RunError, adapters, checkpoints
from vidadapt.training.state import Progress, StepRecord


@pytest.fixture(scope="module")
def options(tiny_set) -> list[str]:
    return tiny_set.options(
        train__ema=0.9, model__head="linear", train__checkpoint_steps=1, train__keep_checkpoints=20
    )


@pytest.fixture(scope="module")
def whole(options, tmp_path_factory) -> Path:
    """A run with a checkpoint of each of its 2 x 3 steps."""
    run = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        run_here(patch, options, run)
    return run


def run_here(patch: pytest.MonkeyPatch, options: list[str], run: Path, *more: str) -> None:
    from conftest import ALONE, load_tool

    patch.setattr("sys.argv", ["tools/train.py", *options, "--run_dir", str(run), *more])
    load_tool("train").main(ALONE)


def stopped_after(whole: Path, steps: int, run: Path) -> Path:
    """A copy of a run as it was after so many steps; its newest checkpoint."""
    shutil.copytree(whole, run)
    (run / "summary.json").unlink()
    for folder in sorted(run.glob("last*")):
        if checkpoints.load_trainer(folder)["progress"]["steps"] > steps:
            shutil.rmtree(folder)
    found = checkpoints.find_checkpoint(run / "last", to_resume=True)
    assert found is not None
    assert checkpoints.load_trainer(found)["progress"]["steps"] == steps
    return found


def rewrite(folder: Path, state: dict[str, Any], about: dict[str, Any]) -> None:
    """Put another content into a checkpoint, with its checksums."""
    torch.save(state, folder / checkpoints.TRAINER)
    write_json(folder / checkpoints.DESCRIPTION, about)
    names = (checkpoints.TENSORS, checkpoints.DESCRIPTION, checkpoints.TRAINER)
    sums = {name: checksum(folder / name) for name in names}
    write_json(folder / checkpoints.CHECKSUMS, sums)


def steps_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]


def known_to_older(run: Path) -> list[Any]:
    """What a run has left, but for the figures that older versions did not have."""
    state = trainer_of(run)
    lines = [*log_of(run), *steps_of(run), state["progress"]["latest"]]
    for line in lines:
        line.pop("top1", None)
        line.pop("train_top1", None)
    tensors = [checkpoints.load_checkpoint(run / name)[0] for name in ("last", "best")]
    return [lines, state, tensors]


def without_defaults(values: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value != defaults.get(key, ...)}


@pytest.mark.parametrize("steps", [2, 3, 4])
def test_a_run_of_a_version_that_knew_less_goes_on(
    options, whole, tmp_path, monkeypatch, capsys, steps
):
    """In its files no key that has its default, and lists in the place of records."""
    run = tmp_path / "run"
    last = stopped_after(whole, steps, run)
    state = checkpoints.load_trainer(last)
    records = state["progress"].pop("records")
    assert len(records) == steps % 3
    for key, column in {"loss": "losses", "lr": "lrs"}.items():
        state["progress"][column] = [record[key] for record in records]
    del state["facts"]["settings"]
    _, about = checkpoints.load_checkpoint(last)
    for key, of in {"model": "model", "evaluation": "eval"}.items():
        about[key] = without_defaults(about[key], vars(SECTIONS[of]()))
    about["method"] = {"name": about["method"]["name"]}
    as_now = adapters.read_adapter(last).config
    rewrite(last, state, about)
    as_older = adapters.read_adapter(last).config
    assert (as_older.model, as_older.eval) == (as_now.model, as_now.eval)
    adapters.load_adapter(last)
    written = yaml.safe_load((run / "config.yaml").read_text())
    older = {key: without_defaults(written[key], vars(of())) for key, of in SECTIONS.items()}
    assert "accumulation" not in older["train"] and "epochs" in older["train"]
    older |= {"run_dir": str(run), "method": {"name": written["method"]["name"]}}
    (run / "config.yaml").write_text(yaml.safe_dump(older))

    run_here(monkeypatch, options, run, "--resume")
    assert "older version" in capsys.readouterr().out
    assert_same_state(known_to_older(run), known_to_older(whole))
    # Steps of the older version have no accuracy, and so their epoch has none.
    before = [None] * (steps % 3) if steps % 3 else []
    accuracies = [step["top1"] for step in steps_of(whole)]
    begun = steps - steps % 3
    assert [step["top1"] for step in steps_of(run)][begun:] == [*before, *accuracies[steps:]]
    epochs = [line.get("train_top1") for line in log_of(whole)]
    assert None not in epochs
    if steps % 3:
        epochs[steps // 3] = None
    assert [line.get("train_top1") for line in log_of(run)] == epochs


@pytest.mark.parametrize("balanced", [False, True])
def test_a_run_whose_keys_had_other_names_goes_on_and_is_evaluated(
    options, tmp_path, monkeypatch, balanced
):
    """`data.class_balanced_sampling` is `data.class_sampling` now."""
    now, run = tmp_path / "now", tmp_path / "run"
    sampling = ["--data.class_sampling", "balanced" if balanced else "natural"]
    run_here(monkeypatch, [*options, *sampling], now)
    last = stopped_after(now, 2, run)
    state = checkpoints.load_trainer(last)
    del state["facts"]["settings"]["data.class_sampling"]
    state["facts"]["settings"]["data.class_balanced_sampling"] = balanced
    rewrite(last, state, checkpoints.load_checkpoint(last)[1])
    written = yaml.safe_load((run / "config.yaml").read_text())
    del written["data"]["class_sampling"]
    written["data"]["class_balanced_sampling"] = balanced
    (run / "config.yaml").write_text(yaml.safe_dump(written))
    older = tmp_path / "older"
    shutil.copytree(run, older)

    with pytest.raises(ConfigError, match=r"data\.class_sampling"):
        other = ["--data.class_sampling", "natural" if balanced else "balanced"]
        run_here(monkeypatch, [*options, *other], run, "--resume")
    run_here(monkeypatch, [*options, *sampling], run, "--resume")
    assert_same_state(known_to_older(run), known_to_older(now))
    cfg, _ = config.parse_evaluate(["--run_dir", str(older)], methods.METHODS)
    assert cfg is not None and cfg.data.class_sampling == sampling[1]
    assert cfg.train == config.parse_evaluate(["--run_dir", str(run)], methods.METHODS)[0].train


def test_the_old_name_of_a_key_is_refused_with_the_new_one(options, tmp_path):
    file = tmp_path / "own.yaml"
    file.write_text("data: {class_balanced_sampling: true}\n")
    for words in (
        ["--data.class_balanced_sampling", "true"],
        ["--config", str(file)],
    ):
        with pytest.raises(ConfigError, match=r"data\.class_sampling now"):
            config.parse_train([*options, *words, "--run_dir", "x"], methods.METHODS)


def test_of_an_older_run_what_differs_from_the_defaults_is_still_refused(
    options, whole, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    stopped_after(whole, 2, run)
    written = yaml.safe_load((run / "config.yaml").read_text())
    name = written["method"]["name"]
    (run / "config.yaml").write_text(yaml.safe_dump({**written, "method": {"name": name}}))
    wide = 2 * methods.default_options(name)["bottleneck"]
    with pytest.raises(ConfigError, match=r"method\.bottleneck: 64 -> 128"):
        run_here(monkeypatch, [*options, "--method.bottleneck", str(wide)], run, "--resume")


def test_a_checkpoint_of_another_run_is_refused_with_what_differs(
    tiny_set, options, whole, tmp_path, monkeypatch
):
    other, run = tmp_path / "other", tmp_path / "run"
    changes = {
        "train__seed": 1,
        "train__base_lr": 0.5,
        "train__epochs": 1,
        "data__num_frames": 8,
        "train__ema": 0.9,
        "model__head": "linear",
    }
    run_here(monkeypatch, tiny_set.options(**changes), other)
    stopped_after(whole, 4, run)
    shutil.copytree(other / "last", run / "last")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError) as refused:
        run_here(monkeypatch, options, run, "--resume")
    for part in (run / "last", "seed: 1 -> 0", "base_lr: 0.5 -> 1.0", "epochs: 1 -> 2"):
        assert str(part) in str(refused.value)
    assert "data.num_frames: 8 -> 4" in str(refused.value)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_what_a_resume_may_change_is_not_part_of_a_checkpoint(
    tiny_set, whole, tmp_path, monkeypatch
):
    """Moved videos, and another share of the global batch."""
    run, root = tmp_path / "moved", tmp_path / "videos"
    stopped_after(whole, 4, run)
    shutil.copytree(tiny_set.root, root)
    moved = tiny_set.options(
        data__root=root,
        train__ema=0.9,
        model__head="linear",
        train__batch_size=2,
        train__accumulation=2,
    )
    run_here(monkeypatch, moved, run, "--resume")
    assert json.loads((run / "summary.json").read_text())["steps"] == 6


def test_progress_of_a_newer_version_is_refused_before_training(
    options, whole, tmp_path, monkeypatch
):
    run = tmp_path / "run"
    last = stopped_after(whole, 4, run)
    state = checkpoints.load_trainer(last)
    for record in state["progress"]["records"]:
        record["momentum"] = 0.5
    rewrite(last, state, checkpoints.load_checkpoint(last)[1])
    with pytest.raises(RunError, match="momentum"):
        run_here(monkeypatch, options, run, "--resume")


def test_progress_is_read_by_names():
    assert Progress.of({"epoch": 2}) == Progress(epoch=2)
    older = {"losses": [1.0, 2.0], "lrs": [0.1, 0.2], "steps": 5}
    records = [StepRecord(loss=1.0, lr=0.1), StepRecord(loss=2.0, lr=0.2)]
    assert Progress.of(older) == Progress(steps=5, records=records)
