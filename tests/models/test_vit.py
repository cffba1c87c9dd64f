"""The ViT against closed forms and slow references written from the equations."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from torch import Tensor

from vidadapt.models import SIZES, build
from vidadapt.models.blocks import Block
from vidadapt.models.positions import interpolated_table, sincos_table
from vidadapt.models.vit import VideoViT


def tiny(num_frames: int = 8, crop_size: int = 32, **options) -> VideoViT:
    torch.manual_seed(0)
    sizes = {"width": 48, "depth": 2, "num_heads": 3, "num_classes": 5} | options
    return VideoViT(num_frames=num_frames, crop_size=crop_size, **sizes).eval()


def randomize(model: torch.nn.Module) -> None:
    """Every parameter, biases and norms included, away from its initial value."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)


def test_token_counts_and_position_rows():
    with torch.device("meta"):
        long, _ = build("vit_base", num_frames=16, crop_size=224, num_classes=1)
        short, _ = build("vit_base", num_frames=8, crop_size=224, num_classes=1)
    assert long.pos_embed.shape == (1568, 768) and long.grid == (8, 14, 14)
    assert short.pos_embed.shape == (784, 768) and short.grid == (4, 14, 14)
    assert torch.equal(sincos_table(1568, 768)[:784], sincos_table(784, 768))


def test_positions_equal_the_formula():
    table = sincos_table(40, 12)
    for p, j in product(range(40), range(12)):
        angle = p / 10000 ** (2 * (j // 2) / 12)
        expected = math.sin(angle) if j % 2 == 0 else math.cos(angle)
        assert table[p, j].item() == pytest.approx(expected, abs=1e-7)


def test_interpolated_positions_keep_a_place_where_it_was():
    # Twice the side: each old centre lies between two new ones, at equal distance.
    fine = interpolated_table((2, 2, 2), (2, 4, 4), 8).view(2, 4, 4, 8)
    coarse = sincos_table(8, 8).view(2, 2, 2, 8)
    corner = coarse[0, 0, 0]
    assert torch.allclose(fine[0, 0, 0], corner, atol=1e-6)
    between = 0.75 * coarse[1, 0, 0] + 0.25 * coarse[1, 0, 1]
    assert torch.allclose(fine[1, 0, 1], between, atol=1e-6)
    model, _ = build(
        "vit_tiny", num_frames=4, crop_size=64, num_classes=2, interpolate_from=(2, 2, 2)
    )
    assert torch.equal(model.pos_embed, interpolated_table((2, 2, 2), (2, 4, 4), 192))


def test_positions_follow_the_model_but_are_not_saved():
    model = tiny()
    assert "pos_embed" not in model.state_dict()
    assert model.to(torch.float64).pos_embed.dtype == torch.float64
    assert model.to("meta").pos_embed.device.type == "meta"


@pytest.mark.parametrize(
    "backbone, num_classes, total",
    [
        ("vit_small", 174, 21_946_926),
        ("vit_base", 174, 86_361_006),
        ("vit_base", 51, 86_266_419),
        ("vit_base", 101, 86_304_869),
        ("vit_base", 400, 86_534_800),
        ("vit_large", 174, 304_039_086),
        ("vit_huge", 174, 631_829_934),
    ],
)
@pytest.mark.parametrize("head", ["linear", "batchnorm_linear"])
def test_parameter_counts_to_the_digit(backbone, num_classes, total, head):
    with torch.device("meta"):
        model, _ = build(backbone, num_frames=8, crop_size=224, num_classes=num_classes, head=head)
    assert sum(p.numel() for p in model.parameters()) == total


@pytest.mark.parametrize("backbone", SIZES)
def test_parameter_counts_follow_the_closed_form(backbone):
    size = {"patch_size": 16, "mlp_ratio": 4.0} | SIZES[backbone]
    with torch.device("meta"):
        model, _ = build(backbone, num_frames=8, crop_size=224, num_classes=7)
    d, hidden = size["width"], round(size["width"] * size["mlp_ratio"])
    patch = 3 * 2 * size["patch_size"] ** 2 * d + d
    block = 4 * d + 3 * d * d + 2 * d + d * d + d + 2 * d * hidden + hidden + d
    total = patch + size["depth"] * block + 2 * d + 7 * d + 7
    assert sum(p.numel() for p in model.parameters()) == total
    if backbone == "vit_giant":
        assert hidden == 6144 and model.pos_embed.shape == (4 * 16 * 16, 1408)


@pytest.mark.parametrize("num_frames", [2, 4, 8, 16, 32])
def test_clip_lengths(num_frames):
    model = tiny(num_frames)
    logits = model(torch.randn(2, 3, num_frames, 32, 32))
    assert logits.shape == (2, 5) and model.pos_embed.shape[0] == num_frames // 2 * 4


@pytest.mark.parametrize(
    "crop_size, patch_size, tubelet_size", [(16, 16, 2), (48, 16, 4), (112, 16, 1), (28, 14, 2)]
)
def test_other_sizes(crop_size, patch_size, tubelet_size):
    model = tiny(4, crop_size, patch_size=patch_size, tubelet_size=tubelet_size)
    tokens = model.forward_features(torch.randn(1, 3, 4, crop_size, crop_size))
    assert tokens.shape == (1, 4 // tubelet_size * (crop_size // patch_size) ** 2, 48)


def test_patch_embedding_is_the_convolution_in_time_major_order():
    embed = tiny(8, 48).patch_embed
    clip = torch.randn(2, 3, 8, 48, 48)
    volume = embed.proj(clip)  # (B, D, t, h, w)
    tokens = embed(clip)
    assert torch.allclose(tokens, volume.flatten(2).transpose(1, 2), atol=1e-5)
    t, h, w = 2, 1, 2
    cut = clip[1, :, 2 * t : 2 * t + 2, 16 * h : 16 * h + 16, 16 * w : 16 * w + 16]
    by_hand = (embed.proj.weight * cut).sum(dim=(1, 2, 3, 4)) + embed.proj.bias
    assert torch.allclose(tokens[1, (t * 3 + h) * 3 + w], by_hand, atol=1e-5)


def attention_by_loops(block: Block, x: Tensor) -> Tensor:
    """Self-attention of one clip (N, D): separate q, k, v, one head and one query at a time."""
    attn, n, d = block.attn, x.shape[0], x.shape[1]
    q = x @ attn.qkv.weight[:d].T + attn.q_bias
    k = x @ attn.qkv.weight[d : 2 * d].T
    v = x @ attn.qkv.weight[2 * d :].T + attn.v_bias
    size = d // attn.num_heads
    out = torch.zeros(n, d, dtype=x.dtype)
    for head in range(attn.num_heads):
        part = slice(head * size, (head + 1) * size)
        for i in range(n):
            scores = [float(q[i, part] @ k[j, part]) / math.sqrt(size) for j in range(n)]
            top = max(scores)
            weights = [math.exp(s - top) for s in scores]
            for j in range(n):
                out[i, part] += weights[j] / sum(weights) * v[j, part]
    return out @ attn.proj.weight.T + attn.proj.bias


def norm_by_hand(norm: torch.nn.LayerNorm, x: Tensor) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt() * norm.weight + norm.bias
    )


def test_whole_model_equals_a_slow_reference():
    model = tiny(4, 32).double()
    randomize(model)
    clip = torch.randn(2, 3, 4, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = []
        for tokens in model.patch_embed(clip) + model.pos_embed:
            x = tokens
            for block in model.blocks:
                x = x + attention_by_loops(block, norm_by_hand(block.norm1, x))
                hidden = norm_by_hand(block.norm2, x) @ block.mlp.fc1.weight.T + block.mlp.fc1.bias
                hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
                x = x + hidden @ block.mlp.fc2.weight.T + block.mlp.fc2.bias
            pooled = norm_by_hand(model.fc_norm, x.mean(0))
            expected.append(pooled @ model.head.weight.T + model.head.bias)
        assert torch.allclose(model(clip), torch.stack(expected), atol=1e-12)


def test_bf16_autocast_stays_close():
    model = tiny()
    clip = torch.randn(2, 3, 8, 32, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loose = model.forward_features(clip)
    exact = model.forward_features(clip)
    assert loose.dtype == torch.float32  # the residual stream keeps float32
    assert (loose - exact).abs().max() < 0.05 * exact.abs().max()


def test_drop_path_rises_linearly_and_only_in_training():
    model = tiny(4, 32, depth=3, drop_path=0.5)
    assert isinstance(model.blocks[0].drop_path1, torch.nn.Identity)
    assert [b.drop_path2.drop_prob for b in model.blocks[1:]] == [0.25, 0.5]
    clip = torch.randn(8, 3, 4, 32, 32)
    assert torch.equal(model(clip), model(clip))
    model.train()
    assert not torch.equal(model(clip), model(clip))


def test_a_block_can_be_replaced_by_a_wrapper():
    class Same(torch.nn.Module):
        def __init__(self, block: Block) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor) -> Tensor:
            b = self.block
            x = x + b.drop_path1(b.attn(b.norm1(x)))
            return x + b.drop_path2(b.mlp(b.norm2(x)))

    model = tiny()
    clip = torch.randn(1, 3, 8, 32, 32)
    before = model(clip)
    model.blocks[1] = Same(model.blocks[1])
    assert torch.equal(model(clip), before)


def test_heads_start_as_published():
    torch.manual_seed(0)
    small, _ = build("vit_tiny", num_frames=4, crop_size=32, num_classes=300, head="linear")
    assert small.head.weight.std().item() == pytest.approx(0.02e-3, rel=0.1)
    assert not small.head.bias.any()
    model, _ = build("vit_tiny", num_frames=4, crop_size=32, num_classes=300)
    assert sorted(k for k in model.state_dict() if k.startswith("head")) == [
        "head.0.num_batches_tracked",
        "head.0.running_mean",
        "head.0.running_var",
        "head.1.bias",
        "head.1.weight",
    ]
    assert model.head[1].weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert model.head[0].eps == 1e-6


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_frames": 7}, "num_frames is 7.*tubelet_size"),
        ({"num_frames": 0}, "num_frames is 0"),
        ({"crop_size": 100}, "crop_size is 100.*patch_size"),
        ({"num_classes": 0}, "num_classes is 0"),
        ({"drop_path": 1.0}, "drop_path is 1.0"),
        ({"backbone": "vit_bas"}, "model.backbone: 'vit_bas' is unknown; did you mean vit_base"),
        ({"head": "linaer"}, "model.head: 'linaer' is unknown; did you mean linear"),
    ],
)
def test_impossible_options_are_named(options, message):
    good = {"backbone": "vit_tiny", "num_frames": 4, "crop_size": 32, "num_classes": 2}
    with pytest.raises(ValueError, match=message):
        build(**(good | options))


def test_clip_of_another_shape_is_refused():
    model = tiny()
    for shape in [(1, 8, 3, 32, 32), (1, 3, 4, 32, 32), (3, 8, 32, 32)]:
        with pytest.raises(ValueError, match=r"takes \(B, 3, 8, 32, 32\)"):
            model(torch.zeros(shape))
