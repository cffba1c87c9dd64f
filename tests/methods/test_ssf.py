"""SSF against the formula written out, its counts, its initialisations and its merge."""

from __future__ import annotations

import pytest
import torch
from einops import rearrange
from kinds import clips, disturb
from torch import nn
from torch.nn import functional

from vidadapt import methods
from vidadapt.methods.placing import places
from vidadapt.methods.ssf import SSF, ScaleShift
from vidadapt.models import build


def small_model():
    torch.manual_seed(0)
    return build("vit_tiny", num_frames=4, crop_size=32, num_classes=5)[0]


def moved():
    model = small_model()
    methods.apply(model, {"name": "ssf"})
    disturb(model)
    return model.double().eval()


def by_hand(model, clip: torch.Tensor) -> torch.Tensor:
    """The tubelet ViT with gamma * x + beta after every operation, from plain tensor functions."""

    def tuned(wrapper: SSF, x: torch.Tensor) -> torch.Tensor:
        return wrapper.delta.scale * x + wrapper.delta.shift

    def norm(wrapper: SSF, x: torch.Tensor) -> torch.Tensor:
        inner = wrapper.frozen
        centred = x - x.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return tuned(wrapper, centred / deviation * inner.weight + inner.bias)

    def dense(wrapper: SSF, x: torch.Tensor) -> torch.Tensor:
        return tuned(wrapper, x @ wrapper.frozen.weight.T + wrapper.frozen.bias)

    proj = model.patch_embed.frozen.proj
    patches = functional.conv3d(clip, proj.weight, proj.bias, stride=proj.stride)
    x = tuned(model.patch_embed, rearrange(patches, "b d t h w -> b (t h w) d")) + model.pos_embed
    for block in model.blocks:
        attn, y = block.attn, norm(block.norm1, x)
        bias = torch.cat([attn.q_bias, torch.zeros_like(attn.q_bias), attn.v_bias])
        qkv = tuned(attn.qkv, y @ attn.qkv.frozen.weight.T + bias)
        q, k, v = rearrange(qkv, "b n (three h d) -> three b h n d", three=3, h=3)
        mixed = (q @ k.transpose(-1, -2) / 64**0.5).softmax(-1) @ v
        x = x + dense(attn.proj, rearrange(mixed, "b h n d -> b n (h d)"))
        hidden = dense(block.mlp.fc1, norm(block.norm2, x))
        x = x + dense(block.mlp.fc2, functional.gelu(hidden))
    return model.forward_head(x)


def test_it_is_the_formula_written_out():
    model = moved()
    with torch.no_grad():
        expected, found = by_hand(model, clips().double()), model(clips().double())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_count_on_vit_base_is_that_of_the_formula():
    with torch.device("meta"):
        model, _ = build("vit_base", num_frames=8, crop_size=224, num_classes=174)
        methods.apply(model, {"name": "ssf"})
    assert methods.count_parameters(model)[0] == 2 * 768 + 12 * 22 * 768 + 135_342
    assert 2 * 768 + 12 * 22 * 768 == 204_288


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_merged_it_is_a_plain_model_with_the_same_logits(dtype, atol):
    model = moved().to(dtype)
    with torch.no_grad():
        expected = model(clips().to(dtype))
        methods.merge(model, "ssf")
        found = model(clips().to(dtype))
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    assert model.state_dict().keys() == small_model().state_dict().keys()
    assert [type(m) for m in model.modules()] == [type(m) for m in small_model().modules()]


def test_shifting_the_keys_changes_nothing():
    """Why the merged model needs no bias for keys, however large the shift."""
    model = moved()
    with torch.no_grad():
        expected = model(clips().double())
        for block in model.blocks:
            block.attn.qkv.delta.shift[192:384] += 3.0
        found = model(clips().double())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_the_released_initialisation_is_near_the_identity_and_not_it():
    model = small_model().eval()
    expected = model(clips())
    methods.apply(model, {"name": "ssf", "init": "released"})
    deltas = [place.module.delta for place in places(model, SSF)]
    scales, shifts = (
        torch.cat([d.scale for d in deltas]),
        torch.cat([d.shift for d in deltas]),
    )
    assert abs(scales.mean() - 1) < 1e-3 and abs(shifts.mean()) < 1e-3
    assert 0.0195 < scales.std() < 0.0205 and 0.0195 < shifts.std() < 0.0205
    assert not torch.allclose(model.eval()(clips()), expected, atol=1e-3)


def test_after_a_convolution_channels_come_second():
    torch.manual_seed(0)
    conv, x = nn.Conv2d(3, 6, 2, 2), torch.randn(2, 3, 8, 8)
    delta = ScaleShift(6, has_shift=True, channels_first=True, init="released")
    found = SSF(conv, delta)(x)
    for channel in range(6):
        expected = delta.scale[channel] * conv(x)[:, channel] + delta.shift[channel]
        torch.testing.assert_close(found[:, channel], expected)


def test_in_half_precision_scales_keep_their_small_steps():
    delta = ScaleShift(4, has_shift=True, channels_first=False, init="identity")
    nn.init.constant_(delta.scale, 1.003)  # 1 in bfloat16
    x = torch.linspace(1, 2, 400).view(100, 4).bfloat16()
    found = delta(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, (x.float() * 1.003).bfloat16())
    assert not torch.equal(found, x)


def test_a_layer_without_a_bias_gets_no_shift():
    model = small_model()
    for block in model.blocks:
        block.mlp.fc1 = nn.Linear(192, 768, bias=False)
    methods.apply(model, {"name": "ssf"})
    assert model.blocks[0].mlp.fc1.delta.shift is None
    disturb(model)
    model.double().eval()
    with torch.no_grad():
        expected = model(clips().double())
        methods.merge(model, "ssf")
        found = model(clips().double())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
