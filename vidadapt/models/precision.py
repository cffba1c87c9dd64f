"""The number format that a model computes in."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from vidadapt.models.backbone import VideoModel

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class NonFinite(RuntimeError):
    """A loss, a trained tensor or a score is NaN or infinite: the training run diverged."""


def resolved_precision(device: torch.device, precision: Precision) -> Precision:
    """`fp32`, `bf16` or `fp16`; `auto` becomes bf16 where the device computes in it, else fp32."""
    if precision == "auto":
        return "bf16" if _computes_bf16(device) else "fp32"
    return precision


def autocast(device: torch.device, precision: str, remember: bool = True) -> Any:
    """The context for mixed precision on a device; does nothing for `fp32`.

    Args:
        remember: keep copies of trained weights until the context ends.
    """
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, _half(precision), cache_enabled=remember)


def _half(precision: str) -> torch.dtype:
    return torch.bfloat16 if precision == "bf16" else torch.float16


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Measured on AMX, forward and backward: 2.5 (vit_tiny) and 3.2 (vit_base) times fp32's speed.
    # Without these instructions bf16 is emulated, and slower than fp32.
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("amx_bf16") or capabilities.get("avx512_bf16"))


@torch.no_grad()
def cast_frozen(model: VideoModel, device: torch.device, precision: str) -> int:
    """Cast frozen weights in place to the type that autocast gives them at every use.

    autocast keeps its copies of trained weights only, and only until its context ends: frozen
    ones are cast in every forward pass, and again where a part is recomputed. Cast here are those
    that only matrix products and convolutions in that type read (biases included), as observed in
    one forward pass in eval mode. So every result stays the same bit by bit; norms, positions,
    tables and what a method computes with in float32 keep their type.

    Args:
        model: complete, on `device`, with its method applied and the final `requires_grad`; only
            parameters are cast, none that is trained.
        precision: of `autocast`; nothing is done for `fp32`.

    Returns:
        Number of values cast.
    """
    if precision == "fp32":
        return 0
    dtype = _half(precision)
    frozen = {
        id(p): p for p in model.parameters() if not p.requires_grad and p.dtype == torch.float32
    }
    modes = [(module, module.training) for module in model.modules()]
    uses = _Uses(frozen, dtype)
    model.eval()
    try:
        with autocast(device, precision), uses:
            model(torch.zeros(1, *model.clip_shape, device=device))
    finally:
        for module, training in modes:
            module.training = training
    chosen = [frozen[key] for key in uses.cast - uses.other]
    for parameter in chosen:
        parameter.data = parameter.data.to(dtype)
    return sum(parameter.numel() for parameter in chosen)


class _Uses(TorchDispatchMode):
    """Uses of parameters: cast to `dtype`, or something else; both sets hold ids.

    Views and joints of a parameter count as the parameter: a cast gives the same values after them
    as before.
    """

    def __init__(self, parameters: Iterable[int], dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        self.cast: set[int] = set()
        self.other: set[int] = set()
        # id of a tensor -> ids of the parameters that it is made of.
        self.made_of = {key: {key} for key in parameters}
        self.held: list[Tensor] = []  # keeps their ids from being reused

    def __torch_dispatch__(
        self,
        func: Any,
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        found = func(*args, **(kwargs or {}))
        sources = set().union(*(self.made_of.get(id(x), set()) for x in given))
        if not sources:
            return found
        if func is torch.ops.aten._to_copy.default and found.dtype == self.dtype:
            self.cast |= sources
        elif func.is_view or func in _JOINTS:
            for tensor in tree_leaves(found):
                self.made_of[id(tensor)] = sources
                self.held.append(tensor)
        else:
            self.other |= sources
        return found


# zeros_like reads only the type, which must be that of the tensors it is joined to.
_JOINTS = {torch.ops.aten.cat.default, torch.ops.aten.zeros_like.default}
