"""Export a run's model as a program that was compared with the model itself on clips of videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vidadapt import data, methods
from vidadapt.config import ConfigError, parse_evaluate
from vidadapt.data import NORMALIZATIONS, DataPlan
from vidadapt.files import absolute, checksum, is_url, joined, replaced, write_json
from vidadapt.lists import read_list
from vidadapt.models import fold_batchnorm
from vidadapt.runs import SavedAdapter, adapters
from vidadapt.serving.given import find_videos
from vidadapt.serving.programs import INPUT, OUTPUT, FromPixels, Run, opset_of, require_format
from vidadapt.video import ReadError

MOST_COMPARED = 24  # clips
BATCHES = (1, 3, 8)
LIMIT = 1e-4  # of a logit in fp32, or of the largest one where that is above 1
# Where frames_a_second is not null, n and the frames are those of the video as it is shown at that
# rate: its frame k is the one shown at k / rate seconds.
RULES = {
    "uniform": "frame i of T in a video of n frames: (2 i + 1) * n // (2 T)",
    "dense": "frames of the grid 0, stride, 2 stride, ...: T in a row, the first one at place "
    "max(ceil(n / stride) - T, 0) // 2 of the grid; past its end the last one repeats",
    "segments": "see vidadapt/data/sampling.py",
}


def export_program(
    checkpoint: str | Path,
    out: Path,
    format: str,
    dtype: str = "fp32",
    weights: str | Path | None = None,
    videos: Sequence[str] = (),
) -> dict[str, Any]:
    """Write a run's model as a program, and what is needed to use it as JSON beside it.

    Linear methods are merged into the backbone; others stay in the program as they are. The program
    is loaded again and compared with the model, in batches of 1, 3 and 8, before it gets its name.

    Args:
        checkpoint: see `adapters.find_adapter`.
        out: file, with the ending of the format.
        format: key of `programs.FORMATS`.
        dtype: `fp32`, `fp16`, or `int8` (ONNX; weights of linear layers).
        weights: of the backbone, see `adapters.load_adapter`.
        videos: files, folders and lists whose clips are compared; default: those of the run's
            development list, else of its test list, where they are there; else random clips.

    Returns:
        The content of OUT.json.

    Raises:
        ValueError: a format, type or ending that do not go together, a damaged checkpoint, or a
            program that differs from the model by more than rounding in fp32; nothing is written.
        ReadError: a video that cannot be read.
        ImportError: a package is missing.
    """
    kind = require_format(format, dtype)
    if out.suffix != kind.ending:
        raise ConfigError(f"out: a file of --format {format} ends in {kind.ending}, not {out.name}")
    model, adapter = adapters.load_adapter(
        adapters.find_adapter(checkpoint, "checkpoint"), weights=weights
    )
    clips, source = _clips(adapter, videos)
    distinct = len(clips)
    clips = clips[torch.arange(max(distinct, *BATCHES)) % distinct]  # for every size of batch
    program = FromPixels(model, adapter.plan.normalization).eval().requires_grad_(False)
    wanted = _in_batches(program, clips)
    name = adapter.config.method["name"]
    if name in methods.MERGES:
        methods.merge(model, name)
    model.head = fold_batchnorm(model.head)
    with torch.no_grad(), replaced(out) as partial:
        kind.write(program, clips, partial, dtype)
        change, agree = _compared(kind.load(partial), clips, wanted, distinct)
        limit = LIMIT * max(1.0, wanted.abs().max().item()) if dtype == "fp32" else torch.inf
        if not change < limit:  # not a number, too
            raise ValueError(
                f"{out}: the program's logits differ from the model's by up to {change:.1e}, "
                f"which is more than rounding{'' if dtype == 'fp32' else '; choose --dtype fp32'}; "
                "nothing was written"
            )
        description_of(out).unlink(missing_ok=True)  # of an earlier program
        opset = {"opset": opset_of(partial)} if format == "onnx" else {}
    about = {
        "program": {"file": out.name, "sha256": checksum(out), "bytes": out.stat().st_size},
        "format": format,
        "dtype": dtype,
        **opset,
        "written_with": kind.versions(),
        **_interface(adapter),
        "preprocessing": preprocessing(adapter.plan),
        "method": {"name": name, "merged": name in methods.MERGES},
        "backbone": adapter.config.model.backbone,
        "compared": {
            "clips": distinct,
            "of": source,
            "batches": list(BATCHES),
            "largest_difference": change,
            "same_top1": agree,
        },
    }
    write_json(description_of(out), about)
    return about


def description_of(out: Path) -> Path:
    """Return the path of the JSON beside a program."""
    return out.with_name(f"{out.name}.json")


def preprocessing(plan: DataPlan) -> dict[str, Any]:
    """Say how a video becomes the clip that a program takes: its middle clip and crop."""
    sampling, framing, side = plan.sampling, plan.framing, plan.crop_size
    mean, std = NORMALIZATIONS[plan.normalization]
    squash = framing.fit == "squash"
    return {
        "frames": {
            "policy": sampling.policy,
            "num_frames": sampling.num_frames,
            "stride": sampling.stride,
            "frames_a_second": sampling.fps,
            "rule": RULES[sampling.policy],
        },
        "resize": {
            "to": [side, side] if squash else {"short_side": framing.resize or side},
            "interpolation": framing.interpolation,
            "antialias": True,
        },
        "crop": {"height": side, "width": side, "place": "centre"},
        "normalisation": {"by": "the program", "mean": list(mean), "std": list(std)},
        "views_of_evaluation": {"num_clips": plan.num_clips, "num_crops": plan.num_crops},
    }


def _interface(adapter: SavedAdapter) -> dict[str, Any]:
    """Say what goes in and what comes out."""
    plan = adapter.plan
    side, frames = plan.crop_size, plan.sampling.num_frames
    return {
        "input": {
            "name": INPUT,
            "dtype": "uint8",
            "shape": ["batch", 3, frames, side, side],
            "holds": "RGB, 0 to 255; channel, frame, row, column",
        },
        "output": {
            "name": OUTPUT,
            "dtype": "float32",
            "shape": ["batch", plan.num_classes],
            "probabilities": "sigmoid" if plan.multi_label else "softmax",
        },
        "labels": list(adapter.labels),
    }


def _clips(adapter: SavedAdapter, videos: Sequence[str]) -> tuple[Tensor, str]:
    """Clips (B, 3, T, S, S) uint8 to compare, and where they are from.

    Raises:
        ReadError: one of `videos` cannot be read.
    """
    plan, reader = adapter.plan, adapter.config.data.reader
    found = [video.path for video in find_videos(videos)] if videos else _videos_of_run(adapter)
    places = np.unique(np.linspace(0, len(found) - 1, MOST_COMPARED).astype(int)) if found else ()
    chosen = [absolute(found[place]) for place in places]
    facts = data.count_files(chosen, reader) if chosen else {}
    broken = [facts[path].error for path in chosen if facts[path].error]
    if videos and broken:
        raise ReadError(f"--videos: {broken[0]}; leave it out, or give others")
    readable = [path for path in chosen if not facts[path].error]
    if readable:
        lost = f"; {len(broken)} others cannot be read" if broken else ""
        source = "given videos" if videos else f"videos of the run's list{lost}"
        return data.centre_clips(readable, plan, reader), source
    shape = 8, 3, plan.sampling.num_frames, plan.crop_size, plan.crop_size
    values = torch.randint(256, shape, generator=torch.Generator().manual_seed(0))
    return values.byte(), "random values: no video of the run's lists is there; --videos takes some"


def _videos_of_run(adapter: SavedAdapter) -> list[str]:
    """Files of the run's development list, else of its test list; none where one is missing."""
    run = adapter.folder.parent
    if not (run / "config.yaml").is_file():
        return []
    config, _ = parse_evaluate(["--run_dir", str(run)], methods.METHODS)
    assert config is not None
    of, plan = config.data, adapter.plan
    path = of.dev_list or of.test_list
    if path is None or not Path(path).is_file() or of.root is None:
        return []
    samples = read_list(
        path, of.root, plan.num_classes, of.allow_outside_root, multi_label=plan.multi_label
    )
    files = [joined(of.root, sample.path) for sample in samples]
    return files if all(is_url(file) or Path(file).is_file() for file in files) else []


def _in_batches(run: Run, clips: Tensor, size: int = BATCHES[-1]) -> Tensor:
    with torch.no_grad():
        return torch.cat([run(part) for part in clips.split(size)])


def _compared(run: Run, clips: Tensor, wanted: Tensor, distinct: int) -> tuple[float, int]:
    """Largest difference of a logit over all batch sizes, and clips with the same best class.

    Args:
        distinct: clips; those after them are repeated.
    """
    found = [_in_batches(run, clips, size) for size in BATCHES]
    change = max((one - wanted).abs().max().item() for one in found)
    same = [one.argmax(1) == wanted.argmax(1) for one in found]
    agree = min(int(one[:distinct].sum()) for one in same)
    return change, agree
