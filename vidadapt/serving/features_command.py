"""The command line of vidadapt features."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vidadapt.config import ConfigError, plugins
from vidadapt.console import duration
from vidadapt.features import POOLS
from vidadapt.runs import FAILURE, adapters
from vidadapt.serving.extracting import INDEX, WORK
from vidadapt.serving.feature_files import ABOUT, FORMATS, require_format
from vidadapt.serving.given import (
    LISTS,
    GivenVideo,
    add_videos,
    find_videos,
    list_unreadable,
    require_own_names,
)

EPILOG = f"""examples:
  vidadapt features VIDEOS/ --adapter runs/ssv2 --out ssv2_features
  vidadapt features test.txt --root VIDEOS --adapter runs/ssv2 --plain --layer 9 --out layer9 --knn
  vidadapt features VIDEOS/ --model.backbone vit_base --model.weights videomae_vit_b.pth \\
      --data.sampling videomae_dense --pool tokens --out tokens
  torchrun --nproc-per-node 8 -m vidadapt features VIDEOS/ --adapter runs/ssv2 --out ssv2_features

What a backbone, with or without an adapter, makes of each video: by default one vector of its
middle clip and centre crop. With --adapter, clips are cut as in its training; --plain leaves the
adapter itself out. Without one, keys of the configuration name backbone and clips (--config,
--model.backbone, --model.weights, --data.sampling, --data.num_frames, --data.crop_size,
--data.normalization, ...); --train.precision fp32 computes without rounding, in both cases.

--pool head is what the adapter's last layer classifies (Model.features in Python); mean the mean
over the tokens, as the model pools them; tokens all of them. --layer N takes what block N gives.

Writes OUT/features/PATH.npz for each video (features, clip, crop, frames, times), or one table with
a row a view; clips.csv (frames and seconds of each view), videos.csv and features.json (how they
were made). A command that was stopped goes on where it was when it is given again, on any number of
processes, with the same bits; when all is there it does nothing; other settings are refused.
Lists ({", ".join(LISTS)}) hold lines `path label` or `path`. Videos that
cannot be read are listed at the end, and the exit status is 1 then (others: docs/failures.md).
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all options but the keys of the configuration and the time limit of counting."""
    add_videos(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--adapter", metavar="DIR",
        help="adapter folder, a run's folder (its best, else its last), or "
        "hub:OWNER/NAME[@REVISION], which is fetched",
    )  # fmt: skip
    parser.add_argument(
        "--plain", action="store_true", help="the adapter's backbone and clips, without the adapter"
    )
    parser.add_argument(
        "--weights", metavar="FILE", help="the backbone's; default: those of the adapter's run"
    )
    parser.add_argument(
        "--layer", type=int, metavar="N", help="block, from 1; default: what the backbone gives"
    )
    parser.add_argument(
        "--pool", choices=POOLS, help="default: head with an adapter and no --layer, else mean"
    )
    for name in ("num_clips", "num_crops"):
        parser.add_argument(
            f"--{name}", type=int, default=1, metavar="N", help="of a video; default 1"
        )
    parser.add_argument(
        "--format", choices=FORMATS, default="npz",
        help="npz: a file a video (default); the others: one table. parquet needs pyarrow",
    )  # fmt: skip
    parser.add_argument(
        "--knn", action="store_true",
        help="with labels: accuracy of the 5 nearest neighbours, and of a linear probe where "
        "scikit-learn is installed",
    )  # fmt: skip
    parser.add_argument(plugins.OPTION, metavar="MODULES", help=plugins.HELP)
    parser.add_argument(
        "--num_workers", type=int, metavar="N",
        help="decoding processes of each process; default: none up to 7 videos, else chosen from "
        "the cores",
    )  # fmt: skip


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End the program where options cannot be used.

    Raises:
        SystemExit: a number below its least.
    """
    for name, least in (("num_clips", 1), ("num_crops", 1), ("num_workers", 0), ("layer", 1)):
        value = getattr(options, name)
        if value is not None and value < least:
            parser.error(f"--{name}: expected {least} or more, got {value}")


def given_videos(options: argparse.Namespace) -> list[GivenVideo]:
    """Find the videos, each under a name of its own, and check what can be checked at once.

    Raises:
        ConfigError: names that are the same or lead out of the folder; labels that --knn lacks; or
            a folder that holds something else.
        ListError: see `find_videos`.
        ImportError: the format asked for needs what is not installed.
    """
    require_format(options.format, options.pool)
    out = options.out
    ours = {ABOUT, WORK, FAILURE, f"{INDEX}.index"}
    there = {entry.name for entry in out.iterdir()} if out.is_dir() else set()
    strange = {name for name in there if not name.startswith(".")} - ours  # locks, probes
    if strange and not there & {ABOUT, WORK}:
        raise ConfigError(f"--out: {out} exists and is not empty; choose another folder")
    several = False
    if options.adapter is not None:
        folder = adapters.find_adapter(options.adapter)
        several = adapters.read_adapter(folder).plan.multi_label
    found = find_videos(options.videos, options.root, options.allow_outside_root, several)
    require_own_names(found, "--out")
    if options.knn and not any(isinstance(video.label, int) for video in found):
        raise ConfigError("--knn: needs labels; give a list of lines `path label`")
    return found


def say(about: Mapping[str, Any], seconds: float, out: Path) -> None:
    """Print a summary, and the unreadable videos."""
    key, shape = about["key"], tuple(about["features"]["shape_of_a_view"])
    print(
        f"{about['readable']} of {about['videos']} videos in {out} (layer {key['layer']}, "
        f"{key['pool']} {shape}, {key['num_clips']} clips x {key['num_crops']} crops): "
        f"{duration(seconds)}"
    )
    list_unreadable([f"{one['path']}: {one['error']}" for one in about["unreadable"]])
