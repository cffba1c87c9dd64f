"""Logits against Hugging Face transformers' VideoMAE with the same weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from vidadapt.models.vit import VideoViT
from vidadapt.models.weights import load_weights

transformers = pytest.importorskip("transformers", reason="test extra: transformers")

SIZES = {
    "small random": {
        "num_frames": 4,
        "crop_size": 48,
        "width": 60,
        "depth": 3,
        "num_heads": 5,
        "mlp_ratio": 2.0,
    },
    "vit_small, 2 blocks": {
        "num_frames": 8,
        "crop_size": 224,
        "width": 384,
        "depth": 2,
        "num_heads": 6,
        "mlp_ratio": 4.0,
    },
    "giant's patch and ratio": {
        "num_frames": 4,
        "crop_size": 28,
        "patch_size": 14,
        "width": 88,
        "depth": 2,
        "num_heads": 4,
        "mlp_ratio": 48 / 11,
    },
}


def reference(sizes: dict, *, mean_pooling: bool = True) -> torch.nn.Module:
    """Its eps is set to the official 1e-6 (default 1e-12)."""
    config = transformers.VideoMAEConfig(
        image_size=sizes["crop_size"],
        patch_size=sizes.get("patch_size", 16),
        num_frames=sizes["num_frames"],
        hidden_size=sizes["width"],
        num_hidden_layers=sizes["depth"],
        num_attention_heads=sizes["num_heads"],
        intermediate_size=round(sizes["width"] * sizes["mlp_ratio"]),
        layer_norm_eps=1e-6,
        use_mean_pooling=mean_pooling,
        num_labels=7,
    )
    torch.manual_seed(0)
    model = transformers.VideoMAEForVideoClassification(config)
    if mean_pooling:
        model.fc_norm.eps = 1e-6  # not configurable there: torch's default, 1e-5
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


def ours(sizes: dict, path: Path) -> VideoViT:
    model = VideoViT(**sizes, num_classes=7).eval()
    load_weights(model, path, keep_head=True)
    return model


def largest_difference(theirs: torch.nn.Module, model: VideoViT) -> float:
    clip = torch.randn(2, *model.clip_shape, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = theirs(clip.transpose(1, 2)).logits
        assert expected.std() > 0.1  # the comparison means something
        return (model(clip) - expected).abs().max().item()


@pytest.mark.parametrize("sizes", SIZES.values(), ids=SIZES)
def test_logits_equal_with_the_file_that_transformers_writes(sizes, tmp_path):
    theirs = reference(sizes)
    theirs.save_pretrained(tmp_path)
    assert largest_difference(theirs, ours(sizes, tmp_path / "model.safetensors")) < 1e-4


def test_logits_equal_with_the_names_of_the_current_modules(tmp_path):
    """`torch.save(model.state_dict())`: the names in memory are not those that are published."""
    sizes = SIZES["small random"]
    theirs = reference(sizes)
    torch.save(theirs.state_dict(), tmp_path / "a.bin")
    assert largest_difference(theirs, ours(sizes, tmp_path / "a.bin")) < 1e-4
    theirs.save_pretrained(tmp_path)
    published = load_file(tmp_path / "model.safetensors")
    assert any(name.endswith("q_bias") for name in published)
    assert any(name.endswith("query.bias") for name in theirs.state_dict())


@pytest.mark.parametrize("how", ["save_pretrained", "state_dict", "saved by us"])
def test_logits_equal_where_the_head_reads_the_first_token(how, tmp_path):
    sizes = SIZES["small random"]
    theirs = reference(sizes, mean_pooling=False)
    path = tmp_path / "model.safetensors"
    theirs.save_pretrained(tmp_path)
    if how == "state_dict":
        path = tmp_path / "a.bin"
        torch.save(theirs.state_dict(), path)
    elif how == "saved by us":
        path = tmp_path / "again.safetensors"
        save_file(ours(sizes, tmp_path / "model.safetensors").state_dict(), path)
    assert largest_difference(theirs, ours(sizes, path)) < 1e-4
    fresh = VideoViT(**sizes, num_classes=7)  # with a new head: the mean, as ever
    assert "norm" in str(load_weights(fresh, path).dropped) and fresh.norm is None


def test_the_pretraining_and_base_classes_load(tmp_path):
    sizes = SIZES["small random"]
    theirs = reference(sizes)
    config = theirs.config
    config.decoder_hidden_size, config.decoder_num_attention_heads = 32, 2
    config.decoder_intermediate_size, config.decoder_num_hidden_layers = 64, 1
    config.use_mean_pooling = False
    clip = torch.randn(1, 3, 4, 48, 48)
    for cls in (transformers.VideoMAEForPreTraining, transformers.VideoMAEModel):
        torch.manual_seed(3)
        other = cls(config).eval()
        other.save_pretrained(tmp_path / cls.__name__)
        model = VideoViT(**sizes, num_classes=7).eval()
        report = load_weights(model, tmp_path / cls.__name__ / "model.safetensors")
        assert any("last encoder block" in reason for reason in report.dropped)
        encoder = other.videomae if hasattr(other, "videomae") else other
        with torch.no_grad():
            expected = encoder(clip.transpose(1, 2)).last_hidden_state
            tokens = encoder.layernorm(model.forward_features(clip))
        assert (tokens - expected).abs().max() < 1e-4
