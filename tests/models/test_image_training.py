"""An image model through the command lines: train, then evaluate what was saved."""

from __future__ import annotations

import json

import pytest
import timm
import torch
import yaml

BACKBONE = "timm/vit_tiny_patch16_224"


@pytest.mark.parametrize(
    "changes", [{"model__from_image": "frames"}, {"model__inflation": "centre"}]
)
def test_a_run_on_an_image_model_trains_and_is_evaluated(changes, tiny_set, run_tool, tmp_path):
    torch.manual_seed(0)
    image = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32)
    torch.save(image.state_dict(), tmp_path / "image.pth")
    run = tmp_path / "run"
    options = tiny_set.options(
        model__backbone=BACKBONE,
        model__weights=tmp_path / "image.pth",
        train__epochs=1,
        train__layer_decay=0.9,
        **changes,
    )
    run_tool("train", "--run_dir", run, *options)
    saved = json.loads((run / "last" / "adapter.json").read_text())
    key, value = next(iter(changes.items()))
    assert saved["model"]["backbone"] == BACKBONE
    assert saved["model"][key.removeprefix("model__")] == value
    assert yaml.safe_load((run / "config.yaml").read_text())["model"]["backbone"] == BACKBONE
    run_tool("evaluate", "--run_dir", run, "--eval.num_clips", 1, "--eval.num_crops", 1)
    metrics = next(run.rglob("metrics.json"))
    assert json.loads(metrics.read_text())["num_videos"] == 7
