"""Score models in four orders of the frames, and report what they lose."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from vidadapt import runs
from vidadapt.apps.study import temporal
from vidadapt.apps.study.side_by_side import (
    expanded,
    find_models,
    say_unreadable,
    shared_samples,
)
from vidadapt.apps.study.temporal_report import markdown, write_pictures
from vidadapt.config import ConfigError, Within
from vidadapt.console import duration
from vidadapt.distributed import World, together
from vidadapt.evaluation import Scores, join_folds
from vidadapt.files import write_json, write_text
from vidadapt.lists import Sample, manifest_hash
from vidadapt.serving import Trained, trained


@dataclass(frozen=True)
class TemporalOptions:
    """Options of vidadapt temporal.

    Attributes:
        run_dir: run folders; a pattern in quotes, with *, is the runs of all folds as one model.
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
        first = next(iter(models.values()))
        out = trained.output_folder(next(iter(first.values())), "temporal", asked.out)
        _check_shared(models)
    found = []
    for name, parts in models.items():
        scores, about = _scored(name, parts, asked.seed, world)
        with together(world):
            if world.is_main:
                _check_same_list(out, about["manifest"])
        if world.is_main:
            one = next(iter(parts.values()))
            said = temporal.sensitivity(scores, one.config.eval.fusion, one.plan.label_names)
            found.append({"name": name, **about, **said})
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


def _models(asked: TemporalOptions) -> dict[str, dict[str, Trained]]:
    """By the model's name: what is scored, one run or that of each fold, by its name."""
    given = [("--run_dir", folder) for folder in asked.run_dir]
    given += [("--adapter", folder) for folder in asked.adapter]
    if not given:
        raise ConfigError("give --run_dir FOLDER ... or --adapter FOLDER ..., one model or several")
    if len(given) > 1 and asked.out is None:
        raise ConfigError("--out: give the folder for a report on several models")
    if any(word.startswith("--from_scores") for word in asked.rest):
        raise ConfigError("--from_scores: scores hold one order of the frames; give a model")
    return {name: find_models(own, asked.rest) for name, own in expanded(given).items()}


def _check_shared(models: Mapping[str, Mapping[str, Trained]]) -> None:
    """Check that all models are scored on the same videos and classes; folds are so together."""
    if all(len(parts) == 1 for parts in models.values()):
        shared_samples({name: next(iter(parts.values())) for name, parts in models.items()})
        return
    listed = {
        name: sorted(
            (sample.path, sample.label)
            for part in parts.values()
            for sample in trained.samples_of(part)
        )
        for name, parts in models.items()
    }
    (first, videos), *others = listed.items()
    for name, own in others:
        if own != videos:
            raise ConfigError(
                f"--run_dir: the folds of {first} ({len(videos)} videos) and {name} ({len(own)} "
                "videos) are not of the same cross-validation"
            )


def _scored(
    name: str, parts: Mapping[str, Trained], seed: int, world: World
) -> tuple[Scores, dict[str, Any]]:
    """Score the four orders of each list; folds are joined. Facts that folds share come with it."""
    scores, abouts = {}, []
    for part, one in parts.items():
        loaded = trained.load(one, world)
        paths = [sample.path for sample in loaded.videos.samples]
        orders = temporal.frame_orders(paths, one.plan.sampling.num_frames, seed)
        label = f"{name if len(parts) == 1 else part} in 4 orders"
        scores[part] = trained.score(loaded, world, orders=orders, label=label)
        abouts.append(trained.about(loaded))
    if len(parts) == 1 or not world.is_main:
        return next(iter(scores.values())), abouts[0]
    joined = join_folds(scores)
    shared = {k: v for k, v in abouts[0].items() if all(one[k] == v for one in abouts)}
    labelled = sorted(zip(joined.paths, joined.labels.tolist(), strict=True))
    samples = [Sample(path, label) for path, label in labelled]
    manifest = manifest_hash(samples, shared["label_names"])
    return joined, {**shared, "list": f"{len(parts)} folds", "manifest": manifest}


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
