"""Extract the features of videos: filled row by row into a store, then written to files."""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from vidadapt import data, runs
from vidadapt.config import ConfigError, DataConfig
from vidadapt.console import differing, duration, printable
from vidadapt.data import VideoList
from vidadapt.distributed import World, from_main, together
from vidadapt.features import Store, check_key, fill_views, free_bytes, size, view_store
from vidadapt.files import absolute, writing
from vidadapt.lists import Sample, counted_videos, manifest_hash, remarks_on
from vidadapt.serving.feature_files import (
    Filled,
    check_whole,
    read_about,
    write_about,
    write_features,
)
from vidadapt.serving.feature_source import FeatureSource, load_source
from vidadapt.serving.given import GivenVideo
from vidadapt.serving.predict import workers_for
from vidadapt.video import ReadError

WORK, INDEX = "work", "videos"  # in the folder of features


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
