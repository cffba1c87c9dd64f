"""Whole runs on a GPU; skipped, and counted as such, where there is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ALONE, ON_CUDA, ROOT, load_tool
from safetensors.torch import load_file
from test_training import assert_same_state, log_of, trainer_of

from vidadapt.distributed import World
from vidadapt.evaluation import load_scores


def on_cuda(test):
    for mark in ON_CUDA:
        test = mark(test)
    return test


@on_cuda
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


@on_cuda
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


# Kernels of attention add gradients in any order unless they are told not to.
IN_ORDER = """
import runpy, sys, torch
torch.use_deterministic_algorithms(True)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def started(options: list[str], run: Path, device: str) -> subprocess.Popen:
    env = {**os.environ, "CUBLAS_WORKSPACE_CONFIG": ":4096:8", "OMP_NUM_THREADS": "1"}
    if device == "cpu":
        env["CUDA_VISIBLE_DEVICES"] = ""
    command = [sys.executable, "-c", IN_ORDER, str(ROOT / "tools/train.py"), *options]
    return subprocess.Popen([*command, "--run_dir", str(run)], stdout=subprocess.DEVNULL, env=env)


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        pytest.param("cpu", "bf16", marks=pytest.mark.slow),
        pytest.param("cuda", "bf16", marks=ON_CUDA),
        pytest.param("cuda", "fp16", marks=ON_CUDA),
    ],
)
def test_a_killed_run_resumed_has_the_bits_of_one_left_alone(tiny_set, tmp_path, device, precision):
    options = tiny_set.options(
        train__epochs=4,
        train__precision=precision,
        train__ema=0.9,
        train__optimizer="adamw",
        train__base_lr=0.05,
        train__clip_grad=1.0,
        train__checkpoint_steps=1,
        method__dropout=0.3,
        model__head="linear",
    )
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    runs = [started(options, run, device) for run in (whole, killed)]
    deadline = time.monotonic() + 240
    while not (killed / "last").exists() and time.monotonic() < deadline:
        assert runs[1].poll() is None, "the run ended before it could be killed"
        time.sleep(0.005)
    runs[1].kill()
    assert [run.wait() for run in runs] == [0, -9]
    assert (killed / "last").exists() and not (killed / "summary.json").exists()
    assert started([*options, "--resume"], killed, device).wait() == 0

    assert json.loads((whole / "environment.json").read_text())["device"].startswith(device)
    assert log_of(killed) == log_of(whole)
    assert (killed / "steps.jsonl").read_text() == (whole / "steps.jsonl").read_text()
    assert_same_state(trainer_of(killed), trainer_of(whole))
    for name in ("last", "best"):
        files = (run / name / "adapter.safetensors" for run in (killed, whole))
        assert_same_state(*map(load_file, files))
