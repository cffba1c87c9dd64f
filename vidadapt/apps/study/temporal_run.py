"""Score models in four orders of the frames, and report what they lose."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from vidadapt import runs
from vidadapt.apps.study import temporal
from vidadapt.apps.study.side_by_side import find_models, say_unreadable, shared_samples
from vidadapt.apps.study.temporal_report import markdown, write_pictures
from vidadapt.config import ConfigError, Within
from vidadapt.console import duration
from vidadapt.distributed import World, together
from vidadapt.files import write_json, write_text
from vidadapt.serving import Trained, trained


@dataclass(frozen=True)
class TemporalOptions:
    """Options of vidadapt temporal.

    Attributes:
        run_dir: run folders.
        adapter: adapter folders, without their run.
        seed: of the shuffling.
        out: folder to write; default, for one run: inside the run's.
        rest: options of vidadapt evaluate.
    """

    run_dir: Sequence[str] = ()
    adapter: Sequence[str] = ()
    seed: Annotated[int, Within("[0, inf)")] = 0
    out: str | None = None
    rest: Sequence[str] = ()


def report_temporal(asked: TemporalOptions, world: World) -> None:
    """Write temporal.json, temporal.md and pictures, and print the verdicts.

    Raises:
        ConfigError: no model, one whose scores are given, models of different lists, or several
            without a folder to write.
    """
    began = time.monotonic()
    with together(world):
        models = _models(asked)
        out = trained.output_folder(next(iter(models.values())), "temporal", asked.out)
        shared_samples(models)
    found = []
    for name, one in models.items():
        loaded = trained.load(one, world)
        with together(world):
            _check_same_list(out, loaded.videos.manifest)
        paths = [sample.path for sample in loaded.videos.samples]
        orders = temporal.frame_orders(paths, one.plan.sampling.num_frames, asked.seed)
        scores = trained.score(loaded, world, orders=orders, label=f"{name} in 4 orders")
        if world.is_main:
            names = one.plan.label_names
            said = temporal.sensitivity(scores, one.config.eval.fusion, names)
            found.append({"name": name, **trained.about(loaded), **said})
    if world.is_main:
        report = {
            "verdicts": temporal.verdicts(found),
            "rules": temporal.RULES,
            "list": found[0]["list"],
            "seed": asked.seed,
            "models": found,
            "seconds": time.monotonic() - began,
            "environment": runs.environment(world.size, str(world.device)),
        }
        write_json(out / "temporal.json", report)
        write_text(out / "temporal.md", markdown(report))
        _say(report, [out / "temporal.json", out / "temporal.md", *write_pictures(report, out)])


def _models(asked: TemporalOptions) -> dict[str, Trained]:
    given = [("--run_dir", folder) for folder in asked.run_dir]
    given += [("--adapter", folder) for folder in asked.adapter]
    if not given:
        raise ConfigError("give --run_dir FOLDER ... or --adapter FOLDER ..., one model or several")
    if len(given) > 1 and asked.out is None:
        raise ConfigError("--out: give the folder for a report on several models")
    if any(word.startswith("--from_scores") for word in asked.rest):
        raise ConfigError("--from_scores: scores hold one order of the frames; give a model")
    return find_models(given, asked.rest)


def _check_same_list(out: Path, manifest: str) -> None:
    """Check that no report on another list would be overwritten."""
    earlier = out / "temporal.json"
    if earlier.exists():
        models = json.loads(earlier.read_text(encoding="utf-8"))["models"]
        if models[0]["manifest"] != manifest:
            raise ConfigError(f"--out: {earlier} is a report on another list; choose another")


def _say(report: dict[str, Any], files: list[Path]) -> None:
    print("\n".join(report["verdicts"]))
    models = report["models"]
    for model in models:
        say_unreadable(f"{model['name']}: unreadable, wrong in every order", model["unreadable"])
    print(
        f"scored {', '.join(model['name'] for model in models)} on {models[0]['num_videos']} "
        f"videos of {report['list']}, each read once a model and shown in 4 orders of the frames, "
        f"in {duration(report['seconds'])}"
    )
    print(f"results: {', '.join(map(str, files))}")
