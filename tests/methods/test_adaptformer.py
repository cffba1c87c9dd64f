"""AdaptFormer against the paper's numbers and a slow restatement; how a method is chosen."""

from __future__ import annotations

import copy

import pytest
import slow_vit
import torch
from kinds import clips
from timm.layers import LayerScale

from vidadapt import methods
from vidadapt.methods.placing import chosen_layers
from vidadapt.models import build


def small_model(num_classes: int = 5):
    torch.manual_seed(0)
    model, _ = build("vit_tiny", num_frames=4, crop_size=32, num_classes=num_classes)
    return model


@pytest.mark.parametrize(
    ("method", "num_classes", "trainable"),
    [
        ({"name": "linear"}, 174, 135_342),
        ({"name": "adaptformer", "bottleneck": 1}, 174, 163_002),
        ({"name": "adaptformer", "bottleneck": 4}, 174, 218_334),
        ({"name": "adaptformer", "bottleneck": 16}, 174, 439_662),
        ({"name": "adaptformer", "bottleneck": 32}, 174, 734_766),
        ({"name": "adaptformer"}, 174, 1_324_974),
        ({"name": "adaptformer", "layers": "1-6"}, 174, 730_158),
        ({"name": "adaptformer", "layers": "7-12"}, 174, 730_158),
        ({"name": "adaptformer", "form": "sequential"}, 174, 1_324_974),
        ({"name": "adaptformer", "scale": 0.01}, 174, 1_324_974),
        ({"name": "vpt"}, 174, 144_558),
        ({"name": "vpt", "num_prompts": 8}, 174, 209_070),
        ({"name": "arc"}, 174, 231_774),
        ({"name": "arc", "positions": "attention"}, 174, 183_558),
        ({"name": "adaptformer", "bottleneck": 256}, 174, 4_866_222),
        ({"name": "full"}, 174, 86_361_006),
        ({"name": "linear"}, 51, 40_755),
        ({"name": "adaptformer"}, 51, 1_230_387),
        ({"name": "vpt"}, 51, 49_971),
        ({"name": "vpt", "num_prompts": 8}, 51, 114_483),
        ({"name": "arc"}, 51, 137_187),
        ({"name": "arc", "positions": "attention"}, 51, 88_971),
        ({"name": "full"}, 51, 86_266_419),
    ],
)
def test_trainable_parameters_of_vit_base_are_the_papers(method, num_classes, trainable):
    with torch.device("meta"):
        model, _ = build("vit_base", num_frames=8, crop_size=224, num_classes=num_classes)
        methods.apply(model, method)
    assert methods.count_parameters(model)[0] == trainable


def test_a_state_of_another_width_is_refused_with_the_tensors_named():
    first, second = small_model(), small_model()
    methods.apply(first, {"name": "adaptformer", "bottleneck": 8})
    methods.apply(second, {"name": "adaptformer", "bottleneck": 4})
    with pytest.raises(ValueError, match=r"blocks.0.adapter.down.bias is \(8,\), needs \(4,\)"):
        methods.load_trainable_state(second, methods.trainable_state(first), "adapter.safetensors")


def test_frozen_parts_stay_in_eval_mode_and_out_of_the_graph():
    model = small_model()
    methods.apply(model, {"name": "adaptformer", "layers": "4-6", "dropout": 0.5})
    methods.train_mode(model)
    assert not model.blocks[0].training
    assert not model.blocks[5].block.training
    assert model.blocks[5].adapter.training
    assert model.head[0].training
    tokens = model.embed(clips())
    for block in model.blocks[:3]:
        tokens = block(tokens)
    assert tokens.grad_fn is None


def slow_adapter(adapter, token: torch.Tensor) -> torch.Tensor:
    """s * up(relu(down(x))) for one token, number by number."""
    width, bottleneck = adapter.up.weight.shape
    hidden = [
        max(
            0,
            sum(adapter.down.weight[j, i] * token[i] for i in range(width)) + adapter.down.bias[j],
        )
        for j in range(bottleneck)
    ]
    change = [
        sum(adapter.up.weight[i, j] * hidden[j] for j in range(bottleneck)) + adapter.up.bias[i]
        for i in range(width)
    ]
    return adapter.scale * torch.stack(change)


def slow_block(wrapper, tokens: list[torch.Tensor]) -> list[torch.Tensor]:
    """AdaptFormer Eq. 3-4 as released; LayerScale stays inside the frozen branches."""
    block, adapter = wrapper.block, wrapper.adapter
    normed = [slow_vit.norm(block.norm1, token) for token in tokens]
    mixed = slow_vit.attention(block.attn, normed)
    out = []
    for token, change in zip(tokens, mixed, strict=True):
        stream = token + block.ls1.gamma * change
        normalized = slow_vit.norm(block.norm2, stream)
        mlp = block.ls2.gamma * slow_vit.mlp(block.mlp, normalized)
        source = {"stream": stream, "normalized": normalized}[wrapper.input]
        if wrapper.form == "sequential":
            source = mlp
        out.append(stream + mlp + slow_adapter(adapter, source))
    return out


@torch.no_grad()
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"input": "normalized", "scale": 0.5},
        {"form": "sequential"},
        {"learnable_scale": True, "scale": 2},
    ],
)
def test_the_whole_forward_is_the_papers_equation(options):
    model = slow_vit.tiny_vit()
    for block in model.blocks:
        block.ls1, block.ls2 = LayerScale(12, 0.7), LayerScale(12, 0.2)
    model.double()
    frozen, clip = copy.deepcopy(model), slow_vit.one_clip()
    torch.manual_seed(2)
    methods.apply(model, {"name": "adaptformer", "bottleneck": 3, **options})
    for wrapper in model.blocks:
        for parameter in wrapper.adapter.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    tokens = slow_vit.embed(model, clip)
    for wrapper in model.double().eval().blocks:
        tokens = slow_block(wrapper, tokens)
    expected = slow_vit.read_out(model, tokens)
    assert (expected - frozen(clip[None])[0]).abs().max() > 1e-3
    torch.testing.assert_close(model(clip[None])[0], expected, rtol=0, atol=1e-9)


def test_scale_zero_is_the_frozen_model_whatever_the_adapter_holds():
    model = small_model().eval()
    expected = model(clips())
    methods.apply(model, {"name": "adaptformer", "scale": 0.0, "init": "released"})
    with torch.no_grad():
        for wrapper in model.blocks:
            wrapper.adapter.up.bias.fill_(3.0)
    assert torch.equal(model.eval()(clips()), expected)


def test_the_released_initialisation_is_small_but_not_the_identity():
    model = small_model().eval()
    expected = model(clips())
    methods.apply(model, {"name": "adaptformer", "init": "released"})
    assert 0.018 < model.blocks[0].adapter.up.weight.std().item() < 0.022
    assert not torch.equal(model.eval()(clips()), expected)


@pytest.mark.parametrize(
    ("layers", "depth", "numbers"),
    [
        ("lower", 12, [1, 2, 3, 4, 5, 6]),
        ("upper", 12, [7, 8, 9, 10, 11, 12]),
        ("even", 12, [2, 4, 6, 8, 10, 12]),
        ("lower", 3, [1]),
        ("upper", 3, [2, 3]),
    ],
)
def test_halves_and_every_second_layer_of_any_depth(layers, depth, numbers):
    assert chosen_layers(layers, depth) == numbers


def test_a_single_block_has_no_lower_half():
    with pytest.raises(ValueError, match=r"method\.layers: expected .* got 'lower'"):
        chosen_layers("lower", 1)


@pytest.mark.parametrize("layers", ["0-3", "5-7", "3-1", "first", [], [1, 1], [9]])
def test_layers_that_do_not_exist_are_refused(layers):
    with pytest.raises(ValueError, match=r"method\.layers: expected .* got"):
        chosen_layers(layers, 6)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ({"name": "adaptfomer"}, "did you mean adaptformer"),
        ({"name": "adaptformer", "botleneck": 4}, "did you mean bottleneck"),
        ({"name": "adaptformer", "bottleneck": 0}, "method.bottleneck"),
        ({"name": "adaptformer", "form": "sequential", "input": "normalized"}, "method.input"),
        ({"name": "linear", "bottleneck": 4}, "method.bottleneck"),
        (
            {"name": "adaptformer", "form": "serial"},
            "method.form: expected parallel or sequential, got 'serial'",
        ),
        ({"name": "vpt", "init": "Uniform"}, "method.init: expected xavier or uniform"),
    ],
)
def test_impossible_options_name_the_key(method, message):
    with pytest.raises(ValueError, match=message):
        methods.apply(copy.deepcopy(small_model()), method)
