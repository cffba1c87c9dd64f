"""Read a checkpoint file as plain tensors, without running any code that it may hold."""

from __future__ import annotations

import argparse
import pickle
import re
import shlex
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vidadapt.console import printable
from vidadapt.files import members_of, require_stored
from vidadapt.hub import FILES
from vidadapt.models.coverage import State, listed
from vidadapt.models.shards import INDEX, shards_of

# The entry of a training checkpoint that holds the model: DeepSpeed, VideoMAE, Lightning, others.
MODEL_KEYS = ("model", "module", "state_dict")

PROBES = "classifiers."  # entries of V-JEPA 2's files of probes, see `probe_file`

# Tensors may share values (tied weights), but not claim many times the bytes of their file.
MOST_REPEATED = 4


@dataclass(frozen=True)
class TensorFile:
    """The model's tensors in a file.

    Attributes:
        path: the file, or the index of several files.
        tensors: by name.
        key: the entry of the file that held them; None: they were at the top.
        others: entries that hold tensors of the same names, e.g. an average of the weights.
    """

    path: Path
    tensors: State
    key: str | None = None
    others: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        """For a report: the entry that was taken."""
        return f", under `{self.key}`" if self.key else ""

    @property
    def notes(self) -> tuple[str, ...]:
        """For a report: the entries that were not taken."""
        if not self.others:
            return ()
        names = ", ".join(f"`{name}`" for name in self.others)
        return (f"the file also holds {names}, not taken; model.weights_key chooses",)


def read_tensors(
    path: Path,
    key: str | None = None,
    usual: Sequence[str] = MODEL_KEYS,
    option: str = "model.weights_key",
) -> TensorFile:
    """The model's tensors in a file, in the files of an index, or in a folder with one of `FILES`.

    The format is found from the content: safetensors, an index of several files, or a `torch.save`
    file, which is read with `weights_only=True`.

    Args:
        key: entry of the file to take, `NAME.0` for the first of a list; default: the first of
            `usual`, else the top.
        usual: entries that hold the model in files of its family.
        option: that gives `key`, for messages.

    Raises:
        FileNotFoundError: no such file, or one that an index names is missing.
        ValueError: a folder without a model, a truncated or foreign file, objects that are refused,
            no tensors, no such entry, or tensors without plain values.
    """
    path = model_file(path)
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(9)
    if start[:1] == b"{" and int.from_bytes(start[:8], "little") > size:  # JSON, not a length
        found = TensorFile(path, _from_shards(path))
    else:
        found = _read_one(path, start, key, usual, option)
        _require_plain(found, size)
    if key is not None and found.key is None:
        raise ValueError(
            f"{option}: {path} holds its tensors at the top, under no key; leave {key!r} out"
        )
    return found


def model_file(path: Path) -> Path:
    """The file that a path names: itself, or the first of `FILES` in a folder.

    Raises:
        FileNotFoundError, ValueError: see `read_tensors`.
    """
    if not path.exists():
        raise FileNotFoundError(f"weights file {path} does not exist")
    if path.is_dir():
        found = next((path / name for name in FILES if (path / name).is_file()), None)
        if found is None:
            raise ValueError(
                f"{path} is a folder without {', '.join(FILES)}; name the weights file inside it"
            )
        path = found
    if not path.is_file():
        raise ValueError(f"{path} is no file, but a device or a pipe")
    _refuse_part(path)
    return path


def _refuse_part(path: Path) -> None:
    part = re.fullmatch(r"(.+)-\d{5}-of-\d{5}(\.\w+)", path.name)
    if part and (index := path.with_name(f"{part[1]}{part[2]}{INDEX}")).is_file():
        raise ValueError(f"{path} is one part of a model; give its index, {index}")


def _from_shards(index: Path) -> State:
    tensors: State = {}
    for shard, names in shards_of(index).items():
        path = index.with_name(shard)
        if not path.is_file():
            raise FileNotFoundError(
                f"{index} names the file {shard}, which is not beside it; fetch it, too"
            )
        with path.open("rb") as file:
            start = file.read(9)
        found = _read_one(path, start, None, MODEL_KEYS, "model.weights_key")
        _require_plain(found, path.stat().st_size)
        for what, differing in (
            ("lacks", [name for name in names if name not in found.tensors]),
            ("holds, against it,", sorted(found.tensors.keys() - set(names))),
        ):
            if differing:
                raise ValueError(
                    f"{path} {what} {printable(listed(differing))}: it is not of the model of "
                    f"{index}, or damaged; fetch both again"
                )
        tensors |= found.tensors
    return tensors


def _read_one(
    path: Path, start: bytes, key: str | None, usual: Sequence[str], option: str
) -> TensorFile:
    if start[8:9] != b"{":  # eight bytes of header length, then JSON
        return _model_entry(path, _torch_load(path), key, usual, option)
    try:
        return TensorFile(path, load_file(path))
    except Exception as error:  # SafetensorError, or a type that torch does not have
        raise _unreadable(path, "safetensors file", error) from error


class _Ignored:
    """Stands for numpy objects of a file, whose values are not used."""

    def __init__(self, *args: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


def _numpy_names() -> list[str]:
    """Pickled names of numbers, arrays and types of numpy 1 and 2."""
    types = {cls for cls in np.sctypeDict.values() if issubclass(cls, np.generic)}
    dtypes = {type(np.dtype(cls)) for cls in types}
    functions = ("scalar", "_reconstruct")
    return [
        *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in functions),
        *("numpy.dtype", "numpy.ndarray", "numpy.bool_", "numpy.str", "numpy.bool"),
        *(f"{cls.__module__}.{cls.__name__}" for cls in types | dtypes),
    ]


# The official VideoMAE files carry their command line, and rates of numpy's type.
HARMLESS: list[Any] = [argparse.Namespace, *((_Ignored, name) for name in _numpy_names())]


def _torch_load(path: Path) -> Any:
    zipped = zipfile.is_zipfile(path)
    if zipped:
        if any(member.filename.endswith("/constants.pkl") for member in members_of(path)):
            # A compiled program with its tensors, as OpenAI publishes CLIP.
            raise ValueError(_refusal(path, ["a TorchScript program"], SCRIPTED))
        require_stored(path)
    with torch.serialization.safe_globals(HARMLESS):
        try:
            # Mapped, so that an optimiser's state is never read; only zip files can be mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
        except pickle.UnpicklingError as error:
            refused = re.findall(r"GLOBAL ([\w.]+)", str(error))
            if not refused:
                raise _unreadable(path, "torch file", error) from error
            if zipped:
                refused = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            raise ValueError(_refusal(path, sorted(set(refused)), PICKLED)) from error
        except Exception as error:  # a damaged file makes the unpickler fail in any way
            raise _unreadable(path, "torch file", error) from error


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
    cause = printable(str(error).splitlines()[0]) if str(error) else type(error).__name__
    if "weights_only" in cause:  # torch's advice is to run whatever code the file holds
        cause = "no tensors in it"
    return ValueError(
        f"{path} ({path.stat().st_size} bytes) cannot be read as a {kind}: truncated, corrupt or "
        f"not a weights file; fetch it again ({cause})"
    )


def _model_entry(
    path: Path, content: Any, key: str | None, usual: Sequence[str], option: str
) -> TensorFile:
    entries = {name: _named_tensors(value) for name, value in _entries(content)}
    entries = {name: tensors for name, tensors in entries.items() if tensors}
    keys = [name for name in entries if name]
    if key is None:
        key = next((name for name in (*usual, "") if name in entries), None)
    elif key not in keys:
        raise ValueError(
            f"{option}: {path} has no entry {key!r} with named tensors; it has "
            f"{printable(listed(keys)) or 'none'}"
        )
    if key is None:
        found = ", ".join(map(str, content)) if isinstance(content, dict) else type(content)
        advice = f"; {option} chooses {printable(' or '.join(keys))}" if keys else ""
        if any(name.startswith(PROBES) for name in keys):
            advice = (
                "; it is a file of probes, which is for model.head_weights, beside the encoder's "
                "file as model.weights"
            )
        raise ValueError(
            f"{path} holds no model: expected named tensors, at the top or under one of "
            f"{', '.join(usual)}; found {printable(str(found))}{advice}"
        )
    taken = entries[key]
    names = {name.removeprefix("module.") for name in taken}
    others = [
        name
        for name in keys
        if name != key and names & {other.removeprefix("module.") for other in entries[name]}
    ]
    return TensorFile(path, taken, key or None, tuple(others))


def _entries(content: Any) -> Iterator[tuple[str, Any]]:
    """What may hold the model, with its name: all of the file, its parts, those of its lists."""
    if not isinstance(content, dict):
        return
    yield "", content
    for name, value in content.items():
        if isinstance(value, list):
            yield from ((f"{name}.{number}", one) for number, one in enumerate(value))
        else:
            yield str(name), value


def _named_tensors(entry: Any) -> State:
    if not isinstance(entry, dict):
        return {}
    return {str(name): value for name, value in entry.items() if isinstance(value, Tensor)}


def _require_plain(file: TensorFile, size: int) -> None:
    """Refuse tensors without plain values of their own, before they are used.

    Args:
        size: bytes of the file.
    """
    odd = [f"{name} is {kind}" for name, t in file.tensors.items() if (kind := _kind(t))]
    if odd:
        raise ValueError(
            f"{file.path}: expected plain tensors, but {printable(listed(odd))}; save the model "
            "anew with its values in float16, bfloat16 or float32"
        )
    promised = sum(tensor.nbytes for tensor in file.tensors.values())
    if promised > MOST_REPEATED * size:
        raise ValueError(
            f"{file.path}: its tensors repeat their values: {promised:,} bytes from a file of "
            f"{size:,}; save the model anew, with every tensor contiguous"
        )


def _kind(tensor: Tensor) -> str:
    """The reason why a tensor does not hold plain values; empty: it does."""
    if tensor.is_meta:
        return "a meta tensor, without values"
    if tensor.layout != torch.strided or tensor.is_nested:
        return "sparse or nested"
    if tensor.is_quantized:
        return "quantised"
    return "" if type(tensor) in (Tensor, nn.Parameter) else f"of class {type(tensor).__name__}"
