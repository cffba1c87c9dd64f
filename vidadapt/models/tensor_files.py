"""Reading a checkpoint file as plain tensors, without running any code that it may carry."""

from __future__ import annotations

import argparse
import pickle
import re
import shlex
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

# The entry of a training checkpoint that holds the model: DeepSpeed, VideoMAE, Lightning and kin.
MODEL_KEYS = ("model", "module", "state_dict")


def read_tensors(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """The model's tensors in a file, by name, and the top key they were under (none: no top key).

    The format is found from the content: safetensors, or a `torch.save` file, which is read with
    `weights_only=True`.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a folder, a truncated or foreign file, objects that are refused, no tensors.
    """
    if not path.exists():
        raise FileNotFoundError(f"weights file {path} does not exist")
    if path.is_dir():
        raise ValueError(f"{path} is a folder; name the weights file inside it")
    with path.open("rb") as file:
        start = file.read(9)
    if start[8:9] == b"{":  # eight bytes of header length, then JSON
        try:
            return load_file(path), None
        except SafetensorError as error:
            raise _unreadable(path, "safetensors file", error) from error
    return _model_entry(path, _torch_load(path))


def _torch_load(path: Path) -> Any:
    if _is_torchscript(path):
        raise ValueError(_refusal(path, ["a TorchScript program"], SCRIPTED))
    # The official VideoMAE files carry their command line.
    with torch.serialization.safe_globals([argparse.Namespace]):
        try:
            # Mapped, so that an optimiser's state is never read; only the zip format can be.
            mapped = zipfile.is_zipfile(path)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as error:
            refused = re.findall(r"GLOBAL ([\w.]+)", str(error))
            if not refused:
                raise _unreadable(path, "torch file", error) from error
            if zipfile.is_zipfile(path):
                refused = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            raise ValueError(_refusal(path, sorted(set(refused)), PICKLED)) from error
        except Exception as error:  # a damaged file makes the unpickler fail in any way
            raise _unreadable(path, "torch file", error) from error


def _is_torchscript(path: Path) -> bool:
    """Whether a file is a compiled program with its tensors, as OpenAI publishes CLIP."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


# How to take the tensors (m) out of a file whose reading runs code.
PICKLED = (
    "c = torch.load(sys.argv[1], map_location='cpu', weights_only=False); "
    f"m = next((c[k] for k in {MODEL_KEYS} if k in c), c); "
)
SCRIPTED = "m = torch.jit.load(sys.argv[1], map_location='cpu').state_dict(); "


def _refusal(path: Path, names: list[str], take: str) -> str:
    target = path.with_name(f"{path.stem}_tensors.pth")
    script = f"import sys, torch; {take}torch.save({{'model': dict(m)}}, sys.argv[2])"
    command = f'python -c "{script}" {shlex.quote(str(path))} {shlex.quote(str(target))}'
    return (
        f"{path} holds objects other than tensors, which are not loaded because unpickling them "
        f"can run code: {', '.join(names)}. If you trust whoever made the file, take the tensors "
        f"out of it with\n  {command}\nand load {target}"
    )


def _unreadable(path: Path, kind: str, error: Exception) -> ValueError:
    cause = str(error).splitlines()[0] if str(error) else type(error).__name__
    return ValueError(
        f"{path} ({path.stat().st_size} bytes) cannot be read as a {kind}: truncated, corrupt or "
        f"not a weights file; fetch it again ({cause})"
    )


def _model_entry(path: Path, content: Any) -> tuple[dict[str, Tensor], str | None]:
    key = None
    if isinstance(content, dict):
        key = next((k for k in MODEL_KEYS if isinstance(content.get(k), dict)), None)
    state = content if key is None else content[key]
    if isinstance(state, dict) and any(isinstance(v, Tensor) for v in state.values()):
        return {str(k): v for k, v in state.items() if isinstance(v, Tensor)}, key
    found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content).__name__
    raise ValueError(
        f"{path} holds no model: expected named tensors, at the top or under one of "
        f"{', '.join(MODEL_KEYS)}; found {found}"
    )
