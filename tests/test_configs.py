"""The SSv2 and HMDB51 recipes on generated videos in those sets' own layouts, under torchrun."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT, launch

from vidadapt import config, data, methods, models
from vidadapt.apps.synthetic import write_video
from vidadapt.config import command_line
from vidadapt.lists import Sample, write_list

LAYOUTS = {
    "ssv2": "{number}.webm",
    "hmdb51": "class_{label}/(x)_Title_#{number}!_{label}_f_nm_np1_fr_med_0.avi",
}


@pytest.mark.slow
@pytest.mark.parametrize("dataset", LAYOUTS)
def test_adaptformer_config_trains_and_evaluates(dataset, tmp_path):
    rng = np.random.default_rng(0)
    lists = {}
    for split, count in {"train": 4, "test": 2}.items():
        samples = []
        for number in range(count):
            name = LAYOUTS[dataset].format(number=f"{split}{number}", label=number)
            (tmp_path / name).parent.mkdir(exist_ok=True)
            frames = rng.integers(0, 255, (20, 3, 4, 3), np.uint8).repeat(40, 1).repeat(40, 2)
            write_video(tmp_path / name, frames, 12)
            samples.append(Sample(name, number))
        lists[split] = tmp_path / f"{split}.txt"
        write_list(lists[split], samples)
    model, _ = models.build("vit_tiny", num_frames=8, crop_size=224, num_classes=2)
    encoder = {f"encoder.{k}": v for k, v in model.state_dict().items() if "head" not in k}
    torch.save({"model": encoder}, tmp_path / "pretrained.pth")
    run, out = tmp_path / "run", tmp_path / "out"
    launch(
        "train", "--config", ROOT / "configs" / dataset / "adaptformer.yaml", "--run_dir", run,
        "--data.root", tmp_path, "--data.train_list", lists["train"],
        "--data.test_list", lists["test"], "--model.weights", tmp_path / "pretrained.pth",
        "--model.backbone", "vit_tiny", "--data.num_workers", 1, "--train.batch_size", 2,
        "--train.epochs", 1, "--train.warmup_epochs", 0, processes=2,
    )  # fmt: skip
    launch("evaluate", "--run_dir", run, "--out", out, processes=2)
    found = json.loads((out / "metrics.json").read_text())
    assert found["views"] == "4 clips x 3 crops"
    assert found["fusion"] == "logits"
    assert found["num_videos"] == 2
    assert found["unreadable"] == []


CONFIGS = sorted(p for p in (ROOT / "configs").glob("*/*.yaml") if p.parent.name != "sweeps")


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_config_binds_and_trains_as_many_parameters_as_it_says(path):
    cfg, _ = command_line.parse_train(["--config", str(path), "--run_dir", "x"], methods.METHODS)
    data_config = replace(cfg.data, train_list="train.txt", dev_list="dev.txt")
    config.check(replace(cfg, data=data_config), 2)
    demo = cfg.data.dataset == "custom"
    said = re.search(r"\(([\d,]+) trainable parameters(?: with (\d+) classes)?\)", path.read_text())
    num_classes = data.DATASETS[cfg.data.dataset].num_classes
    if num_classes is None:  # sets of tasks say for how many classes their number is
        num_classes = 12 if demo else int(said.group(2))
    with torch.device("meta"):
        model, _ = models.build(
            cfg.model.backbone,
            num_frames=data.SAMPLINGS[cfg.data.sampling].num_frames,
            crop_size=cfg.data.crop_size,
            num_classes=num_classes,
            head=cfg.model.head,
            from_image=cfg.model.from_image,
        )
        methods.apply(model, cfg.method)
    count = f"{methods.count_parameters(model)[0]:,}"
    assert said is None if demo else said is not None and said.group(1) == count
    if not demo:
        row = f"| `{path.parent.name}/{path.stem}` |"
        page = (ROOT / "docs" / "configurations.md").read_text(encoding="utf-8")
        [line] = [x for x in page.splitlines() if x.startswith(row)]
        assert f"| {count} |" in line


def test_the_configs_of_a_data_set_differ_in_recipe_not_in_data():
    """Each is complete: nothing about the data set is left to a flag."""
    for path in CONFIGS:
        text = path.read_text()
        assert text.startswith("# ")
        if path.parent.name != "demo":
            assert f"dataset: {path.parent.name}" in text
            assert f"vidadapt train --config {path.parent.name}/{path.stem}" in text
