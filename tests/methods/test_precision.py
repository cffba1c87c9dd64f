"""Frozen weights cast once: the same results, bit by bit, as with autocast's own casts."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from kinds import chosen, clips, disturb, fresh
from test_contracts import PAIRS
from torch import Tensor, nn

from vidadapt import methods
from vidadapt.models import VideoModel, precision

CPU = torch.device("cpu")


def adapted(method: str, kind: str, **options) -> VideoModel:
    model = fresh(kind)
    torch.manual_seed(4)
    methods.apply(model, {**chosen(method, kind), **options})
    disturb(model)
    methods.train_mode(model)
    return model


def step(model: VideoModel, clip: Tensor, what: str = "bf16") -> dict[str, Tensor]:
    """Logits, gradients and buffers after a training step's forward and backward, by name."""
    torch.manual_seed(7)
    with precision.autocast(CPU, what):
        logits = model(clip)
    logits.float().square().mean().backward()
    grads = {f"grad of {n}": p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {"logits": logits.detach(), **grads, **dict(model.named_buffers())}


def assert_equal(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def cast(model: VideoModel, what: str = "bf16") -> VideoModel:
    other = copy.deepcopy(model)
    precision.cast_frozen(other, CPU, what)
    return other


def halved(model: VideoModel) -> set[str]:
    return {name for name, p in model.named_parameters() if p.dtype == torch.bfloat16}


@pytest.mark.parametrize(("method", "kind"), PAIRS)
def test_steps_and_evaluation_stay_the_same(method, kind):
    plain = adapted(method, kind)
    ready = cast(plain)
    assert [m.training for m in ready.modules()] == [m.training for m in plain.modules()]
    trained = {name for name, p in plain.named_parameters() if p.requires_grad}
    assert not halved(ready) & trained
    own = clips(kind=kind)
    assert_equal(step(ready, own), step(plain, own))
    with torch.no_grad(), precision.autocast(CPU, "bf16"):
        assert torch.equal(ready.eval()(own), plain.eval()(own))


@pytest.mark.parametrize(("method", "kind"), PAIRS)
def test_all_frozen_weights_of_products_are_cast_and_no_others(method, kind):
    ready = cast(adapted(method, kind))
    products = (nn.Linear, nn.Conv2d, nn.Conv3d)
    expected = {
        f"{place}.{name}"
        for place, module in ready.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
        if not parameter.requires_grad
        and (isinstance(module, products) or name in ("q_bias", "v_bias"))
    }
    assert halved(ready) == expected


def test_a_run_and_its_evaluation_stay_the_same(tiny_set, run_tool, tmp_path, monkeypatch):
    files = {}
    for how in ("cast once", "cast by autocast"):
        if how == "cast by autocast":
            monkeypatch.setattr(precision, "cast_frozen", lambda *_: 0)
        run = tmp_path / how
        options = tiny_set.options(method__name="adaptformer", train__precision="bf16")
        run_tool("train", *options, "--run_dir", run)
        run_tool("evaluate", "--run_dir", run)
        with np.load(run / "eval_test_best_2x3" / "scores.npz") as scores:
            logits = scores["logits"]
        files[how] = (run / "last" / "adapter.safetensors").read_bytes(), logits.tobytes()
    assert files["cast once"] == files["cast by autocast"]


def test_copies_recompute_with_what_was_cast():
    plain = adapted("adaptformer", "tubelet ViT")
    for what in ("mlp", "block"):
        ready = copy.deepcopy(plain)
        methods.recompute_blocks(ready, what)
        precision.cast_frozen(ready, CPU, "bf16")
        assert "blocks.0.block.mlp.fc1.weight" in halved(ready)
        assert_equal(step(ready, clips()), step(copy.deepcopy(plain), clips()))


def test_float32_casts_nothing_and_float16_is_float16():
    model = adapted("lora", "tubelet ViT")
    assert precision.cast_frozen(model, CPU, "fp32") == 0
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    plain = copy.deepcopy(model)
    weights = [b.mlp.fc1.weight.numel() for b in model.blocks]
    assert precision.cast_frozen(model, CPU, "fp16") > sum(weights)
    assert model.blocks[0].mlp.fc1.weight.dtype == torch.float16
    assert_equal(step(model, clips(), "fp16"), step(plain, clips(), "fp16"))


class Both(nn.Module):
    """The third block's MLP, one of whose weights is read by an addition, too."""

    def __init__(self, mlp: nn.Module) -> None:
        super().__init__()
        self.mlp = mlp

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x) + self.mlp.fc2.weight[:, 0]


def test_a_weight_that_something_else_reads_is_left_alone():
    model = adapted("linear", "tubelet ViT")
    model.blocks[2].mlp = Both(model.blocks[2].mlp)
    ready = cast(model)
    assert "blocks.2.mlp.mlp.fc1.weight" in halved(ready)
    assert "blocks.2.mlp.mlp.fc2.weight" not in halved(ready)
    assert_equal(step(ready, clips()), step(model, clips()))
