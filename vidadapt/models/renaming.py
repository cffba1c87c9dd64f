"""Rename the tensors of a file, and join those that we hold as one."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

import torch

from vidadapt.models.coverage import State


def by_patterns(patterns: Mapping[str, str]) -> Callable[[str], str]:
    """Rename by all of these substitutions, one after the other."""

    def ours(name: str) -> str:
        for pattern, replacement in patterns.items():
            name = re.sub(pattern, replacement, name)
        return name

    return ours


def renamed(state: State, rename: Callable[[str], str]) -> State:
    """Return the tensors under other names.

    Raises:
        ValueError: two of them would have the same name.
    """
    found = {rename(name): tensor for name, tensor in state.items()}
    if len(found) != len(state):
        raise ValueError("two tensors of the file have the same name but for a prefix")
    return found


def fuse_qkv(state: State) -> State:
    """Join `attn.{q,k,v}_proj.weight` (D, D) to `attn.qkv.weight` (3 D, D), in this order.

    Biases of these names likewise.
    """
    parted = re.compile(r"\.attn\.[qkv]_proj\.(weight|bias)$")
    fused = {k: v for k, v in state.items() if not parted.search(k)}
    for name in [k for k in state if re.search(r"\.attn\.q_proj\.(weight|bias)$", k)]:
        parts = [name.replace("q_proj", part) for part in ("q_proj", "k_proj", "v_proj")]
        if all(part in state for part in parts):
            types = {str(state[part].dtype) for part in parts}
            if len(types) > 1:  # torch would widen one of them
                raise ValueError(f"{', '.join(parts)} are of different types: {sorted(types)}")
            fused[name.replace("q_proj", "qkv")] = torch.cat([state[part] for part in parts])
    return fused
