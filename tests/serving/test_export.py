"""Exported files are plain models: same logits, stock names, nothing of the method left."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from conftest import load_tool
from safetensors.torch import load_file, save_file

from vidadapt import data, methods, models
from vidadapt.config import Config, DataConfig, EvalConfig, ModelConfig, command_line, yaml_files
from vidadapt.models.heads import batchnorm_linear
from vidadapt.models.plain import fold_batchnorm
from vidadapt.runs import adapter_json, adapters
from vidadapt.runs.assemble import adapted_model

CLASSES = 3
GEOMETRY = {"num_frames": 4, "crop_size": 32, "num_classes": CLASSES}


@pytest.fixture
def run(tiny_set, tmp_path) -> Callable:
    """The checkpoint folder of a run, and its model with every trained tensor moved."""

    def write(name: str, **model):
        cfg = Config(
            run_dir="",
            method={"name": name},
            data=DataConfig(
                label_names=str(tiny_set.root / "labels.txt"), num_frames=4, crop_size=32
            ),
            model=ModelConfig(
                **{"backbone": "vit_tiny", "weights": str(tiny_set.weights), **model}
            ),
        )
        plan = data.resolve(cfg.data, EvalConfig())
        adapted, _, backbone = adapted_model(cfg, plan)
        generator = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for key, tensor in methods.trainable_state(adapted).items():
                if tensor.is_floating_point():
                    # Variances stay positive.
                    shift = 0.0 if "running" in key else 0.5
                    tensor.add_((torch.rand(tensor.shape, generator=generator) - shift) * 0.1)
        folder = tmp_path / "run" / "last"
        adapters.save_adapter(
            folder, adapted, adapter_json.describe_adapter(cfg, plan, backbone, "")
        )
        (folder.parent / "config.yaml").write_text(yaml_files.dump(cfg))
        return folder, adapted.eval()

    return write


def export(*arguments: object) -> None:
    load_tool("export").main([str(argument) for argument in arguments])


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(torch.randn(6, 3, 4, 32, 32, generator=torch.Generator().manual_seed(2)))


def stock_names(depth: int) -> set[str]:
    """The tensors of VideoMAE's fine-tuned files."""
    of_block = {
        *(f"{part}.{kind}" for part in ("norm1", "norm2") for kind in ("weight", "bias")),
        *("attn.q_bias", "attn.v_bias", "attn.qkv.weight", "attn.proj.weight", "attn.proj.bias"),
        *("mlp.fc1.weight", "mlp.fc1.bias", "mlp.fc2.weight", "mlp.fc2.bias"),
    }
    outside = ("patch_embed.proj", "fc_norm", "head")
    return {
        *(f"blocks.{i}.{name}" for i in range(depth) for name in of_block),
        *(f"{layer}.{kind}" for layer in outside for kind in ("weight", "bias")),
    }


@pytest.mark.parametrize(
    ("name", "layout"),
    [
        *((name, "vidadapt") for name in ("arc", "lora", "ssf", "linear", "bitfit")),
        *((name, "videomae") for name in ("arc", "full")),
    ],
)
def test_an_exported_file_is_a_plain_model_with_the_same_logits(run, tmp_path, name, layout):
    folder, adapted = run(name)
    out = tmp_path / "merged"
    export(folder, out, "--layout", layout)
    plain, report = models.build("vit_tiny", **GEOMETRY, head="linear", weights=out, keep_head=True)
    assert report is not None and not report.fresh and not report.dropped
    assert (logits(plain) - logits(adapted)).abs().max() < 1e-5
    untrained, _ = models.build("vit_tiny", **GEOMETRY, head="linear")
    assert (logits(untrained) - logits(adapted)).abs().max() > 0.1


def test_the_videomae_file_has_the_stock_names_and_shapes(run, tmp_path):
    folder, _ = run("arc")
    out = tmp_path / "merged.pth"
    export(folder, out, "--layout", "videomae")
    content = torch.load(out, weights_only=True)
    assert content.keys() == {"module"}
    assert content["module"].keys() == stock_names(6)
    assert content["module"]["head.weight"].shape == (CLASSES, 192)
    assert content["module"]["blocks.3.attn.qkv.weight"].shape == (3 * 192, 192)


def test_a_merged_backbone_starts_another_run(run, tmp_path):
    folder, adapted = run("arc")
    out = tmp_path / "backbone.safetensors"
    export(folder, out)
    assert load_file(out).keys() == {
        name for name in stock_names(6) if not name.startswith(("fc_norm", "head"))
    }
    fresh, _ = models.build("vit_tiny", **GEOMETRY, weights=out)
    clip = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        features = fresh.eval().forward_features(clip)
        torch.testing.assert_close(features, adapted.forward_features(clip), rtol=1e-4, atol=1e-4)


def test_the_backbone_of_full_fine_tuning_is_copied(run, tmp_path):
    folder, trained = run("full")
    export(folder, tmp_path / "half", "--dtype", "fp16")
    half = load_file(tmp_path / "half")
    assert half.keys() == {
        name for name in stock_names(6) if not name.startswith(("fc_norm", "head"))
    }
    assert all(torch.equal(half[name], trained.state_dict()[name].half()) for name in half)


@pytest.mark.parametrize("form", ["inflate", "frames"])
def test_the_backbone_of_a_fully_fine_tuned_image_model_is_whole(run, tmp_path, form):
    image = {"backbone": "timm/vit_tiny_patch16_224", "from_image": form}
    folder, trained = run("full", **image, weights=None)
    export(folder, tmp_path / "out")
    again, _ = models.build(**image, **GEOMETRY, weights=tmp_path / "out")
    clip = torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found, expected = (m.eval().forward_features(clip) for m in (again, trained))
    assert torch.equal(found, expected)


def test_numbers_that_half_precision_cannot_hold_are_refused(run, tmp_path):
    folder, _ = run("arc", head="linear")
    state = load_file(folder / "adapter.safetensors")
    state["head.bias"] += 1e6
    save_file(state, folder / "adapter.safetensors")
    (folder / "checksums.json").unlink()
    options = ("--layout", "vidadapt", "--dtype", "fp16")
    with pytest.raises(ValueError, match=r"changed a logit by inf.*--dtype fp32"):
        export(folder, tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_the_change_is_said_and_half_precision_shows_in_it(run, tmp_path, capsys):
    folder, _ = run("arc")
    changes = []
    for dtype in ("fp32", "fp16"):
        export(folder, tmp_path / dtype, "--layout", "vidadapt", "--dtype", dtype)
        changes.append(float(capsys.readouterr().out.rsplit(" ", 1)[1]))
    assert changes[0] < 1e-5 < changes[1] < 0.1


def test_batchnorm_folds_into_the_linear_layer():
    torch.manual_seed(0)
    head = batchnorm_linear(7, 4)
    for _ in range(5):
        head(torch.randn(16, 7) * 3 + 2)
    head.double().eval()
    x = torch.randn(9, 7, dtype=torch.float64)
    folded = fold_batchnorm(head)
    assert isinstance(folded, torch.nn.Linear)
    torch.testing.assert_close(folded(x), head(x), rtol=0, atol=1e-12)


def test_a_runs_folder_is_exported_by_its_best_or_last_checkpoint(run, tmp_path):
    folder, _ = run("lora")
    export(folder.parent, tmp_path / "of_run.safetensors")
    export(folder, tmp_path / "of_last.safetensors")
    files = [tmp_path / f"{name}.safetensors" for name in ("of_run", "of_last")]
    assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("name", "model", "layout", "message"),
    [
        ("vpt", {}, "vidadapt", "method vpt cannot be merged .* prompts are tokens"),
        ("adaptformer", {}, "videomae", "method adaptformer cannot be merged .* ReLU"),
        ("arc", {"head": "attentive"}, "videomae", "linear heads.*--layout vidadapt"),
        ("arc", {"position_grid": [4, 2, 2]}, "videomae", "interpolates its positions"),
    ],
)
def test_what_cannot_be_exported_says_why(run, tmp_path, name, model, layout, message):
    folder, _ = run(name, **model)
    with pytest.raises(ValueError, match=message):
        export(folder, tmp_path / "out", "--layout", layout)
    assert not (tmp_path / "out").exists()


def test_an_attentive_head_goes_into_our_own_layout(run, tmp_path):
    folder, adapted = run("arc", head="attentive")
    export(folder, tmp_path / "out", "--layout", "vidadapt")
    plain, _ = models.build(
        "vit_tiny", **GEOMETRY, head="attentive", weights=tmp_path / "out", keep_head=True
    )
    assert (logits(plain) - logits(adapted)).abs().max() < 1e-5


def test_the_backbone_file_can_have_moved(run, tiny_set, tmp_path):
    moved = tmp_path / "first.safetensors"
    moved.write_bytes(tiny_set.weights.read_bytes())
    folder, adapted = run("arc", weights=str(moved))
    moved.rename(tmp_path / "elsewhere.safetensors")
    with pytest.raises(ValueError, match="--weights"):
        export(folder, tmp_path / "out", "--layout", "vidadapt")
    weights = tmp_path / "elsewhere.safetensors"
    export(folder, tmp_path / "out", "--layout", "vidadapt", "--weights", weights)
    plain, _ = models.build(
        "vit_tiny", **GEOMETRY, head="linear", weights=tmp_path / "out", keep_head=True
    )
    assert (logits(plain) - logits(adapted)).abs().max() < 1e-5


def test_a_checkpoint_of_the_first_format_takes_the_rest_from_its_run(run, tiny_set, tmp_path):
    folder, adapted = run("arc")
    about = json.loads((folder / "adapter.json").read_text())
    about["format"] = "vidadapt-adapter-1"
    del about["evaluation"], about["reader"], about["metrics"]
    (folder / "adapter.json").write_text(json.dumps(about))
    (folder / "checksums.json").unlink(missing_ok=True)
    options = tiny_set.options(method__name="arc")
    cfg, _ = command_line.parse_train([*options, "--run_dir", str(folder.parent)], methods.METHODS)
    (folder.parent / "config.yaml").write_text(yaml_files.dump(cfg))
    export(folder, tmp_path / "out", "--layout", "vidadapt")
    plain, _ = models.build(
        "vit_tiny", **GEOMETRY, head="linear", weights=tmp_path / "out", keep_head=True
    )
    assert (logits(plain) - logits(adapted)).abs().max() < 1e-5
