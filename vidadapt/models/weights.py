"""Checkpoint files of several families to this package's parameter names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn


@dataclass(frozen=True)
class LoadReport:
    """What was taken from a weights file and what was not."""

    path: Path
    family: str


def load_weights(model: nn.Module, path: Path, *, keep_head: bool = False) -> LoadReport:
    """Load `path` into `model`, strictly."""
    raise NotImplementedError("weights files cannot be loaded yet")


def backbone_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors that make a backbone (patch embedding and blocks), by name, not copied."""
    state = model.state_dict()
    return {k: v for k, v in state.items() if k.startswith(("patch_embed.", "blocks."))}


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over the backbone's tensors: sorted names, shapes and float32 bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(backbone_state(model).items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
