"""A model cut into its frozen prefix and the rest gives the logits and gradients of the whole."""

from __future__ import annotations

import copy

import kinds
import pytest
import torch

from vidadapt import methods
from vidadapt.features import NothingFrozen, cut_in_two, run_from_features
from vidadapt.models.heads import HEADS

CASES = [
    ("linear", "linear", {}),
    ("linear", "batchnorm_linear", {}),
    ("linear", "attentive", {}),
    ("losa", "linear", {}),
    ("losa", "linear", {"layers": [1, 2]}),
    ("adaptformer", "linear", {"layers": "top"}),
    ("lora", "attentive", {"layers": "top"}),
]


def adapted(kind: str, method: str, head: str, options: dict) -> torch.nn.Module:
    model = kinds.fresh(kind)
    torch.manual_seed(2)
    model.head = HEADS[head](model.width, kinds.NUM_CLASSES)
    if options.get("layers") == "top":
        options = {"layers": [len(model.slots())]}
    methods.apply(model, {**kinds.chosen(method, kind), **options})
    kinds.disturb(model)
    return model


# A side network needs global attention.
NO_SIDE = ("frame-wise Swin", "frame-wise Mixer")


@pytest.mark.parametrize(
    ("kind", "method", "head", "options"),
    [
        (kind, *case)
        for kind in kinds.KINDS
        for case in CASES
        if case[0] != "losa" or kind not in NO_SIDE
    ],
    ids=str,
)
@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
def test_the_rest_on_features_is_the_whole_on_clips(kind, method, head, options, bf16):
    whole = adapted(kind, method, head, options)
    cut = copy.deepcopy(whole)
    clips = kinds.clips(kind=kind)
    parts = cut_in_two(cut, method)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        features = parts.features(clips)
        assert not any(tensor.requires_grad for tensor in features)
        assert {len(tensor) for tensor in features} == {len(clips)}
        assert len(features) == len(parts.names)
        run_from_features(parts)
        for model in (whole, cut):
            methods.train_mode(model)
        expected, found = whole(clips), cut(features)
        torch.testing.assert_close(found, expected, rtol=0, atol=0)
        expected.square().sum().backward()
        found.square().sum().backward()
    wanted = {name: p.grad for name, p in whole.named_parameters() if p.grad is not None}
    given = {name: p.grad for name, p in cut.named_parameters() if p.grad is not None}
    assert wanted.keys() == given.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(given[name], gradient, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", kinds.KINDS)
def test_tokens_in_front_of_every_slot_lead_to_the_same_features(kind):
    model = kinds.fresh(kind).eval()
    clips, entering = kinds.clips(2, kind), []
    hooks = [
        slot.block.register_forward_pre_hook(lambda block, given: entering.append(given[0]))
        for slot in model.slots()
    ]
    expected = model.forward_features(clips)
    for hook in hooks:
        hook.remove()
    for number, tokens in enumerate(entering):
        assert torch.equal(model.forward_from(tokens, number), expected)


@pytest.mark.parametrize(
    ("kind", "method", "options"),
    [
        ("tubelet ViT", "full", {}),
        ("tubelet ViT", "bitfit", {}),
        ("tubelet ViT", "ssf", {}),
        ("tubelet ViT", "adaptformer", {}),
        ("tubelet ViT", "vpt", {"form": "shallow"}),
        ("inflated ViT", "lora", {"layers": [1, 3]}),
    ],
)
def test_a_model_that_trains_from_its_beginning_has_no_prefix(kind, method, options):
    with pytest.raises(NothingFrozen, match=rf"cache\.dir: method\.name {method} trains"):
        cut_in_two(adapted(kind, method, "linear", options), method)


def test_linear_heads_share_their_features_and_others_do_not():
    def title(method: str, head: str, **options: object) -> str:
        return cut_in_two(adapted("tubelet ViT", method, head, options), method).title

    assert title("linear", "linear") == title("linear", "batchnorm_linear")
    assert title("adaptformer", "linear", layers="4-6") == title("lora", "linear", layers="4-5")
    others = [
        title("linear", "linear"),
        title("linear", "attentive"),
        title("losa", "linear"),
        title("losa", "linear", layers="4-6"),
        title("adaptformer", "linear", layers="4-6"),
        title("adaptformer", "linear", layers="5-6"),
    ]
    assert len(set(others)) == len(others)
