"""Contracts of every method, and AdaptFormer's equations against a slow restatement."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn import functional

from vidadapt import methods
from vidadapt.methods.layers import chosen_layers
from vidadapt.models import build

# fc_norm's scale and shift cancel in the BatchNorm that follows it, so their gradients are ~0.
CANCELLED = ("fc_norm.weight", "fc_norm.bias")


def small_model(num_classes: int = 5):
    torch.manual_seed(0)
    model, _ = build("vit_tiny", num_frames=4, crop_size=32, num_classes=num_classes)
    return model


def clips(batch: int = 4) -> torch.Tensor:
    return torch.randn(batch, 3, 4, 32, 32, generator=torch.Generator().manual_seed(1))


def disturb(model) -> None:
    """Move what is trained a little, as some training would."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape) * 0.02)


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
        ({"name": "adaptformer", "bottleneck": 256}, 174, 4_866_222),
        ({"name": "full"}, 174, 86_361_006),
        ({"name": "linear"}, 51, 40_755),
        ({"name": "adaptformer"}, 51, 1_230_387),
        ({"name": "full"}, 51, 86_266_419),
    ],
)
def test_trainable_parameters_of_vit_base_are_the_papers(method, num_classes, trainable):
    with torch.device("meta"):
        model, _ = build("vit_base", num_frames=8, crop_size=224, num_classes=num_classes)
        methods.apply(model, method)
    assert methods.count_parameters(model)[0] == trainable


@pytest.mark.parametrize("name", methods.METHODS)
def test_the_function_is_unchanged_at_initialisation(name):
    model = small_model().eval()
    expected = model(clips())
    methods.apply(model, {"name": name})
    assert torch.equal(model.eval()(clips()), expected)


@pytest.mark.parametrize("name", methods.METHODS)
def test_two_steps_move_what_is_trained_and_nothing_else(name):
    model = small_model()
    methods.apply(model, {"name": name})
    disturb(model)
    methods.train_mode(model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    largest = dict.fromkeys(trained, 0.0)
    for step in range(2):
        optimizer.zero_grad()
        functional.cross_entropy(model(clips(8)), torch.arange(8) % 5).backward()
        for key, parameter in trained.items():
            assert parameter.grad is not None, key
            largest[key] = max(largest[key], parameter.grad.abs().max().item())
        optimizer.step()
        assert step == 0 or all(
            torch.equal(before[k], v)
            for k, v in model.state_dict().items()
            if k not in trained and not k.startswith("head.0.")
        )
    top = max(largest.values())
    for key, value in largest.items():
        assert value > 1e-6 * top or key in CANCELLED, key


@pytest.mark.parametrize("name", methods.METHODS)
def test_a_saved_state_gives_the_same_function(name):
    first = small_model()
    methods.apply(first, {"name": name})
    disturb(first)
    second = small_model()
    methods.apply(second, {"name": name})
    methods.load_trainable_state(second, methods.trainable_state(first), "test")
    assert torch.equal(first.eval()(clips()), second.eval()(clips()))


def test_a_state_of_another_width_is_refused_with_the_tensors_named():
    first, second = small_model(), small_model()
    methods.apply(first, {"name": "adaptformer", "bottleneck": 8})
    methods.apply(second, {"name": "adaptformer", "bottleneck": 4})
    with pytest.raises(ValueError, match=r"blocks.0.adapter.down.bias: \(8,\) in the file, \(4,\)"):
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


def naive_adapted_block(wrapper, x: torch.Tensor) -> torch.Tensor:
    """AdaptFormer Eq. 3-4 and its released code, matrix by matrix."""
    block, adapter = wrapper.block, wrapper.adapter
    x = x + block.attn(block.norm1(x))
    normalized = block.norm2(x)
    mlp = block.mlp(normalized)
    source = {"stream": x, "normalized": normalized}[wrapper.input]
    if wrapper.form == "sequential":
        source = mlp
    hidden = torch.clamp(source @ adapter.down.weight.T + adapter.down.bias, min=0)
    branch = hidden @ adapter.up.weight.T + adapter.up.bias
    return x + mlp + adapter.scale * branch


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"input": "normalized", "scale": 0.5},
        {"form": "sequential"},
        {"learnable_scale": True, "scale": 0.3},
    ],
)
def test_adapted_block_is_the_papers_equation(options):
    model = small_model()
    methods.apply(model, {"name": "adaptformer", "bottleneck": 7, **options})
    wrapper = model.blocks[2].eval()
    with torch.no_grad():
        for parameter in wrapper.adapter.parameters():
            parameter.add_(torch.randn(parameter.shape) * 0.3)
    x = torch.randn(2, 8, 192, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(wrapper(x), naive_adapted_block(wrapper, x), rtol=1e-5, atol=1e-5)


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
    ],
)
def test_impossible_options_name_the_key(method, message):
    with pytest.raises(ValueError, match=message):
        methods.apply(copy.deepcopy(small_model()), method)
