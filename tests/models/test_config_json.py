"""Files of Hugging Face beside the weights are compared with the model, and reported."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from stand_in_hub import StandIn

from vidadapt import models, runs
from vidadapt.config import Config, ModelConfig
from vidadapt.runs import adapters

transformers = pytest.importorskip("transformers")

FRAMES, CROP = 4, 32


def videomae(**changes: Any) -> Any:
    sizes = {
        **{"image_size": CROP, "num_frames": FRAMES, "hidden_size": 192, "num_hidden_layers": 6},
        **{"num_attention_heads": 3, "intermediate_size": 768, "layer_norm_eps": 1e-6},
    }
    torch.manual_seed(0)
    config = transformers.VideoMAEConfig(**{**sizes, **changes})
    model = transformers.VideoMAEModel(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder as transformers writes it, with the preprocessing."""
    return written(tmp_path / "folder", videomae())


def written(path: Path, model: Any, **preprocessing: Any) -> Path:
    model.save_pretrained(path)
    processor = transformers.VideoMAEImageProcessor(
        size={"shortest_edge": CROP},
        crop_size={"height": CROP, "width": CROP},
        **{
            "image_mean": [0.485, 0.456, 0.406],
            "image_std": [0.229, 0.224, 0.225],
            **preprocessing,
        },
    )
    processor.save_pretrained(path)
    return path


def build(weights: Path | str, backbone: str = "vit_tiny", **options: Any) -> tuple[Any, str]:
    chosen = {"num_frames": FRAMES, "crop_size": CROP, "num_classes": 2, **options}
    model, report = models.build(backbone, weights=weights, **chosen)
    return model.eval(), str(report)


def changed(folder: Path, name: str = "config.json", **changes: Any) -> None:
    file = folder / name
    content = {**json.loads(file.read_text()), **changes}
    kept = {key: value for key, value in content.items() if value is not ...}
    file.write_text(json.dumps(kept))


@pytest.mark.parametrize("how", ["folder", "file", "index", "hub", "hub file"])
def test_every_way_to_name_the_weights_reads_what_lies_beside(how, folder, hub: StandIn):
    named: Path | str = folder
    if how == "file":
        named = folder / "model.safetensors"
    elif how == "index":
        state = load_file(folder / "model.safetensors")
        (folder / "model.safetensors").unlink()
        parts = {f"model-0000{i}-of-00002.safetensors": sorted(state)[i - 1 :: 2] for i in (1, 2)}
        for part, held in parts.items():
            save_file({name: state[name] for name in held}, folder / part)
        named = folder / "model.safetensors.index.json"
        index = {name: part for part, held in parts.items() for name in held}
        named.write_text(json.dumps({"weight_map": index}))
    elif how.startswith("hub"):
        inside = "deep/" if how == "hub file" else ""
        hub.put("a/b", {f"{inside}{file.name}": file.read_bytes() for file in folder.iterdir()})
        named = "hub:a/b/deep/model.safetensors" if inside else "hub:a/b"
    _, report = build(named)
    assert "num_attention_heads 3" in report and "could not be checked" not in report
    for file in [*folder.glob("config.json")] if isinstance(named, Path) else []:
        changed(file.parent, num_attention_heads=6)
        with pytest.raises(ValueError, match="num_attention_heads: 6 in the file, 3"):
            build(named)


def test_the_hub_is_asked_once_for_what_a_repository_does_not_have(folder, hub: StandIn):
    files = ("model.safetensors", "config.json")
    hub.put("a/b", {name: (folder / name).read_bytes() for name in files})
    _, report = build("hub:a/b")
    assert "normalisation could not be checked" in report
    asked = len(hub.requests)
    assert build("hub:a/b")[1] == report and len(hub.requests) == asked


def test_without_a_config_the_report_says_what_was_not_checked(folder):
    for name in ("config.json", "preprocessor_config.json"):
        (folder / name).unlink()
    _, report = build(folder)
    assert re.search(r"number of heads \(3\) and normalisation could not be checked", report)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": 384, "num_hidden_layers": 12}, "hidden_size: 384.*192.*vit_small"),
        ({"num_hidden_layers": 5}, "num_hidden_layers: 5.*6 with model.backbone vit_tiny"),
        ({"intermediate_size": 384}, "intermediate_size: 384.*768"),
        ({"num_attention_heads": 6}, r"num_attention_heads: 6.*3 .*--model\.num_heads 6"),
        ({"patch_size": [14, 14]}, r"patch_size: 14.*16 .*--model\.patch_size 14"),
        ({"tubelet_size": 1}, r"tubelet_size: 1.*2 .*--model\.tubelet_size 1"),
        ({"hidden_act": "gelu_new"}, "hidden_act: gelu_new"),
        ({"qkv_bias": False}, "qkv_bias: False"),
        ({"layer_norm_eps": 1e-3}, r"layer_norm_eps: 0\.001"),
        ({"model_type": "vjepa2"}, "model_type: vjepa2 in the file, videomae"),
        ({"hidden_size": ...}, "hidden_size: 768.*192.*"),  # transformers' default holds
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_a_contradiction_is_refused_before_the_weights_are_read(changes, said, folder):
    (folder / "model.safetensors").write_bytes(b"no weights")
    changed(folder, **changes)
    with pytest.raises(ValueError, match=rf"folder/config\.json: {said}"):
        build(folder)


def test_all_contradictions_are_told_at_once(folder):
    changed(folder, patch_size=14, num_attention_heads=6)
    with pytest.raises(ValueError, match=r"(?s)patch_size.*num_attention_heads"):
        build(folder)


@pytest.mark.parametrize("heads", [3, 6])
def test_the_features_are_those_of_the_heads_that_are_asked_for(heads, tmp_path):
    """Every number of heads has the same tensors, and other features."""
    folder = written(tmp_path / "made", videomae(num_attention_heads=6))
    model, report = build(folder, num_heads=heads)
    theirs = videomae(num_attention_heads=heads)
    clip = torch.randn(1, *model.clip_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = model.forward_features(clip)
        expected = theirs.encoder(theirs.embeddings(clip.transpose(1, 2), None))
        expected = getattr(expected, "last_hidden_state", expected)
    assert (found - expected).abs().max() < 1e-4
    assert ("as model.num_heads asks" in report) == (heads == 3)


def test_the_small_files_of_videomae_get_both_answers(folder):
    """Transformers' converter wrote 16 heads beside weights that were trained with 6."""
    changed(
        folder,
        **{"hidden_size": 384, "num_hidden_layers": 12, "intermediate_size": 1536},
        num_attention_heads=16,
    )
    with pytest.raises(ValueError, match=r"(?s)--model\.num_heads 6.*--model\.num_heads 16"):
        build(folder, "vit_small")


def test_heads_are_refused_where_the_backbone_has_no_such_option(folder):
    with pytest.raises(ValueError, match=r"model\.num_heads"):
        build("random", "timm/vit_tiny_patch16_224", num_heads=3)


def adapted(weights: Path, crop: int = CROP) -> str:
    config = Config(
        "", model=ModelConfig(backbone="vit_tiny", weights=str(weights)), method={"name": "linear"}
    )
    return str(runs.adapted_model(config, adapters.bare_plan(FRAMES, crop))[1])


@pytest.mark.parametrize(
    ("preprocessing", "said"),
    [
        ({}, "agrees: data.normalization imagenet"),
        ({"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, "--data.normalization half"),
        # -1 to 1 by the factor alone.
        (
            {"rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3},
            "--data.normalization half",
        ),
        ({"image_mean": [0.1, 0.2, 0.3]}, r"mean \(0.1, 0.2, 0.3\)"),
    ],
)
def test_the_report_compares_the_normalisation(preprocessing, said, tmp_path):
    report = adapted(written(tmp_path / "folder", videomae(), **preprocessing))
    assert re.search(said, report)
    assert ("OTHER NORMALISATION" in report) == ("agrees" not in said)


def test_the_report_compares_the_size_of_frames(folder):
    report = adapted(folder, crop=48)
    assert "a crop of 32 pixels; here both are 48" in report
    assert "made for 4 frames of 32 pixels, used with 4 of 48" in report
    assert "pixels" not in adapted(folder)


def test_a_config_of_another_tool_is_told_and_not_used(folder):
    (folder / "config.json").write_text('{"learning_rate": 1}')
    assert "model_type None is not known: number of heads (3)" in build(folder)[1]


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("text", ["{", "[]", "\xff"])
def test_a_file_that_is_no_json_is_named(name, text, folder):
    (folder / name).write_bytes(text.encode("latin1"))
    with pytest.raises(ValueError, match=rf"{re.escape(name)} cannot be read as JSON"):
        build(folder)


@pytest.mark.parametrize("with_text", [False, True])
def test_videoprisms_config_is_compared_too(with_text, tmp_path, monkeypatch):
    sizes = {"width": 48, "depth": 4, "temporal_depth": 2, "num_heads": 3, "patch_size": 18}
    monkeypatch.setitem(models.families.VIDEOPRISM_SIZES, "videoprism_base", sizes)
    config = transformers.VideoPrismVisionConfig(
        **{"image_size": 36, "num_frames": FRAMES, "hidden_size": 48, "num_spatial_layers": 2},
        **{"num_temporal_layers": 2, "num_attention_heads": 3, "intermediate_size": 192},
    )
    transformers.VideoPrismVisionModel(config).save_pretrained(tmp_path)

    def state(**changes: Any) -> None:
        changed(tmp_path, **changes)
        if with_text:
            content = json.loads((tmp_path / "config.json").read_text())
            whole = {"model_type": "videoprism", "vision_config": content}
            (tmp_path / "config.json").write_text(json.dumps(whole))

    original = (tmp_path / "config.json").read_text()
    state()
    _, report = build(tmp_path, "videoprism_base", crop_size=36)
    assert "num_temporal_layers 2" in report and "num_attention_heads 3" in report
    for changes, said in (
        ({"num_attention_heads": 6}, "num_attention_heads: 6 in the file, 3"),
        ({"num_spatial_layers": 3, "num_temporal_layers": 1}, r"(?s)num_spatial.*num_temporal"),
        ({"attn_logit_softcapping": 30.0}, r"attn_logit_softcapping: 30\.0 in the file, 50"),
        ({"tubelet_size": [2, 14, 14]}, "(?s)patch_size: 14.*tubelet_size: 2"),
        ({"hidden_act": "gelu_new"}, "hidden_act: gelu_new"),
    ):
        (tmp_path / "config.json").write_text(original)
        state(**changes)
        with pytest.raises(ValueError, match=said):
            build(tmp_path, "videoprism_base", crop_size=36)


def test_v_jepas_config_is_compared_too(tmp_path, monkeypatch):
    sizes = {"width": 48, "depth": 2, "num_heads": 3}
    monkeypatch.setitem(models.families.VJEPA_SIZES, "vjepa2_large", sizes)
    config = transformers.VJEPA2Config(
        **{"crop_size": CROP, "frames_per_clip": FRAMES, "hidden_size": 48},
        **{"num_hidden_layers": 2, "num_attention_heads": 3},
        **{"pred_hidden_size": 48, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2},
    )
    transformers.VJEPA2Model(config).save_pretrained(tmp_path)
    _, report = build(tmp_path, "vjepa2_large")
    assert "num_attention_heads 3" in report
    changed(tmp_path, num_attention_heads=2, mlp_ratio=2.0)
    with pytest.raises(ValueError, match=r"(?s)mlp_ratio: 2\.0.*num_attention_heads: 2"):
        build(tmp_path, "vjepa2_large")
