"""Weights of image models: timm's own converters, checked for every tensor of the file.

timm's `checkpoint_filter_fn` of a model's module turns other layouts into timm's names: CLIP of
OpenAI and open_clip (also around a timm tower), DINOv2 and DINOv3, EVA, original Swin and DeiT III.
It silently drops tensors that it does not know or want, so its result is checked here: every
tensor of the file must have reached the image model or be known as unused, and every tensor of the
model must be found with its shape. Also known: facebookresearch/mae (pre-trained and fine-tuned)
and `jx_vit_base_patch16_224_in21k`.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from vidadapt.models.coverage import FLOATS, State, listed, require_match

# Names in the file, without wrappers' prefixes, that no video model uses.
UNUSED = {
    "text tower of a CLIP model": (
        r"(transformer|token_embedding|ln_final|text|text_model)\.|positional_embedding$|"
        r"text_projection|logit_(scale|bias)$|attn_mask$|"
        r"(input_resolution|context_length|vocab_size)$"
    ),
    "decoder of the pre-training": r"decoder_(embed|pos_embed|blocks|norm|pred)(\.|$)",
    "mask token of the pre-training": r"(.*\.)?mask_token$",
    "norm of DINOv3's local crops": r"local_cls_norm\.",
    "layer before the old head": r"pre_logits\.",
    "old head": r"(visual\.)?(head|head_dist|head_drop|lm_head)\.|visual\.proj$",
    "buffers that are computed": (
        r".*(relative_position_index|\.attn_mask|rope_embed\.periods|rope\.freqs_\w+|"
        r"qkv\.bias_mask)$"
    ),
}
# Under timm's names.
OLD_HEAD = r"(head|head_dist)\."
ATTENTION_POOL = r"attn_pool\."

# Tensors that converters copy, so that the result does not share their memory: tables that are
# resampled, and class tokens to which their position is added.
REWRITTEN = re.compile(
    r"(visual\.)?(trunk\.)?(pos_embed|positional_embedding|cls_token|class_embedding|"
    r"layers\.\d+\.blocks\.\d+\.attn\.relative_position_bias_table)$"
)

# Layout -> a tensor that only this layout has; the first one found decides.
LAYOUTS = {
    "CLIP (OpenAI, open_clip)": "visual.class_embedding",
    "open_clip around a timm tower": "visual.trunk.patch_embed.proj.weight",
    "EVA-CLIP": "visual.patch_embed.proj.weight",
    "MAE pre-training": "decoder_embed.weight",
    "DINOv3": "storage_tokens",
    "DINOv2": "mask_token",
}


def load_image_weights(
    image: nn.Module, name: str, path: Path, tensors: State, *, keep_pool: bool
) -> tuple[str, State, dict[str, tuple[str, ...]], list[str]]:
    """Load a file's tensors into a timm image model, strictly.

    Args:
        image: timm model without classifier; edited in place.
        name: its timm name, without a tag.
        path: for messages.
        tensors: of the file, without wrappers' prefixes.
        keep_pool: whether the model's attention pool is used; else it is left out.

    Returns:
        The layout, the loaded tensors (timm's names), reason -> unused names, and notes.

    Raises:
        ValueError: one message with all tensors that are missing, left over or of another shape.
    """
    unused = {reason: _matching(pattern, tensors) for reason, pattern in UNUSED.items()}
    if not any(key.startswith("visual.") for key in tensors):
        unused["text tower of a CLIP model"] = ()
    early = {key for names in unused.values() for key in names}
    # timm recognises the layout by the mask token.
    kept = {k: v for k, v in tensors.items() if k not in early or k.endswith("mask_token")}
    _require_patch_size(path, image, kept)
    _require_floats(path, image, kept)
    converted = _converter(image, name, kept)(dict(kept))
    target = image.state_dict()
    unused["old head"] += _matching(OLD_HEAD, converted)
    if not keep_pool:
        unused["attention pool (the mean over the tubelets stands in its place)"] = _matching(
            ATTENTION_POOL, converted
        )
    spare = {key for names in unused.values() for key in names}
    used = {k: v for k, v in converted.items() if k not in spare}
    lost = [key for key in kept if key not in spare and not _reached(kept[key], converted)]
    zero_biases = tuple(k for k in lost if k.endswith("qkv.bias") and not kept[k].any())
    unused["biases that are zero, which this model does not have"] = zero_biases
    rest = [key for key in lost if key not in zero_biases and not REWRITTEN.match(key)]
    required = [
        key
        for key in target
        if not re.match(OLD_HEAD if keep_pool else f"{OLD_HEAD}|{ATTENTION_POOL}", key)
    ]
    require_match(
        path, used | {k: kept[k] for k in rest}, target, required, _advice(used, name, tensors)
    )
    image.load_state_dict({**target, **used}, strict=True)
    layout = next((k for k, mark in LAYOUTS.items() if mark in tensors), "timm")
    dropped = {reason: names for reason, names in unused.items() if names}
    return layout, used, dropped, _notes(image, layout, kept, used)


def _matching(pattern: str, names: State) -> tuple[str, ...]:
    return tuple(name for name in names if re.match(pattern, name))


def _converter(image: Any, name: str, tensors: State) -> Callable[[State], State]:
    """timm's converter of the module that defines the model."""
    module = inspect.getmodule(timm.model_entrypoint(name))
    convert = getattr(module, "checkpoint_filter_fn", None)
    if convert is None:
        return lambda state: state
    options = {}
    scaled = any("gamma_" in key for key in tensors)
    if scaled and "adapt_layer_scale" in inspect.signature(convert).parameters:
        options["adapt_layer_scale"] = True  # original DeiT III

    def quietly(state: State) -> State:
        with contextlib.redirect_stdout(io.StringIO()):  # one converter prints what it skips
            return convert(state, image, **options)

    return quietly


def _reached(tensor: Tensor, converted: State) -> bool:
    """Check that some result shares the tensor's memory: renamed, reshaped or a part of it."""
    start, length = tensor.data_ptr(), tensor.numel() * tensor.element_size()
    return any(start <= other.data_ptr() < start + max(length, 1) for other in converted.values())


def _require_patch_size(path: Path, image: Any, tensors: State) -> None:
    """Refuse a patch size that timm would resample silently."""
    embed = image.stem if hasattr(image, "stem") else image.patch_embed
    want = getattr(embed.proj, "kernel_size", None)
    for key, tensor in tensors.items():
        found = tuple(tensor.shape[2:])
        is_kernel = re.match(r"(visual\.)?(trunk\.)?(patch_embed\.proj|conv1|stem\.proj)\.w", key)
        if is_kernel and tensor.ndim == 4 and want is not None and found != want:
            raise ValueError(
                f"{path}: {key} has patches of {found[0]} x {found[1]} pixels, the model has "
                f"{want[0]} x {want[1]}; choose model.backbone to match"
            )


def _require_floats(path: Path, image: nn.Module, tensors: State) -> None:
    """Refuse other types before a converter uses the values."""
    known = image.state_dict()
    other = [
        f"{key} is {str(tensor.dtype).removeprefix('torch.')}"
        for key, tensor in tensors.items()
        if tensor.dtype not in FLOATS and (key not in known or known[key].dtype != tensor.dtype)
    ]
    if other:
        raise ValueError(
            f"{path}: expected values in float16, bfloat16, float32 or float64, but {listed(other)}"
        )


def _advice(used: State, name: str, tensors: State) -> str:
    blocks = {int(m[1]) for key in used if (m := re.match(r"blocks\.(\d+)\.", key))}
    norm = used.get("norm.weight", used.get("fc_norm.weight"))
    size = f"{len(blocks)} blocks" + ("" if norm is None else f", width {len(norm)}")
    return (
        f"the file looks like {size}; choose the model.backbone timm/NAME that it was made for, "
        f"not timm/{name}. Its first tensors: {listed(list(tensors), 4)}"
    )


def _notes(image: Any, layout: str, kept: State, used: State) -> list[str]:
    resampled = [
        f"{key} from {tuple(source.shape)} to {tuple(used[key].shape)}"
        for key, source in _tables(kept, used).items()
        if not _reached(source, {key: used[key]})
    ]
    notes = [f"position tables resampled by timm: {listed(resampled, 2)}"] if resampled else []
    quick = any(type(module).__name__ == "QuickGELU" for module in image.modules())
    if layout.startswith("CLIP") and not quick:
        notes.append(
            "OpenAI's CLIP models have QuickGELU (clip_quickgelu in timm's names), this one GELU"
        )
    mean, std = image.pretrained_cfg.get("mean"), image.pretrained_cfg.get("std")
    notes.append(f"timm normalises this model's images with mean {mean}, deviation {std}")
    return notes


def _tables(kept: State, used: State) -> State:
    """Position tables of the file by their names in the model."""
    tables = {key: kept[key] for key in used if key.endswith("bias_table") and key in kept}
    positions = [
        v for k, v in kept.items() if re.match(r"(.*\.)?(pos_embed|positional_embedding)$", k)
    ]
    if "pos_embed" in used and positions:
        tables["pos_embed"] = positions[0]
    return tables
