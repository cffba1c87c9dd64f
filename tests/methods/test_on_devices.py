"""Training steps in half precision on each device; every method on every kind of backbone on CUDA.

The CPU takes a part of the same cases.
"""

from __future__ import annotations

import pytest
import torch
from conftest import ON_CUDA
from kinds import NUM_CLASSES, chosen, clips, fresh
from test_contracts import PAIRS
from torch.nn.functional import cross_entropy

from vidadapt import methods
from vidadapt.models import VideoModel, autocast, cast_frozen
from vidadapt.training import build_optimizer, parameter_groups, set_lr

CASES = [
    pytest.param(device, *pair, marks=ON_CUDA if device == "cuda" else ())
    for device in ("cpu", "cuda")
    for pair in PAIRS
    if device == "cuda" or "adaptformer" in pair or "tubelet ViT" in pair
]


def logits(model: VideoModel, clip: torch.Tensor, precision: str) -> torch.Tensor:
    with torch.no_grad(), autocast(clip.device, precision):
        return model.eval()(clip).float().cpu()


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize(("name", "method", "kind"), CASES)
def test_steps_in_half_precision_train_what_is_to_be_trained(name, method, kind, precision):
    device = torch.device(name)
    model = fresh(kind)
    torch.manual_seed(0)
    methods.apply(model, chosen(method, kind))
    exact = logits(model, clips(kind=kind), "fp32")
    model.to(device)
    cast_frozen(model, device, precision)
    clip, labels = clips(kind=kind).to(device), torch.arange(4, device=device) % NUM_CLASSES
    # Rounded, the logits are those that the CPU has in float32.
    rounded = logits(model, clip, precision)
    assert (rounded - exact).norm() < 0.1 * exact.norm()

    before = {n: tensor.detach().clone() for n, tensor in model.named_parameters()}
    groups = parameter_groups(model, depth=model.depth, weight_decay=0.0, layer_decay=1.0)
    optimizer = build_optimizer("sgd", groups)
    set_lr(optimizer, 0.1)
    scaler = torch.amp.GradScaler(name, enabled=precision == "fp16", init_scale=2.0**10)
    methods.train_mode(model)
    for _ in range(2):
        with autocast(device, precision):
            found = model(clip)
        loss = cross_entropy(found.float(), labels)
        assert loss.isfinite()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert moved <= trained and {n for n in trained if "head" in n} <= moved
    assert moved - {n for n in moved if "head" in n} or method == "linear"
    assert all(p.isfinite().all() for p in model.parameters())
