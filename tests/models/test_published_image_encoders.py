"""Image encoders that are much used today load by name, and compute what timm computes."""

from __future__ import annotations

import functools

import pytest
import timm
import torch

from vidadapt.models import build

SMALL = {"embed_dim": 48, "depth": 2, "num_heads": 3}

# timm's name -> crop of 2 x 2 patches.
TODAY = {
    "vit_small_patch16_dinov3": 32,
    "vit_small_plus_patch16_dinov3": 32,  # SwiGLU
    "vit_base_patch16_siglip_224.v2_webli": 32,  # SigLIP 2
    "vit_pe_core_tiny_patch16_384": 32,  # Perception Encoder, with an attention pool
    "vit_pe_lang_large_patch14_448": 28,
    "vit_pe_spatial_tiny_patch16_512": 32,
    "eva02_tiny_patch14_224": 28,
    "eva02_base_patch16_clip_224": 32,
}


@pytest.fixture
def small_models(monkeypatch: pytest.MonkeyPatch) -> None:
    made = timm.create_model
    monkeypatch.setattr(timm, "create_model", functools.partial(made, **SMALL))


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("from_image", ["inflate", "frames"])
@pytest.mark.parametrize("name", TODAY)
def test_an_encoder_of_today_computes_what_timm_does(name, from_image, tmp_path):
    crop = TODAY[name]
    torch.manual_seed(0)
    image = timm.create_model(name.split(".")[0], img_size=crop, num_classes=0).eval()
    with torch.no_grad():
        for parameter in image.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    torch.save(image.state_dict(), tmp_path / "image.pth")
    clip = torch.randn(2, 3, 2, crop, crop)
    if from_image == "inflate":  # of equal frames: one tubelet is the image
        clip = clip[:, :, :1].expand(-1, -1, 2, -1, -1)
    options = {"num_frames": 2, "crop_size": crop, "num_classes": 5, "from_image": from_image}
    model, report = build(f"timm/{name}", weights=tmp_path / "image.pth", **options)
    assert report is not None
    with torch.no_grad():
        found = model.eval().forward_features(clip)
        if from_image == "inflate":
            expected = image.forward_features(clip[:, :, 0])
        else:
            expected = torch.stack([image(frame) for frame in clip.unbind(2)], dim=1)
    assert expected.std() > 0.1
    assert (found - expected).abs().max() < 1e-5
    of_pool = {k for k in image.state_dict() if k.startswith("attn_pool.")}
    dropped = {k for names in report.dropped.values() for k in names}
    assert dropped == (of_pool if from_image == "inflate" else set())
    assert {k.split(".")[0] for k in report.fresh} <= {"time_embed", "fc_norm", "head"}


@pytest.mark.usefixtures("small_models")
@pytest.mark.parametrize("from_image", ["inflate", "frames"])
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("vit_base_patch16_rope_mixed_224", "mixed RoPE"),
        ("naflexvit_base_patch16_siglip", "NaFlexVit"),
    ],
)
def test_encoders_that_cannot_be_edited_are_refused_in_one_line(name, why, from_image):
    options = {"num_frames": 2, "crop_size": 32, "num_classes": 5, "from_image": from_image}
    with pytest.raises(ValueError, match=rf"model\.backbone.*{name}.*{why}") as refused:
        build(f"timm/{name}", **options)
    assert "\n" not in str(refused.value)
