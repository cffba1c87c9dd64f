"""Numbers that are the same however many processes share the work."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import on_five_processes
import pytest
import torch
from conftest import ALONE, launch, load_tool, run_program
from on_five_processes import CLIPS, SIZES
from safetensors.torch import load_file
from torch import nn

from vidadapt.config import Config, ConfigError, DataConfig, ModelConfig, TrainConfig, check
from vidadapt.evaluation import METRICS, Scores, load_scores
from vidadapt.models.heads import HEADS

pytestmark = pytest.mark.slow  # whole runs in processes of their own

VIDEOS = {"broken": 7, "short": 2}


def train_here(*options: object) -> None:
    """vidadapt train in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["tools/train.py", *map(str, options)])
        load_tool("train").main(ALONE)


@pytest.fixture(scope="module")
def done(tiny_set, tmp_path_factory) -> Path:
    """Results of `on_five_processes` on lists with an unreadable video, one of two videos."""
    run = tmp_path_factory.mktemp("trained") / "run"
    train_here(*tiny_set.options(train__epochs=1), "--run_dir", run)
    out = tmp_path_factory.mktemp("videos") / "set"
    shutil.copytree(tiny_set.root, out)
    (out / "test 1 [x]#.mp4").write_bytes(b"not a video")
    lines = tiny_set.lists["test"].read_text().splitlines()
    for name, number in VIDEOS.items():
        (out / f"{name}.txt").write_text("\n".join(lines[:number]) + "\n")
    options = tiny_set.options(train__batch_size=2)
    run_program(on_five_processes.__file__, out, run, *options)
    return out


def evaluation(folder: Path) -> tuple[dict, Scores, dict]:
    found = json.loads((folder / "metrics.json").read_text())
    del found["seconds"], found["seconds_per_video"]
    return found, *load_scores(folder / "scores.npz")


@pytest.mark.parametrize("name", VIDEOS)
def test_an_evaluation_is_the_same_to_the_bit(done, name):
    """Also with fewer videos than processes, and with one that cannot be read."""
    metrics, scores, about = evaluation(done / f"{name}_1")
    assert metrics["num_videos"] == VIDEOS[name]
    assert metrics["views"] == "2 clips x 3 crops"
    assert [entry["path"] for entry in metrics["unreadable"]] == ["test 1 [x]#.mp4"]
    assert np.isnan(scores.logits[1]).all()
    assert np.isfinite(np.delete(scores.logits, 1, axis=0)).all()
    for size in SIZES[1:]:
        other, its_scores, its_about = evaluation(done / f"{name}_{size}")
        assert other == metrics
        assert its_about == about
        assert its_scores.paths == scores.paths
        assert its_scores.logits.tobytes() == scores.logits.tobytes()
        assert not (done / f"{name}_{size}" / "parts").exists()


def test_a_validation_in_training_is_the_same(done):
    first, *others = [json.loads((done / f"validated_{size}.json").read_text()) for size in SIZES]
    assert first.keys() == {f"dev_{name}" for name in METRICS}
    assert others == [first] * 3


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-5), (torch.float64, 1e-12)])
def test_batchnorm_over_unequal_processes_is_that_of_the_whole_batch(done, dtype, tolerance):
    """Forward, backward and running statistics of two steps, one process having no clip."""
    torch.manual_seed(0)
    head = HEADS["batchnorm_linear"](on_five_processes.WIDTH, 3).double()
    assert isinstance(head[0], nn.BatchNorm1d)
    # The processes' weights are the same, rounded to their type.
    head.load_state_dict({k: v.to(dtype).to(v.dtype) for k, v in head.state_dict().items()})
    for step in range(2):
        x, weights = on_five_processes.batch(step, dtype)
        x = x.double().requires_grad_()
        head.zero_grad()
        y = head(x)
        (y * weights.double()).sum().backward()
        parts = [torch.load(done / f"{dtype}_{step}_{rank}.pt") for rank in range(len(CLIPS))]
        joined = {name: torch.cat([part[name] for part in parts]) for name in ("y", "x.grad")}
        joined["weight.grad"] = torch.stack([part["weight.grad"] for part in parts]).sum(0)
        expected = {"y": y.detach(), "x.grad": x.grad, "weight.grad": head[1].weight.grad}
        for name, value in expected.items():
            assert joined[name].dtype == dtype
            scale = value.abs().max()
            torch.testing.assert_close(
                joined[name].double(), value, rtol=0, atol=tolerance * scale.item(), msg=name
            )
        for name, buffer in head[0].state_dict().items():
            found = parts[0][f"0.{name}"]
            torch.testing.assert_close(found.to(buffer.dtype), buffer, rtol=tolerance, atol=1e-14)
            assert all(torch.equal(part[f"0.{name}"], found) for part in parts)


def test_two_processes_train_through_a_shared_batchnorm_as_one_does(tiny_set, tmp_path):
    """The same global batches, through the head with a BatchNorm; the checkpoint is like any."""
    one = tiny_set.options(train__batch_size=4, train__base_lr=0.5)
    two = tiny_set.options(train__batch_size=2, train__base_lr=0.5)
    train_here(*one, "--train.sync_batchnorm", "true", "--run_dir", tmp_path / "one")
    launch("train", *two, "--train.sync_batchnorm", "true", "--run_dir", tmp_path / "two",
           processes=2)  # fmt: skip
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / run / "steps.jsonl").open()]
        for run in ("one", "two")
    ]
    assert len(losses[0]) == 6
    np.testing.assert_allclose(*losses, rtol=0, atol=1e-5)
    first, second = (load_file(tmp_path / r / "last/adapter.safetensors") for r in ("one", "two"))
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("head", "batch_size", "processes", "message"),
    [
        ("linear", 4, 2, r"train\.sync_batchnorm: model\.head linear has no BatchNorm"),
        ("batchnorm_linear", 1, 1, r"train\.batch_size: the BatchNorm .* needs 2 clips"),
        ("batchnorm_linear", 1, 2, None),
    ],
)
def test_a_shared_batchnorm_needs_a_batchnorm_and_two_clips_in_all(
    head, batch_size, processes, message
):
    cfg = Config(
        "run",
        data=DataConfig(train_list="train.txt"),
        model=ModelConfig(head=head),
        train=TrainConfig(batch_size=batch_size, sync_batchnorm=True),
    )
    if message is None:
        check(cfg, processes)
        return
    with pytest.raises(ConfigError, match=message):
        check(cfg, processes)
