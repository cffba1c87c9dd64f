"""Export: write the backbone of a fully fine-tuned run as one weights file."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from vidadapt import runs
from vidadapt.models.weights import BACKBONE

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__ + " Head and fc_norm stay behind; --model.weights takes the file.",
        epilog="example: python tools/export.py runs/mine/last backbone.safetensors --dtype fp16",
    )
    parser.add_argument("checkpoint", type=Path, help="folder last or best of a run")
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="default: fp32")
    arguments = parser.parse_args(argv)
    try:
        size = export(arguments.checkpoint, arguments.out, DTYPES[arguments.dtype])
    except (ValueError, OSError) as error:
        sys.exit(f"export: {error}")
    print(f"{arguments.out}: {size / 1e6:.2f} MB, {arguments.dtype}")


def export(checkpoint: Path, out: Path, dtype: torch.dtype) -> int:
    """Write the backbone; the number of bytes.

    Raises:
        ValueError: the checkpoint is damaged, or its method trained only a part of the backbone.
    """
    tensors, about = runs.load_checkpoint(checkpoint)
    if about["method"]["name"] != "full":
        raise ValueError(
            f"{checkpoint}: holds what method {about['method']['name']} trained, not a whole "
            "backbone; only runs with method.name full can be exported"
        )
    backbone = {name: t.to(dtype) for name, t in tensors.items() if name.startswith(BACKBONE)}
    temporary = out.with_name(out.name + ".tmp")
    save_file(backbone, temporary)
    temporary.replace(out)
    return out.stat().st_size


if __name__ == "__main__":
    main()
