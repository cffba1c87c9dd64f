"""A frozen tensor costs nothing in training: bytes kept for backward, modes, optimiser state."""

from __future__ import annotations

import copy
import functools

import pytest
import torch
from kinds import KINDS, NUM_CLASSES, clips, disturb, fresh
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from vidadapt import methods
from vidadapt.models import build
from vidadapt.training import optim

# The model of these tests: B clips of t * h * w tokens, D channels, 4 D in the MLP; float32.
CLIPS, TOKENS, WIDTH, DEPTH, FLOAT = 4, 2 * 4 * 4, 192, 6, 4
STREAM = CLIPS * TOKENS * WIDTH * FLOAT  # bytes of the tokens between two blocks
PIXELS = CLIPS * TOKENS * 3 * 2 * 16 * 16 * FLOAT  # what the patch embedding multiplies


@functools.cache
def backbone(head: str, drop_path: float):
    torch.manual_seed(0)
    chosen = {"num_frames": 4, "crop_size": 64, "num_classes": NUM_CLASSES}
    return build("vit_tiny", head=head, drop_path=drop_path, **chosen)[0]


def model_with(method: dict, head: str = "batchnorm_linear", drop_path: float = 0.0):
    model = copy.deepcopy(backbone(head, drop_path))
    methods.apply(model, method)
    methods.train_mode(model)
    return model


def big_clips() -> torch.Tensor:
    return torch.randn(CLIPS, 3, 4, 64, 64, generator=torch.Generator().manual_seed(1))


def kept_bytes(model: nn.Module, clip: torch.Tensor | None = None) -> int:
    """Bytes that a forward pass keeps for backward: each storage once, the model's own not."""
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    clip = big_clips() if clip is None else clip
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(clip)
    assert logits.requires_grad
    return sum(storage.nbytes() for address, storage in kept.items() if address not in own)


@functools.cache
def kept_by_full() -> int:
    return kept_bytes(model_with({"name": "full"}))


def test_layers_below_the_first_trained_module_keep_nothing():
    model = model_with({"name": "adaptformer", "layers": "4-6"})
    alone = copy.deepcopy(model)
    alone.blocks = alone.blocks[3:]
    assert kept_bytes(model) == kept_bytes(alone)
    assert kept_bytes(model) < 0.5 * kept_bytes(model_with({"name": "adaptformer"}))


def test_no_graph_exists_below_the_first_trained_module():
    model = model_with({"name": "adaptformer", "layers": "4-6"})
    made_by: dict[str, bool] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(
            lambda _module, _args, out, name=name: made_by.__setitem__(name, out.requires_grad)
        )
    model(big_clips())
    below = [
        name
        for name in made_by
        if name.startswith(("patch_embed", "blocks.0", "blocks.1", "blocks.2", "blocks.3.block"))
    ]
    assert "blocks.2.mlp.fc2" in below and "blocks.3.block.mlp" in below
    assert [name for name in below if made_by[name]] == []
    assert made_by["blocks.3.adapter"] and made_by["blocks.4"]


def test_frozen_linear_layers_keep_no_inputs():
    """AdaptFormer needs less than full tuning by the inputs of qkv, fc1 and fc2 and the pixels.

    The input of proj is what attention keeps anyway. The adapter keeps its hidden channels; what it
    reads is the stream, which norm2 keeps.
    """
    bottleneck = 8
    adaptformer = kept_bytes(model_with({"name": "adaptformer", "bottleneck": bottleneck}))
    inputs = DEPTH * (1 + 1 + 4) * STREAM + PIXELS
    assert kept_by_full() - adaptformer >= inputs - DEPTH * CLIPS * TOKENS * bottleneck * FLOAT


@pytest.mark.parametrize("head", ["linear", "batchnorm_linear"])
def test_a_linear_probe_keeps_what_its_head_needs(head):
    """The pooled features, their mean and deviation, and what leaves fc_norm (and BatchNorm)."""
    pooled = CLIPS * WIDTH * FLOAT
    fc_norm = pooled + 2 * CLIPS * FLOAT
    batch_norm = pooled + 2 * WIDTH * FLOAT if head == "batchnorm_linear" else 0
    assert kept_bytes(model_with({"name": "linear"}, head)) == fc_norm + batch_norm + pooled


@pytest.mark.parametrize("kind", KINDS)
def test_a_linear_probe_keeps_nothing_of_any_backbone(kind):
    model = fresh(kind)
    methods.apply(model, {"name": "linear"})
    methods.train_mode(model)
    pooled = CLIPS * model.width * FLOAT
    head = pooled  # of the linear layer
    if list(model.fc_norm.parameters()):  # it and the BatchNorm
        head += 2 * pooled + 2 * CLIPS * FLOAT + 2 * model.width * FLOAT
    assert kept_bytes(model, clips(CLIPS, kind)) == head


def test_biases_train_without_any_input_of_a_linear_layer():
    assert kept_bytes(model_with({"name": "bitfit"})) <= (
        kept_by_full() - DEPTH * (1 + 1 + 4) * STREAM - PIXELS
    )


# A scale needs its input, which is the output of the frozen layer before it. In a block that is
# qkv 3 D, proj D, fc1 4 D, fc2 D more than full tuning keeps, less the 4 D that enter fc2.
MORE_THAN_FULL = {"ssf": (5 * DEPTH + 1) * STREAM - PIXELS}


@pytest.mark.parametrize("name", [name for name in methods.METHODS if name != "full"])
def test_a_method_keeps_no_more_than_full_tuning(name):
    kept = kept_bytes(model_with({"name": name}))
    if name in MORE_THAN_FULL:
        assert kept == kept_by_full() + MORE_THAN_FULL[name]
    else:
        assert kept < kept_by_full()


def noisy(method: dict):
    """A model with stochastic depth and dropout inside the backbone, and its evaluation's twin."""
    model = model_with(method, head="linear", drop_path=0.5)
    disturb(model)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5
    return model, copy.deepcopy(model).eval()


FROZEN_IN_PART = [name for name in methods.METHODS if name != "full"]


@pytest.mark.parametrize("name", FROZEN_IN_PART)
def test_dropout_and_stochastic_depth_of_a_frozen_block_are_off_in_training(name):
    training, evaluating = noisy({"name": name})
    assert torch.equal(training(big_clips()), evaluating(big_clips()))


def test_they_act_where_everything_is_trained():
    training, evaluating = noisy({"name": "full"})
    assert not torch.equal(training(big_clips()), evaluating(big_clips()))
    assert not torch.equal(training(big_clips()), training(big_clips()))


def test_a_frozen_batch_norm_keeps_its_statistics_and_the_heads_moves():
    model = model_with({"name": "adaptformer"})
    frozen = nn.BatchNorm1d(WIDTH).requires_grad_(False)
    model.blocks[0].block.ls1 = nn.Sequential(
        nn.Flatten(0, 1), frozen, nn.Unflatten(0, (CLIPS, TOKENS))
    )
    methods.train_mode(model)
    model(big_clips())
    assert frozen.num_batches_tracked == 0 and not frozen.running_mean.any()
    assert model.head[0].num_batches_tracked == 1 and model.head[0].running_mean.any()


@pytest.mark.parametrize("name", methods.METHODS)
def test_the_optimiser_holds_state_for_what_trains_only(name):
    model = fresh("tubelet ViT")
    methods.apply(model, {"name": name})
    methods.train_mode(model)
    groups = optim.parameter_groups(model, depth=model.depth, weight_decay=0.05, layer_decay=1.0)
    optimizer = optim.build_optimizer("adamw", groups)
    functional.cross_entropy(model(clips()), torch.arange(4)).backward()
    optimizer.step()
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert {id(parameter) for parameter in optimizer.state} == trained
    moments = sum(state["exp_avg"].numel() for state in optimizer.state.values())
    assert moments == methods.count_parameters(model)[0]
