"""What only a GPU can show; skipped, and counted as such, where there is none."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from conftest import ALONE, load_tool

from vidadapt.distributed import World
from vidadapt.evaluation import load_scores

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_on_the_gpu_scores_the_same_on_the_cpu(tiny_set, tmp_path, monkeypatch, precision):
    run = tmp_path / "run"
    gpu = World(0, 1, torch.device("cuda", 0))
    options = tiny_set.options(train__precision=precision, train__accumulation=2)
    monkeypatch.setattr(sys, "argv", ["train", *options, "--run_dir", str(run)])
    load_tool("train").main(gpu)
    scores = []
    for world, name in ((gpu, "gpu"), (ALONE, "cpu")):
        out = tmp_path / name
        arguments = ["--run_dir", str(run), "--train.precision", "fp32", "--out", str(out)]
        monkeypatch.setattr(sys, "argv", ["evaluate", *arguments])
        load_tool("evaluate").main(world)
        scores.append(load_scores(out / "scores.npz")[0].logits)
    np.testing.assert_allclose(scores[0], scores[1], atol=2e-2)


@pytest.mark.parametrize("method", ["linear", "losa"])
def test_training_from_features_is_that_from_clips(tiny_set, tmp_path, monkeypatch, method):
    losses = []
    for cache in ({}, {"cache__dir": tmp_path / "cache", "cache__draws": 2}):
        run = tmp_path / f"run_{len(cache)}"
        options = tiny_set.options(method__name=method, **cache)
        monkeypatch.setattr(sys, "argv", ["train", *options, "--run_dir", str(run)])
        load_tool("train").main(World(0, 1, torch.device("cuda", 0)))
        lines = (run / "steps.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
    np.testing.assert_allclose(losses[0], losses[1], atol=1e-4)
