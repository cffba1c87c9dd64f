"""Export: write a run's model for other software, as plain weights or as a program."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

from vidadapt import config, launching, runs
from vidadapt.models import LAYOUTS
from vidadapt.serving import FORMATS, description_of, export, export_program

DTYPES = {"fp32": torch.float32, "fp16": torch.float16}
WEIGHTS = "safetensors"

DESCRIPTION = (
    __doc__
    + """

formats:
  safetensors   the weights alone, in one of the layouts below
  torch_export  a program that torch runs without vidadapt (.pt2)
  onnx          a program for onnxruntime and others (.onnx)
  torchscript   a traced program, for C++ and older torch (.pt)
A program takes uint8 clips of any batch size and gives logits. It is compared with the model on
clips of the run's videos (--videos) before it gets its name; OUT.json beside it says what goes in
and out, how frames are chosen and resized, the labels, and how much the logits differ.

Weights: methods that are linear maps (arc, lora, ssf) are merged exactly; full, linear and bitfit
have nothing to merge; the others are refused with the reason. In programs they are kept as they
are.

layouts of weights:
  backbone  all but fc_norm and head, safetensors: model.weights of another run (fresh head)
  vidadapt  and fc_norm and head: also the trained classifier, with models.build(keep_head=True)
  videomae  the same as a .pth file that MCG-NJU/VideoMAE's own fine-tuning code loads
  huggingface  a folder that transformers loads: VideoMAEForVideoClassification of a tubelet ViT
            with a linear head, VJEPA2ForVideoClassification of V-JEPA 2 with vjepa_attentive
A BatchNorm in front of the linear head is folded into it: use model.head linear with the file."""
)
EPILOG = """examples:
  vidadapt export runs/mine merged.pth --layout videomae
  vidadapt export runs/mine mine.onnx --format onnx
  vidadapt export runs/mine mine_int8.onnx --format onnx --dtype int8 --videos VIDEOS/"""


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read the options of the command line."""
    parser = argparse.ArgumentParser(
        prog="vidadapt export",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "checkpoint",
        help="a run's folder (its best, else its last), one of these, its URL in a store, or "
        "hub:OWNER/NAME",
    )
    parser.add_argument("out", type=Path, help="file to write; of huggingface, the folder")
    parser.add_argument(
        "--format", choices=(WEIGHTS, *FORMATS), default=WEIGHTS, help=f"default: {WEIGHTS}"
    )
    parser.add_argument("--layout", choices=LAYOUTS, help="of safetensors; default: backbone")
    parser.add_argument(
        "--dtype", choices=(*DTYPES, "int8"), default="fp32",
        help="default: fp32; int8, of onnx: weights of linear layers",
    )  # fmt: skip
    parser.add_argument(
        "--videos", nargs="+", default=[], metavar="PATH",
        help="files, folders or lists on which a program is compared; default: the run's own",
    )  # fmt: skip
    parser.add_argument(
        "--weights", type=Path, help="weights of the backbone; default: the run's model.weights"
    )
    parser.add_argument(config.plugins.OPTION, metavar="MODULES", help=config.plugins.HELP)
    words = config.spelt(sys.argv[1:] if argv is None else argv)
    config.import_plugins(words)
    options = parser.parse_args(words)
    if options.format == WEIGHTS and options.dtype not in DTYPES:
        parser.error(f"--dtype: {options.dtype} is for --format onnx")
    other = next((name for name, of in FORMATS.items() if of.ending == options.out.suffix), None)
    if options.format == WEIGHTS and other not in (None, "torchscript"):
        parser.error(f"out: {options.out.name} is no file of {WEIGHTS}; add --format {other}")
    if options.out.is_dir() and options.layout != "huggingface":
        parser.error(f"out: {options.out} is a folder; name a file")
    if options.format == WEIGHTS and options.videos:
        parser.error("--videos: is for programs; weights are compared on random clips")
    if options.format != WEIGHTS and options.layout is not None:
        parser.error(f"--layout: is for --format {WEIGHTS}; leave it out")
    return options


def main(argv: list[str] | None = None) -> None:
    """Export as the arguments say."""
    options = parse(argv)
    runs.check_writable("out", options.out.absolute().parent)
    if options.format == WEIGHTS:
        _export_weights(options)
        return
    about = export_program(
        *(options.checkpoint, options.out, options.format, options.dtype),
        weights=options.weights,
        videos=options.videos,
    )
    found, size = about["compared"], about["program"]["bytes"] / 1e6
    print(f"{options.out}: {size:.2f} MB, {options.dtype}, {FORMATS[options.format].title}")
    print(
        f"compared with the model on {found['clips']} clips ({found['of']}): logits differ by at "
        f"most {found['largest_difference']:.1e}, the best class is the same in "
        f"{found['same_top1']}"
    )
    print(f"how to use it: {description_of(options.out)}")


def _export_weights(options: argparse.Namespace) -> None:
    layout = options.layout or "backbone"
    change = export(options.checkpoint, options.out, layout, DTYPES[options.dtype], options.weights)
    out: Path = options.out
    written = out / "model.safetensors" if layout == "huggingface" else out
    size = written.stat().st_size / 1e6
    print(f"{options.out}: {size:.2f} MB, {options.dtype}, layout {layout}")
    if change is not None:
        print(f"largest change of a logit on random clips: {change:.1e}")


def run() -> None:
    """Run this process's command line."""
    launching.alone(main)
