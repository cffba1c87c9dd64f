"""ARC against a slow restatement, its counts, and what merging leaves."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace

import pytest
import slow_vit
import timm
import torch
from kinds import clips, disturb

from vidadapt import methods
from vidadapt.models import build
from vidadapt.models.frame_by_frame import FrameByFrame


def small_model(**options):
    torch.manual_seed(0)
    model, _ = build("vit_tiny", num_frames=4, crop_size=32, num_classes=5, **options)
    return model


def adapted(**options):
    model = small_model()
    methods.apply(model, {"name": "arc", **options})
    return model


def move(model) -> None:
    """Adapters far from the identity, unlike their start and as no two layers have them."""
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.3)


def slow_arc(arc):
    """x + x (P diag(c)) P^T + b for one token, number by number."""
    if arc is None:
        return lambda token: token
    width, rank = arc.projection.shape

    def adapt(token: torch.Tensor) -> torch.Tensor:
        hidden = [
            sum(token[i] * arc.projection[i, k] * arc.scale[k] for i in range(width))
            for k in range(rank)
        ]
        change = [
            sum(hidden[k] * arc.projection[j, k] for k in range(rank)) + arc.bias[j]
            for j in range(width)
        ]
        return token + torch.stack(change)

    return adapt


@torch.no_grad()
@pytest.mark.parametrize("projections", ["shared", "per_layer"])
@pytest.mark.parametrize("positions", ["both", "attention"])
def test_the_whole_forward_is_the_papers_equation(positions, projections):
    model = slow_vit.tiny_vit()
    options = {"rank": 4, "positions": positions, "projections": projections}
    methods.apply(model, {"name": "arc", **options})
    move(model.double().eval())
    clip = slow_vit.one_clip()
    tokens = slow_vit.embed(model, clip)
    for block in model.blocks:
        norm2, at_mlp = block.norm2, None
        if positions == "both":
            norm2, at_mlp = block.norm2.norm, block.norm2.arc
        tokens = slow_vit.block(
            SimpleNamespace(norm1=block.norm1.norm, attn=block.attn, norm2=norm2, mlp=block.mlp),
            tokens,
            before_attention=slow_arc(block.norm1.arc),
            before_mlp=slow_arc(at_mlp),
        )
    expected = slow_vit.read_out(model, tokens)
    assert (expected - slow_vit.tiny_vit()(clip[None])[0]).abs().max() > 0.01
    torch.testing.assert_close(model(clip[None])[0], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("backbone", "both", "attention"),
    [
        ("vit_base", 96_432, 48_216),
        ("vit_small", 48_816, 24_408),
        ("vit_large", 153_952, 76_976),
        ("vit_huge", 213_120, 106_560),
    ],
)
def test_trainable_parameters_at_rank_50(backbone, both, attention):
    for positions, adapters in {"both": both, "attention": attention}.items():
        with torch.device("meta"):
            model, _ = build(backbone, num_frames=8, crop_size=224, num_classes=174)
            methods.apply(model, {"name": "arc", "positions": positions})
        readout = (model.width + 1) * 174 + 2 * model.width
        assert methods.count_parameters(model)[0] == adapters + readout


@pytest.mark.parametrize("rank", [1, 50])
@pytest.mark.parametrize(
    ("backbone", "depth", "width"), [("vit_base", 12, 768), ("vit_tiny", 6, 192)]
)
def test_projections_per_layer_follow_the_closed_formula(backbone, depth, width, rank):
    for positions, places in {"both": 2, "attention": 1}.items():
        options = {"rank": rank, "positions": positions, "projections": "per_layer"}
        with torch.device("meta"):
            model, _ = build(backbone, num_frames=8, crop_size=224, num_classes=174)
            methods.apply(model, {"name": "arc", **options})
        adapters = places * depth * (width * rank + rank + width)
        readout = (width + 1) * 174 + 2 * width
        assert methods.count_parameters(model)[0] == adapters + readout


def test_projections_per_layer_are_drawn_trained_and_saved_each():
    model = adapted(rank=7, projections="per_layer")
    found = [p for name, p in model.named_parameters() if name.endswith("projection")]
    assert len(found) == 2 * 6
    bound = math.sqrt(6 / (192 + 7))
    assert all(0.99 * bound < p.abs().max() <= bound for p in found)
    assert not any(torch.equal(a, b) for a, b in itertools.pairwise(found))
    move(model)
    methods.train_mode(model)
    torch.nn.functional.cross_entropy(model(clips()), torch.arange(4)).backward()
    assert all(p.grad.abs().max() > 0 for p in found)
    state, again = methods.trainable_state(model), adapted(rank=7, projections="per_layer")
    assert sum(name.endswith("projection") for name in state) == 2 * 6
    methods.load_trainable_state(again, state, "file")
    with torch.no_grad():
        assert torch.equal(again.eval()(clips()), model.eval()(clips()))
    with pytest.raises(
        ValueError,
        match=r"10 tensors in the file but not in the model: blocks\.1\.norm1\.arc\.proj",
    ):
        methods.load_trainable_state(adapted(rank=7), state, "file")


def test_matrices_are_shared_by_the_layers_and_saved_once():
    model = adapted(rank=7)
    blocks = model.blocks
    assert all(block.norm1.arc.projection is blocks[0].norm1.arc.projection for block in blocks)
    assert all(block.norm2.arc.projection is blocks[0].norm2.arc.projection for block in blocks)
    assert blocks[0].norm1.arc.projection is not blocks[0].norm2.arc.projection
    saved = methods.trainable_state(model)
    assert sum(name.endswith("projection") for name in saved) == 2
    bound = math.sqrt(6 / (192 + 7))
    assert 0.99 * bound < blocks[0].norm1.arc.projection.abs().max() <= bound


@pytest.mark.parametrize(
    "options",
    [{"positions": "attention"}, {"positions": "both"}, {"projections": "per_layer"}],
    ids=str,
)
def test_adapters_start_as_the_identity(options):
    with torch.no_grad():
        expected = small_model().eval()(clips())
        assert torch.equal(adapted(**options).eval()(clips()), expected)


def test_the_released_start_is_not_the_identity_and_only_the_mlp_is_why():
    model = adapted(init="released")
    bound = math.sqrt(6 / 51)
    largest = max(block.norm2.arc.scale.abs().max().item() for block in model.blocks)
    assert 0.95 * bound < largest <= bound
    assert not any(block.norm1.arc.scale.any() for block in model.blocks)
    with torch.no_grad():
        change = model.eval()(clips()) - small_model().eval()(clips())
    assert change.abs().max() > 1e-3


def test_only_the_chosen_layers_are_adapted():
    model = adapted(layers=[2, 5], rank=3)
    plain = small_model()
    changed = [i for i, block in enumerate(model.blocks) if "arc" in str(block)]
    assert changed == [1, 4]
    adapters = 2 * 192 * 3 + 2 * 2 * (3 + 192)
    for parameter in (plain.fc_norm, plain.head):
        adapters += sum(p.numel() for p in parameter.parameters())
    assert methods.count_parameters(model)[0] == adapters


@torch.no_grad()
@pytest.mark.parametrize("projections", ["shared", "per_layer"])
@pytest.mark.parametrize("positions", ["both", "attention"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=["fp32", "fp64"]
)
def test_a_merged_model_is_a_plain_one_with_the_same_logits(
    positions, projections, dtype, tolerance
):
    model = adapted(positions=positions, projections=projections, dropout=0.3, init="identity")
    disturb(model)
    for block in model.blocks:
        block.attn.q_bias.normal_()
    model.to(dtype).eval()
    unmerged = model(clips(8).to(dtype))
    methods.merge(model, "arc")
    plain = small_model()
    assert model.state_dict().keys() == plain.state_dict().keys()
    assert [type(m) for m in model.modules()] == [type(m) for m in plain.modules()]
    assert (model(clips(8).to(dtype)) - unmerged).abs().max() < tolerance
    frozen = small_model().to(dtype).eval()
    frozen.load_state_dict({**model.state_dict(), **backbone_of(frozen)})
    assert (frozen(clips(8).to(dtype)) - unmerged).abs().max() > 1e-2


def backbone_of(model):
    return {k: v for k, v in model.state_dict().items() if k.startswith("blocks")}


SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 32, "num_classes": 0}

# timm's name -> changed sizes. Where ARC's bias goes when it merges is another story in each.
IMAGE_MODELS = {
    "vit_tiny_patch16_224": SMALL,  # biases for q, k, v
    "eva_giant_patch14_224": {**SMALL, "img_size": 28},  # none for k
    "eva02_base_patch14_224": {**SMALL, "img_size": 28},  # none for k, rotated; gated MLP
    "vit_small_patch16_dinov3": SMALL,  # none at all, rotated
    "vit_small_patch16_rope_224": SMALL,  # biases for q, k, v; rotated
    "swin_tiny_patch4_window7_224": {  # maps of 8 x 8 and 4 x 4: windows of 3 x 3 are padded
        **{"img_size": 32, "embed_dim": 24, "depths": (2, 2), "num_heads": (2, 4)},
        **{"num_classes": 0, "window_size": 3},
    },
}


def image_model(name: str) -> FrameByFrame:
    sizes = IMAGE_MODELS[name]
    torch.manual_seed(0)
    model = FrameByFrame(
        timm.create_model(name, **sizes), num_frames=2, crop_size=sizes["img_size"], num_classes=5
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.double().eval()


def frames(model) -> torch.Tensor:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(3, *model.clip_shape, generator=generator, dtype=torch.float64)


@torch.no_grad()
@pytest.mark.parametrize("projections", ["shared", "per_layer"])
@pytest.mark.parametrize("name", IMAGE_MODELS)
def test_image_models_merge_exactly(name, projections):
    model = image_model(name)
    plain = model.state_dict()
    expected = model(frames(model))
    options = {"rank": 5, "positions": "attention", "projections": projections}
    methods.apply(model, {"name": "arc", **options})
    disturb(model)
    model.double()
    unmerged = model(frames(model))
    methods.merge(model, "arc")
    assert (model(frames(model)) - unmerged).abs().max() < 1e-12
    assert (expected - unmerged).abs().max() > 1e-3
    assert model.state_dict().keys() == plain.keys()


@torch.no_grad()
@pytest.mark.parametrize("name", ["eva02_base_patch14_224", "vit_small_patch16_dinov3"])
def test_the_mlp_position_merges_into_gated_and_plain_mlps(name):
    model = image_model(name)
    methods.apply(model, {"name": "arc", "rank": 5})
    disturb(model)
    model.double()
    unmerged = model(frames(model))
    methods.merge(model, "arc")
    assert (model(frames(model)) - unmerged).abs().max() < 1e-12


@torch.no_grad()
def test_on_windows_the_mlp_position_rewrites_the_stream_and_does_not_merge():
    model = image_model("swin_tiny_patch4_window7_224")
    methods.apply(model, {"name": "arc", "rank": 5})
    move(model)
    model.double()
    wrapper = model.slots()[0].block
    block, width = wrapper.block, model.slots()[0].width
    x = torch.randn(2, 8, 8, width, dtype=torch.float64)
    after_attention = x + block.attn(block.norm1(x))
    adapted = torch.stack([slow_arc(wrapper.arc)(t) for t in after_attention.reshape(-1, width)])
    adapted = adapted.view_as(x)
    expected = adapted + block.mlp(block.norm2(adapted))
    torch.testing.assert_close(wrapper(x), expected, rtol=0, atol=1e-12)
    before = model(frames(model))
    with pytest.raises(ValueError, match=r"residual stream.*method\.positions: attention"):
        methods.merge(model, "arc")
    assert torch.equal(model(frames(model)), before)


def test_per_layer_every_block_of_a_stage_has_its_own():
    model = image_model("swin_tiny_patch4_window7_224")
    methods.apply(model, {"name": "arc", "rank": 5, "projections": "per_layer"})
    widths = [slot.width for slot in model.slots()]
    assert widths == [24, 24, 48, 48]
    adapters = [p.numel() for name, p in model.named_parameters() if ".arc." in name]
    assert sum(adapters) == sum(2 * (5 * w + 5 + w) for w in widths)


def test_stages_share_within_themselves():
    with torch.device("meta"):
        swin = timm.create_model("swin_base_patch4_window7_224", num_classes=0)
        model = FrameByFrame(swin, num_frames=1, crop_size=224, num_classes=5)
        methods.apply(model, {"name": "arc"})
    adapters = [p.numel() for name, p in model.named_parameters() if ".arc." in name]
    assert sum(adapters) == 218_464
    assert sum(n % 50 == 0 and n > 5_000 for n in adapters) == 2 * 4


@torch.no_grad()
def test_a_bias_that_fits_nowhere_is_refused_before_anything_is_written():
    model = image_model("vit_small_patch16_dinov3")
    methods.apply(model, {"name": "arc", "rank": 1, "positions": "attention"})
    disturb(model)
    last = model.slots()[-1].block.norm1.arc
    last.scale.fill_(-1 / (last.projection**2).sum())  # M has an eigenvalue 0
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=r"cannot be merged into this backbone: .* norm1"):
        methods.merge(model, "arc")
    assert model.state_dict().keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, r"method\.rank: expected 1 or more, got 0"),
        ({"projections": "own"}, r"method\.projections: expected shared or per_layer, got 'own'"),
        ({"dropout": -0.1}, r"method\.dropout: expected a rate in \[0, 1\), got -0.1"),
        ({"init": "released", "positions": "attention"}, r"method\.init"),
        ({"layers": "3-9"}, r"method\.layers"),
    ],
)
def test_impossible_options_name_the_key(options, message):
    with pytest.raises(ValueError, match=message):
        adapted(**options)
