"""Weights of image models in the layouts in which they are published, and from the hub."""

from __future__ import annotations

import json
import re
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import pytest
import timm
import torch
from image_kinds import SMALL, VITS, image_model
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed
from torch import Tensor

from vidadapt.models import build
from vidadapt.models.image_weights import load_image_weights
from vidadapt.models.tensor_files import read_tensors
from vidadapt.models.weights import backbone_state, fingerprint

State = dict[str, Tensor]


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def with_head(state: State) -> State:
    return state | {"head.weight": noise(7, 48), "head.bias": noise(7)}


def jax_in21k(state: State) -> State:
    return with_head(state) | {
        "pre_logits.fc.weight": noise(48, 48),
        "pre_logits.fc.bias": noise(48),
    }


def mae(state: State) -> State:
    return state | {
        "mask_token": noise(1, 1, 16),
        "decoder_embed.weight": noise(16, 48),
        "decoder_pos_embed": noise(1, 5, 16),
        "decoder_blocks.0.attn.qkv.weight": noise(48, 16),
        "decoder_norm.weight": noise(16),
        "decoder_pred.weight": noise(768, 16),
    }


CLIP_NAMES = {
    r"^patch_embed\.proj\.": "conv1.",
    r"^pos_embed$": "positional_embedding",
    r"^cls_token$": "class_embedding",
    r"^norm_pre\.": "ln_pre.",
    r"^norm\.": "ln_post.",
    r"^blocks\.": "transformer.resblocks.",
    r"\.norm([12])\.": r".ln_\1.",
    r"\.attn\.qkv\.": ".attn.in_proj_",
    r"\.attn\.proj\.": ".attn.out_proj.",
    r"\.mlp\.fc1\.": ".mlp.c_fc.",
    r"\.mlp\.fc2\.": ".mlp.c_proj.",
}


def renamed(state: State, names: dict[str, str], prefix: str = "") -> State:
    out = {}
    for name, tensor in state.items():
        for pattern, replacement in names.items():
            name = re.sub(pattern, replacement, name)
        out[prefix + name] = tensor
    return out


def text_tower() -> State:
    return {
        "transformer.resblocks.0.ln_1.weight": noise(8),
        "token_embedding.weight": noise(10, 8),
        "ln_final.weight": noise(8),
        "text_projection": noise(8, 8),
        "positional_embedding": noise(5, 8),
        "logit_scale": noise(1)[0],
    }


def clip(state: State) -> State:
    out = renamed(state, CLIP_NAMES, "visual.")
    out["visual.positional_embedding"] = out["visual.positional_embedding"][0]
    out["visual.class_embedding"] = out["visual.class_embedding"][0, 0]
    return out | {"visual.proj": noise(48, 8)} | text_tower()


def open_clip_around_timm(state: State) -> State:
    return {f"visual.trunk.{name}": tensor for name, tensor in state.items()} | {
        "visual.head.proj.weight": noise(8, 48),
        "text.token_embedding.weight": noise(10, 8),
        "text.transformer.resblocks.0.ln_1.weight": noise(8),
        "logit_scale": noise(1)[0],
        "logit_bias": noise(1)[0],
    }


def dinov2(state: State) -> State:
    """Its class token has no position in timm; registers stand apart."""
    of_class = noise(1, 1, 48)
    out = {name: t for name, t in state.items() if name not in ("reg_token", "cls_token")}
    return out | {
        "pos_embed": torch.cat([of_class, state["pos_embed"]], dim=1),
        "cls_token": state["cls_token"] - of_class,
        "register_tokens": state["reg_token"],
        "mask_token": noise(1, 48),
    }


def dinov3(state: State) -> State:
    names = {r"\.gamma_([12])$": r".ls\1.gamma", r"^reg_token$": "storage_tokens"}
    zeros = {f"blocks.{i}.attn.qkv.bias": torch.zeros(144) for i in range(2)}
    masks = {f"blocks.{i}.attn.qkv.bias_mask": torch.ones(144) for i in range(2)}
    return (
        renamed(state, names)
        | zeros
        | masks
        | {
            "rope_embed.periods": noise(4),
            "mask_token": noise(1, 48),
        }
    )


def dinov3_with_biases(state: State) -> State:
    """One bias of all three projections, whose middle third is masked."""
    out = {k: t for k, t in dinov3(state).items() if not k.endswith(("q_bias", "v_bias"))}
    for block in ("blocks.0.attn", "blocks.1.attn"):
        q, v = state[f"{block}.q_bias"], state[f"{block}.v_bias"]
        out[f"{block}.qkv.bias"] = torch.cat([q, torch.zeros(48), v])
    return out


def eva_clip(state: State) -> State:
    names = {
        r"mlp\.norm\.": "mlp.ffn_ln.",
        r"mlp\.fc1_g\.": "mlp.w1.",
        r"mlp\.fc1_x\.": "mlp.w2.",
        r"mlp\.fc2\.": "mlp.w3.",
        r"\.([qv])_proj\.bias$": r".\1_bias",
    }
    return (
        renamed(state, names, "visual.")
        | text_tower()
        | {
            "visual.head.weight": noise(8, 48),
            "visual.rope.freqs_cos": noise(4, 16),
            "visual.blocks.0.attn.rope.freqs_sin": noise(4, 16),
        }
    )


def swin_original(state: State) -> State:
    """Its stages merge patches at their end, timm's at their beginning; buffers are saved."""
    out = {re.sub(r"layers\.1\.downsample", "layers.0.downsample", k): v for k, v in state.items()}
    return out | {
        "layers.0.blocks.1.attn_mask": noise(4, 16, 16),
        "layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16).long(),
        "head.weight": noise(7, 48),
        "head.bias": noise(7),
    }


def deit3(state: State) -> State:
    return renamed(with_head(state), {r"\.ls([12])\.gamma$": r".gamma_\1"})


SWIN = "Swin, shifted windows"
LAYOUTS: dict[str, tuple[str, Callable[[State], State], str, set[str]]] = {
    "timm": ("class token", with_head, "timm", {"old head"}),
    "jx": ("class token", jax_in21k, "timm", {"old head", "layer before the old head"}),
    "mae": (
        "class token",
        mae,
        "MAE pre-training",
        {"decoder of the pre-training", "mask token of the pre-training"},
    ),
    "clip": (
        "CLIP, norm in front",
        clip,
        "CLIP (OpenAI, open_clip)",
        {"text tower of a CLIP model", "old head"},
    ),
    "siglip": (
        "SigLIP, attention pool",
        open_clip_around_timm,
        "open_clip around a timm tower",
        {"text tower of a CLIP model", "old head"},
    ),
    "dinov2": (
        "DINOv2, registers, LayerScale",
        dinov2,
        "DINOv2",
        {"mask token of the pre-training"},
    ),
    "dinov3": (
        "DINOv3, rotation, registers",
        dinov3,
        "DINOv3",
        {
            "buffers that are computed",
            "mask token of the pre-training",
            "biases that are zero, which this model does not have",
        },
    ),
    "dinov3 with biases": (
        "DINOv3 with biases",
        dinov3_with_biases,
        "DINOv3",
        {"buffers that are computed", "mask token of the pre-training"},
    ),
    "eva": (
        "EVA-02, rotation, separate qkv",
        eva_clip,
        "EVA-CLIP",
        {"text tower of a CLIP model", "old head", "buffers that are computed"},
    ),
    "deit3": ("DeiT III, LayerScale", deit3, "timm", {"old head"}),
    "swin": (SWIN, swin_original, "timm", {"old head", "buffers that are computed"}),
}


def timm_name(kind: str) -> str:
    return VITS[kind][0] if kind in VITS else "swin_tiny_patch4_window7_224"


def scrambled(kind: str) -> torch.nn.Module:
    model = image_model(kind)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model


def load(kind: str, tensors: State, *, keep_pool: bool = True):
    model = scrambled(kind)
    copy = {name: tensor.clone() for name, tensor in tensors.items()}
    told = load_image_weights(model, timm_name(kind), Path("a.pth"), copy, keep_pool=keep_pool)
    return model, told


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_model(layout):
    kind, convert, called, reasons = LAYOUTS[layout]
    source = image_model(kind)
    tensors = convert(source.state_dict())
    model, (family, used, dropped, _) = load(kind, tensors)
    for name, tensor in source.state_dict().items():
        assert torch.allclose(model.state_dict()[name], tensor, atol=1e-6), name
    assert family == called and set(dropped) == reasons
    assert set(used) == set(source.state_dict())
    if called == "CLIP (OpenAI, open_clip)":
        assert len(dropped["text tower of a CLIP model"]) == len(text_tower())


def test_an_attention_pool_is_left_out_of_an_inflated_model():
    source = image_model("SigLIP, attention pool").state_dict()
    _, (_, used, dropped, _) = load("SigLIP, attention pool", source, keep_pool=False)
    pool = {name for name in source if name.startswith("attn_pool.")}
    assert set(used) == set(source) - pool
    assert set(dropped["attention pool (the mean over the tubelets stands in its place)"]) == pool
    without = {name: tensor for name, tensor in source.items() if name not in pool}
    load("SigLIP, attention pool", without, keep_pool=False)
    with pytest.raises(ValueError, match=r"missing from the file: attn_pool\.latent"):
        load("SigLIP, attention pool", without, keep_pool=True)


@pytest.mark.parametrize(
    ("layout", "change", "message"),
    [
        ("timm", lambda s: s.pop("blocks.1.norm2.bias"), r"1 tensors missing .*blocks\.1\.norm2"),
        ("timm", lambda s: s.update(extra=noise(3)), "1 tensors in the file but not in .*extra"),
        ("timm", lambda s: s.update(cls_token=noise(1, 1, 24)), r"cls_token is \(1, 1, 24\), need"),
        (
            "timm",
            lambda s: s.update({"patch_embed.proj.weight": noise(48, 3, 14, 14)}),
            "patches of 14 x 14 pixels, the model has 16 x 16",
        ),
        ("clip", lambda s: s.pop("visual.ln_pre.bias"), r"missing .*norm_pre\.bias"),
        # timm drops what is not under `visual.`
        ("clip", lambda s: s.update({"adapter.weight": noise(3)}), r"not in .*adapter\.weight"),
        ("clip", lambda s: s.update({"b.pos_embed": noise(3)}), r"not in .*: b\.pos_embed"),
        ("dinov3", lambda s: s["blocks.1.attn.qkv.bias"].add_(1), r"not in .*blocks\.1\.attn\.qkv"),
        ("swin", lambda s: s.pop("norm.weight"), r"missing .*norm\.weight"),
    ],
)
def test_what_does_not_fit_is_named(layout, change, message):
    kind, convert, _, _ = LAYOUTS[layout]
    tensors = convert(image_model(kind).state_dict())
    change(tensors)
    with pytest.raises(ValueError, match=message):
        load(kind, tensors)


def test_a_refused_file_changes_nothing():
    model = image_model("class token")
    before = {k: v.clone() for k, v in model.state_dict().items()}
    tensors = with_head(scrambled("class token").state_dict()) | {"extra": noise(2)}
    with pytest.raises(ValueError, match="nothing was loaded"):
        load_image_weights(model, "vit_tiny_patch16_224", Path("a.pth"), tensors, keep_pool=True)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


def test_positions_of_another_grid_are_resampled_by_timm_and_said():
    source = image_model("class token").state_dict()
    larger = timm.create_model("vit_tiny_patch16_224", **SMALL | {"img_size": 64})
    _, _, _, notes = load_image_weights(
        larger, "vit_tiny_patch16_224", Path("a.pth"), source, keep_pool=True
    )
    want = resample_abs_pos_embed(source["pos_embed"], new_size=(4, 4), num_prefix_tokens=1)
    assert torch.allclose(larger.pos_embed, want)
    assert "pos_embed from (1, 5, 48) to (1, 17, 48)" in notes[0]
    _, (_, _, _, notes) = load("class token", source)
    assert not any("resampled" in note for note in notes)


def test_an_image_file_for_a_tubelet_vit_is_sent_to_its_backbone(tiny, tmp_path):
    save_file(tiny.state_dict(), tmp_path / "image.safetensors")
    with pytest.raises(ValueError, match=r"looks like an image model .* model\.backbone timm/NAME"):
        video("vit_tiny", weights=tmp_path / "image.safetensors")


def test_a_torchscript_archive_is_refused_with_the_way_out(tmp_path, monkeypatch):
    path = tmp_path / "ViT-B-16.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, its files are not gone
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), noise(1, 2)), path)
        with pytest.raises(ValueError, match="a TorchScript program") as refused:
            video(weights=path)
        _, _, script, *files = shlex.split(str(refused.value).splitlines()[1])
        monkeypatch.setattr(sys, "argv", ["-c", *files])
        exec(script)
    file = read_tensors(tmp_path / "ViT-B-16_tensors.pth")
    assert set(file.tensors) == {"weight", "bias"} and file.key == "model"


# --- through build --------------------------------------------------------------------------------

TINY = "timm/vit_tiny_patch16_224"


def video(backbone: str = TINY, *, seed: int = 1, **options):
    torch.manual_seed(seed)
    return build(backbone, num_frames=4, crop_size=32, num_classes=5, head="linear", **options)


@pytest.fixture(scope="module")
def tiny() -> torch.nn.Module:
    torch.manual_seed(0)
    model = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=9)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    return model.eval()


@pytest.mark.parametrize("how", ["inflate", "frames"])
def test_an_image_checkpoint_becomes_a_video_model(how, tiny, tmp_path):
    path = tmp_path / "image.pth"
    torch.save({"model": tiny.state_dict(), "epoch": 3}, path)
    model, report = video(weights=path, from_image=how)
    frame = noise(2, 3, 32, 32)
    clip_of_one = frame[:, :, None].expand(-1, -1, 4, -1, -1)
    features = model.eval().forward_features(clip_of_one)
    said = str(report)
    assert "timm, under `model`" in said and "old head; head.weight, head.bias" in said
    assert "whole backbone" in said and "(0.5, 0.5, 0.5)" in said
    if how == "frames":
        want = tiny.forward_head(tiny.forward_features(frame), pre_logits=True)
        assert torch.allclose(features, want[:, None].expand(-1, 4, -1), atol=1e-5)
        assert "every frame pooled as timm does on images, then the mean over 4 frames" in said
        assert report.fresh == ("fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias")
    else:
        assert torch.equal(model.cls_token, tiny.cls_token)
        assert "1 class and register tokens stay in the sequence, unpooled" in said
        assert "the mean over 2 x 2 x 2 tubelets" in said
        assert "patch embedding inflated to 2 frames: average" in said
        assert report.fresh[0] == "time_embed.weight"


def test_a_fine_tuned_mae_model_keeps_its_norm_after_the_pool(tiny, tmp_path):
    state = {re.sub("^norm", "fc_norm", name): t for name, t in tiny.state_dict().items()}
    torch.save({"model": state}, tmp_path / "mae_finetuned.pth")
    image = timm.create_model("vit_tiny_patch16_224", img_size=32, num_classes=9, global_pool="avg")
    image.load_state_dict(state)
    frame = noise(2, 3, 32, 32)
    want = image.eval().forward_head(image.forward_features(frame), pre_logits=True)
    frames, _ = video(weights=tmp_path / "mae_finetuned.pth", from_image="frames")
    clip_of_one = frame[:, :, None].expand(-1, -1, 4, -1, -1)
    assert torch.allclose(frames.eval().forward_features(clip_of_one)[:, 0], want, atol=1e-5)
    inflated, report = video(weights=tmp_path / "mae_finetuned.pth")
    assert torch.equal(inflated.fc_norm.weight, state["fc_norm.weight"])
    assert "fc_norm.weight" in report.loaded and "fc_norm.weight" not in report.fresh


@pytest.mark.parametrize("how", ["inflate", "frames"])
def test_a_saved_backbone_of_ours_is_the_same_model(how, tmp_path):
    source, _ = video(from_image=how, seed=2)
    save_file(backbone_state(source), tmp_path / "ours.safetensors")
    model, report = video(from_image=how, weights=tmp_path / "ours.safetensors")
    assert fingerprint(model) == fingerprint(source)
    assert report.family == "vidadapt"
    clips = noise(2, 3, 4, 32, 32)
    assert torch.equal(model.eval().forward_features(clips), source.eval().forward_features(clips))
    other = {"inflate": "frames", "frames": "inflate"}[how]
    with pytest.raises(ValueError, match="written by this package"):
        video(from_image=other, weights=tmp_path / "ours.safetensors")


def test_the_fingerprint_is_of_the_backbone_without_what_tasks_train():
    model, _ = video(seed=2)
    before = fingerprint(model)
    with torch.no_grad():
        model.time_embed.weight.fill_(1)
        model.fc_norm.weight.fill_(2)
        model.head.weight.fill_(3)
    assert fingerprint(model) == before
    with torch.no_grad():
        model.cls_token.add_(1)
    assert fingerprint(model) != before


# --- hub ------------------------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch, tmp_path) -> Path:
    """An empty cache, and no network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def put_in_cache(cache: Path, repository: str, name: str, state: State) -> None:
    folder = cache / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / "main").write_text("0" * 40)
    file = folder / "snapshots" / ("0" * 40) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, file)


@pytest.mark.parametrize(
    ("weights", "repository", "name"),
    [
        ("hub", "timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k", "model.safetensors"),
        ("hub:someone/vit", "someone/vit", "model.safetensors"),
        ("hub:someone/vit/ema.safetensors", "someone/vit", "ema.safetensors"),
    ],
)
def test_a_name_of_the_hub_is_found_in_its_cache(weights, repository, name, tiny, offline):
    put_in_cache(offline, repository, "other.safetensors", {"a": noise(1)})
    put_in_cache(offline, repository, name, tiny.state_dict())
    model, report = video(weights=weights)
    assert torch.equal(model.cls_token, tiny.cls_token)
    assert report.path.name == name


@pytest.mark.parametrize("folder", ["", "deep/"])
def test_a_model_in_several_files_is_found_in_the_cache(folder, tiny, offline):
    names = sorted(tiny.state_dict())
    parts = {"model-00001-of-00002.safetensors": names[::2]}
    parts["model-00002-of-00002.safetensors"] = names[1::2]
    index = {"weight_map": {name: part for part, held in parts.items() for name in held}}
    for part, held in parts.items():
        state = {name: tiny.state_dict()[name] for name in held}
        put_in_cache(offline, "someone/vit", folder + part, state)
    snapshot = next(offline.glob("*/snapshots/*"))
    (snapshot / folder / "model.safetensors.index.json").write_text(json.dumps(index))
    name = f"hub:someone/vit/{folder}model.safetensors.index.json" if folder else "hub:someone/vit"
    model, _ = video(weights=name)
    assert torch.equal(model.cls_token, tiny.cls_token)
    (snapshot / folder / part).unlink()
    with pytest.raises(ValueError, match="someone/vit could not be fetched"):
        video(weights=name)


@pytest.mark.parametrize("kind", [torch.int8, torch.complex64, torch.float8_e4m3fn])
def test_tensors_of_another_type_are_refused_by_name(kind, tiny, tmp_path):
    state = tiny.state_dict()
    path, name = tmp_path / "image.pth", "blocks.3.attn.qkv.weight"
    torch.save(state | {name: state[name].to(kind)}, path)
    with pytest.raises(ValueError, match=rf"image\.pth.*{name} is {str(kind)[6:]}"):
        video(weights=path)
    torch.save(state | {name: state[name] / 0}, path)
    with pytest.raises(ValueError, match=rf"image\.pth: NaN or infinite values in {name}"):
        video(weights=path)


def test_the_average_of_an_image_models_weights_can_be_chosen(tiny, tmp_path):
    path = tmp_path / "image.pth"
    average = {key: tensor * 0.5 for key, tensor in tiny.state_dict().items()}
    torch.save({"state_dict": tiny.state_dict(), "state_dict_ema": average}, path)
    model, report = video(weights=path)
    assert torch.equal(model.cls_token, tiny.cls_token) and "`state_dict_ema`" in str(report)
    model, _ = video(weights=path, weights_key="state_dict_ema")
    assert torch.equal(model.cls_token, tiny.cls_token * 0.5)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ("hub", "timm/vit_tiny_patch16_224.* could not be fetched .*--model.weights FILE"),
        ("hub:someone/vit", "someone/vit could not be fetched from the Hugging Face hub"),
        ("hub:someone", "expected hub:OWNER/REPO or hub:OWNER/REPO/FILE"),
    ],
)
def test_without_a_network_one_error_says_what_to_do(weights, message, offline):
    with pytest.raises(ValueError, match=message):
        video(weights=weights)


def test_hub_alone_is_for_models_of_timm(offline):
    with pytest.raises(ValueError, match="hub alone stands for what timm publishes"):
        video("vit_tiny", weights="hub")
