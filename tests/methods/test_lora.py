"""LoRA against explicit matrices and peft, its counts, and what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch
from kinds import clips, disturb, fresh
from timm.layers import SwiGLU
from torch import nn

from vidadapt import methods
from vidadapt.methods.lora import LoRALinear, LowRank
from vidadapt.methods.placing import places
from vidadapt.models import build

ALL = ["q", "k", "v", "proj", "fc1", "fc2"]


def small_model():
    torch.manual_seed(0)
    return build("vit_tiny", num_frames=4, crop_size=32, num_classes=5)[0]


def moved(**options):
    model = small_model()
    methods.apply(model, {"name": "lora", **options})
    disturb(model)
    return model.double().eval()


def rows_of(wrapper: LoRALinear, part: str) -> torch.Tensor:
    """(alpha / r) * B A of one branch, entry by entry."""
    branch = wrapper.delta.parts[part] if part else wrapper.delta
    a, b = branch.down.weight, branch.up.weight
    total = torch.zeros(len(b), a.shape[1], dtype=torch.float64)
    for rank in range(len(a)):
        total += branch.scale * b[:, rank, None] * a[rank, None, :]
    return total


@pytest.mark.parametrize(
    ("options", "trainable"),
    [
        # Per block: r * (in + out) of each target; head and fc_norm: 135,342 with 174 classes.
        ({}, 12 * 2 * 8 * (768 + 768)),
        ({"rank": 4, "targets": ["k"], "layers": "7-12"}, 6 * 4 * (768 + 768)),
        ({"targets": ["proj", "fc1", "fc2"]}, 12 * 8 * (2 * 768 + 2 * (768 + 3072))),
        ({"rank": 1, "targets": ALL}, 12 * (4 * 2 * 768 + 2 * (768 + 3072))),
    ],
)
def test_counts_on_vit_base_are_those_of_the_formula(options, trainable):
    with torch.device("meta"):
        model, _ = build("vit_base", num_frames=8, crop_size=224, num_classes=174)
        methods.apply(model, {"name": "lora", **options})
    assert methods.count_parameters(model)[0] == trainable + 135_342


@pytest.mark.parametrize("targets", [["q", "v"], ["k", "fc2"], ALL])
def test_it_is_the_model_whose_weights_have_the_products_added(targets):
    adapted = moved(rank=3, alpha=6.0, targets=targets)
    plain = small_model().double().eval()
    plain.fc_norm, plain.head = adapted.fc_norm, adapted.head
    with torch.no_grad():
        for block, wrapped in zip(plain.blocks, adapted.blocks, strict=True):
            for number, part in enumerate("qkv"):
                if part in targets:
                    rows = block.attn.qkv.weight[number * 192 : (number + 1) * 192]
                    rows += rows_of(wrapped.attn.qkv, part)
            for part, layer, wrapper in [
                ("proj", block.attn.proj, wrapped.attn.proj),
                ("fc1", block.mlp.fc1, wrapped.mlp.fc1),
                ("fc2", block.mlp.fc2, wrapped.mlp.fc2),
            ]:
                if part in targets:
                    layer.weight += rows_of(wrapper, "")
        expected, found = plain(clips().double()), adapted(clips().double())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_merged_it_is_a_plain_model_with_the_same_logits(dtype, atol):
    model = moved(targets=ALL).to(dtype)
    with torch.no_grad():
        expected = model(clips().to(dtype))
        methods.merge(model, "lora")
        found = model(clips().to(dtype))
    torch.testing.assert_close(found, expected, rtol=0, atol=atol)
    assert model.state_dict().keys() == small_model().state_dict().keys()
    assert [type(m) for m in model.modules()] == [type(m) for m in small_model().modules()]


def test_dropout_acts_in_training_on_the_branch_only():
    model = small_model()
    methods.apply(model, {"name": "lora", "dropout": 0.5, "layers": [6]})
    methods.train_mode(model)
    tokens = torch.randn(2, 8, 192)
    layer = model.blocks[5].attn.qkv
    bias = torch.zeros(576)
    assert torch.equal(layer(tokens, bias), layer.frozen(tokens, bias))  # B is zero
    disturb(model)
    assert not torch.equal(layer(tokens, bias), layer(tokens, bias))
    model.eval()
    assert torch.equal(layer(tokens, bias), layer(tokens, bias))


def test_a_layer_equals_pefts():
    peft = pytest.importorskip("peft")
    torch.manual_seed(0)
    linear, x = nn.Linear(12, 20), torch.randn(3, 5, 12)
    branch = LowRank(12, 20, rank=4, alpha=2.0, dropout=0.0)
    nn.init.normal_(branch.up.weight)
    ours = LoRALinear(linear, branch)
    config = peft.LoraConfig(r=4, lora_alpha=2, target_modules=["0"])
    theirs = peft.get_peft_model(nn.Sequential(copy.deepcopy(linear)), config)
    state = {"lora_A": branch.down.weight, "lora_B": branch.up.weight}
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            for part, tensor in state.items():
                if part in name:
                    parameter.copy_(tensor)
    torch.testing.assert_close(ours(x), theirs(x))


def test_targets_of_attention_need_an_attention():
    model = small_model()
    model.attention, model.name = "none", "mixer"
    with pytest.raises(ValueError, match="lora is not defined on mixer, which has no attention"):
        methods.apply(model, {"name": "lora", "targets": ["q", "fc1"]})
    methods.apply(model, {"name": "lora", "targets": ["fc1", "fc2"]})
    assert len(places(model, LoRALinear)) == 2 * 6


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": 0}, r"method\.rank: expected 1 or more, got 0"),
        ({"dropout": 1.0}, r"method\.dropout: expected a rate"),
        ({"targets": "q"}, r"method\.targets: expected a list of q, k, v, proj, fc1, fc2, got 'q'"),
        ({"targets": []}, r"method\.targets: expected a list"),
        ({"targets": ["q", "qkv"]}, r"method\.targets: expected a list"),
        ({"targets": ["q", "q"]}, r"method\.targets: expected each name once"),
        ({"layers": "5-7"}, r"method\.layers"),
    ],
)
def test_impossible_options_name_the_key(options, message):
    with pytest.raises(ValueError, match=message):
        methods.apply(small_model(), {"name": "lora", **options})


def test_both_first_layers_of_a_gated_mlp_are_fc1():
    model = fresh("inflated ViT")
    for slot in model.slots():
        slot.block.mlp = SwiGLU(48, 96)
    expected = model.eval()(clips())
    methods.apply(model, {"name": "lora", "targets": ["fc1", "fc2"], "layers": [2]})
    wrapped = {place.name for place in places(model.slots()[1].block, LoRALinear)}
    assert wrapped == {"fc1_g", "fc1_x", "fc2"}
    assert torch.equal(model.eval()(clips()), expected)


def test_a_target_that_the_backbone_does_not_have_is_refused():
    model = small_model()
    for block in model.blocks:
        block.mlp = nn.Sequential(nn.Linear(192, 192))
    with pytest.raises(ValueError, match="no linear layer fc1 in the blocks of vit_tiny"):
        methods.apply(model, {"name": "lora", "targets": ["q", "fc1"]})
    assert not places(model, LoRALinear)
