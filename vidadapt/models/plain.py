"""Plain classifier files: names and tensors that other programs can load, too.

Layouts: `backbone` is the patch embedding and the blocks alone; `vidadapt` adds fc_norm and the
head; `videomae` is the same in the form of MCG-NJU/VideoMAE's fine-tuned files, which its own
fine-tuning code loads: a torch file with the tensors under `module`. `huggingface` is a folder for
transformers, see `to_huggingface.huggingface_form`.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from vidadapt.files import replaced, unwritten
from vidadapt.models.backbone import VideoModel
from vidadapt.models.positions import sincos_table
from vidadapt.models.vit import VideoViT
from vidadapt.models.weights import backbone_state

LAYOUTS = ("backbone", "vidadapt", "videomae", "huggingface")
VIDEOMAE_HEAD = {"head.weight", "head.bias"}


def fold_batchnorm(head: nn.Module) -> nn.Module:
    """Fold a head of BatchNorm and linear layer into one layer; return other heads as they are.

    With its running mean m and variance v, W (x - m) / sqrt(v + eps) + b is a linear layer with
    W' = W diag(1 / sqrt(v + eps)) and b' = b - W' m: exact up to one rounding, in eval mode.
    """
    if not (isinstance(head, nn.Sequential) and isinstance(head[0], nn.BatchNorm1d)):
        return head
    norm, linear = head
    assert isinstance(norm, nn.BatchNorm1d) and isinstance(linear, nn.Linear)
    assert norm.running_mean is not None and norm.running_var is not None
    weight = linear.weight.detach().double() / torch.sqrt(norm.running_var.double() + norm.eps)
    bias = linear.bias.detach().double() - weight @ norm.running_mean.double()
    folded = nn.Linear(linear.in_features, linear.out_features).to(linear.weight)
    with torch.no_grad():
        folded.weight.copy_(weight)
        folded.bias.copy_(bias)
    return folded


def plain_state(model: VideoModel, layout: str) -> dict[str, Tensor]:
    """Return the tensors of a model without method, its head folded.

    Args:
        layout: one of `LAYOUTS` but `huggingface`.

    Raises:
        ValueError: VideoMAE's code has no such backbone or head, or no such positions.
    """
    state = model.state_dict()
    if layout == "backbone":
        return backbone_state(model)
    if layout == "videomae":
        if not isinstance(model, VideoViT):
            raise ValueError(
                f"--layout: videomae is for tubelet ViTs, and the backbone is {model.name}; choose "
                "--layout vidadapt, or backbone"
            )
        if {name for name in state if name.startswith("head.")} != VIDEOMAE_HEAD:
            raise ValueError(
                "--layout: videomae is for linear heads, and this head is of another kind (model."
                "head); choose --layout vidadapt, or backbone"
            )
        if not torch.equal(model.pos_embed.cpu(), sincos_table(*model.pos_embed.shape)):
            raise ValueError(
                "--layout: this model interpolates its positions (model.position_grid), and "
                "VideoMAE's code computes them anew; choose --layout vidadapt and give the same "
                "position_grid where the file is used"
            )
    return state


def write_plain(path: Path, state: dict[str, Tensor], layout: str, dtype: torch.dtype) -> None:
    """Write the tensors as one file, atomically: safetensors, or for `videomae` a torch file.

    Raises:
        WriteError: the disk refused it.
    """
    cast = {name: tensor.detach().to(dtype).contiguous() for name, tensor in state.items()}
    with replaced(path) as partial:
        try:
            if layout == "videomae":
                torch.save({"module": cast}, partial)
            else:
                save_file(cast, partial)
        except (SafetensorError, RuntimeError) as error:  # e.g. the disk is full
            raise unwritten(path, error) from error
