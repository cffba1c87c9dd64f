"""Features of every view of videos, a row of a store for each video.

A row holds `features` (V, ...) float32 of all views, clip-major as in `data.EvalViews`, and `times`
(C, T) float64, the seconds of each frame of each clip; NaN where the file has none. Every view goes
through the model alone: the last bits depend on how many do so together, and so would depend on
the number of processes and on interruptions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vidadapt.console import track
from vidadapt.data import DataPlan, EvalLoader, VideoList, clip_frames, normalize, view_chunks
from vidadapt.distributed import World, gather_objects, together
from vidadapt.features.cache import rows_to_fill
from vidadapt.features.layers import LayerFeatures
from vidadapt.features.store import Kept, Store, writing_rows
from vidadapt.models import NonFinite, autocast
from vidadapt.video import VideoFacts, times_at


def view_store(
    folder: Path,
    key: dict[str, Any],
    videos: VideoList,
    plan: DataPlan,
    take: LayerFeatures,
    precision: str,
    world: World,
) -> Store:
    """Plan a store for the views of videos; nothing is written yet.

    Args:
        key: what the features depend on.
        take: its model is on the device of `world`.
    """
    clip = torch.zeros((1, *take.model.clip_shape), device=world.device)
    with autocast(world.device, precision):
        one = take(clip).shape[1:]
    tensors = (
        Kept("features", (plan.num_clips * plan.num_crops, *one), "fp32", "fp32"),
        Kept("times", (plan.num_clips, plan.sampling.num_frames), "fp64", "fp64"),
    )
    return Store(folder, key, len(videos.samples), tensors, "--out")


def fill_views(
    store: Store,
    loader: EvalLoader,
    plan: DataPlan,
    take: LayerFeatures,
    precision: str,
    world: World,
) -> tuple[dict[int, str], int]:
    """Compute the rows that are missing; those of unreadable videos are tried again.

    Args:
        loader: of all videos, with the plan's views; ended here.

    Returns:
        Place -> why the video could not be read; and how many rows were missing.

    Raises:
        CacheError: the disk refused a write. What was computed is kept.
        NonFinite: features that are not finite, naming the video.
        ReadError: a file has changed since its frames were counted.
    """
    missing, mine = rows_to_fill(store, store.num_rows, world)
    errors: dict[int, str] = {}
    with together(world):
        for row, error in track(
            _filled(store, loader, mine, plan, take, precision, world),
            total=len(mine) * world.size,
            label="features",
            unit="videos",
            units_per_item=world.size,
            shown=world.is_main,
        ):
            if error:
                errors[row] = error
    gathered = gather_objects(world, errors)
    return {row: why for part in gathered for row, why in part.items()}, missing


def _filled(
    store: Store,
    loader: EvalLoader,
    rows: list[int],
    plan: DataPlan,
    take: LayerFeatures,
    precision: str,
    world: World,
) -> Iterator[tuple[int, str]]:
    """Yield each row once it is written, and why its video cannot be read; empty: it can."""
    samples = loader.dataset.samples
    with closing(loader), writing_rows(store) as writer:
        for row, item in zip(rows, loader.of(rows), strict=True):
            if item["error"]:
                writer.unreadable([row])
                yield row, item["error"].removeprefix(f"{samples.file(row)}: ")
                continue
            found = []
            for view in view_chunks(item, 1, world.device):
                ready = normalize(view, plan.normalization)
                with autocast(world.device, precision):
                    found.append(take(ready))
            distinct = torch.cat(found).cpu()
            if not distinct.isfinite().all():
                raise NonFinite(f"{samples.file(row)}: its features are not finite")
            times = torch.from_numpy(times_of(samples.file(row), plan, samples.facts(row)))
            writer.write([row], [distinct[item["view_of"]][None], times[None]])
            yield row, ""


def times_of(path: str, plan: DataPlan, facts: VideoFacts) -> np.ndarray:
    """Seconds (C, T) float64 from the file's first frame to those of a video's clips; or NaN."""
    indices = clip_frames(plan.sampling, facts, plan.num_clips)
    found = times_at(path, facts, indices.ravel().tolist())
    values = np.full(indices.size, np.nan) if found is None else np.array(found)
    return values.reshape(indices.shape)
