"""Evaluate: load a run's checkpoint, score every view once, fuse, report."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from vidadapt import launching, runs
from vidadapt.config import ConfigError
from vidadapt.config.command_line import EvaluateOptions
from vidadapt.console.naming import printable
from vidadapt.console.progress import duration
from vidadapt.data.changes import CHANGED, Changes, read_changes
from vidadapt.distributed import World, held_by_main, together
from vidadapt.evaluation import METRICS, Scoring, load_scores, measure, save_scores, take_up
from vidadapt.files.locks import held_folder
from vidadapt.launching.failures import recorded
from vidadapt.serving import Loaded, Trained, trained


def main(world: World) -> None:
    with together(world):
        cfg, options, adapter = trained.asked(sys.argv[1:])
    if cfg is None:
        if world.is_main:
            rescore(options)
        return
    began = time.monotonic()
    with together(world):
        found = trained.find(cfg, options, adapter)
        out = output_folder(found, options)
    with held_by_main(world, out, "--out"):
        loaded = trained.load(found, world)
        with together(world):
            check_same_list(out, loaded.videos.manifest)
            job = trained.job(loaded, world)
        with recorded(world, out):
            evaluate(world, loaded, job, out, began)


def evaluate(world: World, loaded: Loaded, job: Scoring, out: Path, began: float) -> None:
    """Score what is left, and write the results."""
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
            figures = measure(scores, loaded.trained.config.eval.fusion)
            result = {**figures, **about, "warnings": warnings}
            result["seconds"] = time.monotonic() - began
            # Of what this call scored, and not one before it that was stopped.
            result["seconds_per_video"] = seconds / scored if scored else None
            save_scores(out / "scores.npz", scores, about)
            runs.write_json(out / "metrics.json", result)
            say(out, result)
    parts.remove()


def output_folder(found: Trained, options: EvaluateOptions) -> Path:
    """The folder for the results, made and tried before any work is done."""
    views = f"{found.plan.num_clips}x{found.plan.num_crops}"
    name = f"eval_{found.split}_{found.checkpoint.name}_{views}"
    out = Path(options.out) if options.out else Path(found.config.run_dir) / name
    runs.check_writable("--out", out)
    return out


def check_same_list(out: Path, manifest: str) -> None:
    """Results of another list are not overwritten."""
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
    """Metrics again from a scores file, with the fusion asked for."""
    assert options.from_scores is not None
    source = Path(options.from_scores)
    scores, about = load_scores(source)
    result = {**measure(scores, options.fusion), **about, "from_scores": str(source)}
    if options.out is not None:
        with held_folder(Path(options.out), "--out"):
            runs.write_json(Path(options.out) / "metrics.json", result)
    say(Path(options.out) if options.out else None, result)


def say(out: Path | None, result: dict[str, Any]) -> None:
    print(
        ", ".join(f"{metric.title} {result[name]:.2f}" for name, metric in METRICS.items())
        + f" on {result['num_videos']} videos of {result['list']} ({result['views']}, "
        f"{result['fusion']} averaged)"
        + (f" in {duration(result['seconds'])}" if "seconds" in result else "")
    )
    unreadable = result["unreadable"]
    if unreadable:
        print(f"unreadable, counted as wrong ({len(unreadable)}):")
        for entry in unreadable[:10]:
            print(printable(f"  {entry['path']}: {entry['error']}"))
    if out is not None:
        print(f"results: {out}/metrics.json")


if __name__ == "__main__":
    launching.launch(main, goes_on="; the same command goes on")
