"""Cross-validation in bench_frames and evaluate: exact, and honest about chance."""

from __future__ import annotations

import itertools
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import TinySet, load_tool, run_program
from pages import keys_of, text
from result_lines import cell

from vidadapt.apps.study.folds import pairs, pairs_csv
from vidadapt.apps.study.plots import draw
from vidadapt.apps.study.results import read_results
from vidadapt.apps.study.rows import summary_of
from vidadapt.apps.study.table import markdown
from vidadapt.config import ConfigError
from vidadapt.evaluation import (
    Scores,
    difference,
    interval,
    join_folds,
    load_scores,
    save_scores,
)
from vidadapt.lists import fold_names, group_numbers, read_folds

PEOPLE = ("ann", "ben", "cho", "dee")


@dataclass(frozen=True)
class Study:
    config: Path
    folds: Path
    out: Path


def tool(name: str, *words: object) -> int:
    return load_tool(name).main(list(map(str, words)))


@pytest.fixture(scope="module")
def study(tiny_set: TinySet, tmp_path_factory) -> Study:
    """A benchmark of two rates over two folds of four people."""
    home = tmp_path_factory.mktemp("folds")
    listed = [
        line.rsplit(" ", 1)
        for file in tiny_set.lists.values()
        for line in file.read_text().splitlines()
    ]
    names = (tiny_set.root / "labels.txt").read_text().split()
    people = itertools.cycle(PEOPLE)
    rows = [f"{path},{names[int(label)]},{next(people)}" for path, label in listed]
    (home / "clips.csv").write_text("\n".join(["path,label,group", *rows]) + "\n")
    words = ("--videos", tiny_set.root, "--folds", 2, "--dev_fraction", 0.5, "--processes", 1)
    tool("prepare", "csv", home / "clips.csv", home / "lists", *words)
    settings = {
        "data": {"sampling": "uniform8", "crop_size": 32, "num_workers": 0},
        "model": {"backbone": "vit_tiny", "weights": str(tiny_set.weights)},
        "train": {"epochs": 2, "batch_size": 4, "warmup_epochs": 0, "precision": "fp32"},
        "eval": {"num_clips": 2, "num_crops": 1},
        "variants": {"linear": {"method.name": "linear"}},
    }
    (home / "study.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    made = Study(home / "study.yaml", home / "lists", home / "out")
    assert tool("bench_frames", *call(made)) == 0
    return made


def call(study: Study) -> list[object]:
    words = ["--config", study.config, "--folds", study.folds, "--out", study.out]
    return [*words, "--frames", 2, "--steps", 2, "--rates", 0.1, 1.0]


@pytest.mark.slow
def test_a_line_is_every_video_of_all_folds_once(study) -> None:
    videos = read_folds(study.folds)
    lines = read_results(study.out / "results.jsonl")
    assert [line["cell"] for line in lines] == ["linear_2f_s0_joined"]
    for line in lines:
        right, listed = 0, []
        for fold in fold_names(videos):
            [folder] = [
                folder
                for folder in study.out.glob(f"cells/{line['variant']}_2f_s0_{fold}_lr*")
                if (folder / "eval").exists()
            ]
            scores, _ = load_scores(folder / "eval" / "scores.npz")
            tested = json.loads((folder / "eval" / "metrics.json").read_text())
            right += round(tested["top1"] * len(scores.paths) / 100)
            listed += scores.paths
            own = line["cross_validation"]["folds"][fold]
            assert (own["top1"], own["num_videos"]) == (tested["top1"], tested["num_videos"])
            chosen = max(own["grid"], key=lambda rate: own["grid"][rate])
            assert own["base_lr"] == float(chosen)
            used = yaml.safe_load((folder / "run" / "config.yaml").read_text())["data"]
            assert Path(used["test_list"]).parent.name == fold
        rates = {own["base_lr"] for own in line["cross_validation"]["folds"].values()}
        assert line["base_lr"] == (rates.pop() if len(rates) == 1 else None)
        assert sorted(listed) == sorted(video.path for video in videos)
        assert line["num_videos"] == len(videos) == 24
        assert line["top1"] == pytest.approx(100 * right / 24)
        counts = line["cross_validation"]["by_group"]
        assert [sum(own) for own in zip(*counts.values(), strict=True)] == [right, 24]
        assert len(counts) == len(PEOPLE)
    table = (study.out / "table.md").read_text()
    assert "95 % interval" in table and not (study.out / "pairs.csv").exists()


@pytest.mark.slow
def test_the_videos_of_the_test_list_have_no_part_in_runs_and_the_choice_of_a_rate(
    study, tmp_path, run_tool
) -> None:
    videos = read_folds(study.folds)
    another = next(one.path for one in videos if one.fold != "fold1")
    for run in sorted(study.out.glob("cells/linear_2f_s0_fold1_lr*/run")):
        settings = yaml.safe_load((run / "config.yaml").read_text())
        old, home = Path(settings["data"]["root"]), tmp_path / run.parent.name
        for one in videos:
            new = home / "videos" / one.path
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(old / (another if one.fold == "fold1" else one.path), new)
        settings["data"]["root"] = str(home / "videos")
        for key in ("train_list", "dev_list", "test_list"):
            settings["data"][key] = str(shutil.copy(settings["data"][key], home))
        (home / "run.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
        run_tool("train", "--config", home / "run.yaml", "--run_dir", home / "run")
        assert epochs_of(home / "run") == epochs_of(run)


def epochs_of(run: Path) -> list[list[float]]:
    """Losses and accuracies of each epoch: every digit."""
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return [[line[key] for key in ("train_loss", "dev_top1", "dev_loss")] for line in lines]


@pytest.mark.slow
def test_the_same_command_does_nothing_again_and_other_folds_are_refused(study, tmp_path) -> None:
    before = {p: p.stat().st_mtime_ns for p in study.out.glob("cells/*/run/*.jsonl")}
    lines = (study.out / "results.jsonl").read_text()
    assert tool("bench_frames", *call(study)) == 0
    assert (study.out / "results.jsonl").read_text() == lines
    assert {p: p.stat().st_mtime_ns for p in study.out.glob("cells/*/run/*.jsonl")} == before
    with pytest.raises(ConfigError, match=r"folds\.csv"):
        tool("bench_frames", *call(Study(study.config, tmp_path, study.out)))
    with_lists = yaml.safe_load(study.config.read_text())
    with_lists["data"]["train_list"] = "train.txt"
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(with_lists))
    with pytest.raises(ConfigError, match=r"data\.train_list: .*--folds"):
        tool("bench_frames", *call(Study(tmp_path / "other.yaml", study.folds, tmp_path / "out")))


@pytest.mark.slow
def test_evaluate_joins_the_folds_as_the_benchmark_does(study, tmp_path, run_tool) -> None:
    pattern = f"{study.out}/cells/linear_2f_s0_fold*/eval/scores.npz"
    words = ["--folds", study.folds, "--from_scores", pattern, "--out", tmp_path / "joined"]
    run_program("tools/evaluate.py", *words)
    found = json.loads((tmp_path / "joined" / "metrics.json").read_text())
    [line] = [x for x in read_results(study.out / "results.jsonl") if x["variant"] == "linear"]
    assert found["top1"] == line["top1"] and found["num_videos"] == 24
    for key in ("interval", "by_group", "mean_over_folds", "std_over_folds"):
        assert found[key] == line["cross_validation"][key]
    page = text("docs/formats.md")
    header = (study.folds / "folds.csv").read_text().splitlines()[0]
    assert header.split(",") == keys_of(page, "folds.csv")
    keys = list(found)
    assert keys[keys.index("folds") :] == keys_of(page, "Folds joined")
    scores, about = load_scores(tmp_path / "joined" / "scores.npz")
    assert len(set(scores.paths)) == 24 and about["manifest"] == line["manifests"]["test"]
    for number, file in enumerate(sorted(study.out.glob(pattern.removeprefix(f"{study.out}/")))):
        scores, about = load_scores(file)
        about |= {"precision": "bf16"} if number else {}
        save_scores(tmp_path / f"{number}.npz", scores, about)
    with pytest.raises(ConfigError, match="precision: fp32 and bf16"):
        run_tool("evaluate", "--folds", study.folds, "--from_scores", f"{tmp_path}/*.npz")


@pytest.mark.slow
def test_the_temporal_report_joins_the_runs_of_the_folds(study, tmp_path, run_tool) -> None:
    cells = study.out / "cells"
    [line] = read_results(study.out / "results.jsonl")
    folds = line["cross_validation"]["folds"].values()
    rates = sorted({fold["base_lr"] for fold in folds})
    patterns = [f"{cells}/linear_2f_s0_fold*_lr{rate:g}/run" for rate in rates]
    views = ("--eval.num_clips", 2, "--eval.num_crops", 1)
    run_tool("temporal", "--run_dir", *patterns, "--out", tmp_path, *views)
    report = json.loads((tmp_path / "temporal.json").read_text())
    assert [model["list"] for model in report["models"]] == ["2 folds"] * len(rates)
    for rate, model in zip(rates, report["models"], strict=True):
        assert model["num_videos"] == 24
        hits = model["orders"]["in_order"]["top1"] * 24 / 100
        of_chosen = [fold for fold in folds if fold["base_lr"] == rate]
        least = sum(fold["top1"] * fold["num_videos"] / 100 for fold in of_chosen)
        most = least + sum(fold["num_videos"] for fold in folds if fold["base_lr"] != rate)
        assert least - 1e-6 <= hits <= most + 1e-6
        assert hits == pytest.approx(round(hits))
    assert "fold*" in (tmp_path / "temporal.md").read_text()
    with pytest.raises(ConfigError, match=r"none\*/run"):
        run_tool("temporal", "--run_dir", tmp_path / "none*/run", "--out", tmp_path)


def scores_of(paths: list[str], views: int = 1, classes: int = 3) -> Scores:
    logits = np.zeros((len(paths), views, classes), np.float32)
    labels = np.zeros(len(paths), np.int64)
    return Scores(paths, labels, np.arange(views), np.zeros(views, np.int64), logits, {})


def test_folds_that_do_not_fit_are_not_joined() -> None:
    joined = join_folds({"fold1": scores_of(["a", "b"]), "fold2": scores_of(["c"])})
    assert joined.paths == ["a", "b", "c"] and joined.logits.shape == (3, 1, 3)
    for other in (scores_of(["b"]), scores_of(["c"], views=2), scores_of(["c"], classes=4)):
        with pytest.raises(ValueError, match=r"fold|views"):
            join_folds({"fold1": scores_of(["a", "b"]), "fold2": other})


def test_a_paired_test_counts_all_swaps_of_groups() -> None:
    rng = np.random.default_rng(3)
    for groups in (2, 3, 7):
        videos = rng.integers(2, 9, groups)
        one, other = rng.integers(0, videos + 1), rng.integers(0, videos + 1)
        gains = one - other
        signs = np.array(list(itertools.product((-1, 1), repeat=groups)))
        as_far = np.abs(signs @ gains) >= abs(gains.sum())
        found = difference(one, other, videos)
        assert found.p == pytest.approx(as_far.mean())
        assert found.points == pytest.approx(100 * gains.sum() / videos.sum())
        assert found.low <= found.points <= found.high
    same = difference(np.array([3, 4]), np.array([3, 4]), np.array([5, 5]))
    assert (same.points, same.low, same.high, same.p) == (0, 0, 0, 1)


def test_an_interval_covers_as_often_as_it_says() -> None:
    """Groups of 6 videos whose own accuracy differs: 40 groups, true mean 70 %."""
    rng, hits = np.random.default_rng(0), 0
    for _ in range(200):
        correct = rng.binomial(6, rng.beta(7, 3, 40))
        low, high = interval(correct, np.full(40, 6))
        hits += low <= 70 <= high
    assert 180 <= hits <= 199  # 190 expected


def cross_validated(variant: str, frames: int, seed: int, correct: list[int]) -> dict:
    counts = {str(group): [right, 10] for group, right in enumerate(correct)}
    within = interval(np.array(correct), np.full(len(correct), 10))
    about = {"mean_over_folds": 1.0 * sum(correct), "std_over_folds": 2.0, "interval": within}
    found = {**about, "by_group": counts, "folds": {}}
    top1 = 100 * sum(correct) / (10 * len(correct))
    return cell(variant, frames, seed, top1=top1, cross_validation=found)


def test_table_pairs_and_plots_of_folds(tmp_path) -> None:
    lines = [
        cross_validated("linear", 2, 0, [5, 6, 7, 5]),
        cross_validated("linear", 8, 0, [6, 6, 7, 6]),
        cross_validated("linear", 8, 1, [7, 6, 7, 6]),
        cross_validated("adaptformer", 2, 0, [7, 8, 9, 8]),
        cross_validated("adaptformer", 8, 0, [9, 10, 9, 10]),
        cross_validated("full", 8, 0, [4, 10, 9, 10]),
    ]
    found = {(p.frames, p.variant, p.other): p.found for p in pairs(lines)}
    assert found.keys() == {
        (2, "adaptformer", "linear"),
        (8, "adaptformer", "linear"),
        (8, "full", "linear"),
        (8, "full", "adaptformer"),
    }
    assert found[8, "adaptformer", "linear"].points == pytest.approx(32.5)  # of seed 0 alone
    assert found[2, "adaptformer", "linear"].p == pytest.approx(2 / 16)
    assert len(pairs_csv(lines).splitlines()) == 5
    table = markdown(lines)
    assert "| 8 | full | linear | +20.00 | " in " ".join(table.split())
    rows = summary_of(lines).set_index(["frames", "variant"])
    both = interval(np.array([13, 12, 14, 12]), np.full(4, 20))
    assert rows.loc[(8, "linear"), ["lowest", "highest"]].tolist() == pytest.approx(both)
    assert {path.name for path in draw(lines, tmp_path)} >= {"frames.png", "parameters.png"}
    plain = [cell("linear", 2, 0), cell("full", 2, 0)]
    assert pairs(plain) == [] and pairs_csv(plain) == "" and "interval" not in markdown(plain)


def test_numbers_of_groups_are_the_same_for_every_fold(tmp_path) -> None:
    rows = ["x.mp4,0,eve,fold1", "y.mp4,1,adam,fold2", "z.mp4,0,eve,fold1"]
    (tmp_path / "folds.csv").write_text("\n".join(["path,label,group,fold", *rows]) + "\n")
    assert group_numbers(read_folds(tmp_path)) == {"x.mp4": 1, "y.mp4": 0, "z.mp4": 1}
