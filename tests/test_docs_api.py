"""docs/extending.md and docs/python_api.md: every example runs, from outside the package."""

from __future__ import annotations

import doctest
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from conftest import ROOT, launch, load_tool

import vidadapt
from vidadapt import models
from vidadapt.apps.synthetic import write_video
from vidadapt.config import ConfigError
from vidadapt.evaluation import in_percent

EXTENDING = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
DICTS = [vidadapt.METHODS, vidadapt.METRICS, vidadapt.DATASETS, vidadapt.BACKBONES]


def modules() -> dict[str, str]:
    """The modules that the page shows, by file name."""
    blocks = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", EXTENDING, flags=re.DOTALL)
    return dict(blocks)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """A working directory with the modules; what they add is taken out at the end."""
    before = [dict(one) for one in DICTS]
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.chdir(tmp_path)
    for name, text in modules().items():
        (tmp_path / name).write_text(text)
    yield tmp_path
    for one, kept in zip(DICTS, before, strict=True):
        one.clear()
        one.update(kept)
    for name in modules():
        sys.modules.pop(name.removesuffix(".py"), None)


def test_the_page_shows_a_module_of_each_kind():
    assert list(modules()) == ["my_method.py", "my_metric.py", "my_dataset.py", "my_backbone.py"]
    assert len(modules()["my_method.py"].strip().splitlines()) <= 30


def test_the_method_trains_and_loads_again(folder, tiny_set, run_tool):
    words = tiny_set.options(method__name="channel_scale", method__layers="4-6")
    run_tool("train", *words, "--run_dir", "run", "--plugins", "my_method")
    model = vidadapt.load("run")
    trained = {name for name in model.adapter.tensors if name.endswith(".scale")}
    assert trained == {f"blocks.{number}.scale" for number in (3, 4, 5)}
    assert any((model.adapter.tensors[name] != 1).any() for name in trained)
    clip = np.zeros((1, 4, 32, 32, 3), np.uint8)
    assert torch.equal(vidadapt.load("run/best")(clip), model(clip))
    with pytest.raises(ValueError, match="channel_scale cannot be merged"):
        load_tool("export").main(["run/best", "merged.pth", "--plugins", "my_method"])


def test_the_metric_is_validated_and_evaluated(folder, tiny_set, run_tool, capsys):
    words = tiny_set.options(train__epochs=1, method__name="linear")
    run_tool("train", *words, "--run_dir", "run", "--plugins", "my_metric")
    assert 0 <= json.loads((folder / "run" / "log.jsonl").read_text())["dev_top3"] <= 100
    run_tool("evaluate", "--run_dir", "run", "--plugins", "my_metric", "--out", "out")
    # There are three classes.
    assert json.loads((folder / "out" / "metrics.json").read_text())["top3"] == 100
    assert "top3" in in_percent() and "top-3 100.00" in capsys.readouterr().out


def test_the_data_set_sets_its_rules(folder, tiny_set, run_tool):
    words = tiny_set.options(
        train__epochs=1, method__name="linear", data__dataset="turns", data__sampling=None
    )
    run_tool("train", *words, "--run_dir", "run", "--plugins", "my_dataset")
    assert vidadapt.load("run").adapter.plan.dataset == "turns"
    with pytest.raises(ValueError, match=r"data\.flip"):
        run_tool(
            "train", *words, "--data.flip", "true", "--run_dir", "other", "--plugins", "my_dataset"
        )


def test_the_backbone_takes_weights_and_methods(folder, tiny_set, run_tool):
    words = tiny_set.options(
        train__epochs=1, method__name="adaptformer", model__backbone="vit_mini",
        model__weights="random",
    )  # fmt: skip
    run_tool("train", *words, "--run_dir", "run", "--plugins", "my_backbone")
    model = vidadapt.load("run")
    assert (model.module.name, model.module.depth, model.module.width) == ("vit_mini", 2, 48)
    weights = {k: v for k, v in model.module.state_dict().items() if k.startswith("blocks.0.block")}
    assert weights
    shape = {"num_frames": 4, "crop_size": 32, "num_classes": 3, "head": "linear"}
    plain, _ = models.build("vit_mini", **shape)
    torch.save(plain.state_dict(), "mini.pth")
    again, report = models.build("vit_mini", **shape, weights="mini.pth", keep_head=True)
    assert report is not None
    clip = torch.zeros(1, 3, 4, 32, 32)
    assert torch.equal(again.eval()(clip), plain.eval()(clip))


def test_cost_counts_a_method_of_a_plugin(folder):
    words = ["--method", "channel_scale", "--backbone", "vit_tiny", "--num_frames", "4"]
    words += ["--crop_size", "32", "--num_classes", "3", "--head", "linear", "--no_time"]
    words += ["--plugins", "my_method", "--json", "cost.json"]
    assert load_tool("cost").main(words) == 0
    [entry] = json.loads((folder / "cost.json").read_text())
    # Scales of 6 blocks, fc_norm, and the head.
    assert entry["trainable"] == 6 * 192 + 2 * 192 + 3 * 193


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_the_method_is_trained_by_commands_from_outside_the_package(tiny_set, tmp_path, processes):
    """Where nothing but --plugins knows it; its folder is named by PYTHONPATH."""
    for name, text in modules().items():
        (tmp_path / name).write_text(text)
    run = tmp_path / "run"
    words = tiny_set.options(train__epochs=1, method__name="channel_scale", data__num_workers=1)
    with pytest.MonkeyPatch.context() as patch:
        path = [str(tmp_path), os.environ.get("PYTHONPATH", "")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, path)))
        named = ["--plugins", "my_method,my_metric"]
        launch("train", *words, "--run_dir", run, *named, processes=processes)
        launch("evaluate", "--run_dir", run, *named, processes=processes)
        video = next(tiny_set.root.glob("test *.mp4"))
        told = launch("predict", video, "--adapter", run, "--json", *named)
        assert json.loads(told.stdout)["predictions"]
        refused = launch("evaluate", "--run_dir", run, check=False)
        assert refused.returncode == 2 and "--plugins my_method,my_metric" in refused.stderr
    assert yaml.safe_load((run / "config.yaml").read_text())["plugins"] == named[1].split(",")
    [metrics] = run.glob("eval_*/metrics.json")
    assert json.loads(metrics.read_text())["top3"] == 100


@pytest.mark.slow
def test_the_frames_benchmark_gives_plugins_to_its_cells(tiny_set, tmp_path, monkeypatch):
    for name, text in modules().items():
        (tmp_path / name).write_text(text)
    keys = tiny_set.options(train__epochs=1, data__num_frames=None)
    settings: dict[str, dict[str, object]] = {}
    for key, value in zip(keys[::2], keys[1::2], strict=True):
        section, _, name = key.removeprefix("--").partition(".")
        settings.setdefault(section, {})[name] = yaml.safe_load(value)
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings))
    words = ["--config", "mine.yaml", "--frames", "4", "--methods", "channel_scale", "--steps", "2"]
    words += ["--out", "out", "--plugins", "my_method,my_metric"]
    monkeypatch.chdir(tmp_path)
    launch("bench_frames", *words)
    [line] = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert json.loads(line)["top3"] == 100
    assert "top-3 %" in (tmp_path / "out" / "table.md").read_text()


def test_the_examples_of_the_python_api(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for label, name in enumerate(("red", "green", "blue")):
        (tmp_path / "my_videos" / name).mkdir(parents=True)
        for number in range(10):
            frames = rng.integers(0, 60, (12, 48, 64, 3), dtype=np.uint8)
            frames[..., label] += 120
            write_video(tmp_path / "my_videos" / name / f"{number}.mp4", frames, 12)
    (tmp_path / "notes.mp4").write_text("no video")
    said: list[str] = []
    text = (ROOT / "docs" / "python_api.md").read_text(encoding="utf-8")
    examples = doctest.DocTestParser().get_doctest(text, {}, "python_api.md", "python_api.md", 0)
    assert len(examples.examples) > 20
    failed, _ = doctest.DocTestRunner(verbose=False).run(examples, out=said.append)
    assert failed == 0, "".join(said)


def test_a_plugin_that_nobody_names_is_not_imported(folder, tiny_set, run_tool):
    """As the page says it."""
    words = tiny_set.options(train__epochs=1, method__name="channel_scale")
    run_tool("train", *words, "--run_dir", "run", "--plugins", "my_method")
    del sys.modules["my_method"]
    with pytest.raises(ConfigError) as caught:
        run_tool("evaluate", "--run_dir", "run")
    quoted = re.search(r"error: runs/mine/(config\.yaml: .*?)\n```", EXTENDING, flags=re.DOTALL)
    assert quoted is not None
    assert str(caught.value) == f"run/{' '.join(quoted.group(1).split())}"
