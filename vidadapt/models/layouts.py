"""Layouts of checkpoint files: their tensor names to ours.

A layout is recognised by its tensor names, never by the file's name. Sources of the names:
MCG-NJU/VideoMAE and OpenGVLab/VideoMAEv2 (the same names), ShoufaChen/AdaptFormer (`convert.py`),
facebookresearch/vjepa2, facebookresearch/TimeSformer, OpenGVLab/InternVideo; Hugging Face's, see
`huggingface`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from vidadapt.console import printable
from vidadapt.models import huggingface
from vidadapt.models.coverage import State, listed
from vidadapt.models.renaming import by_patterns, fuse_qkv, renamed
from vidadapt.models.tensor_files import TensorFile

# The backbones that a layout is of.
TUBELET_VIT, VJEPA = "vit_...", "vjepa2_..."
TIMESFORMER, VIVIT, VIDEOPRISM = "timesformer_...", "vivit_...", "videoprism_..."
INTERNVIDEO2 = "internvideo2_..."


def _from_videomae(state: State) -> State:
    """VideoMAE and VideoMAE V2: ours, with `encoder.` (pre-training) or `backbone.` in front."""
    return renamed(state, lambda name: re.sub(r"^(backbone\.|encoder\.)", "", name))


def _from_adaptformer(state: State) -> State:
    """AdaptFormer's converted files: separate q, k, v; the MLP's layers directly on the block."""
    state = _from_videomae(state)
    mlp = re.compile(r"^(blocks\.\d+)\.(fc[12])\.")
    return fuse_qkv(renamed(state, lambda name: mlp.sub(r"\1.mlp.\2.", name)))


# Version 2.1 has four norms after its last block, and reads the last.
META_VJEPA_NAMES = {
    r"^backbone\.": "",
    r"^video_mod_embed$": "video_embed",
    r"^norms_block\.3\.": "norm.",
}


def _from_meta_vjepa(state: State) -> State:
    """Meta's V-JEPA 2 and 2.1, and what this package writes of them."""
    return renamed(state, by_patterns(META_VJEPA_NAMES))


OFFICIAL_TIMESFORMER_NAMES = {
    r"^time_embed$": "time_pos_embed",
    r"^blocks\.(\d+)\.temporal_norm1\.": r"befores.\1.norm.",
    r"^blocks\.(\d+)\.temporal_attn\.": r"befores.\1.attn.",
    r"^blocks\.(\d+)\.temporal_fc\.": r"befores.\1.dense.",
}


def _from_official_timesformer(state: State) -> State:
    """TimeSformer's own files, whose other names are ours."""
    return huggingface.divided_timesformer(renamed(state, by_patterns(OFFICIAL_TIMESFORMER_NAMES)))


@dataclass(frozen=True)
class Layout:
    """A way to name the tensors of a backbone.

    Attributes:
        backbone: `TUBELET_VIT` or another one of these.
        mark: pattern of a tensor that only this layout has, of those that come later.
        convert: its names to ours.
    """

    backbone: str
    mark: str
    convert: Callable[[State], State]


# The first whose mark is found decides.
LAYOUTS = {
    "Hugging Face TimeSformer": Layout(
        TIMESFORMER,
        r"^(timesformer\.)?encoder\.layer\.0\.attention\.attention\.qkv\.weight$",
        huggingface.from_timesformer,
    ),
    "TimeSformer's own": Layout(
        TIMESFORMER,
        r"^(blocks\.0\.temporal_attn\.qkv\.weight|time_embed)$",
        _from_official_timesformer,
    ),
    "TimeSformer": Layout(TIMESFORMER, r"^befores\.0\.attn\.qkv\.weight$", dict),
    "Hugging Face VideoPrism": Layout(
        VIDEOPRISM,
        r"^((video_model\.)?vision_model\.)?spatial_embeddings\.position_embeddings$",
        huggingface.from_videoprism,
    ),
    "VideoPrism": Layout(VIDEOPRISM, r"^befores\.\d+\.pos_embed$", dict),
    "Hugging Face ViViT": Layout(
        VIVIT, r"^(vivit\.)?embeddings\.position_embeddings$", huggingface.from_vivit
    ),
    "InternVideo2": Layout(INTERNVIDEO2, r"^blocks\.0\.attn\.q_norm\.weight$", dict),
    "ViViT": Layout(VIVIT, r"^cls_token$", dict),
    "Hugging Face VideoMAE": Layout(
        TUBELET_VIT,
        r"^(videomae\.)?embeddings\.patch_embeddings\.projection\.weight$",
        huggingface.from_videomae,
    ),
    "Hugging Face V-JEPA 2": Layout(
        VJEPA,
        r"^(vjepa2\.)?encoder\.embeddings\.patch_embeddings\.proj\.weight$",
        huggingface.from_vjepa,
    ),
    "AdaptFormer (separate q, k, v)": Layout(
        TUBELET_VIT, r"^(backbone\.|encoder\.)?blocks\.0\.attn\.q_proj\.weight$", _from_adaptformer
    ),
    "V-JEPA 2.1": Layout(VJEPA, r"^(backbone\.)?video_(mod_)?embed$", _from_meta_vjepa),
    "V-JEPA 2": Layout(VJEPA, r"^(backbone\.)?blocks\.0\.attn\.qkv\.bias$", _from_meta_vjepa),
    "VideoMAE / VideoMAE V2 pre-training": Layout(
        TUBELET_VIT, r"^encoder\.patch_embed\.proj\.weight$", _from_videomae
    ),
    "VideoMAE / VideoMAE V2 fine-tuned, vidadapt": Layout(
        TUBELET_VIT, r"^(backbone\.)?patch_embed\.proj\.weight$", _from_videomae
    ),
}

# Left in front of every name by DistributedDataParallel, torch.compile, and V2's wrapper class.
WRAPPERS = re.compile(r"^(module\.|_orig_mod\.|model\.)+")


def without_wrappers(tensors: State) -> State:
    """Tensors of a file without the prefixes that wrappers leave in front of every name."""
    return renamed(tensors, lambda name: WRAPPERS.sub("", name))


def our_names(file: TensorFile, backbone: str) -> tuple[str, State]:
    """Recognise the layout of a file: its name for reports, and the tensors by our names.

    Args:
        backbone: that the tensors are for.

    Raises:
        ValueError: a layout that is not known or is of another backbone, or tensors of it that
            cannot be brought into our form.
    """
    bare = without_wrappers(file.tensors)
    for name, layout in LAYOUTS.items():
        if not any(re.match(layout.mark, tensor) for tensor in bare):
            continue
        try:
            state = layout.convert(bare)
        except (ValueError, RuntimeError) as error:  # e.g. q, k and v that cannot be joined
            raise ValueError(f"{file.path}: {error}") from error
        patch = state.get("patch_embed.proj.weight")
        is_of_clips = patch is None or patch.ndim == 5
        if layout.backbone != backbone and is_of_clips:
            raise ValueError(
                f"{file.path} holds {name}, which is for model.backbone {layout.backbone}; "
                "choose one of these names, or another file"
            )
        return f"{name}{file.where}", state
    known = [name for name, layout in LAYOUTS.items() if layout.backbone == backbone]
    raise ValueError(
        f"{file.path} holds none of the known layouts ({'; '.join(known)}): it has no patch "
        f"embedding under a known name. Its first tensors: {printable(listed(list(file.tensors)))}"
    )
