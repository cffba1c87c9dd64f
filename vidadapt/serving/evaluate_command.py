"""The work of vidadapt evaluate: score a list, write the results, say them."""

from __future__ import annotations

import json
import time
from contextlib import nullcontext
from glob import glob
from pathlib import Path
from typing import Any

from vidadapt.config import ConfigError, EvaluateOptions
from vidadapt.console import duration, printable
from vidadapt.data import CHANGED, Changes, read_changes
from vidadapt.distributed import World, together
from vidadapt.evaluation import (
    Scoring,
    load_scores,
    measure,
    metrics_in,
    save_scores,
    take_up,
    write_tables,
)
from vidadapt.files import held_folder, write_json
from vidadapt.serving import trained
from vidadapt.serving.joined import join_scores
from vidadapt.serving.trained import Loaded


def evaluate(world: World, loaded: Loaded, job: Scoring, out: Path, began: float) -> None:
    """Score the videos that are left, and write the results into `out`.

    Args:
        job: of these scores, see `trained.job`.
        began: time of the start, by `time.monotonic`.
    """
    if world.is_main and loaded.report:
        print(loaded.report)
    parts = take_up(out / "parts", job, world)
    scoring, scored = time.monotonic(), len(parts.left)
    changes = Changes(out / "parts" / CHANGED, loaded.trained.config.data.changed)
    scores = trained.score(loaded, world, parts=parts, changes=changes)
    seconds = time.monotonic() - scoring
    with together(world):
        if world.is_main:
            about = trained.about(loaded)
            changed = read_changes(out / "parts" / CHANGED).values()
            warnings = [*loaded.videos.warnings, *parts.warnings, *changed]
            fusion = loaded.trained.config.eval.fusion
            thresholds = about.get("thresholds")
            result = {**measure(scores, fusion, thresholds), **about, "warnings": warnings}
            result["seconds"] = time.monotonic() - began
            # Of what this call scored, and not one before it that was stopped.
            result["seconds_per_video"] = seconds / scored if scored else None
            save_scores(out / "scores.npz", scores, about)
            write_tables(out, scores, fusion, about["label_names"], thresholds)
            write_json(out / "metrics.json", result)
            say(out, result)
    parts.remove()


def check_same_list(out: Path, manifest: str) -> None:
    """Check that no results of another list would be overwritten.

    Raises:
        ConfigError: they would, or a file there holds no results.
    """
    earlier = out / "metrics.json"
    if not earlier.exists():
        return
    try:
        found = json.loads(earlier.read_text(encoding="utf-8"))["manifest"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            f"--out: {earlier} holds no results of this tool ({error!r}); delete it, or choose "
            "another folder"
        ) from error
    if found != manifest:
        raise ConfigError(f"--out: {earlier} holds the results of another list; choose another")


def rescore(options: EvaluateOptions) -> None:
    """Compute metrics again from scores, with the fusion asked for; of all folds where asked.

    Raises:
        ConfigError: the scores are not those of every fold once.
    """
    assert options.from_scores is not None
    out = Path(options.out) if options.out else None
    with nullcontext() if out is None else held_folder(out, "--out"):
        if options.folds is not None:
            names = sorted(glob(options.from_scores, recursive=True))  # noqa: PTH207 (absolute, too)
            files = [Path(name) for name in names]
            result = join_scores(Path(options.folds), files, options.fusion, out)
        else:
            scores, about = load_scores(Path(options.from_scores))
            thresholds = about.get("thresholds")
            result = {**measure(scores, options.fusion, thresholds), **about}
            result["from_scores"] = options.from_scores
            if out is not None:
                write_tables(out, scores, options.fusion, about.get("label_names"), thresholds)
        if out is not None:
            write_json(out / "metrics.json", result)
    say(out, result)


def say(out: Path | None, result: dict[str, Any]) -> None:
    """Print the metrics, and the videos that could not be read."""
    print(
        ", ".join(f"{one.title} {result[name]:.2f}" for name, one in metrics_in(result).items())
        + f" on {result['num_videos']} videos of {result['list']} ({result['views']}, "
        f"{result['fusion']} averaged)"
        + (f" in {duration(result['seconds'])}" if "seconds" in result else "")
    )
    if "interval" in result:
        low, high = result["interval"]
        print(
            f"mean over {len(result['folds'])} folds {result['mean_over_folds']:.2f} ± "
            f"{result['std_over_folds']:.2f}; 95 % interval of top-1 over "
            f"{len(result['by_group'])} groups: {low:.2f} to {high:.2f}"
        )
    if "head" in result:
        print(
            printable(
                f"published classifier {result['weights_file']}: {result['head']}; its classes: "
                f"{result['class_order']}; sampling {result['sampling']}, {result['num_frames']} "
                f"frames of {result['crop_size']} pixels, normalisation {result['normalization']}"
            )
        )
    unreadable = result["unreadable"]
    if unreadable:
        print(f"unreadable, counted as wrong ({len(unreadable)}):")
        for entry in unreadable[:10]:
            print(printable(f"  {entry['path']}: {entry['error']}"))
    if out is not None:
        print(f"results: {out}/metrics.json")
