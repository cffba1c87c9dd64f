"""InternVideo2 against its equations, written token by token; its files and its table."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vidadapt import methods
from vidadapt.models import build
from vidadapt.models.internvideo2 import INTERNVIDEO2_SIZES

TINY = {"width": 24, "depth": 2, "num_heads": 3}
State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setitem(INTERNVIDEO2_SIZES, "internvideo2_tiny", TINY)


def made(frames: int = 4, crop: int = 28, **options: Any) -> Any:
    options = {"num_classes": 5, "head": "linear", **options}
    return build("internvideo2_tiny", num_frames=frames, crop_size=crop, **options)


def disturbed(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6)


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def slow_features(
    s: State, clip: Tensor, depth: int, heads: int, adapters: Sequence[State] | None = None
) -> Tensor:
    """Of one clip (3, T, S, S), in plain products, with AdaptFormer's beside each MLP if given."""
    kernel = s["patch_embed.proj.weight"][:, :, 0]
    side = kernel.shape[-1]
    rows = [s["cls_token"][0, 0]]
    for frame in clip.unbind(1):
        for top in range(0, frame.shape[1], side):
            for left in range(0, frame.shape[2], side):
                patch = frame[:, top : top + side, left : left + side]
                rows.append((kernel * patch).sum((1, 2, 3)) + s["patch_embed.proj.bias"])
    x = torch.stack(rows) + s["pos_embed"][0]
    width = x.shape[1]
    for number in range(depth):
        own = {
            name.removeprefix(f"blocks.{number}."): tensor
            for name, tensor in s.items()
            if name.startswith(f"blocks.{number}.")
        }
        q, k, v = (rms(x, own["norm1.weight"]) @ own["attn.qkv.weight"].T).split(width, dim=1)
        q, k = rms(q, own["attn.q_norm.weight"]), rms(k, own["attn.k_norm.weight"])
        found = []
        for part in range(heads):
            cut = slice(part * width // heads, (part + 1) * width // heads)
            scores = q[:, cut] @ k[:, cut].T / math.sqrt(width // heads)
            found.append(scores.softmax(1) @ v[:, cut])
        change = torch.cat(found, 1) @ own["attn.proj.weight"].T + own["attn.proj.bias"]
        x = x + own["ls1.gamma"] * change
        beside: Tensor | float = 0.0
        if adapters is not None:
            one = adapters[number]
            low = torch.clamp(x @ one["down.weight"].T + one["down.bias"], min=0)
            beside = 0.1 * (low @ one["up.weight"].T + one["up.bias"])
        hidden = rms(x, own["norm2.weight"]) @ own["mlp.fc1.weight"].T + own["mlp.fc1.bias"]
        change = gelu(hidden) @ own["mlp.fc2.weight"].T + own["mlp.fc2.bias"]
        x = x + own["ls2.gamma"] * change + beside
    return x


@pytest.mark.parametrize(("frames", "crop"), [(1, 28), (4, 28), (2, 42)])
def test_features_follow_the_equations(frames, crop):
    torch.set_default_dtype(torch.float64)
    try:
        model = disturbed(made(frames, crop)[0])
        clip = torch.randn(2, 3, frames, crop, crop, generator=torch.Generator().manual_seed(1))
    finally:
        torch.set_default_dtype(torch.float32)
    clip = clip.double()
    with torch.no_grad():
        found = model.forward_features(clip)
        expected = torch.stack([slow_features(model.state_dict(), one, 2, 3) for one in clip])
    assert expected.std() > 0.5
    assert (found - expected).abs().max() < 1e-10


def test_gradients_of_an_adapter_follow_the_equations():
    torch.set_default_dtype(torch.float64)
    try:
        model = disturbed(made()[0])
        frozen = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        methods.apply(model, {"name": "adaptformer", "bottleneck": 8})
        generator = torch.Generator().manual_seed(1)
        clip = torch.randn(2, 3, 4, 28, 28, generator=generator)
        towards = torch.randn(24, generator=generator)
    finally:
        torch.set_default_dtype(torch.float32)
    blocks: list[Any] = [slot.block for slot in model.slots()]
    for block in blocks:
        for parameter in block.adapter.parameters():
            parameter.data.normal_(generator=generator, std=0.3)
    (model.forward_features(clip) * towards).square().sum().backward()
    adapters = [
        {
            name: parameter.detach().clone().requires_grad_()
            for name, parameter in block.adapter.named_parameters()
        }
        for block in blocks
    ]
    expected = torch.stack([slow_features(frozen, one, 2, 3, adapters) for one in clip])
    (expected * towards).square().sum().backward()
    for block, slow in zip(blocks, adapters, strict=True):
        for name, parameter in block.adapter.named_parameters():
            gradient = slow[name].grad
            assert gradient is not None and gradient.abs().max() > 0.1
            assert (parameter.grad - gradient).abs().max() < 1e-10 * gradient.abs().max()


def released(model: nn.Module) -> State:
    """The layout of the release, pre-training decoders included."""
    body = {
        name: tensor.clone()
        for name, tensor in model.state_dict().items()
        if not name.startswith(("head.", "fc_norm."))
    }
    return {
        **body,
        "clip_pos_embed": torch.zeros(1, 17, 24),
        "mae_pos_embed": torch.zeros(1, 16, 24),
        "clip_projector.norm1_q.weight": torch.ones(24),
        "clip_decoder.0.head.weight": torch.ones(32, 24),
        "final_clip_decoder.norm.weight": torch.ones(32),
        "mae_decoder.0.head.0.weight": torch.ones(24, 24),
    }


def test_a_file_of_the_release_loads(tmp_path):
    source = disturbed(made()[0])
    torch.save({"module": released(source)}, tmp_path / "a.pth")
    model, report = made(weights=tmp_path / "a.pth")
    clip = torch.randn(1, 3, 4, 28, 28)
    with torch.no_grad():
        assert torch.equal(model.eval().forward_features(clip), source.forward_features(clip))
    assert report.family == "InternVideo2, under `module`"
    assert len([name for names in report.dropped.values() for name in names]) == 6
    own = {**source.state_dict()}
    save_file(own, tmp_path / "own.safetensors")
    again, report = made(weights=tmp_path / "own.safetensors")
    assert torch.equal(again.pos_embed, source.pos_embed)
    assert {name.split(".")[0] for names in report.dropped.values() for name in names} == {
        "head",
        "fc_norm",
    }


@pytest.mark.parametrize(("frames", "crop"), [(16, 28), (4, 28), (8, 42), (4, 42)])
def test_positions_of_eight_frames_are_resized(frames, crop, tmp_path):
    """A table that is linear in time and equal in space stays so."""
    source = made(8, 28)[0]
    times = torch.linspace(-1, 1, 8)[None, :, None, None].expand(1, 8, 4, 24)
    table = torch.cat([torch.full((1, 1, 24), 7.0), times.reshape(1, 32, 24)], dim=1)
    source.pos_embed = nn.Parameter(table)
    torch.save(source.state_dict(), tmp_path / "a.pth")
    model, report = made(frames, crop, weights=tmp_path / "a.pth")
    side = crop // 14
    found = model.pos_embed[0, 1:].unflatten(0, (frames, side * side))
    assert (model.pos_embed[0, 0] == 7).all()
    assert torch.allclose(found, found[:, :1, :1].expand_as(found), atol=1e-5)
    # Samples at the centres of the new frames, clamped at the ends.
    centres = ((torch.arange(frames) + 0.5) * 8 / frames - 0.5).clamp(0, 7)
    assert torch.allclose(found[:, 0, 0], -1 + 2 * centres / 7, atol=1e-5)
    assert any("resized" in note for note in report.notes)


def test_files_of_others_are_refused_by_name(tmp_path):
    file: Path = tmp_path / "a.pth"
    torch.save(made()[0].state_dict(), file)
    shape = {"num_frames": 4, "crop_size": 32, "num_classes": 5}
    for backbone in ("vit_tiny", "vivit_tiny", "vjepa2_tiny"):
        with pytest.raises(ValueError, match="internvideo2_"):
            build(backbone, weights=file, **shape)
    torch.save(build("vit_tiny", **shape)[0].state_dict(), file)
    with pytest.raises(ValueError, match="vit_"):
        made(weights=file)
    with pytest.raises(ValueError, match="keep_head"):
        made(keep_head=True)
