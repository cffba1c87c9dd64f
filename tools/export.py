"""Export: write a run's model as one plain weights file, its method merged into the backbone."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from vidadapt import data, launching, methods, runs
from vidadapt.config import command_line
from vidadapt.models import VideoModel
from vidadapt.models.plain import LAYOUTS, fold_batchnorm, plain_state, write_plain
from vidadapt.models.vit import VideoViT
from vidadapt.runs import checkpoints
from vidadapt.runs.adapters import load_adapted_model, load_adapter

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}

# Methods that add no tensors to the backbone: there is nothing to merge.
ADD_NOTHING = ("full", "linear", "bitfit")

READOUT = ("fc_norm.", "head.")

DESCRIPTION = (
    __doc__
    + """

Methods that are linear maps (arc, lora, ssf) are merged exactly; full, linear and bitfit have
nothing to merge; the others are refused with the reason.

layouts:
  backbone  all but fc_norm and head, safetensors: model.weights of another run (fresh head)
  vidadapt  and fc_norm and head: also the trained classifier, with models.build(keep_head=True)
  videomae  the same as a .pth file that MCG-NJU/VideoMAE's own fine-tuning code loads
A BatchNorm in front of the linear head is folded into it: use model.head linear with the file."""
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=DESCRIPTION,
        epilog="example: python tools/export.py runs/mine/last merged.pth --layout videomae",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("checkpoint", type=Path, help="folder last or best of a run")
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument("--layout", choices=LAYOUTS, default="backbone", help="default: backbone")
    parser.add_argument("--dtype", choices=DTYPES, default="fp32", help="default: fp32")
    parser.add_argument(
        "--weights", type=Path, help="weights of the backbone; default: the run's model.weights"
    )
    arguments = parser.parse_args(argv)
    dtype = DTYPES[arguments.dtype]
    runs.check_writable("out", arguments.out.absolute().parent)
    change = export(arguments.checkpoint, arguments.out, arguments.layout, dtype, arguments.weights)
    size = arguments.out.stat().st_size / 1e6
    print(f"{arguments.out}: {size:.2f} MB, {arguments.dtype}, layout {arguments.layout}")
    if change is not None:
        print(f"largest change of a logit on random clips: {change:.1e}")


def export(
    checkpoint: Path, out: Path, layout: str, dtype: torch.dtype, weights: Path | None
) -> float | None:
    """Write the file; the largest change of a logit through merging, folding and rounding.

    None where nothing is computed: the backbone of a fully fine-tuned run is copied.

    Raises:
        ValueError: the checkpoint is damaged, its method cannot be merged, the layout cannot hold
            its head or positions, its backbone is no tubelet ViT (but a fully fine-tuned one may be
            of any kind in the layout backbone), or numbers overflow in fp16.
    """
    tensors, about = checkpoints.load_checkpoint(checkpoint)
    name = about["method"]["name"]
    if name == "full" and layout == "backbone":
        backbone = {key: t for key, t in tensors.items() if not key.startswith(READOUT)}
        write_plain(out, backbone, layout, dtype)
        return None
    _check_mergeable(checkpoint, name)
    model = _load(checkpoint, about["format"], weights)
    if not isinstance(model, VideoViT):
        raise ValueError(
            f"{checkpoint}: its backbone is {model.name}, whose merged weights no layout holds; "
            "only tubelet ViTs are exported. In Python, methods.merge(model, name) merges it"
        )
    clips = torch.randn(4, *model.clip_shape, generator=torch.Generator().manual_seed(0))
    before = _logits(model, clips)
    if name in methods.MERGES:
        methods.merge(model, name)
    model.head = fold_batchnorm(model.head)
    state = plain_state(model, layout)
    change = (_logits(model.to(dtype).float(), clips) - before).abs().max().item()
    exact = dtype == torch.float32
    limit = 1e-4 * max(1.0, before.abs().max().item()) if exact else torch.inf
    if not change < limit:  # not a number, too
        raise ValueError(
            f"{checkpoint}: merging changed a logit by {change:.1e}, which is more than rounding"
            f"{'' if exact else '; choose --dtype fp32'}; nothing was written"
        )
    write_plain(out, state, layout, dtype)
    return change


def _check_mergeable(checkpoint: Path, name: str) -> None:
    if name not in methods.MERGES and name not in ADD_NOTHING:
        raise ValueError(
            f"{checkpoint}: method {name} cannot be merged into the backbone: "
            f"{methods.UNMERGEABLE[name]}; keep the adapter beside the backbone"
        )


def _load(checkpoint: Path, format: str, weights: Path | None) -> VideoModel:
    if format != "vidadapt-adapter-1":
        return load_adapter(checkpoint, weights=weights)[0]
    # The first format does not stand alone: the run's config.yaml has the rest.
    given = [] if weights is None else ["--model.weights", str(weights)]
    run = ["--run_dir", str(checkpoint.parent), *given]
    config, _ = command_line.parse_evaluate(run, methods.METHODS)
    assert config is not None
    return load_adapted_model(config, data.resolve(config.data, config.eval), checkpoint)


@torch.no_grad()
def _logits(model: VideoViT, clips: Tensor) -> Tensor:
    return model.eval()(clips)


if __name__ == "__main__":
    launching.alone(main)
