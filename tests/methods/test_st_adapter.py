"""ST-Adapter against loops over the neighbourhood of every token, its counts, what it refuses."""

from __future__ import annotations

import pytest
import torch
from kinds import clips, disturb, fresh

from vidadapt import methods
from vidadapt.methods.st_adapter import Adapter
from vidadapt.models import build

GRID = (4, 2, 3)


def small_model():
    torch.manual_seed(0)
    return build("vit_tiny", num_frames=4, crop_size=32, num_classes=5)[0]


def adapter_by_loops(adapter: Adapter, video: torch.Tensor) -> torch.Tensor:
    """What the adapter adds to one clip's tokens (t, h, w, D), neighbour by neighbour."""
    down, conv, up = adapter.down, adapter.conv, adapter.up
    hidden = video @ down.weight.T + down.bias
    taps = conv.weight[:, 0]  # (channels, kt, kh, kw)
    reach = [n // 2 for n in taps.shape[1:]]
    out = torch.zeros_like(hidden)
    sizes = video.shape[:3]
    for place in torch.cartesian_prod(*[torch.arange(n) for n in sizes]).tolist():
        total = conv.bias.clone()
        for tap in torch.cartesian_prod(*[torch.arange(n) for n in taps.shape[1:]]).tolist():
            near = [p + n - r for p, n, r in zip(place, tap, reach, strict=True)]
            if all(0 <= p < n for p, n in zip(near, sizes, strict=True)):
                total = total + taps[:, tap[0], tap[1], tap[2]] * hidden[tuple(near)]
        out[tuple(place)] = total
    return out @ up.weight.T + up.bias


@pytest.mark.parametrize("kernel", [(3, 1, 1), (1, 3, 3), (3, 3, 5)])
@pytest.mark.parametrize(
    ("layout", "prefix"),
    [("joint", 0), ("joint", 2), ("frames", 0), ("frames", 1), ("frames as images", 0)],
)
def test_it_is_the_sum_over_the_neighbours_in_every_layout(layout, prefix, kernel):
    t, h, w = GRID
    rows = 1 if layout == "joint" else t
    torch.manual_seed(0)
    adapter = Adapter(
        7, 5, kernel, grid=GRID, rows_per_clip=rows, num_prefix_tokens=prefix
    ).double()
    for parameter in adapter.parameters():
        torch.nn.init.normal_(parameter)
    videos = torch.randn(2, t, h, w, 7, dtype=torch.float64)
    expected = torch.stack([adapter_by_loops(adapter, video) for video in videos])
    if layout == "frames as images":
        assert torch.allclose(adapter(videos.flatten(0, 1)), expected.flatten(0, 1), atol=1e-12)
        return
    tokens = torch.randn(2 * rows, prefix + t * h * w // rows, 7, dtype=torch.float64)
    tokens[:, prefix:] = videos.reshape(2 * rows, -1, 7)
    found = adapter(tokens)
    assert found.shape == tokens.shape
    assert not found[:, :prefix].any(), "class token and registers pass by"
    torch.testing.assert_close(
        found[:, prefix:], expected.reshape(2 * rows, -1, 7), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("position", ["attention", "mlp", "both"])
def test_the_adapters_add_to_the_stream_before_attention_and_mlp(position):
    model = small_model()
    methods.apply(
        model, {"name": "st_adapter", "bottleneck": 4, "kernel": [3, 3, 3], "position": position}
    )
    disturb(model)
    model.double().eval()
    wrapper = model.blocks[2]
    x = torch.randn(2, 8, 192, dtype=torch.float64)

    def added(adapter: Adapter | None, stream: torch.Tensor) -> torch.Tensor:
        if adapter is None:
            return stream
        videos = stream.reshape(2, 2, 2, 2, 192)
        return stream + torch.stack([adapter_by_loops(adapter, v) for v in videos]).flatten(1, 3)

    with torch.no_grad():
        block = wrapper.block
        stream = added(wrapper.before_attention, x)
        stream = stream + block.attn(block.norm1(stream))
        stream = added(wrapper.before_mlp, stream)
        expected = stream + block.mlp(block.norm2(stream))
        found = wrapper(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert (wrapper.before_attention is None) == (position == "mlp")
    assert (wrapper.before_mlp is None) == (position == "attention")


@pytest.mark.parametrize(
    ("options", "adapters", "taps"),
    [
        ({}, 12, 3),
        ({"position": "both"}, 24, 3),
        ({"position": "mlp", "kernel": [3, 3, 3], "layers": "7-12"}, 6, 27),
        ({"position": "both", "mlp_layers": "1-11"}, 23, 3),  # the release's for SSv2
        ({"position": "both", "layers": "7-12", "mlp_layers": [1, 7]}, 8, 3),
    ],
)
def test_counts_on_vit_base_are_those_of_the_formula(options, adapters, taps):
    with torch.device("meta"):
        model, _ = build("vit_base", num_frames=8, crop_size=224, num_classes=174)
        methods.apply(model, {"name": "st_adapter", **options})
    each = 2 * 768 * 384 + 384 + 768 + (taps + 1) * 384
    assert methods.count_parameters(model)[0] == adapters * each + 135_342


def test_every_adapter_of_every_block_has_a_gradient():
    """The release's last adapter before an MLP has none: only the class token is read there."""
    model = small_model()
    methods.apply(model, {"name": "st_adapter", "bottleneck": 4, "position": "both"})
    disturb(model)
    model.eval()(clips()).square().sum().backward()
    for block in model.blocks:
        for adapter in (block.before_attention, block.before_mlp):
            assert all(p.grad.abs().max() > 1e-6 for p in adapter.parameters())


def test_an_adapter_that_the_class_token_would_never_see_is_refused():
    with pytest.raises(
        ValueError, match=r"method\.position: .* would train nothing.* mlp_layers: 1-2"
    ):
        methods.apply(fresh("frame-wise ViT"), {"name": "st_adapter", "position": "both"})
    with pytest.raises(ValueError, match=r"method\.position: .* would train nothing.* layers: 1-2"):
        methods.apply(fresh("frame-wise ViT"), {"name": "st_adapter", "position": "mlp"})
    model = fresh("frame-wise ViT")
    methods.apply(model, {"name": "st_adapter", "position": "both", "layers": "1-2"})
    disturb(model)
    model.eval()(clips()).square().sum().backward()
    for slot in model.slots()[:2]:
        adapters = (slot.block.before_attention, slot.block.before_mlp)
        assert all(p.grad.abs().max() > 1e-6 for a in adapters for p in a.parameters())


def test_the_releases_model_for_ssv2_trains_every_adapter():
    """Before the attention of all blocks, and before the MLP of all but the last."""
    model = fresh("frame-wise ViT")
    methods.apply(model, {"name": "st_adapter", "position": "both", "mlp_layers": "1-2"})
    disturb(model)
    model.eval()(clips()).square().sum().backward()
    blocks = [slot.block for slot in model.slots()]
    assert [block.before_mlp is not None for block in blocks] == [True, True, False]
    adapters = [b.before_attention for b in blocks] + [b.before_mlp for b in blocks[:2]]
    assert all(p.grad.abs().max() > 1e-6 for a in adapters for p in a.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mlp_layers": "1-2"}, r"method\.mlp_layers: goes with position: both"),
        ({"position": "mlp", "mlp_layers": "1-2"}, r"method\.mlp_layers"),
        ({"position": "both", "mlp_layers": "1-99"}, r"method\.layers"),
        ({"bottleneck": 0}, r"method\.bottleneck: expected 1 or more"),
        ({"kernel": [3, 1]}, r"method\.kernel: expected three odd numbers"),
        ({"kernel": [2, 1, 1]}, r"method\.kernel: expected three odd numbers"),
        ({"layers": [0]}, r"method\.layers"),
    ],
)
def test_impossible_options_name_the_key(options, message):
    with pytest.raises(ValueError, match=message):
        methods.apply(small_model(), {"name": "st_adapter", **options})
