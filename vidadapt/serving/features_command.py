"""The command line of vidadapt features, and its work."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vidadapt import data, runs
from vidadapt.config import ConfigError, DataConfig, plugins
from vidadapt.console import differing, duration, printable
from vidadapt.data import VideoList
from vidadapt.distributed import World, from_main, together
from vidadapt.features import POOLS, Store, check_key, fill_views, free_bytes, size, view_store
from vidadapt.files import absolute, writing
from vidadapt.lists import Sample, counted_videos, manifest_hash, remarks_on
from vidadapt.runs import FAILURE, adapters
from vidadapt.serving.feature_files import (
    ABOUT,
    FORMATS,
    Filled,
    check_whole,
    read_about,
    require_format,
    write_about,
    write_features,
)
from vidadapt.serving.feature_source import FeatureSource, load_source
from vidadapt.serving.given import LISTS, GivenVideo, add_videos, find_videos
from vidadapt.serving.predict import workers_for
from vidadapt.video import ReadError

WORK, INDEX = "work", "videos"
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
    twice = [name for name, count in Counter(video.name for video in found).items() if count > 1]
    if twice:
        raise ConfigError(
            f"{len(twice)} names belong to several videos (the first: {printable(twice[0])}); give "
            "the folder that holds all of them, or each a call and an --out of its own"
        )
    for video in found:
        if Path(video.name).is_absolute() or ".." in Path(video.name).parts:
            raise ConfigError(
                f"{printable(video.name)}: its features would lie outside of --out; make --root "
                "the folder that holds all videos of the list"
            )
    if options.knn and not any(isinstance(video.label, int) for video in found):
        raise ConfigError("--knn: needs labels; give a list of lines `path label`")
    return found


def extract(options: argparse.Namespace, videos: list[GivenVideo], world: World) -> dict[str, Any]:
    """Compute and write the features, or what of them is missing; all processes enter together.

    Returns:
        The content of features.json.

    Raises:
        ConfigError, CacheError: the folder holds other features; names every difference.
        ReadError: no video can be read.
    """
    out = options.out
    with together(world):
        source = load_source(options, world.device)
        if world.is_main and source.report:
            print(source.report, file=sys.stderr)
    listed = from_main(world, lambda: _counted(options, videos, source))
    with together(world):
        key = {**source.key(listed), "format": options.format}
        facts = listed, source.plan, source.take, source.precision, world
        store = view_store(out / WORK, key, *facts)
        found = read_about(out)
        if found is None:
            check_key(store)
            _check_room(store, out)
        elif differences := differing(found["key"], key, "{key}: {old!r} there, {new!r} here"):
            raise ConfigError(
                f"--out: {out} holds other features; {'; '.join(differences)}. Use the same, or "
                "give another --out"
            )
        else:
            check_whole(out, videos, found)
    if found is not None:
        if world.is_main:
            shutil.rmtree(out / WORK, ignore_errors=True)  # of a command killed while deleting it
            print(f"all features are in {out}: nothing to do", flush=True)
        return found
    return _compute(options, videos, listed, source, store, world)


def _compute(
    options: argparse.Namespace,
    videos: list[GivenVideo],
    listed: VideoList,
    source: FeatureSource,
    store: Store,
    world: World,
) -> dict[str, Any]:
    """Fill the store, write the files from it, and delete it."""
    loading = DataConfig(root="/", num_workers=_workers(options, len(videos)), changed="error")
    pin = world.device.type == "cuda"
    loader = data.eval_loader(loading, source.plan, listed, pin_memory=pin)
    began = time.monotonic()
    errors, computed = fill_views(store, loader, source.plan, source.take, source.precision, world)
    if world.is_main:
        seconds = time.monotonic() - began
        rate = f"{computed / seconds:.1f} videos/s"
        print(f"features: {computed} videos in {duration(seconds)}, {rate}", flush=True)
    filled = Filled(store, videos, source.plan, listed.samples, errors)

    def write() -> dict[str, Any]:
        if not filled.readable:
            first = min(errors)
            raise ReadError(
                f"none of the {len(videos)} videos could be read (first: {videos[first].path}: "
                f"{errors[first]})"
            )
        write_features(options.out, store.folder / "files", options.format, filled)
        about = _about(options, source, store, filled, world)
        write_about(options.out, about)
        with writing(store.folder):
            shutil.rmtree(store.folder)
        return about

    return from_main(world, write)


def _counted(
    options: argparse.Namespace, videos: Sequence[GivenVideo], source: FeatureSource
) -> VideoList:
    """Look the videos up in the folder's own index, and count those that it does not know."""
    samples = [Sample(absolute(video.path), 0) for video in videos]
    found = counted_videos(
        options.out / INDEX,
        "/",
        samples,
        source.config.data.reader,
        num_workers=data.cores() if options.num_workers is None else options.num_workers,
        time_limit=options.time_limit,
        limit_key="--time_limit",
        timed=source.plan.sampling.fps is not None,
    )
    data.refuse_untimed(found, source.plan.sampling)
    for line in remarks_on(found):
        print(printable(f"warning: {line}"), file=sys.stderr, flush=True)
    named = [Sample(video.name, -1 if video.label is None else video.label) for video in videos]
    return VideoList("", found, manifest=manifest_hash(named, None))


def _workers(options: argparse.Namespace, count: int) -> int | None:
    """Loader processes; None: as many as suit the machine."""
    if options.num_workers is not None:
        return options.num_workers
    return None if workers_for(count) else 0


def _check_room(store: Store, out: Path) -> None:
    """Refuse a disk that has no room for the rows and the files that are made of them."""
    there = sum(file.stat().st_blocks * 512 for file in store.folder.glob("*.npy"))
    needed, free = 2 * store.bytes - there, free_bytes(out)
    if needed > free:
        raise ConfigError(
            f"--out: the features take {size(needed)} until they are written, and {out} has "
            f"{size(free)} free; take --pool mean, fewer views, or a folder on another disk"
        )


def _about(
    options: argparse.Namespace,
    source: FeatureSource,
    store: Store,
    filled: Filled,
    world: World,
) -> dict[str, Any]:
    """Return the content of features.json: what the features depend on, and where they are from."""
    model, tensor = source.take.model, store.tensors[0]
    cuda = world.device.type == "cuda"
    device = torch.cuda.get_device_name(world.device) if cuda else world.device.type
    environment = runs.environment(world.size, device)
    return {
        "key": store.key,
        "given": [str(one) for one in options.videos],
        "adapter": options.adapter,
        "method": None if store.key["adapter"] is None else source.config.method,
        "weights": options.weights or source.config.model.weights,
        "features": {
            "shape_of_a_view": list(tensor.shape[1:]),
            "dtype": "float32",
            "grid": list(model.grid),
            "prefix_tokens": model.num_prefix_tokens,
        },
        "videos": len(filled.videos),
        "readable": len(filled.readable),
        "unreadable": [
            {"path": filled.videos[place].name, "error": why}
            for place, why in sorted(filled.errors.items())
        ],
        "computed": {key: environment[key] for key in ("packages", "device", "cpu_threads")},
    }


def say(about: Mapping[str, Any], seconds: float, out: Path) -> None:
    """Print a summary, and the unreadable videos."""
    key, shape = about["key"], tuple(about["features"]["shape_of_a_view"])
    print(
        f"{about['readable']} of {about['videos']} videos in {out} (layer {key['layer']}, "
        f"{key['pool']} {shape}, {key['num_clips']} clips x {key['num_crops']} crops): "
        f"{duration(seconds)}"
    )
    unreadable = about["unreadable"]
    if unreadable:
        print(f"unreadable ({len(unreadable)}):", file=sys.stderr)
    for one in unreadable:
        print(printable(f"  {one['path']}: {one['error']}"), file=sys.stderr)
