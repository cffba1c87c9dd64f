"""Score every view of a list of videos.

Every video of the list is counted exactly once, with any number of processes, or the evaluation
fails. Nothing is padded; a video that cannot be read is listed and counts as wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from vidadapt.console import track
from vidadapt.data import normalize, view_chunks
from vidadapt.distributed import World, gather_objects, together
from vidadapt.evaluation.parts import Parts
from vidadapt.evaluation.scores import Entry, Scores, in_list_order
from vidadapt.models import NonFinite, autocast
from vidadapt.video import ReadError

# Logits are copied from the device, which waits for it, once per this number of videos: with 12
# views of 400 classes they take 5 MB there.
VIDEOS_PER_COPY = 256
# Facts of a video's item, and the logits of its distinct views on the device; None: unreadable.
Waiting = tuple[dict[str, Any], torch.Tensor | None]


@torch.no_grad()
def score_views(
    model: nn.Module,
    loader: Iterable[dict[str, Any]],
    *,
    paths: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    num_classes: int,
    num_clips: int,
    num_crops: int,
    normalization: str,
    views_per_forward: int,
    precision: str,
    world: World,
    orders: torch.Tensor | None = None,
    parts: Parts | None = None,
    label: str = "evaluate",
    shown: bool = True,
) -> Scores:
    """Forward all views of every video once and collect the logits on every process.

    The views of one video are forwarded together (in micro-batches of `views_per_forward`) and
    without other videos, so a score does not depend on neighbours or on the number of processes.
    Identical views take one pass and share its logits.

    Args:
        model: clip (B, 3, T, S, S) float -> logits (B, K); the plain module, not its DDP wrapper.
        loader: this process's share of the items of `data.clips.EvalViews`; with `parts`, of
            those in `parts.left`.
        paths, labels: the whole list.
        orders: (N, O, T) int64, for each video of the list O orders of its clips' frames, see
            `data.clips.view_chunks`. The scores are then of O x num_clips clips, one order after
            another; `in_each_order` separates them. Logits in an order do not depend on the
            others: in the order 0, 1, ..., T - 1 they are those without `orders`.
        parts: scores of earlier processes that were stopped, and a place for these.

    Raises:
        RuntimeError: a video was seen twice or never.
        NonFinite: a score that is not finite.
        ReadError: no video could be read.
        WriteError: the disk refused the parts.
    """
    model.eval()
    num_orders = 1 if orders is None else orders.shape[1]
    count = len(range(world.rank, len(paths if parts is None else parts.left), world.size))
    mine: list[Entry] = [] if parts is None else [*parts.done]
    waiting: list[Waiting] = []
    shown = shown and world.is_main
    for item in track(loader, total=count, label=label, unit="videos", shown=shown):
        logits = None
        if not item["error"]:
            asked = None if orders is None else orders[int(item["index"])]
            chunks = view_chunks(item, views_per_forward, world.device, asked)
            logits = _logits(model, chunks, normalization, precision, world.device)
        waiting.append(({key: item[key] for key in ("index", "view_of", "error")}, logits))
        if len(waiting) == VIDEOS_PER_COPY or (parts is not None and parts.due()):
            mine += _fetched(waiting, num_orders, parts)
            waiting.clear()
    mine += _fetched(waiting, num_orders, parts)
    return collected(mine, paths, labels, num_classes, num_orders * num_clips, num_crops, world)


def _logits(
    model: nn.Module,
    chunks: Iterable[torch.Tensor],
    normalization: str,
    precision: str,
    device: torch.device,
) -> torch.Tensor:
    """Logits (V, K) float32, on the device, of uint8 views (v, 3, T, S, S) given in pieces."""
    found = []
    for chunk in chunks:
        clip = normalize(chunk, normalization)
        with autocast(device, precision):
            found.append(model(clip).float())
    return torch.cat(found)


def _fetched(waiting: list[Waiting], num_orders: int, parts: Parts | None) -> list[Entry]:
    """Entries of videos, with logits (O * V, K); they are kept in `parts`."""
    on_device = [logits for _, logits in waiting if logits is not None]
    fetched: Iterator[torch.Tensor] = iter(())
    if on_device:
        fetched = iter(torch.cat(on_device).cpu().split([len(logits) for logits in on_device]))
    entries: list[Entry] = []
    for facts, logits in waiting:
        values = None
        if logits is not None:
            distinct = next(fetched).unflatten(0, (num_orders, -1))
            values = distinct[:, facts["view_of"]].flatten(0, 1).numpy()
        entries.append((int(facts["index"]), values, facts["error"]))
    if parts is not None:
        parts.keep(entries)
    return entries


def collected(
    mine: list[Entry],
    paths: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    num_classes: int,
    num_clips: int,
    num_crops: int,
    world: World,
) -> Scores:
    """Gather the scores of all processes on each.

    Args:
        mine: (place in the list, logits (V, K) or None, why it could not be read).
        paths, labels: the whole list.

    Raises:
        RuntimeError: a video was seen twice or never.
        NonFinite: a score that is not finite.
        ReadError: no video could be read.
    """
    gathered = [entry for part in gather_objects(world, mine) for entry in part]
    with together(world):
        _check_whole(gathered, paths)
        return in_list_order(gathered, paths, labels, num_classes, num_clips, num_crops)


def _check_whole(gathered: list[Entry], paths: Sequence[str]) -> None:
    """Check that every video was scored exactly once, with finite numbers, and some were read."""
    seen = {index for index, _, _ in gathered}
    if len(gathered) != len(paths) or seen != set(range(len(paths))):
        raise RuntimeError(
            f"evaluation saw {len(gathered)} videos ({len(seen)} different) of the {len(paths)} "
            "in the list; every video must be counted exactly once"
        )
    for index, values, _ in sorted(gathered, key=lambda entry: entry[0]):
        if values is not None and not np.isfinite(values).all():
            raise NonFinite(
                f"{paths[index]}: the model's scores are not finite; use train.precision fp32, or "
                "an earlier checkpoint"
            )
    if all(values is None for _, values, _ in gathered):
        index, _, error = min(gathered, key=lambda entry: entry[0])
        raise ReadError(
            f"none of the {len(paths)} videos could be read (first: {paths[index]}: {error}); "
            "check data.root"
        )
