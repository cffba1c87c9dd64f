"""A benchmark over tasks of different classes: rates of each, last training, and all the means."""

from __future__ import annotations

import json
import statistics
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import load_tool
from PIL import Image
from result_lines import cell

from vidadapt.apps.prepare import vtab
from vidadapt.apps.study.cell_of_tasks import cell_of_tasks
from vidadapt.apps.study.cells import Work
from vidadapt.apps.study.cost import Machine
from vidadapt.apps.study.matrix import Cell
from vidadapt.apps.study.plots import draw
from vidadapt.apps.study.results import read_results, write_results
from vidadapt.apps.study.table import markdown
from vidadapt.apps.study.tasks import tasks_csv
from vidadapt.config import ConfigError
from vidadapt.lists import read_tasks

TASKS = {"kitti": 4, "patch_camelyon": 2}


@dataclass(frozen=True)
class Study:
    """Files of a small benchmark over tasks."""

    config: Path
    tasks: Path
    out: Path

    def call(self) -> list[object]:
        words = ["--config", self.config, "--tasks", self.tasks, "--out", self.out]
        return [*words, "--frames", 1, "--steps", 2, "--rates", 0.1, 3.0]


def tool(name: str, *words: object) -> int:
    return load_tool(name).main(list(map(str, words)))


def task(folder: Path, classes: int, rng: np.random.Generator) -> None:
    """Images of one colour a class, as VTAB-1k's exchange format has them."""
    lists = {"train800": 3 * classes, "val200": classes, "test": 2 * classes + 1}
    lines = {}
    for name, number in lists.items():
        (folder / "images" / name).mkdir(parents=True)
        for i in range(number):
            pixels = rng.integers(0, 90, (24, 36, 3), np.uint8)
            pixels[..., i % classes % 3] += np.uint8(60 + 40 * (i % classes))
            Image.fromarray(pixels).save(folder / "images" / name / f"{i}.png")
        lines[name] = "".join(f"images/{name}/{i}.png {i % classes}\n" for i in range(number))
    lines["train800val200"] = lines["train800"] + lines["val200"]
    for name, text in lines.items():
        (folder / f"{name}.txt").write_text(text)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    home, rng = tmp_path_factory.mktemp("tasks"), np.random.default_rng(0)
    with pytest.MonkeyPatch.context() as patched:
        for name, classes in TASKS.items():
            task(home / "vtab" / name, classes, rng)
        patched.setattr(vtab, "NUMBERS", {})
        tool("prepare", "vtab", home / "vtab", home / "lists", "--processes", 1)
    # A task of one's own has no lists for the last training.
    final = home / "lists" / "kitti" / "final"
    final.rename(home / "no_final")
    settings = {
        "data": {
            **{"dataset": "vtab", "sampling": "image", "crop_size": 32, "num_workers": 0},
            **{"train_crop": "none", "fit": "squash"},
        },
        "model": {
            **{"backbone": "timm/vit_tiny_patch16_224", "from_image": "frames"},
            **{"weights": "random", "head": "linear"},
        },
        "train": {"epochs": 2, "batch_size": 4, "warmup_epochs": 0, "precision": "fp32"},
        "variants": {"linear": {"method.name": "linear"}},
    }
    (home / "study.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))
    made = Study(home / "study.yaml", home / "lists", home / "out")
    assert tool("bench_frames", *made.call()) == 0
    return made


@pytest.mark.slow
def test_a_line_has_the_means_of_what_was_trained_and_evaluated(study) -> None:
    lines = read_results(study.out / "results.jsonl")
    assert [line["cell"] for line in lines] == ["linear_1f_s0_joined"]
    for line in lines:
        of_tasks = line["tasks"]["tasks"]
        assert list(of_tasks) == ["patch_camelyon", "kitti"], "by group, then name"
        tops = {}
        for name, own in of_tasks.items():
            final = "_final" if name == "patch_camelyon" else ""
            rate = f"lr{own['base_lr']:g}"
            folder = study.out / "cells" / f"linear_1f_s{line['seed']}_{name}{final}_{rate}"
            used = yaml.safe_load((folder / "run" / "config.yaml").read_text())
            assert used["train"]["base_lr"] == own["base_lr"]
            lists = study.tasks / name / ("final" if final else "")
            assert Path(used["data"]["train_list"]) == lists / "train.txt"
            assert (used["data"]["dev_list"] is None) == bool(final)
            tested = json.loads((folder / "eval" / "metrics.json").read_text())
            tops[name] = tested["top1"]
            assert own["num_videos"] == tested["num_videos"] == 2 * TASKS[name] + 1
            assert own["trainable"] == 193 * TASKS[name]
            chosen = max(own["grid"], key=lambda rate: own["grid"][rate])
            assert own["base_lr"] == float(chosen)
        assert line["top1"] == pytest.approx(statistics.fmean(tops.values()))
        groups = {"Specialised": tops["patch_camelyon"], "Structured": tops["kitti"]}
        assert line["tasks"]["groups"] == groups
        assert line["tasks"]["mean_over_groups"] == pytest.approx(line["top1"])
        assert line["num_videos"] == 14 and line["trainable"] == 193 * 3
    table = (study.out / "table.md").read_text()
    assert "Specialised %" in table and "mean of groups %" in table and "| kitti " in table
    assert len((study.out / "tasks.csv").read_text().splitlines()) == 1 + 2


@pytest.mark.slow
def test_the_same_command_does_nothing_again_and_a_lost_cell_alone_anew(study) -> None:
    def times() -> dict[Path, int]:
        return {p: p.stat().st_mtime_ns for p in study.out.glob("cells/*/run/log.jsonl")}

    before, lines = times(), (study.out / "results.jsonl").read_text()
    assert tool("bench_frames", *study.call()) == 0
    assert times() == before and (study.out / "results.jsonl").read_text() == lines
    [evaluated] = study.out.glob("cells/linear_1f_s0_kitti_lr*/eval/metrics.json")
    tested = evaluated.read_text()
    for file in (evaluated, evaluated.parents[1] / "cell.json"):
        file.unlink()
    assert tool("bench_frames", *study.call()) == 0
    assert (
        times() == before
        and json.loads(evaluated.read_text())["top1"] == json.loads(tested)["top1"]
    )
    again = read_results(study.out / "results.jsonl")
    assert [x["top1"] for x in again] == [json.loads(x)["top1"] for x in lines.splitlines()]


@pytest.mark.slow
def test_impossible_calls_are_refused_before_anything_is_trained(study, tmp_path) -> None:
    with pytest.raises(ConfigError, match="--tasks"):
        tool("bench_frames", *study.call(), "--folds", study.tasks)
    (tmp_path / "none").mkdir()
    other = Study(study.config, tmp_path / "none", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"--tasks: .*none"):
        tool("bench_frames", *other.call())
    settings = yaml.safe_load(study.config.read_text())
    settings["data"]["lists"] = str(study.tasks / "kitti")
    (tmp_path / "lists.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigError, match=r"data\.lists: .*--tasks"):
        tool("bench_frames", *Study(tmp_path / "lists.yaml", study.tasks, other.out).call())
    tasks = read_tasks(study.tasks)
    assert tasks["kitti"].reported == tasks["kitti"].lists
    assert tasks["patch_camelyon"].reported.name == "final"


def of_tasks(
    variant: str, seed: int, tops: dict[str, tuple[str | None, float]], **of_groups
) -> dict:
    keys = {"top5": 100.0, "mean_class_accuracy": 50.0, "num_videos": 9, "base_lr": 0.1}
    each = {
        name: {"group": group, "top1": top1, "trainable": 7, **keys}
        for name, (group, top1) in tops.items()
    }
    mean = statistics.fmean(top1 for _, top1 in tops.values())
    return cell(variant, 1, seed, top1=mean, tasks={"tasks": each, **of_groups})


def test_tables_of_tasks_with_and_without_groups(tmp_path) -> None:
    grouped = {"a": ("Natural", 80.0), "b": ("Natural", 60.0), "c": ("Structured", 10.0)}
    means = {"groups": {"Natural": 70.0, "Structured": 10.0}, "mean_over_groups": 40.0}
    lines = [of_tasks("linear", seed, grouped, **means) for seed in (0, 1)]
    write_results(tmp_path / "results.jsonl", lines)
    assert read_results(tmp_path / "results.jsonl") == lines
    words = " ".join(markdown(lines).split())
    assert "| 70.00 ± 0.00 | 10.00 ± 0.00 | 40.00 ± 0.00 |" in words
    assert "Natural 2, Structured 1" in words and "| b | Natural | 60.00 ± 0.00 |" in words
    assert len(tasks_csv(lines).splitlines()) == 1 + 6
    assert draw(lines, tmp_path / "plots")
    own = {"a": (None, 80.0), "b": (None, 60.0)}
    plain = [of_tasks("linear", 0, own, groups={}, mean_over_groups=None)]
    assert "mean of groups" not in markdown(plain) and "over 2 tasks" in markdown(plain)
    assert tasks_csv([cell("linear", 2, 0)]) == "" and "tasks" not in markdown([cell("vpt", 2, 0)])


def test_a_method_that_failed_on_a_task_has_no_mean(tmp_path) -> None:
    whole = Cell("linear", 1, 0, 0.1, {}, "kitti", final=True).whole
    found = {"kitti": {"problem": "no space left"}, "svhn": {"top1": 50.0}}
    line = cell_of_tasks(Work(tmp_path, 1, Machine("cpu", "fp32")), whole, {}, found)
    assert line.keys() == {"cell", "seed", "problem"} and "kitti: no space left" in line["problem"]
    assert line["cell"] == "linear_1f_s0_joined" and not list(tmp_path.iterdir())
