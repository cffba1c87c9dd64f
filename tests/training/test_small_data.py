"""What a small or uneven set needs: warm-up as a share, early stopping, balance, early warnings."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ALONE, ROOT, TinySet, launch
from test_resuming import assert_same_run
from test_training import log_of

from vidadapt import config, data, methods, training
from vidadapt.config import Config, ConfigError, TrainConfig
from vidadapt.lists import Sample, read_list, write_list
from vidadapt.runs import checkpoints
from vidadapt.training.optim import scheduled_lr
from vidadapt.training.state import Progress, StepRecord
from vidadapt.training.validation import Validation


def steps_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "steps.jsonl").read_text().splitlines()]


def summary_of(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


def problems_of(cfg: Config) -> str:
    with pytest.raises(ConfigError) as refused:
        config.check(cfg, 1)
    return str(refused.value)


# --- warm-up as a share of all steps --------------------------------------------------------------


def test_a_warmup_share_is_that_of_all_steps():
    share = TrainConfig(epochs=8, warmup_epochs=None, warmup_share=0.25)
    epochs = TrainConfig(epochs=8, warmup_epochs=2)
    rates = [scheduled_lr(share, step, 7, 16) for step in range(8 * 7)]
    assert rates == [scheduled_lr(epochs, step, 7, 16) for step in range(8 * 7)]
    assert rates.index(max(rates)) == 14  # of 56
    few = TrainConfig(epochs=2, warmup_epochs=None, warmup_share=0.1)
    assert [scheduled_lr(few, step, 2, 16) > 0 for step in range(4)] == [True] * 4


@pytest.mark.parametrize(("epochs", "share"), [(10.0, 0.1), (None, None)])
def test_a_warmup_has_one_length(epochs, share):
    recipe = TrainConfig(warmup_epochs=epochs, warmup_share=share)
    said = problems_of(Config("runs/x", data=config.DataConfig(train_list="x"), train=recipe))
    assert "train.warmup_epochs" in said and "train.warmup_share" in said


def test_a_share_that_leaves_the_only_step_without_a_rate_is_refused(tiny_set, run_tool, tmp_path):
    options = tiny_set.options(
        train__epochs=1, train__warmup_epochs="null", train__warmup_share=0.9,
        train__batch_size=8, data__dev_list=None,
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"train\.warmup_share"):
        run_tool("train", *options, "--run_dir", tmp_path / "run")


# --- early stopping -------------------------------------------------------------------------------


def slow_last_epoch(results: list[dict[str, float]], patience: int, by: str = "dev_top1") -> int:
    """The epoch after which a run ends: all pairs of epochs are compared."""

    def worth(epoch: int) -> tuple[float, float]:
        return results[epoch - 1][by], -results[epoch - 1]["dev_loss"]

    for epoch in range(1, len(results) + 1):
        first_of_best = max(range(1, epoch + 1), key=worth)
        if patience and epoch - first_of_best >= patience:
            return epoch
    return len(results)


def test_a_run_stalls_where_a_slow_reference_says_so():
    rng = np.random.default_rng(0)
    ends = set()
    for trial in range(200):
        results = [
            {"dev_top1": 25.0 * rng.integers(4), "dev_loss": 0.5 * rng.integers(1, 4)}
            for _ in range(10)
        ]
        patience = trial % 4
        progress = Progress()
        for found in results:
            if progress.stalled(patience):
                break
            progress.records, progress.train_seconds = [StepRecord(loss=1.0, lr=0.1)], 1.0
            is_best = progress.is_best(found, "top1")
            progress = progress.after_epoch(
                found, clips=4, validate_seconds=0.0, select="top1", is_best=is_best
            )
            if progress.epoch == trial % 5:  # from a checkpoint
                progress = Progress.of(asdict(progress))
        assert progress.epoch == slow_last_epoch(results, patience)
        ends.add(progress.epoch)
    assert len(ends) > 5


def test_a_checkpoint_of_an_older_version_counts_from_its_best_epoch():
    older = asdict(Progress(epoch=5, best={"epoch": 3, "dev_top1": 50.0, "dev_loss": 1.0}))
    del older["improved"]
    assert [Progress.of(older).stalled(patience) for patience in (0, 1, 2, 3)] == [
        *(False, True, True, False),
    ]


@pytest.fixture
def scripted(monkeypatch) -> list[dict[str, float]]:
    """Development results that do not come from the weights, best in epoch 2."""
    results = [
        {"dev_top1": top1, "dev_loss": loss}
        for top1, loss in [(40.0, 1.0), (60.0, 0.9), (60.0, 1.1), (40.0, 0.5), (60.0, 0.95)]
    ]
    calls = iter(results * 3)
    monkeypatch.setattr(Validation, "results", lambda self, model: next(calls))
    return results


def test_a_run_ends_so_many_epochs_after_its_best_one_and_a_longer_patience_goes_on(
    tiny_set, run_tool, tmp_path, scripted
):
    run = tmp_path / "run"
    stopping = tiny_set.options(train__epochs=5, train__early_stopping_patience=2)
    run_tool("train", *stopping, "--run_dir", run)
    assert slow_last_epoch(scripted, 2) == 4 == len(log_of(run)) == summary_of(run)["epochs"]
    assert summary_of(run)["stopped_early"] and summary_of(run)["best"]["epoch"] == 2
    before = (run / "last" / "adapter.safetensors").read_bytes()
    run_tool("train", *stopping, "--run_dir", run, "--resume")
    assert len(log_of(run)) == 4
    assert (run / "last" / "adapter.safetensors").read_bytes() == before
    # The first four epochs are those of a run with more patience.
    run_tool("train", *stopping, "--run_dir", run, "--resume", "--train.early_stopping_patience", 0)
    assert len(log_of(run)) == 5 and not summary_of(run)["stopped_early"]


@pytest.mark.parametrize(
    ("steps", "sampling"), [(4, "balanced"), (6, "square_root"), (11, "square_root")]
)
def test_a_run_that_stops_early_resumes_exactly(
    tiny_set, run_tool, tmp_path, scripted, monkeypatch, steps, sampling
):
    options = tiny_set.options(
        train__epochs=5, train__early_stopping_patience=2, train__checkpoint_steps=1,
        train__keep_checkpoints=30, model__head="linear", data__class_sampling=sampling,
    )  # fmt: skip
    whole, run = tmp_path / "whole", tmp_path / "run"
    run_tool("train", *options, "--run_dir", whole)
    shutil.copytree(whole, run)
    (run / "summary.json").unlink()
    for folder in run.glob("last*"):
        if checkpoints.load_trainer(folder)["progress"]["steps"] > steps:
            shutil.rmtree(folder)
    results = iter(scripted[steps // 3 :])  # 3 steps an epoch
    monkeypatch.setattr(Validation, "results", lambda self, model: next(results))
    run_tool("train", *options, "--run_dir", run, "--resume")
    assert_same_run(run, whole)
    assert len(log_of(run)) == 4 and len(steps_of(run)) == 12


def test_early_stopping_needs_a_development_list():
    recipe = TrainConfig(early_stopping_patience=3)
    cfg = Config("runs/x", data=config.DataConfig(train_list="x"), train=recipe)
    assert "data.dev_list" in problems_of(cfg)
    config.check(replace(cfg, data=replace(cfg.data, dev_list="y")), 1)


@pytest.mark.slow
def test_two_processes_stop_together(tiny_set, tmp_path):
    """At a rate so high that the first epochs are the best ones."""
    options = tiny_set.options(
        train__epochs=12, train__batch_size=2, train__base_lr=30.0, model__head="linear",
        train__early_stopping_patience=2,
    )  # fmt: skip
    launch("train", *options, "--run_dir", tmp_path / "run", processes=2)
    found = log_of(tmp_path / "run")
    assert len(found) == slow_last_epoch(found, 2) < 12


# --- classes of different sizes -------------------------------------------------------------------


@pytest.fixture
def uneven(tiny_set: TinySet, tmp_path: Path) -> Path:
    """A training list of the tiny set: four red videos, three green ones, one blue one."""
    listed = read_list(tiny_set.lists["train"], tiny_set.root, 3)
    kept, left = [], [4, 3, 1]
    for sample in listed:
        left[sample.label] -= 1
        if left[sample.label] >= 0:
            kept.append(sample)
    write_list(tmp_path / "train.txt", kept)
    return tmp_path / "train.txt"


def built_with(options: list[str], run: Path) -> training.Setup:
    cfg, _ = training.read_command([*options, "--run_dir", str(run)], ALONE)
    return training.set_up(ALONE, cfg, data.resolve(cfg.data, cfg.eval), None)


TERMS: dict[str, dict[str, object]] = {
    "plain": {},
    "weighted": {"train__class_weights": "balanced"},
    "adjusted": {"train__logit_adjustment": 1.5},
}


@pytest.mark.parametrize("terms", TERMS)
def test_losses_and_accuracies_of_steps_are_those_of_the_clips_as_trained(
    tiny_set, run_tool, tmp_path, uneven, terms
):
    """The weights do not move at a rate of 0, so that another model gives the same scores."""
    options = tiny_set.options(
        data__train_list=uneven, train__base_lr=0, train__batch_size=2, train__accumulation=2,
        train__label_smoothing=0.1, model__head="linear", train__epochs=2,
        **TERMS[terms],
    )  # fmt: skip
    run = tmp_path / "run"
    run_tool("train", *options, "--run_dir", run)
    built = built_with(options, tmp_path / "other")
    model, loader = built.model.eval(), built.loaders["train"]
    counts = {0: 4, 1: 3, 2: 1}
    wanted = []
    for epoch in range(2):
        loader.batch_sampler.set_epoch(epoch)
        clips = []
        for batch in loader:
            with torch.no_grad():
                logits = model(loader.prepare(batch, ALONE.device)).double()
            clips += zip(logits.tolist(), batch["label"].tolist(), strict=True)
        for step in (clips[:4], clips[4:]):
            hits, total = 0, 0.0
            for logits, label in step:
                added = [1.5 * math.log(counts[k] / 8) * (terms == "adjusted") for k in range(3)]
                scores = [own + more for own, more in zip(logits, added, strict=True)]
                log_sum = math.log(sum(math.exp(score) for score in scores))
                shares = [score - log_sum for score in scores]
                target = [0.9 * (k == label) + 0.1 / 3 for k in range(3)]
                entropy = -sum(t * share for t, share in zip(target, shares, strict=True))
                of_class = [8 / (3 * counts[k]) for k in range(3)]
                total += entropy * (np.dot(target, of_class) if terms == "weighted" else 1)
                hits += max(range(3), key=logits.__getitem__) == label  # plain ones
            wanted.append((total / 4, 100 * hits / 4))
    found = steps_of(run)
    assert [step["loss"] for step in found] == pytest.approx([loss for loss, _ in wanted], abs=1e-5)
    assert [step["top1"] for step in found] == [top1 for _, top1 in wanted]
    assert len({top1 for _, top1 in wanted}) > 1 or 0 < wanted[0][1] < 100
    for number, line in enumerate(log_of(run)):
        of_epoch = [top1 for _, top1 in wanted[2 * number : 2 * number + 2]]
        assert line["train_top1"] == sum(of_epoch) / 2


@pytest.mark.parametrize("terms", TERMS)
def test_mixed_clips_have_no_accuracy(tiny_set, run_tool, tmp_path, terms):
    options = tiny_set.options(train__mixup=0.8, **TERMS[terms], train__epochs=1)
    run_tool("train", *options, "--run_dir", tmp_path / "run")
    assert {step["top1"] for step in steps_of(tmp_path / "run")} == {None}
    assert "train_top1" not in log_of(tmp_path / "run")[0]
    assert log_of(tmp_path / "run")[0]["dev_loss"] > 0


def test_a_balanced_epoch_trains_each_class_equally_often(tiny_set, uneven, tmp_path):
    options = tiny_set.options(
        data__train_list=uneven, train__batch_size=2, data__class_sampling="balanced"
    )
    loader = built_with(options, tmp_path / "run").loaders["train"]
    totals, blue = np.zeros(3, int), set()
    for epoch in range(3):
        loader.batch_sampler.set_epoch(epoch)
        for batch in loader:
            totals += np.bincount(batch["label"].numpy(), minlength=3)
            of_blue = batch["clip"][batch["label"] == 2]
            blue |= {clip.numpy().tobytes() for clip in of_blue}
    assert totals.sum() == 24 and totals.min() >= 6
    assert len(blue) == totals[2], "the clips of one video that comes again are cut anew"


@pytest.mark.parametrize(
    ("sampling", "recipe", "named"),
    [
        ("balanced", {"class_weights": "balanced"}, "train.class_weights"),
        ("square_root", {"logit_adjustment": 1.0}, "train.logit_adjustment"),
        ("natural", {"class_weights": "balanced", "logit_adjustment": 1.0}, "train.class_weights"),
    ],
)
def test_balance_is_asked_for_once(sampling, recipe, named):
    data_asked = config.DataConfig(train_list="x", class_sampling=sampling)
    said = problems_of(Config("runs/x", data=data_asked, train=TrainConfig(**recipe)))
    other = "train.logit_adjustment" if sampling == "natural" else "data.class_sampling"
    assert named in said and other in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [{"data__class_sampling": "square_root"}, {"train__logit_adjustment": 1}], ids=str
)
def test_two_processes_train_as_one_does(tiny_set, uneven, run_tool, tmp_path, more):
    options = {"data__train_list": uneven, "model__head": "linear", "train__epochs": 2, **more}
    run_tool(
        "train", *tiny_set.options(**options, train__batch_size=4), "--run_dir", tmp_path / "one"
    )
    two = tiny_set.options(**options, train__batch_size=2)
    launch("train", *two, "--run_dir", tmp_path / "two", processes=2)
    losses = [[step["loss"] for step in steps_of(tmp_path / run)] for run in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4) and len(losses[0]) == 4


@pytest.mark.parametrize("cached", [False, True], ids=["videos", "cache"])
def test_an_adjusted_run_is_the_same_alone_in_a_grid_and_after_an_interruption(
    tiny_set, uneven, run_tool, tmp_path, cached
):
    options = tiny_set.options(
        data__train_list=uneven, method__name="linear", train__batch_size=2, train__epochs=2,
        train__logit_adjustment=1, train__checkpoint_steps=1, train__keep_checkpoints=20,
        train__weight_decay=0, train__base_lr=0.2, train__select="mean_class_accuracy",
        cache__dir=tmp_path / "cache" if cached else None,
    )  # fmt: skip
    whole, run, grid = (tmp_path / name for name in ("whole", "run", "grid"))
    run_tool("train", *options, "--run_dir", whole)
    run_tool("train", *options, "--run_dir", grid, "--grid.base_lr", "[0.1,0.2]")
    assert_same_run(grid / "lr0.2_wd0", whole)
    shutil.copytree(whole, run)
    (run / "summary.json").unlink()
    for folder in run.glob("last*"):
        if checkpoints.load_trainer(folder)["progress"]["steps"] > 3:
            shutil.rmtree(folder)
    run_tool("train", *options, "--run_dir", run, "--resume")
    assert_same_run(run, whole)


# --- what `best` is chosen by ---------------------------------------------------------------------


@pytest.fixture
def disagreeing(monkeypatch) -> list[dict[str, float]]:
    """Development results whose top-1 is best in epoch 1, and whose mean of classes in epoch 3."""
    figures = [(60.0, 30.0, 1.0), (50.0, 40.0, 1.0), (50.0, 45.0, 1.1), (40.0, 45.0, 1.2)]
    results = [
        {"dev_top1": top1, "dev_mean_class_accuracy": mean, "dev_loss": loss}
        for top1, mean, loss in figures
    ]
    calls = iter(results * 3)
    monkeypatch.setattr(Validation, "results", lambda self, model: next(calls))
    return results


@pytest.mark.parametrize(("select", "best"), [("top1", 1), ("mean_class_accuracy", 3)])
def test_best_and_early_stopping_follow_the_metric_that_was_asked_for(
    tiny_set, run_tool, tmp_path, disagreeing, capsys, select, best
):
    run = tmp_path / "run"
    options = tiny_set.options(
        train__epochs=4, train__early_stopping_patience=2, train__select=select
    )
    run_tool("train", *options, "--run_dir", run)
    summary = summary_of(run)
    assert (summary["best"]["epoch"], summary["select"]) == (best, select)
    assert len(log_of(run)) == slow_last_epoch(disagreeing, 2, f"dev_{select}")
    assert checkpoints.load_checkpoint(run / "best")[1]["metrics"]["epoch"] == best
    assert f"best: epoch {best}, dev_{select}" in capsys.readouterr().out
    found = {"top1": "top-1", "mean_class_accuracy": "mean class"}[select]
    assert f"{best}, by {found} on the development list" in (run / "report.html").read_text()
    assert summary["class_counts"] == {"red": 4, "green": 4, "blue": 4}


def test_epochs_are_chosen_by_a_development_list_alone():
    cfg = Config(
        "runs/x",
        data=config.DataConfig(train_list="x"),
        train=TrainConfig(select="mean_class_accuracy"),
    )
    assert "data.dev_list" in problems_of(cfg)
    config.check(replace(cfg, data=replace(cfg.data, dev_list="y")), 1)


def test_a_grid_is_chosen_by_the_metric_that_was_asked_for(tiny_set, run_tool, tmp_path):
    """A development list with one video of two classes, so that accuracies and means differ."""
    listed = [*read_list(tiny_set.lists["dev"], tiny_set.root, 3)]
    listed += read_list(tiny_set.lists["test"], tiny_set.root, 3)
    kept = {label: [one for one in listed if one.label == label] for label in range(3)}
    write_list(tmp_path / "dev.txt", [*kept[0], kept[1][0], kept[2][0]])
    for select in ("top1", "mean_class_accuracy"):
        root = tmp_path / select
        options = tiny_set.options(
            data__dev_list=tmp_path / "dev.txt", data__test_list=None, method__name="linear",
            train__select=select, train__epochs=2,
        )  # fmt: skip
        run_tool("train", *options, "--run_dir", root, "--grid.base_lr", "[0.001,0.1,1,10]")
        grid = json.loads((root / "grid.json").read_text())
        key = f"dev_{select}"
        assert grid["select"] == select
        for one in grid["runs"]:
            best = summary_of(root / one["run"])["best"]
            assert (one["best_epoch"], one[key]) == (best["epoch"], best[key])
            lines = log_of(root / one["run"])
            chosen = max(lines, key=lambda line: (line[key], -line["dev_loss"], line["epoch"]))
            assert best["epoch"] == chosen["epoch"]
        best_run = max(grid["runs"], key=lambda one: one[key])["run"]
        assert grid["best"] == best_run


# --- warnings before training ---------------------------------------------------------------------


def warnings_of(tiny_set: TinySet, tmp_path: Path, *more: str, **changes: object) -> list[str]:
    built = built_with([*tiny_set.options(**changes), *more], tmp_path / "run")
    return [*built.facts["warnings"]]


def test_a_good_set_has_no_warning_but_that_its_development_list_is_small(tiny_set, tmp_path):
    [line] = warnings_of(tiny_set, tmp_path)
    assert "data.dev_list" in line and "5 videos" in line and "20 %" in line
    assert warnings_of(tiny_set, tmp_path, data__dev_list=None) == []


def test_classes_without_a_training_video_are_named(tiny_set, tmp_path, uneven):
    labels = uneven.with_name("labels.txt")
    labels.write_text("red\ngreen\nblue\nviolet\nblack\n")
    [line] = warnings_of(
        tiny_set, tmp_path, data__train_list=uneven, data__label_names=labels, data__dev_list=None,
        data__test_list=None,
    )  # fmt: skip
    assert "2 of 5 classes" in line and "violet" in line and "black" in line and "red" not in line


def test_frames_that_repeat_are_counted_in_each_list(tiny_set, tmp_path):
    """The videos have 12 to 15 frames, a fourth of them each."""
    lines = warnings_of(tiny_set, tmp_path, data__num_frames=14, data__dev_list=None)
    assert "data.train_list: 6 of 12" in lines[0] and "data.test_list: 4 of 7" in lines[1]
    assert "data.num_frames" in lines[0] and "12" in lines[0]
    dense = {"data__sampling": "adaptformer", "data__dev_list": None}
    lines = warnings_of(tiny_set, tmp_path, data__stride=4, **dense)
    assert "data.train_list: 3 of 12" in lines[0] and "data.stride" in lines[0]
    assert warnings_of(tiny_set, tmp_path, data__stride=3, **dense) == []


def test_clips_that_need_no_frame_twice_are_told_by_the_sampling_itself():
    """`shortest_video` against the frames that are chosen, for every short length."""
    for name in data.SAMPLINGS:
        sampling = data.SAMPLINGS[name]
        needed = data.sampling.shortest_video(sampling)
        for length in range(1, needed + 5):
            chosen = data.eval_indices(sampling, length, 1)[0]
            repeats = len(set(chosen.tolist())) < sampling.num_frames
            assert repeats == (length < needed), (name, length)


def test_unbalanced_classes_are_said_unless_an_option_makes_up_for_them(tiny_set, tmp_path):
    listed = [*read_list(tiny_set.lists["train"], tiny_set.root, 3)]
    of_red = [sample for sample in listed if sample.label == 0]
    more = [*listed, *read_list(tiny_set.lists["dev"], tiny_set.root, 3)]
    more += read_list(tiny_set.lists["test"], tiny_set.root, 3)
    relabelled = [Sample(sample.path, 1) for sample in more if sample.label != 0]
    write_list(tmp_path / "train.txt", [of_red[0], *relabelled])
    changes = {
        "data__train_list": tmp_path / "train.txt",
        "data__dev_list": None,
        "data__test_list": None,
    }
    (tmp_path / "labels.txt").write_text("red\ngreen\n")
    changes["data__label_names"] = tmp_path / "labels.txt"
    [line] = warnings_of(tiny_set, tmp_path, **changes)
    assert f"green has {len(relabelled)} videos, red has 1" in line and len(relabelled) > 10
    assert "data.class_sampling" in line and "train.class_weights" in line
    assert warnings_of(tiny_set, tmp_path, **changes, train__class_weights="balanced") == []
    assert warnings_of(tiny_set, tmp_path, **changes, data__class_sampling="balanced") == []


def test_warnings_are_printed_before_training_and_kept_with_the_run(
    tiny_set, run_tool, tmp_path, capsys
):
    run = tmp_path / "run"
    run_tool("train", *tiny_set.options(train__epochs=1, data__num_frames=14), "--run_dir", run)
    kept = summary_of(run)["warnings"]["lists"]
    assert len(kept) == 4  # a small development list, and short videos in three lists
    assert [*checkpoints.load_trainer(run / "last")["facts"]["warnings"]] == kept
    said = capsys.readouterr().out
    before, _, _ = said.partition("epoch 1/1")
    assert all(f"warning: {line}" in before for line in kept)


# --- the recipe -----------------------------------------------------------------------------------


def test_the_recipe_for_own_videos_binds_and_trains(tiny_set, run_tool, tmp_path):
    file = ROOT / "configs" / "custom.yaml"
    cfg, _ = config.parse_train(["--config", str(file), "--run_dir", "x"], methods.METHODS)
    config.check(replace(cfg, data=replace(cfg.data, train_list="x")), 1)
    named = replace(cfg.data, label_names=str(tiny_set.root / "labels.txt"))
    assert not data.resolve(named, cfg.eval).augmentation.flip
    options = {"data__test_list": None, "data__sampling": None, "train__precision": None}
    options |= {"train__warmup_epochs": None, "train__base_lr": None, "train__batch_size": None}
    run = tmp_path / "run"
    run_tool(
        "train", "--config", file, *tiny_set.options(**options, train__epochs=10), "--run_dir", run
    )
    rates = [step["lr"] for step in steps_of(run)]
    assert len(rates) == 10 and rates[0] == 0 and rates.index(max(rates)) == 1
