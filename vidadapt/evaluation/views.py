"""Score views, fuse them to one score per video, and compute exact metrics.

Every video of the list is counted exactly once, with any number of processes, or the evaluation
fails. Nothing is padded; a video that cannot be read is listed and counts as wrong.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from vidadapt.console.progress import track
from vidadapt.data.clips import view_chunks
from vidadapt.data.transforms import normalize
from vidadapt.distributed import World, gather_objects, together
from vidadapt.evaluation.metrics import accuracies, label_ranks
from vidadapt.evaluation.score_parts import Entry, Parts
from vidadapt.evaluation.score_tables import read_table
from vidadapt.files.writing import replaced
from vidadapt.models.precision import NonFinite, autocast
from vidadapt.video.readers import ReadError

Fusion = Literal["softmax", "logits"]
# Logits are copied from the device, which waits for it, once per this number of videos: with 12
# views of 400 classes they take 5 MB there.
VIDEOS_PER_COPY = 256


@dataclass(frozen=True)
class Scores:
    """Per-view logits of a list of videos.

    Attributes:
        paths: (N,) list paths, in list order.
        labels: (N,) int64.
        clips, crops: (V,) int64: which clip and crop each view is.
        logits: (N, V, K) float32; NaN for an unreadable video.
        errors: path -> why it could not be read.
    """

    paths: list[str]
    labels: np.ndarray
    clips: np.ndarray
    crops: np.ndarray
    logits: np.ndarray
    errors: dict[str, str]


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
    mine: list[Entry] = []
    kept = 0
    waiting: list[tuple[dict[str, Any], torch.Tensor]] = []
    left = len(paths) if parts is None else len(parts.left)
    for item in track(
        loader,
        total=len(range(world.rank, left, world.size)),
        label=label,
        unit="videos",
        shown=shown and world.is_main,
    ):
        if item["error"]:
            mine.append((int(item["index"]), None, item["error"]))
        else:
            views = []
            asked = None if orders is None else orders[int(item["index"])]
            for chunk in view_chunks(item, views_per_forward, world.device, asked):
                clip = normalize(chunk, normalization)
                with autocast(world.device, precision):
                    views.append(model(clip).float())
            facts = {name: item[name] for name in ("index", "view_of")}
            waiting.append((facts, torch.cat(views)))
        due = parts is not None and parts.due()
        if due or len(waiting) == VIDEOS_PER_COPY:
            mine += _fetched(waiting, num_orders)
            waiting = []
        if parts is not None and due:
            parts.keep(mine[kept:])
            kept = len(mine)
    mine += _fetched(waiting, num_orders)
    if parts is not None:
        parts.keep(mine[kept:])
        mine += parts.done
    return collected(mine, paths, labels, num_classes, num_orders * num_clips, num_crops, world)


def _fetched(waiting: list[tuple[dict[str, Any], torch.Tensor]], num_orders: int) -> list[Entry]:
    """Index and logits (O * V, K) of videos; the logits of distinct views are on the device."""
    if not waiting:
        return []
    whole = torch.cat([logits for _, logits in waiting]).cpu()
    parts = whole.split([len(logits) for _, logits in waiting])
    return [
        (
            int(facts["index"]),
            part.unflatten(0, (num_orders, -1))[:, facts["view_of"]].flatten(0, 1).numpy(),
            "",
        )
        for (facts, _), part in zip(waiting, parts, strict=True)
    ]


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
        return _in_list_order(gathered, paths, labels, num_classes, num_clips, num_crops)


def _in_list_order(
    gathered: list[Entry],
    paths: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    num_classes: int,
    num_clips: int,
    num_crops: int,
) -> Scores:
    """The gathered logits in list order; every video must occur exactly once."""
    num_views = num_clips * num_crops
    seen = sorted(index for index, _, _ in gathered)
    if seen != list(range(len(paths))):
        raise RuntimeError(
            f"evaluation saw {len(seen)} videos ({len(set(seen))} different) of the {len(paths)} "
            "in the list; every video must be counted exactly once"
        )
    logits = np.full((len(paths), num_views, num_classes), np.nan, np.float32)
    errors: dict[str, str] = {}
    for index, values, error in sorted(gathered, key=lambda entry: entry[0]):
        if values is None:
            errors[paths[index]] = error
        elif not np.isfinite(values).all():
            raise NonFinite(
                f"{paths[index]}: the model's scores are not finite; use train.precision fp32, or "
                "an earlier checkpoint"
            )
        else:
            logits[index] = values
    if len(errors) == len(paths):
        first = next(iter(errors.items()))
        raise ReadError(
            f"none of the {len(paths)} videos could be read (first: {first[0]}: {first[1]}); check "
            "data.root"
        )
    clips, crops = np.divmod(np.arange(num_views), num_crops)
    return Scores(list(paths), np.asarray(labels, np.int64), clips, crops, logits, errors)


def in_each_order(scores: Scores, num_orders: int) -> list[Scores]:
    """Split the scores of `score_views` by the orders of the frames, in their order."""
    num_views = len(scores.clips) // num_orders
    clips, crops = scores.clips[:num_views], scores.crops[:num_views]
    return [
        replace(scores, clips=clips, crops=crops, logits=logits)
        for logits in np.split(scores.logits, num_orders, axis=1)
    ]


def fuse(logits: np.ndarray, fusion: Fusion) -> np.ndarray:
    """(N, V, K) per-view logits -> (N, K) float64 scores: mean over the views.

    `softmax` averages probabilities (VideoMAE), `logits` averages logits (AdaptFormer's release).
    """
    values = logits.astype(np.float64)
    if fusion == "softmax":
        values = np.exp(values - values.max(axis=2, keepdims=True))
        values /= values.sum(axis=2, keepdims=True)
    elif fusion != "logits":
        raise ValueError(f"eval.fusion: {fusion!r} is unknown; use softmax or logits")
    return values.mean(axis=1)


def cross_entropy(logits: np.ndarray, labels: np.ndarray, fusion: Fusion) -> float:
    """Mean over videos of -log p(label), p being the distribution that the views' fusion gives.

    Args:
        logits: (N, V, K); labels: (N,) int in [0, K), N >= 1.
    """
    values = torch.from_numpy(logits).double()
    if fusion == "softmax":  # the log of their mean, without its underflow
        fused = values.log_softmax(2).logsumexp(1) - math.log(logits.shape[1])
    else:
        fused = values.mean(1).log_softmax(1)
    return float(functional.nll_loss(fused, torch.from_numpy(labels)))


def metrics(scores: Scores, fusion: Fusion) -> dict[str, Any]:
    """Results that an evaluation reports.

    Returns:
        top1, top5, mean_class_accuracy and per_class, where unreadable videos count as wrong, see
        `metrics.accuracies`; loss, the mean cross-entropy of the readable videos; num_videos;
        views; fusion; unreadable, a list of path and error.
    """
    readable = np.array([path not in scores.errors for path in scores.paths])
    logits, labels = scores.logits[readable], scores.labels[readable]
    ranks = np.full(len(scores.paths), -1)
    ranks[readable] = label_ranks(fuse(logits, fusion), labels)
    result = accuracies(ranks, scores.labels, scores.logits.shape[2])
    num_clips, num_crops = int(scores.clips.max()) + 1, int(scores.crops.max()) + 1
    return {
        **{key: value for key, value in result.items() if key != "per_class"},
        "loss": cross_entropy(logits, labels, fusion),
        "views": f"{num_clips} clips x {num_crops} crops",
        "fusion": fusion,
        "unreadable": [{"path": path, "error": why} for path, why in scores.errors.items()],
        "per_class": result["per_class"],
    }


def save_scores(path: Path, scores: Scores, about: dict[str, Any]) -> None:
    """Write per-view scores as npz: one row per (video, view) with id, clip, crop, logits, label.

    Args:
        about: JSON-able facts kept with the scores (label names, list, manifest hash, ...).

    Raises:
        WriteError: the disk refused the file.
    """
    num_videos, num_views, _ = scores.logits.shape
    with replaced(path) as partial:
        np.savez_compressed(
            partial,
            id=np.repeat(np.asarray(scores.paths), num_views),
            clip=np.tile(scores.clips, num_videos),
            crop=np.tile(scores.crops, num_videos),
            logits=scores.logits.reshape(num_videos * num_views, -1),
            label=np.repeat(scores.labels, num_views),
            errors=np.array(json.dumps(scores.errors)),
            about=np.array(json.dumps(about)),
        )


def load_scores(path: Path) -> tuple[Scores, dict[str, Any]]:
    """Read what `save_scores` wrote.

    Raises:
        ValueError: not a scores file, a damaged one, or some video lacks views.
    """
    table = read_table(path)
    return Scores(*table[:-1]), table.about
