"""Adapter files come back bit by bit, and many of them share one backbone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from vidadapt import adapters, data, methods
from vidadapt.adapters import load_adapter, save_adapter
from vidadapt.assemble import adapted_model
from vidadapt.bank import AdapterBank
from vidadapt.config import Config, DataConfig, EvalConfig, ModelConfig, TrainConfig

FRAMES, SIDE = 4, 32


def make_config(tiny_set, method: dict, classes: int, **model) -> Config:
    labels = tiny_set.root / f"{classes}.txt"
    labels.write_text("".join(f"class {i} of {classes}\n" for i in range(classes)))
    return Config(
        run_dir="",
        method=method,
        data=DataConfig(label_names=str(labels), num_frames=FRAMES, crop_size=SIDE),
        model=ModelConfig(**{"backbone": "vit_tiny", "weights": str(tiny_set.weights), **model}),
        train=TrainConfig(precision="fp32"),
        eval=EvalConfig(num_clips=2, num_crops=1, fusion="logits"),
    )


@pytest.fixture
def make(tiny_set, tmp_path) -> Callable:
    """Write the adapter of a method whose trained tensors have been moved at random."""

    def write(name: str, method: dict, classes: int = 3, **model):
        cfg = make_config(tiny_set, method, classes, **model)
        plan = data.resolve(cfg.data, cfg.eval)
        adapted, _, backbone = adapted_model(cfg, plan)
        generator = torch.Generator().manual_seed(len(name))
        with torch.no_grad():
            for tensor in methods.trainable_state(adapted).values():
                if tensor.is_floating_point():
                    tensor.add_(torch.rand(tensor.shape, generator=generator) * 0.02)
        about = adapters.describe(cfg, plan, backbone, "a" * 64)
        save_adapter(tmp_path / name, adapted, {**about, "metrics": {"epoch": 3, "dev_top1": 50.0}})
        return tmp_path / name, adapted.eval()

    return write


def random_clips(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randint(
        256, (count, 3, FRAMES, SIDE, SIDE), dtype=torch.uint8, generator=generator
    )


def expected(model: torch.nn.Module, clips: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(data.transforms.normalize(clips, "imagenet"))


# Name -> method: the bank serves any two of them from one batch.
TASKS = {
    "small": {"name": "adaptformer", "bottleneck": 4},
    "wide": {"name": "adaptformer", "bottleneck": 7, "learnable_scale": True},
    "late": {"name": "adaptformer", "bottleneck": 4, "layers": "4-6"},
    "behind": {"name": "adaptformer", "bottleneck": 4, "form": "sequential"},
    "probe": {"name": "linear"},
    "whole": {"name": "full"},
    **{name: {"name": name} for name in methods.METHODS},
}


@pytest.mark.parametrize("method", methods.METHODS)
def test_an_adapter_comes_back_bit_by_bit(make, method):
    folder, model = make("one", {"name": method})
    again, adapter = load_adapter(folder)
    assert torch.equal(expected(again, random_clips(3)), expected(model, random_clips(3)))
    assert adapter.about["metrics"] == {"epoch": 3, "dev_top1": 50.0}
    assert adapter.label(1) == "class 1 of 3"
    save_adapter(folder.with_name("copy"), again, adapter.about)
    for name in ("adapter.safetensors", "adapter.json"):
        assert (folder.with_name("copy") / name).read_bytes() == (folder / name).read_bytes()


def test_the_file_alone_says_how_clips_are_cut_and_views_fused(make):
    adapter = adapters.read_adapter(make("one", TASKS["small"])[0])
    plan = adapter.plan
    assert (plan.sampling.policy, plan.sampling.num_frames, plan.crop_size) == ("uniform", 4, 32)
    assert (plan.num_clips, plan.num_crops, adapter.config.eval.fusion) == (2, 1, "logits")
    assert plan.normalization == "imagenet"
    assert adapter.config.train.precision == "fp32"
    assert adapters.with_views(plan, 5, None).sampling.num_clips == 5


def test_a_mixed_batch_gives_what_each_task_gives_alone(make):
    models = {}
    bank = AdapterBank.for_adapter(make("first", TASKS["small"])[0])
    for number, (name, method) in enumerate(TASKS.items()):
        folder, models[name] = make(name, method, classes=2 + number)
        bank.add(name, folder)
    batches = [[name, "small", name, "probe"] for name in TASKS]
    batches += [["small", "late", "behind", "wide", "small"], [*TASKS]]
    for names in batches:
        clips = random_clips(len(names))
        for i, found in enumerate(bank.logits(clips, names)):
            alone = expected(models[names[i]], clips[i : i + 1])[0]
            torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)
