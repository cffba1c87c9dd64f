"""One set of weights in every accepted layout, built with the official files' top-level keys."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vidadapt.models import build
from vidadapt.models.vit import VideoViT
from vidadapt.models.weights import backbone_state, fingerprint

State = dict[str, Tensor]
WIDTH, DEPTH = 192, 6


def vit(**options) -> tuple[VideoViT, object]:
    good = {"backbone": "vit_tiny", "num_frames": 4, "crop_size": 32, "num_classes": 5}
    torch.manual_seed(1)  # not the weights' seed
    return build(**(good | options))


@pytest.fixture(scope="module")
def source() -> VideoViT:
    model, _ = vit(head="linear")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model.eval()


@pytest.fixture(scope="module")
def clip() -> Tensor:
    return torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(2))


def head_of(state: State) -> State:
    return {k: v for k, v in state.items() if k.startswith(("fc_norm", "head"))}


def body_of(state: State) -> State:
    return {k: v for k, v in state.items() if k.startswith(("patch_embed", "blocks"))}


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def pretraining(state: State) -> State:
    """What VideoMAE's pre-training saves around the encoder."""
    return {
        **prefixed(body_of(state), "encoder."),
        "encoder.norm.weight": torch.ones(WIDTH),
        "encoder.norm.bias": torch.zeros(WIDTH),
        "encoder_to_decoder.weight": torch.randn(96, WIDTH),
        "mask_token": torch.zeros(1, 1, 96),
        "decoder.blocks.0.attn.qkv.weight": torch.randn(288, 96),
        "decoder.norm.weight": torch.ones(96),
        "decoder.head.weight": torch.randn(1536, 96),
    }


def official(model_key: str, state: State) -> dict:
    """The official top-level keys: model, optimiser, epoch, scaler and the command line."""
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    return {
        model_key: state,
        "optimizer": optimizer.state_dict(),
        "epoch": 1599,
        "scaler": {"scale": 128.0},
        "args": argparse.Namespace(model="videomae", betas=[0.9, 0.95], opt_eps=1e-8),
    }


def deepspeed(state: State) -> dict:
    return {
        "module": state,
        "buffer_names": [],
        "optimizer": None,
        "lr_scheduler": None,
        "csr_tensor_module_names": set(),
        "skipped_steps": 0,
        "global_steps": 100,
        "dp_world_size": 64,
        "mp_world_size": 1,
        "epoch": 49,
    }


def separate_qkv(state: State) -> State:
    out: State = {}
    for name, tensor in state.items():
        name = re.sub(r"\.mlp\.(fc[12])", r".\1", name)
        if name.endswith("attn.qkv.weight"):
            d = tensor.shape[1]
            for i, part in enumerate("qkv"):
                out[name.replace("qkv", f"{part}_proj")] = tensor[i * d : (i + 1) * d].clone()
        else:
            out[name] = tensor
    return out


def huggingface(state: State, *, prefix: str = "videomae.", version: int = 4) -> State:
    out: State = {}
    for name, tensor in separate_qkv(state).items():
        name = name.replace("patch_embed.proj", f"{prefix}embeddings.patch_embeddings.projection")
        name = name.replace("blocks.", f"{prefix}encoder.layer.").replace("head.", "classifier.")
        for ours, theirs in {
            "norm1": "layernorm_before",
            "norm2": "layernorm_after",
            ".fc1": ".intermediate.dense",
            ".fc2": ".output.dense",
            "attn.proj": "attention.output.dense",
            "attn.q_proj": "attention.attention.query",
            "attn.k_proj": "attention.attention.key",
            "attn.v_proj": "attention.attention.value",
            "attn.q_bias": "attention.attention.q_bias"
            if version == 4
            else "attention.attention.query.bias",
            "attn.v_bias": "attention.attention.v_bias"
            if version == 4
            else "attention.attention.value.bias",
        }.items():
            name = name.replace(ours, theirs)
        out[name] = tensor
    return out


def with_key_bias(state: State, value: float) -> State:
    key = "videomae.encoder.layer.{}.attention.attention.key.bias"
    return state | {key.format(i): torch.full((WIDTH,), value) for i in range(DEPTH)}


def hf_pretraining(state: State) -> State:
    return huggingface(body_of(state)) | {
        "videomae.layernorm.weight": torch.ones(WIDTH),
        "videomae.layernorm.bias": torch.zeros(WIDTH),
        "encoder_to_decoder.weight": torch.randn(96, WIDTH),
        "mask_token": torch.zeros(1, 1, 96),
        "decoder.decoder_layers.0.attention.attention.query.weight": torch.randn(96, 96),
        "decoder.norm.weight": torch.ones(96),
    }


# Layout -> the file's content, from the state of the source model (linear head, 5 classes).
LAYOUTS: dict[str, tuple[str, Callable[[State], dict]]] = {
    "videomae_pretraining.pth": ("VideoMAE / ", lambda s: official("model", pretraining(s))),
    "videomae_finetuned_deepspeed.pth": ("VideoMAE / ", deepspeed),
    "videomae_finetuned_amp.pth": ("VideoMAE / ", lambda s: official("model", s)),
    "v2_bare.pth": ("VideoMAE / ", lambda s: s),
    "v2_compiled.pth": ("VideoMAE / ", lambda s: deepspeed(prefixed(s, "_orig_mod."))),
    "v2_backbone_prefix.pth": (
        "VideoMAE / ",
        lambda s: {"module": prefixed(body_of(s), "backbone.") | head_of(s)},
    ),
    "v2_wrapped.safetensors": ("VideoMAE / ", lambda s: prefixed(s, "model.")),
    "adaptformer_new.pth": (
        "AdaptFormer",
        lambda s: {"model": separate_qkv(pretraining(s))},
    ),
    "hf_v4_classifier.bin": ("Hugging Face", huggingface),
    "hf_v4_classifier.safetensors": ("Hugging Face", huggingface),
    "hf_v4_pretraining.bin": ("Hugging Face", hf_pretraining),
    "hf_v4_base_model.safetensors": (
        "Hugging Face",
        lambda s: huggingface(body_of(s), prefix=""),
    ),
    "hf_v5_classifier.safetensors": ("Hugging Face", lambda s: huggingface(s, version=5)),
    "hf_v5_key_bias.safetensors": (
        "Hugging Face",
        lambda s: with_key_bias(huggingface(s, version=5), 3.0),
    ),
    "vidadapt.safetensors": ("VideoMAE / ", lambda s: s),
}


def write(path: Path, content: dict) -> Path:
    if path.suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in content.items()}, path)
    else:
        torch.save(content, path)
    return path


@pytest.mark.parametrize("layout", LAYOUTS)
def test_features_are_the_same_in_every_layout(layout, source, clip, tmp_path):
    family, convert = LAYOUTS[layout]
    # A name that says nothing: families are recognised by their keys.
    path = write(tmp_path / f"x{Path(layout).suffix}", convert(source.state_dict()))
    model, report = vit(weights=path)
    model.eval()
    with torch.no_grad():
        assert torch.equal(model.forward_features(clip), source.forward_features(clip))
    assert report.family.startswith(family)
    for name, tensor in backbone_state(source).items():
        assert torch.equal(model.state_dict()[name], tensor)
    assert set(backbone_state(source)) <= set(report.loaded)
    has_fc_norm = "fc_norm.weight" in report.loaded
    assert torch.equal(model.fc_norm.weight, source.fc_norm.weight) == has_fc_norm
    assert ("fc_norm.weight" in report.fresh) != has_fc_norm
    assert {"head.1.weight", "head.1.bias"} <= set(report.fresh)
    assert len(str(report).splitlines()) <= 12 and str(path) in str(report)


def test_every_tensor_of_the_file_is_accounted_for(source, tmp_path):
    content = pretraining(source.state_dict())
    _, report = vit(weights=write(tmp_path / "a.pth", official("model", content)))
    dropped = [name for names in report.dropped.values() for name in names]
    assert len(report.loaded) + len(dropped) == len(content)
    assert sorted(dropped) == sorted(
        ["norm.weight", "norm.bias", "encoder_to_decoder.weight", "mask_token"]
        + [name for name in content if name.startswith("decoder.")]
    )
    assert "under `model`" in report.family and "decoder" in str(report)
    assert report.loaded_values == sum(t.numel() for t in backbone_state(source).values())


def test_a_key_bias_is_reported_and_has_no_effect(source, clip, tmp_path):
    """It is not zero here; an attention with the bias gives the same features."""
    content = with_key_bias(huggingface(source.state_dict(), version=5), 3.0)
    model, report = vit(weights=write(tmp_path / "a.safetensors", content))
    reasons = [reason for reason in report.dropped if "key bias" in reason]
    assert len(reasons) == 1 and len(report.dropped[reasons[0]]) == DEPTH
    attn, x = model.blocks[0].attn, torch.randn(1, 8, WIDTH)
    q, k, v = (x @ attn.qkv.weight.T).chunk(3, dim=-1)
    q, k, v = (
        t.view(1, 8, attn.num_heads, -1).transpose(1, 2)
        for t in (q + attn.q_bias, k + 3.0, v + attn.v_bias)
    )
    scores = (q @ k.transpose(-2, -1) / 8.0).softmax(-1)
    biased = attn.proj((scores @ v).transpose(1, 2).reshape(1, 8, WIDTH))
    assert torch.allclose(attn(x), biased, atol=1e-5)


def test_split_q_k_v_reproduce_the_fused_attention(source):
    attn, x = source.blocks[0].attn, torch.randn(2, 9, WIDTH)
    parts = separate_qkv({"attn.qkv.weight": attn.qkv.weight})
    q = x @ parts["attn.q_proj.weight"].T + attn.q_bias
    k = x @ parts["attn.k_proj.weight"].T
    v = x @ parts["attn.v_proj.weight"].T + attn.v_bias
    heads = [t.view(2, 9, attn.num_heads, -1).transpose(1, 2) for t in (q, k, v)]
    out = torch.nn.functional.scaled_dot_product_attention(*heads)
    out = attn.proj(out.transpose(1, 2).reshape(2, 9, WIDTH))
    assert torch.allclose(attn(x), out, atol=1e-5)


def test_half_precision_files_become_float32(source, tmp_path):
    state = {k: v.half() for k, v in source.state_dict().items()}
    model, _ = vit(weights=write(tmp_path / "a.safetensors", state))
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    for name, tensor in body_of(state).items():
        assert torch.equal(model.state_dict()[name], tensor.float())


def test_the_legacy_torch_format_loads(source, tmp_path):
    path = tmp_path / "a.pth"
    torch.save(deepspeed(source.state_dict()), path, _use_new_zipfile_serialization=False)
    model, _ = vit(weights=path)
    assert fingerprint(model) == fingerprint(source)


# --- heads ---------------------------------------------------------------------------------------


def test_keep_head_gives_the_same_logits(source, clip, tmp_path):
    for name, content in {
        "a.safetensors": source.state_dict(),
        "b.pth": huggingface(source.state_dict()),
    }.items():
        path = write(tmp_path / name, content)
        model, report = vit(weights=path, keep_head=True, head="linear")
        assert torch.equal(model.eval()(clip), source(clip))
        assert not report.fresh and not report.dropped


def test_keep_head_with_batchnorm_keeps_its_statistics(clip, tmp_path):
    trained, _ = vit()
    trained.train()(clip)
    path = write(tmp_path / "a.safetensors", trained.state_dict())
    model, _ = vit(weights=path, keep_head=True)
    assert torch.equal(model.eval()(clip), trained.eval()(clip))
    assert int(model.head[0].num_batches_tracked) == 1


@pytest.mark.parametrize(
    "options, message",
    [
        ({"head": "linear", "num_classes": 6}, r"head.weight is \(5, 192\), needs \(6, 192\)"),
        ({"head": "batchnorm_linear"}, "missing from the file: head.0.running_mean"),
    ],
)
def test_keep_head_needs_the_same_head(options, message, source, tmp_path):
    path = write(tmp_path / "a.safetensors", source.state_dict())
    with pytest.raises(ValueError, match=message):
        vit(weights=path, keep_head=True, **options)


# --- files that must be refused ------------------------------------------------------------------


def without(state: State, *names: str) -> State:
    return {k: v for k, v in state.items() if k not in names}


@pytest.mark.parametrize(
    "change, message",
    [
        (
            lambda s: without(s, "blocks.3.attn.v_bias", "blocks.5.mlp.fc1.weight"),
            "2 tensors missing from the file: blocks.3.attn.v_bias, blocks.5.mlp.fc1.weight",
        ),
        (lambda s: without(s, "fc_norm.bias"), "1 tensors missing from the file: fc_norm.bias"),
        (
            lambda s: s | {"blocks.0.gamma_1": torch.ones(WIDTH)},
            "in the file but not in the model: blocks.0.gamma_1",
        ),
        (
            lambda s: s | {"blocks.0.adaptmlp.down_proj.weight": torch.ones(64, WIDTH)},
            "in the file but not in the model: blocks.0.adaptmlp",
        ),
        (
            lambda s: s | {"patch_embed.proj.weight": torch.zeros(WIDTH, 3, 2, 14, 14)},
            r"patch_embed.proj.weight is \(192, 3, 2, 14, 14\), needs \(192, 3, 2, 16, 16\)",
        ),
        (lambda s: s | {"pos_embed": torch.randn(1, 8, WIDTH)}, "not the fixed sin-cos table"),
        (lambda s: {"fc.weight": torch.zeros(2)}, "none of the known layouts.*fc.weight"),
        (lambda s: {"epoch": 3, "args": None}, "holds no model.*found epoch, args"),
        (lambda s: s | prefixed(s, "module."), "same name but for a prefix"),
    ],
)
def test_files_that_do_not_fit_are_refused(change, message, source, tmp_path):
    path = write(tmp_path / "a.pth", change(source.state_dict()))
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        vit(weights=path)


def test_a_failed_load_changes_nothing(source, tmp_path):
    path = write(tmp_path / "a.pth", without(source.state_dict(), "blocks.5.mlp.fc2.bias"))
    from vidadapt.models.weights import load_weights

    model, _ = vit()
    before = fingerprint(model)
    with pytest.raises(ValueError, match="nothing was loaded"):
        load_weights(model, path)
    assert fingerprint(model) == before


def test_the_stored_fixed_table_is_accepted(source, tmp_path):
    content = source.state_dict() | {"pos_embed": source.pos_embed[None].half()}
    _, report = vit(weights=write(tmp_path / "a.pth", content))
    assert any("positions" in reason for reason in report.dropped)


def test_another_size_is_named(tmp_path):
    small, _ = build("vit_small", num_frames=4, crop_size=32, num_classes=2)
    path = write(tmp_path / "a.pth", {"model": small.state_dict()})
    with pytest.raises(ValueError, match="looks like vit_small: width 384, 12 blocks, tubelet 2x"):
        vit(weights=path)


def test_missing_files_and_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pth does not exist"):
        vit(weights=tmp_path / "nowhere.pth")
    with pytest.raises(ValueError, match="is a folder"):
        vit(weights=tmp_path)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors", "legacy.pth"])
@pytest.mark.parametrize("kept", [0, 6, 1000, 0.5, 0.999])
def test_truncated_files_are_refused(name, kept, source, tmp_path):
    path = tmp_path / name
    if name == "legacy.pth":
        torch.save(source.state_dict(), path, _use_new_zipfile_serialization=False)
    else:
        write(path, source.state_dict())
    size = path.stat().st_size
    os.truncate(path, kept if kept > 1 else int(kept * size))
    with pytest.raises(ValueError, match=f"{name}.*truncated, corrupt"):
        vit(weights=path)


def test_text_is_refused(tmp_path):
    path = tmp_path / "a.pth"
    path.write_text("<html>404 not found</html>\n" * 100)
    with pytest.raises(ValueError, match="truncated, corrupt or not a weights file"):
        vit(weights=path)


class Notes:
    """Stands for any class that a checkpoint may have pickled."""


def test_refused_objects_are_named_and_the_command_converts_the_file(source, tmp_path):
    path = tmp_path / "it's a.pth"
    content = official("model", pretraining(source.state_dict()))
    torch.save(content | {"best": np.float64(0.7)}, path)
    with pytest.raises(ValueError, match=r"numpy\S*multiarray\.scalar") as error:
        vit(weights=path)
    command = next(line for line in str(error.value).splitlines() if "python -c" in line)
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
    model, _ = vit(weights=tmp_path / "it's a_tensors.pth")
    assert fingerprint(model) == fingerprint(source)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_run(zipped, source, tmp_path):
    path = tmp_path / "a.pth"
    content = {"model": source.state_dict(), "notes": Notes()}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(ValueError, match=r"can run code: \S*Notes"):
        vit(weights=path)


# --- fingerprint ---------------------------------------------------------------------------------


def test_fingerprint_is_of_the_backbone_alone(source):
    same, _ = vit(num_classes=9)
    same.load_state_dict({**same.state_dict(), **backbone_state(source)})
    longer, _ = vit(num_frames=8)
    longer.load_state_dict({**longer.state_dict(), **backbone_state(source)})
    assert fingerprint(same) == fingerprint(longer) == fingerprint(source)
    with torch.no_grad():
        same.blocks[5].mlp.fc2.bias[0] += 1e-3
    assert fingerprint(same) != fingerprint(source)
    assert len(fingerprint(source)) == 64
