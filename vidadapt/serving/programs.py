"""Write a model as a program: one file that other software runs without this package.

A program takes uint8 clips, as frames of a video are, and gives logits; it normalises them itself.
Any number of clips is a batch.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vidadapt.config import ConfigError
from vidadapt.data import NORMALIZATIONS
from vidadapt.models import VideoModel

EXTRA = "vidadapt[export]"
INPUT, OUTPUT = "clips", "logits"
LARGEST_ONNX = 2**31 - 2**20  # bytes; a protobuf file holds no more
TRACED = 2  # clips; torch keeps batches of 0 and 1 as constants

Run = Callable[[Tensor], Tensor]  # uint8 clips (B, 3, T, S, S) -> logits (B, K) float32


class FromPixels(nn.Module):
    """uint8 clips (B, 3, T, S, S) RGB to logits (B, K) float32: what a program computes.

    Args:
        model: in eval mode; it computes in the type of its parameters.
        normalization: key of `NORMALIZATIONS`.
    """

    scale: Tensor
    offset: Tensor

    def __init__(self, model: VideoModel, normalization: str) -> None:
        super().__init__()
        mean, std = torch.tensor(NORMALIZATIONS[normalization], dtype=torch.float64)
        self.model = model
        self.register_buffer("scale", (1 / (255 * std)).float().view(3, 1, 1, 1))
        self.register_buffer("offset", (-mean / std).float().view(3, 1, 1, 1))

    def forward(self, clips: Tensor) -> Tensor:
        pixels = clips.float() * self.scale + self.offset
        dtype = next(self.model.parameters()).dtype
        # Without the hooks of a loaded adapter, which look at values.
        return self.model.forward(pixels.to(dtype)).float()


@dataclass(frozen=True)
class Format:
    """One kind of program.

    Attributes:
        ending: of its files.
        title: in a few words.
        dtypes: of the weights that it may hold; the first is the default.
        needs: modules beside torch that write or run it.
        write: writes the model's program for clips like these to a path, in a dtype.
        load: returns what runs the program in a file, on the CPU.
    """

    ending: str
    title: str
    dtypes: tuple[str, ...]
    needs: tuple[str, ...]
    write: Callable[[FromPixels, Tensor, Path, str], None]
    load: Callable[[Path], Run]

    def versions(self) -> dict[str, str]:
        """Versions of torch and of the modules that were used."""
        return {name: str(import_module(name).__version__) for name in ("torch", *self.needs)}


def require_format(name: str, dtype: str) -> Format:
    """Return a format, if it holds such weights and its packages are installed.

    Raises:
        ConfigError: it does not hold them.
        ImportError: a package is missing.
    """
    found = FORMATS[name]
    if dtype not in found.dtypes:
        raise ConfigError(
            f"--dtype: {dtype} is not for --format {name}, which holds {', '.join(found.dtypes)}"
        )
    for module in found.needs:  # onnxruntime comes in packages of several names
        if find_spec(module) is None:
            raise ImportError(
                f"--format {name}: needs {module}, which is not installed: pip install '{EXTRA}'"
            )
    return found


def _exported(program: FromPixels, clips: Tensor) -> Any:
    """Export the graph for any batch, without the paths of source files."""
    batch = torch.export.Dim("batch", min=1)
    found = torch.export.export(program, (clips[:TRACED],), dynamic_shapes=({0: batch},))
    for node in found.graph.nodes:
        node.meta.pop("stack_trace", None)
    return found


def _write_torch_export(program: FromPixels, clips: Tensor, path: Path, dtype: str) -> None:
    _cast(program, dtype)
    with _quiet():
        torch.export.save(_exported(program, clips), path)


def _load_torch_export(path: Path) -> Run:
    with _quiet():
        return torch.export.load(path).module()


def _write_torchscript(program: FromPixels, clips: Tensor, path: Path, dtype: str) -> None:
    _cast(program, dtype)
    buffer = io.BytesIO()
    with _quiet():  # scripting knows neither einops nor the modules that methods put in
        torch.jit.save(torch.jit.trace(program, (clips[:TRACED],), check_trace=False), buffer)
    with zipfile.ZipFile(buffer) as whole, zipfile.ZipFile(path, "w") as kept:
        for entry in whole.infolist():
            if not entry.filename.endswith(".debug_pkl"):  # source lines, with their files' paths
                kept.writestr(entry, whole.read(entry))


def _load_torchscript(path: Path) -> Run:
    with _quiet():
        return torch.jit.load(str(path))


def _write_onnx(program: FromPixels, clips: Tensor, path: Path, dtype: str) -> None:
    """Write ONNX; int8: weights of the linear layers in 8 bit, one scale a channel.

    Raises:
        ConfigError: the model does not fit into one file.
    """
    _cast(program, dtype)
    size = sum(t.numel() * t.element_size() for t in program.state_dict().values())
    if size > LARGEST_ONNX:
        raise ConfigError(
            f"--format onnx: the model has {size / 1e9:.1f} GB, and one ONNX file holds 2; choose "
            "--format torch_export" + (", or --dtype fp16" if dtype == "fp32" else "")
        )
    whole = path.with_name(f"{path.name}.fp32") if dtype == "int8" else path
    with _quiet():
        graph = torch.onnx.export(
            _exported(program, clips), dynamo=True, input_names=[INPUT], output_names=[OUTPUT]
        )
        assert graph is not None
        for node in graph.model.graph.all_nodes():
            node.metadata_props.clear()  # source lines
        graph.save(whole)
        if dtype == "int8":
            from onnxruntime import quantization

            try:
                quantization.quantize_dynamic(
                    whole, path, weight_type=quantization.QuantType.QInt8, per_channel=True
                )
            finally:
                whole.unlink()


def _load_onnx(path: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def run(clips: Tensor) -> Tensor:
        found: list[np.ndarray] = session.run([OUTPUT], {INPUT: clips.contiguous().numpy()})
        return torch.from_numpy(found[0])

    return run


def opset_of(path: Path) -> int:
    """Return the version of ONNX's operators in a file."""
    import onnx

    return int(onnx.load(path, load_external_data=False).opset_import[0].version)


def _cast(program: FromPixels, dtype: str) -> None:
    if dtype == "fp16":
        program.model.half()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters' own progress and warnings away; their errors are raised."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


_TORCH = ("fp32", "fp16")
FORMATS = {
    "torch_export": Format(
        ".pt2", "torch.export", _TORCH, (), _write_torch_export, _load_torch_export
    ),
    "onnx": Format(
        ".onnx", "ONNX", (*_TORCH, "int8"), ("onnx", "onnxscript", "onnxruntime"), _write_onnx,
        _load_onnx,
    ),
    "torchscript": Format(
        ".pt", "traced TorchScript", _TORCH, (), _write_torchscript, _load_torchscript
    ),
}  # fmt: skip
