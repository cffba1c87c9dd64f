"""One set of weights in every accepted layout, built with the official files' top-level keys."""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vidadapt.models import build
from vidadapt.models.vit import VideoViT
from vidadapt.models.weights import backbone_state, fingerprint, load_weights

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


def test_a_head_is_not_kept_without_the_norm_in_front_of_it(source, tmp_path):
    norm = {"norm.weight": torch.ones(WIDTH), "norm.bias": torch.zeros(WIDTH)}
    for state, said in (
        (without(source.state_dict(), "fc_norm.weight", "fc_norm.bias"), "fc_norm.weight"),
        (source.state_dict() | norm, "norm.weight"),
    ):
        path = write(tmp_path / "a.pth", state)
        with pytest.raises(ValueError, match=rf"tensors (missing|in the file).*: {said}"):
            vit(weights=path, keep_head=True, head="linear")


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


def test_nobody_is_sent_to_load_a_foreign_file_with_the_code_it_holds(tmp_path):
    file = tmp_path / "foreign.pth"
    file.write_bytes(np.random.default_rng(0).bytes(3000))
    with pytest.raises(ValueError, match="truncated, corrupt") as error:
        vit(weights=file)
    assert "weights_only" not in str(error.value)


class Notes:
    """Stands for any class that a checkpoint may have pickled."""


def test_refused_objects_are_named_and_the_command_converts_the_file(source, tmp_path):
    path = tmp_path / "it's a.pth"
    content = official("model", pretraining(source.state_dict()))
    torch.save(content | {"best": Path("x")}, path)
    with pytest.raises(ValueError, match=r"pathlib\S*Path") as error:
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


def with_numpy(state: State) -> dict:
    """What VideoMAE's training leaves: rates of numpy's type in the optimiser's groups."""
    group = {"lr": np.float64(1e-3), "betas": [np.float32(0.9)], "dtype": np.dtype("<f4")}
    return {
        "model": state,
        "optimizer": {"state": {}, "param_groups": [group]},
        "args": argparse.Namespace(seed=np.int64(3), kind=np.float16, of=type(np.dtype("f8"))),
        "random": np.random.default_rng(0).integers(5, size=3),
        "best": {"name": np.str_("top1"), "last": np.bool_(True)},
    }


@pytest.mark.parametrize("major", [1, 2])
@pytest.mark.parametrize("zipped", [True, False])
def test_numbers_of_numpy_are_no_hindrance(major, zipped, source, tmp_path):
    path = tmp_path / "a.pth"
    torch.save(with_numpy(source.state_dict()), path, _use_new_zipfile_serialization=zipped)
    if major == 1 and not zipped:  # as numpy 1 names its modules
        data = path.read_bytes()
        assert b"numpy._core.multiarray" in data
        path.write_bytes(data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
    elif major == 1:
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "b.pth", "w") as new:
            for name in old.namelist():
                data = old.read(name)
                new.writestr(name, data.replace(b"numpy._core.multi", b"numpy.core.multi"))
        path = tmp_path / "b.pth"
    model, _ = vit(weights=path)
    assert fingerprint(model) == fingerprint(source)


class Forged:
    """Calls a function that stands for numpy with what a stranger chose."""

    def __init__(self, function: Callable, *args: object) -> None:
        self.call = function, args

    def __reduce__(self):
        return self.call


def test_what_is_said_of_numpy_makes_nothing(source, tmp_path):
    """An array of 10^12 values, and bytes that numpy would take for objects in memory."""
    reconstruct = np.zeros(1).__reduce__()[0]
    forged = [
        Forged(np.ndarray, (10**12,)),
        Forged(reconstruct, np.ndarray, (10**12,), b"b"),
        Forged(np.float64(1).__reduce__()[0], np.dtype([("a", "O")]), b"12345678"),
        Forged(np.bytes_, 10**12),
    ]
    path = write(tmp_path / "a.pth", {"model": source.state_dict(), "forged": forged})
    model, _ = vit(weights=path)
    assert fingerprint(model) == fingerprint(source)


# --- values that are no weights ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["blocks.2.mlp.fc1.weight", "patch_embed.proj.bias"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_value_that_is_no_number_is_named(name, value, suffix, source, tmp_path):
    state = {key: tensor.clone() for key, tensor in source.state_dict().items()}
    state[name].view(-1)[7] = value
    model = VideoViT(
        num_frames=4, crop_size=32, width=WIDTH, depth=DEPTH, num_heads=3, num_classes=5
    )
    before = fingerprint(model)
    with pytest.raises(ValueError, match=rf"a\{suffix}: NaN or infinite .*{name} \(1 of"):
        load_weights(model, write(tmp_path / f"a{suffix}", state))
    assert fingerprint(model) == before


def test_a_number_that_the_models_type_cannot_hold_is_named(source, tmp_path):
    state = {key: tensor.double() for key, tensor in source.state_dict().items()}
    model, _ = vit(weights=write(tmp_path / "a.pth", state))
    assert fingerprint(model) == fingerprint(source)
    state["blocks.1.norm1.weight"][0] = 1e300
    with pytest.raises(ValueError, match=r"infinite values in blocks\.1\.norm1\.weight"):
        vit(weights=write(tmp_path / "a.pth", state))


def test_what_is_not_used_may_hold_anything(source, tmp_path):
    state = pretraining(source.state_dict())
    state["decoder.norm.weight"][0] = float("nan")
    model, _ = vit(weights=write(tmp_path / "a.pth", {"model": state}))
    assert fingerprint(model) == fingerprint(source)


OTHER_TYPES = {
    "int8": lambda t: t.to(torch.int8),
    "bool": lambda t: t > 0,
    "int64": lambda t: t.long(),
    "float8_e4m3fn": lambda t: t.to(torch.float8_e4m3fn),
    "complex64": lambda t: t.to(torch.complex64),
    "sparse": lambda t: t.to_sparse(),
    "meta": lambda t: t.to("meta"),
    "quantised": lambda t: torch.quantize_per_tensor(t, 0.1, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore:.*quant")
@pytest.mark.parametrize("kind", OTHER_TYPES)
@pytest.mark.parametrize("layout", ["v2_bare.pth", "hf_v4_classifier.bin", "adaptformer_new.pth"])
def test_tensors_of_another_type_are_refused_by_name(kind, layout, source, tmp_path):
    content = LAYOUTS[layout][1](source.state_dict())
    state = content.get("model", content)
    name = next(key for key in state if "blocks.1.attn.q" in key or "layer.1.a" in key)
    state[name] = OTHER_TYPES[kind](state[name])
    path = tmp_path / "a.pth"
    torch.save(content, path)
    with pytest.raises(ValueError, match=rf"a\.pth(.|\n)*att(.|\n)*{kind}"):
        vit(weights=path)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_floats_of_every_width_load(dtype, source, tmp_path):
    state = {key: tensor.to(dtype) for key, tensor in source.state_dict().items()}
    model, _ = vit(weights=write(tmp_path / "a.safetensors", state))
    for name, tensor in body_of(state).items():
        assert torch.equal(model.state_dict()[name], tensor.float())


# --- several sets of weights in one file ---------------------------------------------------------


def test_which_of_several_sets_is_taken_is_said_and_can_be_chosen(source, tmp_path):
    average = {key: tensor * 0.5 for key, tensor in source.state_dict().items()}
    content = official("state_dict", source.state_dict()) | {"state_dict_ema": average}
    path = write(tmp_path / "a.pth", content)
    model, report = vit(weights=path)
    assert fingerprint(model) == fingerprint(source)
    assert "under `state_dict`" in str(report) and "`state_dict_ema`" in str(report)
    assert "optimizer" not in str(report)
    chosen, report = vit(weights=path, weights_key="state_dict_ema")
    assert torch.equal(chosen.blocks[2].mlp.fc1.weight, source.blocks[2].mlp.fc1.weight * 0.5)
    assert "under `state_dict_ema`" in str(report) and "`state_dict`, not" in str(report)
    for wrong in ("ema", "optimizer", ""):
        with pytest.raises(ValueError, match=r"weights_key.*it has state_dict, state_dict_ema"):
            vit(weights=path, weights_key=wrong)


def test_sets_under_names_of_their_own_are_listed(source, tmp_path):
    path = write(tmp_path / "a.pth", {"student": source.state_dict(), "teacher": {}, "epoch": 3})
    with pytest.raises(ValueError, match=r"holds no model.*weights_key chooses student"):
        vit(weights=path)
    model, _ = vit(weights=path, weights_key="student")
    assert fingerprint(model) == fingerprint(source)
    bare = write(tmp_path / "b.safetensors", source.state_dict())
    with pytest.raises(ValueError, match=r"weights_key.*at the top, under no key"):
        vit(weights=bare, weights_key="model")


# --- models in several files ---------------------------------------------------------------------


def write_shards(folder: Path, state: State, suffix: str = ".safetensors") -> Path:
    """As transformers writes a model that is larger than one file may be; its index."""
    stem = "model" if suffix == ".safetensors" else "pytorch_model"
    names, weight_map = sorted(state), {}
    folder.mkdir(exist_ok=True)
    for number in range(3):
        part = names[number::3]
        file = folder / f"{stem}-{number + 1:05}-of-00003{suffix}"
        write(file, {name: state[name] for name in part})
        weight_map |= dict.fromkeys(part, file.name)
    index = folder / f"{stem}{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return index


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("named", ["index", "folder"])
def test_a_model_in_several_files_is_loaded_whole(suffix, named, source, tmp_path):
    index = write_shards(tmp_path / "model", huggingface(source.state_dict()), suffix)
    model, report = vit(
        weights=index if named == "index" else index.parent, keep_head=True, head="linear"
    )
    assert all(torch.equal(t, model.state_dict()[k]) for k, t in source.state_dict().items())
    assert report.path == index
    with pytest.raises(ValueError, match=r"one part of a model; give its index, .*index\.json"):
        vit(weights=next(index.parent.glob("*00002-of-00003*")))


def test_a_folder_with_one_file_is_loaded_too(source, tmp_path):
    path = write(tmp_path / "model.safetensors", huggingface(source.state_dict()))
    model, report = vit(weights=tmp_path)
    assert fingerprint(model) == fingerprint(source) and report.path == path


def test_a_part_that_is_missing_or_another_is_named(source, tmp_path):
    state = huggingface(source.state_dict())
    index = write_shards(tmp_path, state)
    first, second = sorted(tmp_path.glob("*-of-*"))[:2]
    kept = second.read_bytes()
    second.unlink()
    with pytest.raises(FileNotFoundError, match=second.name):
        vit(weights=index)
    second.write_bytes(first.read_bytes())
    with pytest.raises(ValueError, match=rf"{second.name} lacks "):
        vit(weights=index)
    second.write_bytes(kept)
    content = json.loads(index.read_text())
    name, _ = content["weight_map"].popitem()
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=rf"holds, against it, {name}"):
        vit(weights=index)


@pytest.mark.parametrize("place", ["../a.safetensors", "/etc/passwd", "", ".", "a/b", "a\x1b", 3])
def test_an_index_names_files_of_its_folder_alone(place, source, tmp_path):
    index = write_shards(tmp_path / "model", source.state_dict())
    write(tmp_path / "a.safetensors", source.state_dict())
    content = json.loads(index.read_text())
    content["weight_map"]["blocks.0.norm1.bias"] = place
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"index\.json: blocks\.0\.norm1\.bias is said to be in"):
        vit(weights=index)


@pytest.mark.parametrize(
    "text",
    [
        *('{"error": "not found"}', '{"weight_map": [1]}', '{"weight_map": {}}', "{" * 100_000),
        '{"weight_map": {"a": "a.bin", "a": "b.bin"}}',
    ],
)
def test_an_index_that_is_none_is_refused(text, tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(ValueError, match=r"index\.json"):
        vit(weights=tmp_path)


# --- files that would take all memory ------------------------------------------------------------


def test_parts_that_are_compressed_are_refused_before_they_are_unpacked(source, tmp_path):
    path = tmp_path / "a.pth"
    torch.save({"model": source.state_dict(), "zeros": torch.zeros(1 << 22)}, path)
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(tmp_path / "b.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for name in old.namelist():
            new.writestr(name, old.read(name))
    with pytest.raises(ValueError, match=r"b\.pth: its part \S+ is compressed"):
        vit(weights=tmp_path / "b.pth")


def test_tensors_that_repeat_a_value_without_end_are_refused(source, tmp_path):
    large = torch.zeros(1).expand(10**12, WIDTH)
    path = write(tmp_path / "a.pth", {"model": source.state_dict() | {"pos_embed": large[None]}})
    with pytest.raises(ValueError, match=r"a\.pth: its tensors repeat their values"):
        vit(weights=path)


def test_devices_and_pipes_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "a.pth")
    for path in (tmp_path / "a.pth", Path("/dev/zero")):
        with pytest.raises(ValueError, match="is no file"):
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
