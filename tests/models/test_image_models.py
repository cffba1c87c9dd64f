"""Image models as video models against timm's own forward pass."""

from __future__ import annotations

import copy

import pytest
import timm
import torch
from image_kinds import OTHERS, VITS, crop_size, image_model
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import Tensor, nn

from vidadapt import methods
from vidadapt.models import FrameByFrame, InflatedViT, build
from vidadapt.models.blocks import Block
from vidadapt.models.image import create_image_model
from vidadapt.models.timm_blocks import as_block
from vidadapt.training.optim import parameter_groups


def inflated(kind: str, num_frames: int = 2, **options) -> tuple[nn.Module, InflatedViT]:
    image, size = image_model(kind), crop_size(kind)
    video = InflatedViT(
        copy.deepcopy(image), num_frames=num_frames, crop_size=size, num_classes=5, **options
    )
    return image, video.eval()


def frame_by_frame(kind: str, num_frames: int) -> tuple[nn.Module, FrameByFrame]:
    image, size = image_model(kind), crop_size(kind)
    video = FrameByFrame(copy.deepcopy(image), num_frames=num_frames, crop_size=size, num_classes=5)
    return image, video.eval()


def picture(kind: str, *batch: int) -> Tensor:
    size = crop_size(kind)
    return torch.randn(*batch, 3, size, size, generator=torch.Generator().manual_seed(1))


# --- inflated -------------------------------------------------------------------------------------


@pytest.mark.parametrize("inflation", ["average", "centre"])
@pytest.mark.parametrize("kind", VITS)
def test_one_frame_repeated_over_a_tubelet_has_the_image_models_tokens(kind, inflation):
    image, video = inflated(kind, tubelet_size=2, inflation=inflation)
    frame = picture(kind, 2)
    want = image.forward_features(frame)
    got = video.forward_features(frame[:, :, None].expand(-1, -1, 2, -1, -1))
    assert want.abs().max() > 1
    assert (got - want).abs().max() < 1e-5


@pytest.mark.parametrize("kind", ["class token", "DINOv3, rotation, registers"])
def test_a_clip_of_equal_tubelets_has_the_same_tokens_at_every_time(kind):
    _, video = inflated(kind, num_frames=6, tubelet_size=2)
    frame = picture(kind, 2)
    clip = frame[:, :, None].expand(-1, -1, 6, -1, -1)
    tokens = video.forward_features(clip)[:, video.num_prefix_tokens :]
    tokens = tokens.unflatten(1, video.grid)
    assert torch.allclose(tokens[:, 0], tokens[:, 2], atol=1e-5)
    with torch.no_grad():
        video.time_embed.weight[2, ::2].add_(0.5)
    moved = video.forward_features(clip)[:, video.num_prefix_tokens :].unflatten(1, video.grid)
    assert not torch.allclose(moved[:, 0], moved[:, 2], atol=1e-2)


def test_attention_is_joint_over_time_and_positions_are_of_the_place():
    """Whole model restated: per-frame embedding by timm, one sequence, timm's blocks."""
    kind = "class token"
    image, video = inflated(kind, num_frames=3, tubelet_size=1)
    with torch.no_grad():
        video.time_embed.weight.normal_()
    clip = torch.randn(2, 3, 3, 32, 32)
    embedded = [image._pos_embed(image.patch_embed(clip[:, :, t])) for t in range(3)]
    patches = [x[:, 1:] + video.time_embed.weight[t] for t, x in enumerate(embedded)]
    sequence = torch.cat([embedded[0][:, :1], *patches], dim=1)
    want = image.norm(image.blocks(sequence))
    assert (video.forward_features(clip) - want).abs().max() < 1e-5
    pooled = video.fc_norm(want[:, 1:].mean(dim=1))
    assert torch.allclose(video(clip), video.head(pooled), atol=1e-5)


@pytest.mark.parametrize("tubelet_size", [1, 2, 3, 4])
def test_kernels_of_longer_tubelets(tubelet_size):
    image, video = inflated(
        "class token", num_frames=2 * tubelet_size, tubelet_size=tubelet_size, inflation="centre"
    )
    kernel = video.patch_embed.proj.weight
    middle = tubelet_size // 2
    assert kernel.shape == (48, 3, tubelet_size, 16, 16)
    assert torch.equal(kernel[:, :, middle], image.patch_embed.proj.weight)
    assert kernel.count_nonzero() == kernel[:, :, middle].count_nonzero()


def test_a_norm_after_the_pool_becomes_fc_norm():
    image, video = inflated("average pool")
    frame = picture("average pool", 2)
    tokens = video.forward_features(frame[:, :, None].expand(-1, -1, 2, -1, -1))
    pooled = video.fc_norm(tokens[:, video.num_prefix_tokens :].mean(dim=1))
    want = image.forward_head(image.forward_features(frame), pre_logits=True)
    assert torch.allclose(pooled, want, atol=1e-5)


def test_prompts_before_the_patches_leave_their_rotation_alone():
    _, video = inflated("DINOv3, rotation, registers")
    attn = video.blocks[0].attn
    tokens = torch.randn(1, 5 + 4, 48)
    more = torch.cat([tokens[:, :5], torch.randn(1, 3, 48), tokens[:, 5:]], dim=1)
    seen = []
    attn.q_norm.register_forward_hook(lambda module, inputs, output: seen.append(output))
    table = attn.rotary
    for x in (tokens, more):
        attn(x)
    short, long = (attn._rotated(q, table) for q in seen)
    assert torch.equal(short[:, :, :5], seen[0][:, :, :5])
    assert torch.allclose(short[:, :, -4:], long[:, :, -4:], atol=1e-6)


# --- frame by frame -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*VITS, *OTHERS])
def test_one_frame_has_the_image_models_pooled_features_exactly(kind):
    image, video = frame_by_frame(kind, 1)
    frame = picture(kind, 2)
    want = image.forward_head(image.forward_features(frame), pre_logits=True)
    assert torch.equal(video.forward_features(frame[:, :, None])[:, 0], want)
    assert torch.equal(video(frame[:, :, None]), video.head(want))
    assert video.width == want.shape[1]


@pytest.mark.parametrize("kind", ["class token", "Swin, shifted windows", "Mixer"])
def test_several_frames_are_the_mean_of_separate_passes(kind):
    image, video = frame_by_frame(kind, 3)
    clip = picture(kind, 2, 3).transpose(1, 2)
    passes = [image.forward_head(image.forward_features(clip[:, :, t]), True) for t in range(3)]
    assert torch.allclose(video.forward_features(clip), torch.stack(passes, dim=1), atol=1e-6)
    want = video.head(video.fc_norm(sum(passes) / 3))
    assert torch.allclose(video(clip), want, atol=1e-6)
    assert video.grid[0] == video.rows_per_clip == 3


def test_slots_of_swin_have_their_stage_and_width():
    _, video = frame_by_frame("Swin, shifted windows", 2)
    slots = video.slots()
    assert [(slot.stage, slot.index, slot.width) for slot in slots] == [
        (0, 0, 24),
        (0, 1, 24),
        (1, 0, 48),
        (1, 1, 48),
    ]
    assert video.attention == "window" and video.depth == 4 and video.grid == (2, 8, 8)
    clip = torch.randn(2, 3, 2, 32, 32)
    shapes = []
    for slot in slots:
        slot.block.register_forward_hook(lambda m, args, out: shapes.append(tuple(out.shape)))
    video(clip)
    assert shapes == [(4, 8, 8, 24)] * 2 + [(4, 4, 4, 48)] * 2


# --- what methods rely on -------------------------------------------------------------------------

KINDS = {
    "tubelet": ("vit_tiny", None),
    "inflated": ("timm/vit_tiny_patch16_224", "inflate"),
    "frames": ("timm/vit_tiny_patch16_224", "frames"),
}


def built(kind: str, **options):
    torch.manual_seed(0)
    backbone, how = KINDS[kind]
    model, _ = build(backbone, num_frames=4, crop_size=32, num_classes=5, from_image=how, **options)
    return model


@pytest.mark.parametrize("kind", [*VITS, *OTHERS])
def test_blocks_are_called_with_tokens_alone_and_can_be_replaced(kind):
    _, video = frame_by_frame(kind, 2)

    class Wrapper(nn.Module):
        def __init__(self, block: Block) -> None:
            super().__init__()
            self.block = block

        def forward(self, x: Tensor) -> Tensor:
            b = self.block
            x = x + b.drop_path1(b.ls1(b.attn(b.norm1(x))))
            return x + b.drop_path2(b.ls2(b.mlp(b.norm2(x))))

    clip = picture(kind, 1, 2).transpose(1, 2)
    want = video(clip)
    for slot in video.slots():
        assert isinstance(slot.block, Block)
        slot.put(Wrapper(slot.block))
    assert torch.equal(video(clip), want)


@pytest.mark.parametrize("kind", VITS)
def test_the_projection_to_queries_keys_and_values_is_called_as_a_module(kind):
    """A zero in its place leaves of attention what the output bias makes of zero."""
    _, video = inflated(kind)

    class Zero(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.width = width

        def forward(self, x: Tensor, *bias: Tensor) -> Tensor:
            return x.new_zeros(*x.shape[:-1], self.width)

    attn = video.blocks[0].attn
    attn.qkv = Zero(attn.qkv.out_features)
    out = attn(torch.randn(1, video.num_prefix_tokens + 9 * video.grid[1] * video.grid[2], 48))
    assert torch.allclose(out, out[:, :1].expand_as(out), atol=1e-6)


@pytest.mark.parametrize("method", ["adaptformer", "linear", "full"])
@pytest.mark.parametrize("kind", KINDS)
def test_methods_train_what_they_say_and_nothing_else(kind, method):
    model = built(kind)
    clip = torch.randn(4, 3, 4, 32, 32, generator=torch.Generator().manual_seed(2))
    model.eval()
    want = model(clip)
    methods.apply(model, {"name": method})
    assert torch.allclose(model.eval()(clip), want, atol=1e-6)
    methods.train_mode(model)
    trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(clip), torch.arange(4)).backward()
        assert all(p.grad is not None for p in trained.values())
        optimizer.step()
    for name, parameter in model.named_parameters():
        assert name in trained or torch.equal(parameter, before[name])


@pytest.mark.parametrize(
    ("method", "trains"),
    [
        ({"name": "linear"}, False),
        ({"name": "full"}, True),
        ({"name": "adaptformer"}, True),
        ({"name": "adaptformer", "layers": "1-6"}, True),
        ({"name": "adaptformer", "layers": "7-12"}, False),
    ],
)
def test_temporal_positions_train_where_the_gradient_passes_anyway(method, trains):
    model = built("inflated")
    methods.apply(model, method)
    assert model.time_embed.weight.requires_grad is trains
    saved = methods.trainable_state(model)
    assert ("time_embed.weight" in saved) is trains
    count = methods.count_parameters(model)[0]
    without = count - trains * 2 * 192
    frames = build(
        "timm/vit_tiny_patch16_224",
        num_frames=4,
        crop_size=32,
        num_classes=5,
        from_image="frames",
    )[0]
    methods.apply(frames, method)
    if method["name"] != "full":
        assert methods.count_parameters(frames)[0] == without


def test_below_a_side_network_temporal_positions_stay_frozen_whatever_the_depth():
    image = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=1)
    model = InflatedViT(image, num_frames=4, crop_size=32, num_classes=5)
    methods.apply(model, {"name": "losa"})
    assert not model.time_embed.weight.requires_grad


def test_no_graph_reaches_the_blocks_below_the_first_that_is_trained():
    model = built("inflated")
    methods.apply(model, {"name": "adaptformer", "layers": "7-12"})
    tokens = model.embed(torch.randn(2, 3, 4, 32, 32))
    for block in model.blocks[:6]:
        tokens = block(tokens)
    assert tokens.grad_fn is None


@pytest.mark.parametrize("kind", [*VITS, *OTHERS])
def test_bf16_autocast_and_float64_stay_close(kind):
    _, video = frame_by_frame(kind, 2)
    clip = picture(kind, 2, 2).transpose(1, 2)
    exact = video.forward_features(clip)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loose = video.forward_features(clip)
    assert (loose - exact).abs().max() < 0.1 * exact.abs().max()
    double = video.double().forward_features(clip.double())
    assert double.dtype == torch.float64 and torch.allclose(double.float(), exact, atol=1e-4)


def layers_of(model: nn.Module, depth: int) -> dict[str, int]:
    """Layer of each parameter, read off its learning rate."""
    groups = parameter_groups(model, depth=depth, weight_decay=0.0, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    rounds = [0.5**k for k in range(depth + 2)]
    return {k: depth + 1 - rounds.index(scale[id(p)]) for k, p in model.named_parameters()}


def test_layer_decay_follows_the_order_of_the_blocks():
    model = built("inflated")
    layers = layers_of(model, 12)
    assert {layers[k] for k in ("cls_token", "pos_embed", "time_embed.weight")} == {0}
    assert layers["patch_embed.proj.weight"] == 0
    assert [layers[f"blocks.{i}.attn.qkv.weight"] for i in range(12)] == list(range(1, 13))
    assert {layers[k] for k in ("norm.weight", "fc_norm.weight", "head.1.weight")} == {13}


def test_layer_decay_counts_swins_blocks_through_all_stages():
    _, model = frame_by_frame("Swin, shifted windows", 1)
    layers = layers_of(model, 4)
    assert layers["image.patch_embed.proj.weight"] == 0
    assert layers["image.layers.0.blocks.1.norm1.weight"] == 2
    assert layers["image.layers.1.downsample.reduction.weight"] == 3
    assert layers["image.layers.1.blocks.0.mlp.fc1.weight"] == 3
    assert layers["image.layers.1.blocks.1.mlp.fc1.weight"] == 4
    assert layers["image.norm.weight"] == layers["head.weight"] == 5


def decayed(groups: list[dict]) -> set[int]:
    return {id(p) for group in groups if group["weight_decay"] for p in group["params"]}


@pytest.mark.parametrize("layer_decay", [1.0, 0.75])
@pytest.mark.parametrize("kind", [*VITS, *OTHERS])
def test_what_decays_is_what_timm_lets_decay(kind, layer_decay):
    """The image model's own parameters, held by the frame-wise model under their own names."""
    _, video = frame_by_frame(kind, 2)
    image = video.image
    groups = parameter_groups(video, depth=video.depth, weight_decay=0.05, layer_decay=layer_decay)
    listed = image.no_weight_decay() if hasattr(image, "no_weight_decay") else ()
    if layer_decay == 1.0:
        timms = param_groups_weight_decay(image, 0.05, no_weight_decay_list=listed)
    else:
        timms = param_groups_layer_decay(image, 0.05, listed, layer_decay=layer_decay)
    own = {id(parameter) for parameter in image.parameters()}
    assert decayed(groups) & own == decayed(timms)
    assert sum(len(group["params"]) for group in groups) == len(list(video.parameters()))


@pytest.mark.parametrize("kind", VITS)
def test_tokens_and_positions_of_an_inflated_model_do_not_decay(kind):
    _, video = inflated(kind)
    groups = parameter_groups(video, depth=video.depth, weight_decay=0.05, layer_decay=1.0)
    found = {
        name for name, parameter in video.named_parameters() if id(parameter) in decayed(groups)
    }
    kept = {name for name, parameter in video.named_parameters() if parameter.ndim > 1} - found
    tokens = {"cls_token", "dist_token", "reg_token", "pos_embed", "time_embed.weight"}
    assert "time_embed.weight" in kept and kept <= tokens and not found & tokens


def test_drop_path_is_what_was_asked_for():
    image = create_image_model("timm/swin_tiny_patch4_window7_224", crop_size=32)
    assert not any(type(m).__name__ == "DropPath" for m in image.modules())
    model = built("inflated", drop_path=0.3)
    assert model.blocks[11].drop_path2.drop_prob == pytest.approx(0.3)


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "vit_tiny", "from_image": "frames"}, "model.from_image: 'frames' is for ima"),
        ({"backbone": "vit_tiny_patch16_224"}, "model.backbone: write timm/vit_tiny_patch16_224"),
        ({"backbone": "vit_tiny", "inflation": "centre"}, "model.inflation: 'centre' is for image"),
        ({"backbone": "timm/swin_tiny_patch4_window7_224"}, "inflate is not defined on timm/swin_"
         "tiny_patch4_window7_224, which attends within windows; use model.from_image: frames"),
        ({"backbone": "timm/mixer_s32_224"}, "mixer_s32_224, which has no attention; use model.fr"),
        ({"patch_size": 16}, "model.patch_size: 16 is for tubelet ViTs"),
        ({"interpolate_from": (2, 2, 2)}, "model.position_grid: .* is for tubelet ViTs"),
        ({"num_frames": 5}, "num_frames is 5.*tubelet_size"),
        ({"crop_size": 40}, "crop_size is 40.*patch size"),
        ({"from_image": "frames", "tubelet_size": 1}, "model.tubelet_size: 1 is for model.from"),
        ({"from_image": "frames", "inflation": "average"}, "model.inflation: average is for"),
        ({"from_image": "inflated"}, "model.from_image: expected inflate or frames, got"),
        ({"inflation": "center"}, "model.inflation: expected average or centre, got 'center'"),
        ({"backbone": "timm/vit_tiny_patch16"}, "has no model 'vit_tiny_patch16'; did you mean"),
        ({"backbone": "timm/resnet18"}, "resnet18 is of no class that can become a video model"),
        ({"backbone": "timm/hiera_tiny_224"}, "blocks: hiera.*Block.*vision_transformer.Block"),
        ({"backbone": "timm/beit_base_patch16_224"}, r"\(Beit, blocks: beit.Block\)"),
        ({"backbone": "timm/vit_base_patch16_rpn_224"}, "class vision_transformer.ResPostBlock"),
        ({"backbone": "timm/vit_small_patch16_rope_mixed_224"}, "learns rotary frequencies"),
        ({"keep_head": True}, "keep_head"),
    ],
)  # fmt: skip
def test_impossible_options_are_named(options, message):
    good = {
        "backbone": "timm/vit_tiny_patch16_224",
        "num_frames": 4,
        "crop_size": 32,
        "num_classes": 2,
    }
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        build(**(good | options))


def test_an_unknown_block_is_named_with_the_known_ones():
    swin2 = timm.create_model("swinv2_tiny_window8_256", img_size=64, depths=(1, 1), num_classes=0)
    with pytest.raises(ValueError, match=r"swin_transformer_v2.*known classes: vision_transformer"):
        as_block(swin2.layers[0].blocks[0])


def test_clip_of_another_shape_is_refused():
    for model in (built("inflated"), built("frames")):
        with pytest.raises(ValueError, match=r"takes \(B, 3, 4, 32, 32\)"):
            model(torch.zeros(1, 4, 3, 32, 32))
