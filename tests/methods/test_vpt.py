"""VPT against a slow restatement, its two initialisations, and where its tokens go."""

from __future__ import annotations

import math

import pytest
import slow_vit
import timm
import torch

from vidadapt import methods
from vidadapt.models import build
from vidadapt.models.frame_by_frame import FrameByFrame


def prompted(**options):
    model = slow_vit.tiny_vit()
    torch.manual_seed(2)
    methods.apply(model, {"name": "vpt", **options})
    return model.double().eval()


@torch.no_grad()
@pytest.mark.parametrize("num_prompts", [1, 3])
def test_deep_prompts_are_new_in_front_of_every_block_and_dropped_behind_it(num_prompts):
    model = prompted(num_prompts=num_prompts)
    clip = slow_vit.one_clip()
    tokens = slow_vit.embed(model, clip)
    for wrapper in model.blocks:
        tokens = slow_vit.block(wrapper.block, [*wrapper.prompts.tokens, *tokens])[num_prompts:]
        assert len(tokens) == 8
    expected = slow_vit.read_out(model, tokens)
    torch.testing.assert_close(model(clip[None])[0], expected, rtol=0, atol=1e-9)


@torch.no_grad()
def test_shallow_prompts_enter_once_and_leave_before_the_pool():
    model = prompted(num_prompts=3, form="shallow")
    clip = slow_vit.one_clip()
    first, middle, last = model.blocks
    tokens = [*first.prompts.tokens, *slow_vit.embed(model, clip)]
    for block in (first.block, middle, last.block):
        tokens = slow_vit.block(block, tokens)
    expected = slow_vit.read_out(model, tokens[3:])
    torch.testing.assert_close(model(clip[None])[0], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("form", "seen_inside", "left_behind"),
    [("deep", [11, 11, 11], [8, 8, 8]), ("shallow", [11, 11, 11], [11, 11, 8])],
)
def test_token_counts_in_every_block(form, seen_inside, left_behind):
    model = prompted(num_prompts=3, form=form)
    inside, behind = [], []
    for block in model.blocks:
        attn = getattr(block, "block", block).attn
        attn.register_forward_hook(lambda _, given, out: inside.append(given[0].shape[1]))
        block.register_forward_hook(lambda _, given, out: behind.append(out.shape[1]))
    assert model(slow_vit.one_clip()[None]).shape == (1, 5)
    assert (inside, behind) == (seen_inside, left_behind)


@torch.no_grad()
def test_one_block_can_hold_shallow_prompts():
    torch.manual_seed(0)
    model = slow_vit.tiny_vit()
    del model.blocks[1:]
    methods.apply(model, {"name": "vpt", "num_prompts": 2, "form": "shallow"})
    assert model.blocks[0](torch.randn(2, 8, 12, dtype=torch.float64)).shape == (2, 8, 12)


@torch.no_grad()
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_the_prompts_of_every_layer_change_the_logits(layer):
    model, clip = prompted(), slow_vit.one_clip()[None]
    before = model(clip)
    prompts = model.blocks[layer].prompts.tokens
    prompts.add_(torch.linspace(-1, 1, prompts.numel()).view_as(prompts))
    assert (model(clip) - before).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("options", "bound"),
    [
        ({"num_prompts": 8}, math.sqrt(6 / (192 * 9))),
        ({"num_prompts": 64}, math.sqrt(6 / (192 * 65))),
        # A tubelet is 2 frames of 16 x 16 pixels of 3 colours.
        ({"num_prompts": 8, "init": "uniform"}, math.sqrt(6 / (1536 + 192))),
        ({"num_prompts": 64, "init": "uniform"}, math.sqrt(6 / (1536 + 192))),
    ],
)
def test_initial_prompts_fill_their_bounds(options, bound):
    torch.manual_seed(0)
    model, _ = build("vit_tiny", num_frames=4, crop_size=32, num_classes=5)
    methods.apply(model, {"name": "vpt", **options})
    for block in model.blocks:
        largest = block.prompts.tokens.abs().max().item()
        assert 0.99 * bound < largest <= bound
        deviation = block.prompts.tokens.std().item()
        assert deviation == pytest.approx(bound / math.sqrt(3), rel=0.1)


@pytest.mark.parametrize(
    ("backbone", "options", "prompts"),
    [
        ("vit_base", {}, 9_216),
        ("vit_base", {"num_prompts": 8}, 73_728),
        ("vit_base", {"num_prompts": 8, "form": "shallow"}, 6_144),
        ("vit_small", {}, 4_608),
        ("vit_large", {}, 24_576),
        ("vit_huge", {}, 40_960),
    ],
)
def test_trainable_parameters(backbone, options, prompts):
    with torch.device("meta"):
        model, _ = build(backbone, num_frames=8, crop_size=224, num_classes=174)
        methods.apply(model, {"name": "vpt", **options})
    readout = (model.width + 1) * 174 + 2 * model.width
    assert methods.count_parameters(model)[0] == prompts + readout


def test_trainable_parameters_of_vit_base_are_the_papers():
    with torch.device("meta"):
        model, _ = build("vit_base", num_frames=8, crop_size=224, num_classes=51)
        methods.apply(model, {"name": "vpt", "num_prompts": 8})
    assert methods.count_parameters(model)[0] == 114_483


def test_dropout_falls_on_the_prompts_alone_and_only_in_training():
    model = prompted(dropout=0.5)
    clip = slow_vit.one_clip()[None]
    assert torch.equal(model(clip), model(clip))
    methods.train_mode(model)
    torch.manual_seed(0)
    x = torch.randn(50, 8, 12, dtype=torch.float64)
    out = model.blocks[0].prompts(x)
    assert torch.equal(out[:, 1:], x)
    kept = model.blocks[0].prompts.tokens.detach() * 2
    dropped = out[:, 0] == 0
    assert 0.4 < dropped.double().mean() < 0.6
    assert torch.equal(out[:, 0], torch.where(dropped, 0, kept.expand(50, -1)))


def small_image_model(name: str, **sizes):
    small = {"embed_dim": 48, "depth": 2, "num_heads": 3, "img_size": 32, "num_classes": 0}
    torch.manual_seed(0)
    model = timm.create_model(name, **{**small, **sizes}).double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@torch.no_grad()
@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "eva02_base_patch14_224"])
def test_rotation_leaves_the_prompts_out_as_it_does_other_tokens_without_a_place(name):
    sizes = {"img_size": 28} if "14" in name else {}
    theirs, ours = small_image_model(name, **sizes), small_image_model(name, **sizes)
    side = sizes.get("img_size", 32)
    model = FrameByFrame(ours, num_frames=1, crop_size=side, num_classes=5).double().eval()
    methods.apply(model, {"name": "vpt", "num_prompts": 3})
    wrapper, block = model.slots()[0].block, theirs.blocks[0]
    image = torch.randn(2, 3, side, side, dtype=torch.float64)
    x, rotary = theirs._pos_embed(theirs.patch_embed(image))
    prompts = wrapper.prompts.tokens.double()
    block.attn.num_prefix_tokens += 3
    expected = block(torch.cat([prompts.expand(2, -1, -1), x], dim=1), rope=rotary)[:, 3:]
    torch.testing.assert_close(wrapper.double()(x), expected, rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("form", ["deep", "shallow"])
def test_every_frame_of_an_image_model_gets_the_prompts(form):
    image = small_image_model("vit_tiny_patch16_224")
    model = FrameByFrame(image, num_frames=4, crop_size=32, num_classes=5)
    methods.apply(model, {"name": "vpt", "num_prompts": 2, "form": form})
    seen = []
    for slot in model.slots():
        slot.block.block.attn.register_forward_hook(lambda _, given, out: seen.append(out.shape))
    clip = torch.randn(3, 3, 4, 32, 32, dtype=torch.float64)
    assert model.double().eval()(clip).shape == (3, 5)
    # Clips x frames; prompts, class token, 2 x 2 patches.
    assert seen == [(12, 2 + 1 + 4, 48)] * 2


def test_the_bound_of_an_image_model_is_vpts_own():
    image = small_image_model("vit_tiny_patch16_224")
    model = FrameByFrame(image, num_frames=1, crop_size=32, num_classes=5)
    methods.apply(model, {"name": "vpt", "num_prompts": 50, "init": "uniform"})
    bound = math.sqrt(6 / (3 * 16 * 16 + 48))
    assert 0.99 * bound < model.slots()[0].block.prompts.tokens.abs().max() <= bound


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_prompts": 0}, r"method\.num_prompts: expected 1 or more, got 0"),
        ({"dropout": 1.0}, r"method\.dropout: expected a rate in \[0, 1\), got 1.0"),
    ],
)
def test_impossible_options_name_the_key(options, message):
    with pytest.raises(ValueError, match=message):
        prompted(**options)
