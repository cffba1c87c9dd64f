"""Adapter files come back bit by bit, and many of them share one backbone."""

from __future__ import annotations

import copy
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
from conftest import write_adapter
from safetensors.torch import load_file, save_file
from torch.overrides import TorchFunctionMode

from vidadapt import data, methods, models
from vidadapt.config import (
    Config,
    ConfigError,
    DataConfig,
    EvalConfig,
    ModelConfig,
    TrainConfig,
    yaml_files,
)
from vidadapt.models import build
from vidadapt.runs import adapters
from vidadapt.runs.adapters import load_adapter, save_adapter
from vidadapt.serving import AdapterBank, Predictor, trained

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

    def write(name: str, method: dict, classes: int = 3, **sizes):
        cfg = make_config(tiny_set, method, classes, **sizes)
        metrics = {"epoch": 3, "dev_top1": 50.0}
        model = write_adapter(tmp_path / name, cfg, seed=len(name), spread=0.02, metrics=metrics)
        return tmp_path / name, model

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
    batches = [[name, "small", name, "linear"] for name in TASKS]
    batches += [["small", "late", "behind", "wide", "small"], [*TASKS]]
    for names in batches:
        clips = random_clips(len(names))
        for i, found in enumerate(bank.logits(clips, names)):
            alone = expected(models[names[i]], clips[i : i + 1])[0]
            torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)


KINDS = {
    "inflated ViT": ("vit_tiny_patch16_224", "inflate", ["arc", "vpt", "losa", "bitfit", "linear"]),
    "frame by frame ViT": ("vit_tiny_patch16_224", "frames", ["vpt", "losa", "linear"]),
    "frame by frame Swin": ("swin_tiny_patch4_window7_224", "frames", ["arc"]),
    "V-JEPA 2": ("vjepa2_tiny", None, ["arc", "vpt", "losa", "bitfit", "linear"]),
}


@pytest.mark.parametrize("backbone", ["timesformer_tiny", "vivit_tiny", "videoprism_tiny"])
def test_video_backbones_serve_mixed_batches_too(make, tmp_path, backbone):
    side = {"crop_size": SIDE, "patch_size": 16}
    torch.manual_seed(0)
    plain, _ = build(backbone, num_frames=FRAMES, num_classes=2, head="linear", **side)
    save_file(plain.state_dict(), tmp_path / "video.safetensors")
    model = {"backbone": backbone, "patch_size": 16, "weights": str(tmp_path / "video.safetensors")}
    names, models, bank = ["small", "wide", "arc", "vpt", "losa", "bitfit", "linear"], {}, None
    for number, name in enumerate(names):
        folder, models[name] = make(name, TASKS[name], 2 + number, **model)
        bank = bank or AdapterBank.for_adapter(folder)
        bank.add(name, folder)
    clips = random_clips(len(names))
    for i, found in enumerate(bank.logits(clips, names)):
        alone = expected(models[names[i]], clips[i : i + 1])[0]
        torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)
    for name, found in bank.all_logits(clips[:2]).items():
        torch.testing.assert_close(found, expected(models[name], clips[:2]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_other_backbones_serve_mixed_batches_too(make, tmp_path, kind):
    backbone, how, others = KINDS[kind]
    # Swin's logits are near 50 here, and some processors sum other batches in other orders.
    rounding = 4e-6 if "Swin" in kind else 0
    torch.manual_seed(0)
    model = {"backbone": backbone, "weights": str(tmp_path / "weights.safetensors")}
    if how is None:
        plain = models.build(backbone, num_frames=4, crop_size=SIDE, num_classes=1)[0]
    else:
        plain = timm.create_model(backbone, img_size=SIDE, num_classes=0)
        model |= {"backbone": f"timm/{backbone}", "from_image": how}
    save_file(plain.state_dict(), tmp_path / "weights.safetensors")
    names, tasks, bank = ["small", "wide", *others], {}, None
    for number, name in enumerate(names):
        folder, tasks[name] = make(name, TASKS[name], 2 + number, **model)
        bank = bank or AdapterBank.for_adapter(folder)
        bank.add(name, folder)
    folder, tasks["probe"] = make("probe", TASKS["linear"], 4, head="vjepa_attentive", **model)
    bank.add("probe", folder)
    names += ["probe", "small"]
    clips = random_clips(len(names))
    for i, found in enumerate(bank.logits(clips, names)):
        alone = expected(tasks[names[i]], clips[i : i + 1])[0]
        torch.testing.assert_close(found, alone, rtol=rounding, atol=1e-5)
    clips = clips[:2]
    for name, found in bank.all_logits(clips).items():
        torch.testing.assert_close(found, expected(tasks[name], clips), rtol=rounding, atol=1e-5)
    bank.logits(clips, ["small", "wide"])
    with LinearCalls() as calls:
        bank.logits(clips, ["small", "wide"])
    assert {calls.of[place] for place in frozen_weights(bank).values()} == {1}


def test_a_name_that_is_used_again_is_the_new_adapter(make):
    folder, _ = make("old", TASKS["small"])
    bank = AdapterBank.for_adapter(folder)
    bank.add("other", make("other", TASKS["arc"])[0])
    bank.add("name", folder)
    clips = random_clips(2)
    bank.logits(clips, ["name", "other"])
    bank.remove("name")
    folder, model = make("new one", TASKS["vpt"], classes=5)
    bank.add("name", folder)
    found = bank.logits(clips, ["name", "other"])[0]
    torch.testing.assert_close(found, expected(model, clips[:1])[0], rtol=0, atol=1e-5)


def test_a_bank_does_not_grow_with_the_batches_it_has_seen(make, monkeypatch):
    monkeypatch.setattr("vidadapt.serving.bank.KEPT_PASSES", 2)
    folder, model = make("one", TASKS["small"])
    bank = AdapterBank.for_adapter(folder)
    clips = random_clips(3)
    for name in "abc":
        bank.add(name, folder)
    for names in ("aab", "bbc", "aac", "abc", "bab", "abc"):
        for i, found in enumerate(bank.logits(clips, list(names))):
            alone = expected(model, clips[i : i + 1])[0]
            torch.testing.assert_close(found, alone, rtol=0, atol=1e-5)
        assert len(bank._passes) <= 2


class LinearCalls(TorchFunctionMode):
    """How often each weight is used by a linear layer, by the place of its data."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[int] = Counter()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.linear:
            self.of[args[1].data_ptr()] += 1
        return func(*args, **(kwargs or {}))


def frozen_weights(bank: AdapterBank) -> dict[str, int]:
    return {
        name: parameter.data_ptr()
        for name, parameter in bank._plain.named_parameters()
        if "blocks." in name and name.endswith(("qkv.weight", "fc1.weight"))
    }


def test_what_two_tasks_have_in_common_runs_once_on_the_mixed_batch(make):
    bank = AdapterBank.for_adapter(make("small", TASKS["small"])[0])
    bank.add("a", make("small", TASKS["small"], 3)[0])
    bank.add("b", make("wide", TASKS["wide"], 5)[0])
    bank.add("c", make("linear", TASKS["linear"], 4)[0])
    for names, times in ((["a", "b", "b", "a"], 1), (["a", "c", "a"], 2)):
        bank.logits(random_clips(len(names)), names)
        with LinearCalls() as calls:
            bank.logits(random_clips(len(names)), names)
        assert {calls.of[place] for place in frozen_weights(bank).values()} == {times}


def test_tasks_that_leave_the_features_alone_share_one_pass(make):
    bank = AdapterBank.for_adapter(make("one", TASKS["linear"])[0])
    models = {}
    tasks = {
        "one": TASKS["linear"],
        "side": {"name": "losa"},
        "other": {"name": "losa", "layers": "3-5", "channel_rank": 8},
    }
    for number, (name, method) in enumerate(tasks.items()):
        folder, models[name] = make(name, method, classes=3 + number)
        bank.add(name, folder)
    clips = random_clips(3)
    with LinearCalls() as calls:
        found = bank.all_logits(clips)
    assert {calls.of[place] for place in frozen_weights(bank).values()} == {1}
    folder, models["small"] = make("small", TASKS["small"])
    bank.add("small", folder)
    found = bank.all_logits(clips)
    assert list(found) == ["one", "side", "other", "small"]
    for name, values in found.items():
        torch.testing.assert_close(values, expected(models[name], clips), rtol=0, atol=1e-5)


def test_a_second_task_costs_its_own_tensors_only(make):
    folder, _ = make("one", TASKS["small"])
    bank = AdapterBank.for_adapter(folder)
    backbone = {t.data_ptr() for n, t in bank._plain.named_parameters() if "blocks" in n}
    for name in ("small", "linear", "bitfit", "losa", "vpt"):
        folder, _ = make(name, TASKS[name])
        adapter = bank.add(name, folder)
        assert bank.own_bytes(name) == sum(t.nbytes for t in adapter.tensors.values())
        places = {t.data_ptr() for t in bank._tasks[name].model.parameters()}
        missing = len(backbone - places)
        assert missing == (6 * 7 if name == "bitfit" else 0)  # its biases are its own
    folder, _ = make("full", TASKS["full"])
    adapter = bank.add("full", folder)
    assert bank.own_bytes("full") == sum(t.nbytes for t in adapter.tensors.values())


def test_tasks_that_trained_the_backbone_leave_it_and_other_tasks_as_they_were(make):
    folder, small = make("small", TASKS["small"])
    bank = AdapterBank.for_adapter(folder)
    clips = random_clips(2)
    before = bank.features(clips).clone()
    bank.add("small", folder)
    for name in ("bitfit", "full"):
        bank.add(name, make(name, TASKS[name])[0])
    assert torch.equal(bank.features(clips), before)
    torch.testing.assert_close(bank.logits(clips, "small"), expected(small, clips))
    bank.remove("bitfit")
    assert bank.names == ("small", "full")
    assert bank.logits(clips, ["full", "small"])[1].shape == (3,)
    with pytest.raises(ValueError, match="'bitfit' is not in the bank, which holds small, full"):
        bank.logits(clips, "bitfit")


def test_adapters_can_be_compared(make):
    bank = AdapterBank.for_adapter(make("a", TASKS["linear"])[0])
    bank.add("a", make("a", TASKS["linear"], 7)[0])
    bank.add("b", make("b", TASKS["small"], 2)[0])
    clips = random_clips(2)
    said = bank.compare(clips, "a", "b")
    logits = bank.logits(clips, "a")
    for clip, row in zip(said, logits, strict=True):
        assert [len(clip[name]) for name in ("a", "b")] == [5, 2]
        label, share = clip["a"][0]
        assert label == f"class {row.argmax()} of 7"
        assert share == pytest.approx(row.softmax(0).max().item(), abs=1e-6)


def test_what_does_not_fit_is_refused_with_the_differences(make, tiny_set, tmp_path):
    folder, _ = make("one", TASKS["small"])
    bank = AdapterBank.for_adapter(folder)
    bank.add("one", folder)
    with pytest.raises(ValueError, match="'one' is in the bank already"):
        bank.add("one", folder)
    with pytest.raises(ValueError, match="2 clips, but 1 tasks"):
        bank.logits(random_clips(2), ["one"])
    expected_shape = r"expected uint8 \(B, 3, 4, 32, 32\), B not 0, got .*"
    with pytest.raises(ValueError, match=expected_shape + "3, 2, 32, 32"):
        bank.logits(random_clips(1)[:, :, :2], "one")
    with pytest.raises(ValueError, match=expected_shape + r"\(0, 3"):
        bank.logits(random_clips(0), "one")
    about = json.loads((folder / "adapter.json").read_text())
    (folder / "checksums.json").unlink()  # as of an adapter that was changed by hand
    for section, key, value, words in (
        ("clip", "num_frames", 8, r"data\.num_frames: 8 in the file, 4 in the bank"),
        ("clip", "crop_size", 64, r"data\.crop_size: 64 in the file, 32 in the bank"),
        ("model", "tubelet_size", 1, r"model\.tubelet_size: 1 in the file, 2 in the bank"),
        ("model", "fingerprint", "0" * 64, r"another backbone .*000000000000 in the file"),
        ("method", "bottleneck", 9, r"tensors of another shape: .* is .*, needs "),
        ("method", "name", "linear", r"in the file but not in the model: blocks\.0\.adapter"),
    ):
        other = {**about, section: {**about[section], key: value}}
        if (key, value) == ("name", "linear"):
            other["method"] = {"name": "linear"}
        (folder / "adapter.json").write_text(json.dumps(other))
        with pytest.raises(ValueError, match=words):
            bank.add("other", folder)
    assert bank.names == ("one",)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t / 0, r"NaN or infinite values in {}"),
        (lambda t: t.to(torch.int8), r"1 tensors of another type: {} is int8"),
    ],
)
@pytest.mark.parametrize("method", ["small", "full"])
def test_values_that_are_no_weights_are_refused_by_name(make, method, change, said):
    folder, _ = make("one", TASKS[method])
    bank = AdapterBank.for_adapter(folder)
    tensors = load_file(folder / "adapter.safetensors")
    name = "head.1.weight"
    save_file(tensors | {name: change(tensors[name])}, folder / "adapter.safetensors")
    (folder / "checksums.json").unlink()
    for load in (load_adapter, lambda folder: bank.add("one", folder)):
        with pytest.raises(ValueError, match=rf"(?s)adapter\.safetensors.*{said.format(name)}"):
            load(folder)


def test_files_that_cannot_stand_alone_say_so(make, tmp_path):
    folder, _ = make("one", TASKS["small"])
    about = json.loads((folder / "adapter.json").read_text())
    (folder / "checksums.json").unlink()  # as of an adapter that was changed by hand
    cases = {
        "vidadapt-adapter-1": r"format vidadapt-adapter-1 does not hold the sampling .*--run_dir",
        "vidadapt-adapter-9": r"format 'vidadapt-adapter-9' is none of",
    }
    for name, words in cases.items():
        (folder / "adapter.json").write_text(json.dumps({**about, "format": name}))
        with pytest.raises(ValueError, match=words):
            load_adapter(folder)
    (folder / "adapter.json").write_text(json.dumps({k: about[k] for k in about if k != "clip"}))
    with pytest.raises(ValueError, match=r"adapter\.json: is incomplete.*'clip'"):
        load_adapter(folder)
    with pytest.raises(ValueError, match="holds no best or last checkpoint"):
        adapters.find_adapter(tmp_path)
    with pytest.raises(ValueError, match=r"--adapter: the folder .*nowhere does not exist"):
        adapters.find_adapter(tmp_path / "nowhere")


def rename_weights(folder: Path, weights: str | None) -> None:
    """What a stranger may write into adapter.json."""
    about = json.loads((folder / "adapter.json").read_text())
    about["model"]["weights"] = weights
    (folder / "adapter.json").write_text(json.dumps(about))
    (folder / "checksums.json").unlink(missing_ok=True)


LOADERS = {
    "load_adapter": load_adapter,
    "bank": AdapterBank.for_adapter,
    "predict": lambda folder, **given: Predictor({"one": folder}, **given),
}


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
def test_weights_that_only_the_adapter_names_are_not_opened(make, tiny_set, tmp_path, load):
    """The very file would do: it is refused since nobody but adapter.json names it."""
    folder, _ = make("one", TASKS["small"])
    alike = shutil.copy(tiny_set.weights, tmp_path / "alike.safetensors")
    load(folder)  # the run beside it names the same file
    rename_weights(folder, str(alike))
    with pytest.raises(ConfigError, match=r"adapter\.json: .*--weights \S*alike\.safetensors"):
        load(folder)
    load(folder, weights=str(alike))
    rename_weights(folder, str(tiny_set.weights))
    alone = shutil.copytree(folder, tmp_path / "from somebody" / "adapter")
    with pytest.raises(ConfigError, match=r"adapter\.json: .*backbone\.safetensors"):
        load(alone)
    load(alone, weights=str(tiny_set.weights))
    rename_weights(folder, None)
    with pytest.raises(ConfigError, match=r"adapter\.json: .*random backbone"):
        load(folder)


@pytest.mark.parametrize("load", LOADERS.values(), ids=LOADERS)
@pytest.mark.parametrize("name", ["hub", "hub:attacker/repo", "hub:attacker/repo/x.bin"])
def test_nothing_is_fetched_that_only_the_adapter_or_its_run_names(
    make, tiny_set, tmp_path, load, name, monkeypatch
):
    asked = []

    def hub_file(*names: str | None) -> Path:
        asked.append(names)
        return tiny_set.weights

    monkeypatch.setattr("vidadapt.models.hub.hub_file", hub_file)
    folder, _ = make("one", TASKS["small"])
    rename_weights(folder, name)
    cfg = make_config(tiny_set, TASKS["small"], 3, weights=name)
    (folder.parent / "config.yaml").write_text(yaml_files.dump(cfg))
    with pytest.raises(ConfigError, match=rf"adapter\.json: .*--weights {name}"):
        load(folder)
    assert not asked
    load(folder, weights=name)
    assert [weights for weights, _ in asked] == [name]


def test_an_evaluation_of_an_adapter_opens_no_weights_that_nobody_named(make, tiny_set, tmp_path):
    folder, _ = make("one", TASKS["small"])
    for given in ([], ["--model.weights", str(tiny_set.weights)]):
        cfg, _, _ = trained.asked(["--adapter", str(folder), *given])
        assert cfg is not None and cfg.model.weights == str(tiny_set.weights)
    rename_weights(folder, str(shutil.copy(tiny_set.weights, tmp_path / "alike.safetensors")))
    with pytest.raises(ConfigError, match=r"adapter\.json: .*--model\.weights \S*alike"):
        trained.asked(["--adapter", str(folder)])


def test_a_run_whose_file_is_gone_says_so_and_the_demo_backbone_needs_no_name(make, tmp_path):
    own = shutil.copytree(make("run", TASKS["linear"], weights="demo")[0], tmp_path / "a" / "b")
    load_adapter(own)
    weights = tmp_path / "image.pth"
    name = "vit_tiny_patch16_224"
    torch.save(timm.create_model(name, num_classes=0, img_size=SIDE).state_dict(), weights)
    chosen = {"backbone": f"timm/{name}", "weights": str(weights)}
    folder, _ = make("one", TASKS["linear"], **chosen)
    weights.unlink()
    with pytest.raises(ConfigError, match=r"image\.pth, which is not there; give"):
        load_adapter(folder)


@pytest.mark.parametrize("backbone", ["hf-hub:a/b", "hf_hub:a/b", "local-dir:/x", "timm:vit"])
def test_a_backbone_that_timm_would_fetch_is_no_name(make, backbone):
    folder, _ = make("one", TASKS["small"])
    about = json.loads((folder / "adapter.json").read_text())
    about["model"] |= {"backbone": f"timm/{backbone}", "tubelet_size": 2}
    (folder / "adapter.json").write_text(json.dumps(about))
    (folder / "checksums.json").unlink()
    with pytest.raises(ValueError, match=r"model\.backbone: timm has no model"):
        load_adapter(folder)


def test_a_loaded_model_normalises_clips_and_refuses_floats_that_are_not(make):
    folder, model = make("one", TASKS["small"])
    again, adapter = load_adapter(folder)
    clips = random_clips(2)
    for ready in (clips, data.transforms.normalize(clips, "imagenet")):
        with torch.no_grad():
            assert torch.equal(copy.deepcopy(again)(ready), expected(model, clips))
    for wrong, said in (
        (clips.float(), "floats up to 25.*uint8"),
        (clips.long(), "int64.*normalised"),
        (clips.transpose(1, 2), r"\(2, 4, 3, 32, 32\).*\(B, 3, 4, 32, 32\)"),
    ):
        with pytest.raises(ValueError, match=said):
            again(wrong)
    with pytest.raises(ValueError, match=r"uint8.*normalised"):
        model(clips)
    said = repr(adapter)
    assert len(said) < 300 and "\n" not in said and str(folder) in said and "adaptformer" in said


@pytest.mark.parametrize("form", ["inflate", "frames"])
def test_full_fine_tuning_of_an_image_model_needs_no_file_of_the_backbone(make, tmp_path, form):
    weights, name = tmp_path / "image.pth", "vit_tiny_patch16_224"
    image = timm.create_model(name, num_classes=0, img_size=SIDE)
    torch.save(image.state_dict(), weights)
    chosen = {"backbone": f"timm/{name}", "weights": str(weights), "from_image": form}
    folder, model = make("full", TASKS["full"], **chosen)
    weights.unlink()
    again, _ = load_adapter(folder)
    assert torch.equal(expected(again, random_clips(2)), expected(model, random_clips(2)))


def test_a_file_of_format_1_serves_the_evaluation_of_its_run(make, tiny_set):
    folder, model = make("one", TASKS["small"])
    about = json.loads((folder / "adapter.json").read_text())
    (folder / "checksums.json").unlink()  # as of an adapter that was changed by hand
    kept = ("method", "model", "dataset", "num_classes", "label_names", "train_manifest")
    clip = {key: about["clip"][key] for key in ("num_frames", "crop_size", "normalization")}
    older = {"format": "vidadapt-adapter-1", **{key: about[key] for key in kept}, "clip": clip}
    for key in ("weights", "from_image"):
        del older["model"][key]
    (folder / "adapter.json").write_text(json.dumps(older))
    cfg = make_config(tiny_set, TASKS["small"], 3)
    again = adapters.load_adapted_model(cfg, data.resolve(cfg.data, cfg.eval), folder)
    assert torch.equal(expected(again, random_clips(2)), expected(model, random_clips(2)))
    wide = replace(cfg, data=replace(cfg.data, num_frames=8))
    with pytest.raises(ValueError, match=r"data\.num_frames: 4 in the file, 8 asked for"):
        adapters.load_adapted_model(wide, data.resolve(wide.data, wide.eval), folder)
