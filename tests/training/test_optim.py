"""The rates, the average of weights, and clips that lost their batch, against slow references."""

from __future__ import annotations

import json
import math
import os
import shutil

import numpy as np
import pytest
import torch
from conftest import ROOT
from torch import nn

from vidadapt import methods
from vidadapt.config import command_line
from vidadapt.data.skips import SKIPPED, read_skips
from vidadapt.files import append_lines, write_json
from vidadapt.training.optim import WeightAverage, effective_lr, lr_at
from vidadapt.training.state import Progress


def videomae_rates(base: float, final: float, epochs: int, steps: int, warmup: int) -> np.ndarray:
    """VideoMAE's schedule of a run, written down from its `cosine_scheduler`."""
    rising = np.linspace(0, base, warmup * steps)
    rest = epochs * steps - len(rising)
    falling = [
        final + 0.5 * (base - final) * (1 + math.cos(math.pi * i / rest)) for i in range(rest)
    ]
    return np.concatenate([rising, falling])


@pytest.mark.parametrize("dataset", ["ssv2", "hmdb51"])
def test_the_full_configs_have_videomaes_rates_after_the_warmup(dataset):
    config = ["--config", str(ROOT / "configs" / dataset / "full.yaml"), "--run_dir", "x"]
    recipe = command_line.parse_train(config, methods.METHODS)[0].train
    steps, warmup = 6, int(recipe.warmup_epochs) * 6
    theirs = videomae_rates(5e-4 * 512 / 256, 1e-6 * 512 / 256, recipe.epochs, steps, 5)
    ours = [
        lr_at(
            step,
            total_steps=recipe.epochs * steps,
            warmup_steps=warmup,
            peak=effective_lr(recipe.base_lr, 512),
            minimum=recipe.min_lr,
        )
        for step in range(recipe.epochs * steps)
    ]
    np.testing.assert_allclose(ours[warmup:], theirs[warmup:], rtol=1e-9)
    # In the warm-up the step before has what is due, as the header of the configuration says.
    np.testing.assert_allclose(ours[1:warmup], theirs[1:warmup] * (warmup - 1) / warmup, rtol=1e-9)


def test_an_average_over_few_steps_forgets_the_first_weights():
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, 0.9999)
    first, values = model.weight.item(), []
    for step in range(40):
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[10.0 + math.sin(step)]]))
        values.append(model.weight.item())
        average.update(model, step)
    wanted, share = first, 1.0
    for step, value in enumerate(values):
        decay = min(0.9999, (1 + step) / (10 + step))
        wanted = decay * wanted + (1 - decay) * value
        share *= decay
    assert average.values["weight"].item() == pytest.approx(wanted, abs=1e-4)
    assert share < 1e-6 and abs(wanted - 10) < 1


def test_an_average_over_many_steps_has_the_decay_that_was_asked_for():
    model = nn.Linear(1, 1, bias=False)
    average = WeightAverage(model, 0.9)
    before = average.values["weight"].item()
    with torch.no_grad():
        model.weight.fill_(3.0)
    average.update(model, 1000)
    assert average.values["weight"].item() == pytest.approx(0.9 * before + 0.1 * 3.0, abs=1e-6)


def test_a_run_whose_only_step_has_the_rate_0_is_refused(tiny_set, run_tool, tmp_path):
    options = tiny_set.options(
        train__epochs=1, train__warmup_epochs=1, train__batch_size=8, data__dev_list=None
    )
    with pytest.raises(ValueError, match=r"train\.warmup_epochs"):
        run_tool("train", *options, "--run_dir", tmp_path / "run")
    assert not (tmp_path / "run" / "last").exists()


def test_a_warmup_that_never_ends_is_said(tiny_set, run_tool, tmp_path, capsys):
    options = tiny_set.options(
        train__epochs=2, train__warmup_epochs=2, train__batch_size=6, data__dev_list=None
    )
    run_tool("train", *options, "--run_dir", tmp_path / "run")
    lines = (tmp_path / "run" / "steps.jsonl").read_text().splitlines()
    rates = [json.loads(line)["lr"] for line in lines]
    peak = effective_lr(1.0, 6)
    assert rates == pytest.approx([0, peak / 4, peak / 2, peak * 3 / 4])
    assert "warning: train.warmup_epochs" in capsys.readouterr().out


def test_a_clip_that_lost_its_partner_is_trained_unmixed_and_the_run_resumes(
    tiny_set, run_tool, tmp_path
):
    """The file breaks after its frames were counted; each batch has two clips."""
    root = tmp_path / "videos"
    shutil.copytree(tiny_set.root, root)
    options = tiny_set.options(
        data__root=root, data__max_skipped=1, data__dev_list=None, model__head="linear",
        train__batch_size=2, train__mixup=0.8, train__cutmix=1.0, train__base_lr=0.1,
    )  # fmt: skip
    run_tool("train", *options, "--run_dir", tmp_path / "before")
    broken = root / "train 3 [x]#.mp4"
    facts = broken.stat()
    broken.write_bytes(bytes(facts.st_size))
    os.utime(broken, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    run = tmp_path / "run"
    run_tool("train", *options, "--run_dir", run)
    assert [skip.path for skip in read_skips(run / SKIPPED)] == ["train 3 [x]#.mp4"] * 2
    lines = (run / "steps.jsonl").read_text().splitlines()
    assert len(lines) == 12 and all(json.loads(line)["loss"] > 0 for line in lines)
    run_tool("train", *options, "--run_dir", run, "--resume")


# --- which epoch is best --------------------------------------------------------------------------


def test_the_best_epoch_is_the_later_of_equal_losses_and_the_lower_loss_of_equal_accuracies():
    epochs = [
        {"dev_top1": 50.0, "dev_loss": 1.0},
        {"dev_top1": 75.0, "dev_loss": 0.9},
        {"dev_top1": 75.0, "dev_loss": 0.7},
        {"dev_top1": 50.0, "dev_loss": 0.1},
        {"dev_top1": 75.0, "dev_loss": 0.7},
        {"dev_top1": 75.0, "dev_loss": 0.8},
    ]
    best, number = None, -1
    for epoch, results in enumerate(epochs):
        if Progress(best=best).is_best(results, "top1"):
            best, number = results, epoch
    assert number == 4
    assert Progress(best={"epoch": 1, "dev_top1": 75.0}).is_best(
        epochs[1], "top1"
    )  # of an older version


def test_a_run_says_its_development_loss_and_that_the_list_is_small(
    tiny_set, run_tool, tmp_path, capsys
):
    run_tool("train", *tiny_set.options(), "--run_dir", tmp_path / "run")
    lines = [json.loads(x) for x in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    best = json.loads((tmp_path / "run" / "summary.json").read_text())["best"]
    chosen = max(lines, key=lambda line: (line["dev_top1"], -line["dev_loss"], line["epoch"]))
    assert best["epoch"] == chosen["epoch"] and best["dev_loss"] == chosen["dev_loss"] > 0
    assert "warning: data.dev_list holds 5 videos" in capsys.readouterr().out


def test_labels_of_one_class_alone_are_refused(tiny_set, run_tool, tmp_path):
    listed = tmp_path / "train.txt"
    lines = tiny_set.lists["train"].read_text().splitlines()
    listed.write_text("".join(line.rsplit(" ", 1)[0] + " 1\n" for line in lines))
    with pytest.raises(ValueError, match=r"data\.train_list.* label 1 \(green\)"):
        run_tool("train", *tiny_set.options(data__train_list=listed), "--run_dir", tmp_path / "run")
    assert not (tmp_path / "run" / "last").exists()


def test_what_is_written_is_json_also_where_a_number_is_not_finite(tmp_path):
    """Of a step that fp16 skipped, of a video without a score."""
    line = {"step": 3, "norm": math.inf, "more": [float("nan"), (1.5, -math.inf)], "text": "NaN"}
    append_lines(tmp_path / "steps.jsonl", [line, line])
    write_json(tmp_path / "summary.json", {"last": line})

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    wanted = {"step": 3, "norm": None, "more": [None, [1.5, None]], "text": "NaN"}
    texts = (tmp_path / "steps.jsonl").read_text().splitlines()
    assert [json.loads(text, parse_constant=refuse) for text in texts] == [wanted] * 2
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=refuse)
    assert summary == {"last": wanted}
