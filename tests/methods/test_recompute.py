"""Recomputing changes what is kept for the backward pass, and nothing else."""

from __future__ import annotations

import copy
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kinds import KINDS, NUM_CLASSES, chosen, clips, disturb, fresh
from test_contracts import PAIRS
from torch import Tensor, nn

from vidadapt import methods, models
from vidadapt.apps.study import benchmark
from vidadapt.apps.study.benchmark import Setting
from vidadapt.models import VideoModel

# Random numbers in what is computed again: dropout inside methods, drop path in whole backbones.
DROPOUT = {"adaptformer", "arc", "vpt", "lora", "losa"}
KEEP_NOTHING_IN_BLOCKS = {"linear", "losa"}


def adapted(method: str, kind: str, **options) -> VideoModel:
    model = fresh(kind)
    if method == "full":
        torch.manual_seed(0)
        sizes = {"num_frames": 4, "crop_size": 32, "num_classes": NUM_CLASSES}
        model = models.build(**{**sizes, **KINDS[kind]}, drop_path=0.5)[0]
    torch.manual_seed(4)
    dropout = {"dropout": 0.3} if method in DROPOUT else {}
    methods.apply(model, {**chosen(method, kind), **dropout, **options})
    disturb(model)
    methods.train_mode(model)
    return model


def copies(model: VideoModel) -> dict[str, VideoModel]:
    found = {what: copy.deepcopy(model) for what in ("none", "mlp", "block")}
    for what, one in found.items():
        methods.recompute_blocks(one, what)
    return found


def step(
    model: VideoModel, clip: Tensor, *, half: bool = False
) -> tuple[Tensor, dict[str, Tensor], int, Tensor]:
    """Logits, gradients, bytes kept, and the next random number after forward and backward."""
    torch.manual_seed(7)
    given: list[Tensor] = []

    def loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            given.append(model(clip))
        return given[0].float().square().mean()

    value, kept = benchmark.backward_bytes(model, loss)
    value.backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return given[0].detach(), grads, kept, torch.rand(())


def assert_same(found: tuple, plain: tuple, tolerance: float = 1e-5) -> None:
    assert torch.equal(found[0], plain[0])
    assert found[1].keys() == plain[1].keys()
    largest = max(grad.abs().max() for grad in plain[1].values())
    for name, grad in plain[1].items():
        torch.testing.assert_close(
            found[1][name], grad, rtol=tolerance, atol=tolerance * largest, msg=name
        )
    assert found[3] == plain[3]


@pytest.mark.parametrize(("method", "kind"), PAIRS)
def test_steps_are_the_same_and_keep_less(method, kind):
    given = clips(kind=kind)
    steps = {what: step(one, given) for what, one in copies(adapted(method, kind)).items()}
    assert_same(steps["mlp"], steps["none"])
    assert_same(steps["block"], steps["none"])
    none, mlp, block = (kept for _, _, kept, _ in steps.values())
    if method in KEEP_NOTHING_IN_BLOCKS:
        assert none == mlp == block
    else:
        assert block < mlp < none


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("adaptformer", {"input": "normalized"}),
        ("adaptformer", {"form": "sequential", "layers": [2]}),
        ("vpt", {"form": "shallow"}),
        ("lora", {"targets": ["q", "proj", "fc1", "fc2"]}),
        ("st_adapter", {"position": "both"}),
    ],
)
def test_every_form_of_a_method_works(method, options):
    model = adapted(method, "tubelet ViT", **options)
    steps = {what: step(one, clips()) for what, one in copies(model).items()}
    assert_same(steps["mlp"], steps["none"])
    assert_same(steps["block"], steps["none"])
    assert steps["block"][2] < steps["mlp"][2] < steps["none"][2]


@pytest.mark.parametrize("method", ["full", "arc", "lora", "adaptformer"])
def test_under_autocast(method):
    model = adapted(method, "tubelet ViT")
    steps = {what: step(one, clips(), half=True) for what, one in copies(model).items()}
    assert_same(steps["mlp"], steps["none"])
    assert_same(steps["block"], steps["none"])


@pytest.mark.parametrize("what", ["mlp", "block"])
def test_nothing_happens_without_training(what):
    model = adapted("adaptformer", "tubelet ViT")
    plain, model = model.eval(), copy.deepcopy(model).eval()
    methods.recompute_blocks(model, what)
    assert list(model.state_dict()) == list(plain.state_dict())
    assert methods.trainable_state(model).keys() == methods.trainable_state(plain).keys()
    found, expected = step(model, clips()), step(plain, clips())
    assert_same(found, expected, tolerance=0)
    assert found[2] == expected[2]
    calls: list[nn.Module] = []
    methods.train_mode(model)
    model.blocks[1].register_forward_hook(lambda *_: calls.append(model))
    with torch.no_grad():
        assert not model(clips()).requires_grad
    assert len(calls) == 1


@pytest.mark.parametrize("what", ["none", "mlp", "block"])
def test_what_enters_the_mlp_is_set_free(what):
    """What the graph's functions hold by themselves is not among the bytes that were counted."""
    model = adapted("full", "tubelet ViT")
    methods.recompute_blocks(model, what)
    entered: list[weakref.ref] = []
    hook = model.blocks[1].mlp.register_forward_pre_hook(
        lambda _, inputs: entered.append(weakref.ref(inputs[0]))
    )
    logits = model(clips())
    hook.remove()
    (found,) = entered
    assert (found() is None) == (what != "none")
    logits.sum().backward()


@pytest.mark.parametrize("what", ["mlp", "block"])
def test_a_copy_computes_with_its_own_weights(what):
    model = adapted("adaptformer", "tubelet ViT", dropout=0.0)
    methods.recompute_blocks(model, what)
    other = copy.deepcopy(model)
    before = model(clips()).detach()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(other(clips()).detach(), before)


def test_costs_are_measured_with_it_and_counted_without():
    setting = Setting(backbone="vit_tiny", num_frames=4, crop_size=32, num_classes=NUM_CLASSES)
    method = {"name": "adaptformer"}
    block = replace(setting, recompute="block")
    kept = [
        benchmark.measure(one, method, steps=1, threads=None).backward_bytes_per_clip
        for one in (setting, block)
    ]
    assert kept[1] < 0.2 * kept[0]
    assert benchmark.count(block, method) == benchmark.count(setting, method)


def test_a_run_trains_the_same_file_and_resumes_with_another_choice(tiny_set, run_tool, tmp_path):
    options = tiny_set.options(method__dropout=0.2)
    files = {}
    for what in ("none", "mlp"):
        run = tmp_path / what
        run_tool("train", *options, "--run_dir", run, "--train.recompute", what)
        files[what] = {p.name: p.read_bytes() for p in Path(run / "last").glob("adapter.*")}
    assert len(files["none"]) == 2
    assert files["mlp"] == files["none"]
    again = (*options, "--run_dir", tmp_path / "mlp", "--train.recompute", "block", "--resume")
    run_tool("train", *again)


def test_it_is_refused_together_with_compile(tiny_set, run_tool, tmp_path):
    options = tiny_set.options(train__compile="true", train__recompute="block")
    with pytest.raises(ValueError, match=r"train\.recompute: block does not work with train\.comp"):
        run_tool("train", *options, "--run_dir", tmp_path / "run")
