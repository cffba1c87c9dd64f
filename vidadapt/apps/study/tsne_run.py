"""Draw the features of trained runs side by side, with accuracies beside each picture."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np

from vidadapt import runs
from vidadapt.apps.report import choose
from vidadapt.apps.study import embedding
from vidadapt.apps.study.embedding import Features
from vidadapt.apps.study.embedding_plot import MOST_CLASSES, Panel, write_pictures
from vidadapt.apps.study.side_by_side import find_models, say_unreadable, shared_samples
from vidadapt.config import ConfigError, Within
from vidadapt.console import class_name, duration
from vidadapt.distributed import World
from vidadapt.files import replaced, write_json
from vidadapt.lists import Sample, manifest_hash
from vidadapt.serving import Trained, trained

NEIGHBOURS = 5
ONE_VIEW = ("--eval.num_clips", "1", "--eval.num_crops", "1")


@dataclass(frozen=True)
class TsneOptions:
    """Options of vidadapt tsne.

    Attributes:
        out: folder to write.
        run_dir: folders made by vidadapt train.
        split: which list.
        videos: at most so many, equally many of each class, chosen by --seed; default: all.
        classes: a number, for the first ones, or names; default: all, or the 20 largest.
        perplexity: about how many neighbours count; default: 30, or a third of the videos.
        seed: of the choice and t-SNE.
        rest: options of vidadapt evaluate.
    """

    out: Path
    run_dir: Sequence[str] = ()
    split: Literal["test", "dev"] = "test"
    videos: Annotated[int | None, Within(f"[{embedding.LEAST_VIDEOS}, inf)")] = None
    classes: Sequence[str] | None = None
    perplexity: float | None = None
    seed: Annotated[int, Within("[0, inf)")] = 0
    rest: Sequence[str] = ()

    def perplexity_of(self, num_videos: int) -> float:
        """The one asked for, or the default for so many videos."""
        if self.perplexity is not None:
            return self.perplexity
        return embedding.default_perplexity(num_videos)


def draw_features(asked: TsneOptions, world: World) -> None:
    """Write the pictures, tsne.json and the features of each run, and print the figures.

    Raises:
        ValueError: runs of different lists, or what cannot be drawn, naming the option.
        ImportError: scikit-learn is not installed.
    """
    began = time.monotonic()
    out = asked.out
    _check_options(asked, world)
    given = [("--run_dir", folder) for folder in asked.run_dir]
    models = find_models(given, ["--split", asked.split, *ONE_VIEW, *asked.rest])
    listed, first = shared_samples(models), next(iter(models.values()))
    label_names = first.plan.label_names
    manifest = manifest_hash(listed, label_names)
    runs.check_writable("--out", out)
    classes, said = embedding.chosen_classes(listed, label_names, asked.classes, MOST_CLASSES)
    samples = _chosen_videos(listed, classes, asked)
    embedding.check_size(len(samples), asked.perplexity_of(len(samples)))
    evaluations = [evaluation_of(run, manifest) for run in models.values()]
    looks = [_look(name, run, samples, world) for name, run in models.items()]
    # A video that one run cannot read is left out of all.
    errors = {path: why for features, _ in looks for path, why in features.errors.items()}
    kept = [one.of(path for path in one.paths if path not in errors) for one, _ in looks]
    perplexity = asked.perplexity_of(len(kept[0].paths))
    places = [embedding.coordinates(one.values, perplexity, asked.seed) for one in kept]
    figures = [
        {**about, **_figures(evaluated, features)}
        for evaluated, (_, about), features in zip(evaluations, looks, kept, strict=True)
    ]
    settings: dict[str, Any] = {
        "list": first.listed,
        "manifest": manifest,
        "num_videos": len(kept[0].paths),
        "videos_in_list": len(listed),
        "classes": [class_name(label, label_names) for label in classes],
        "classes_chosen": said or "all",
        "per_class": "all" if asked.videos is None else asked.videos // len(classes),
        "view": "the middle clip, centre crop",
        "features": "input of the head (attentive: of its last layer), at unit length for t-SNE",
        "perplexity": perplexity,
        "init": "pca",
        "seed": asked.seed,
        "unreadable": [{"path": path, "error": why} for path, why in errors.items()],
        "runs": figures,
    }
    panels = []
    for facts, one, spots, below in zip(figures, kept, places, captions(figures), strict=True):
        file = out / f"features_{facts['run'].replace('/', '_')}.npz"
        _write_features(file, one, spots)
        facts["file"] = file.name
        panels.append(Panel(spots, one.labels, facts["method"], below))
    write_json(out / "tsne.json", settings)
    shown = list(zip(classes, settings["classes"], strict=True))
    files = write_pictures(panels, shown, note_of(settings, said), out)
    _say(settings, [*files, out / "tsne.json"], time.monotonic() - began)


def _check_options(asked: TsneOptions, world: World) -> None:
    """Check what does not depend on the runs."""
    if world.size > 1:
        raise ConfigError("vidadapt tsne runs in one process: start it without torchrun")
    if not asked.run_dir:
        raise ConfigError("give --run_dir FOLDER ..., one run or several")
    if views := [word for word in asked.rest if word.startswith("--eval.")]:
        raise ConfigError(
            f"{', '.join(views)}: has no effect: the centre view of each video is taken"
        )
    embedding.load_sklearn("manifold")


def _chosen_videos(
    samples: Sequence[Sample], classes: Sequence[int], asked: TsneOptions
) -> list[Sample]:
    """The videos of these classes, class by class; if limited, equally many of each at random."""
    most = asked.videos
    if most is not None and most < len(classes):
        raise ConfigError(
            f"--videos: {most} are fewer than the {len(classes)} classes; give more, or --classes"
        )
    per_class = len(samples) if most is None else most // len(classes)
    return choose(samples, classes, per_class, asked.seed)


def _look(
    name: str, run: Trained, samples: list[Sample], world: World
) -> tuple[Features, dict[str, Any]]:
    """The features of one run, and what it consists of."""
    loaded, cfg = trained.load(run, world, samples), run.config
    features = embedding.features_of(loaded, world, f"features of {name}")
    return features, {
        "run": name,
        "run_dir": cfg.run_dir,
        "method": cfg.method["name"],
        "checkpoint": run.checkpoint.name,
        "num_frames": run.plan.sampling.num_frames,
        "head": cfg.model.head,
        "precision": loaded.precision,
        "trainable": loaded.trainable,
        "total": sum(p.numel() for p in loaded.model.parameters()),
    }


def _figures(evaluated: dict[str, Any] | None, features: Features) -> dict[str, Any]:
    """The accuracies of a caption, and how well the classes part.

    Args:
        evaluated: see `evaluation_of`.
    """
    return {
        "num_videos": len(features.paths),
        "top1": None if evaluated is None else evaluated["top1"],
        "views": None if evaluated is None else evaluated["views"],
        "top1_of_these_views": float(100 * np.mean(features.predicted == features.labels)),
        "knn_top1": embedding.knn_top1(features.values, features.labels, NEIGHBOURS),
        "knn_neighbours": NEIGHBOURS,
        "silhouette": embedding.silhouette(features.values, features.labels),
    }


def evaluation_of(run: Trained, manifest: str) -> dict[str, Any] | None:
    """The evaluation of this checkpoint on this list with most views, if there is one.

    It is searched in the run's folder and, as vidadapt bench_frames leaves it, in `eval` beside it.

    Raises:
        ConfigError: a metrics.json there that vidadapt evaluate did not write.
    """
    home = Path(run.config.run_dir)
    found = []
    for file in sorted([*home.glob("*/metrics.json"), *home.parent.glob("eval/metrics.json")]):
        try:
            metrics = json.loads(file.read_text(encoding="utf-8"))
            same_run = Path(metrics["run_dir"]).resolve() == home.resolve()
            of = metrics["manifest"], metrics["checkpoint"]
            clips, _, _, crops, _ = metrics["views"].split()  # as "2 clips x 3 crops"
            if same_run and of == (manifest, run.checkpoint.name):
                found.append((int(clips) * int(crops), metrics))
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{file}: is no result of vidadapt evaluate ({error!r}); delete it or move it away"
            ) from error
    return max(found, key=lambda pair: pair[0], default=(0, None))[1]


def _write_features(path: Path, features: Features, places: np.ndarray) -> None:
    """Features (N, D), labels, paths and places (N, 2) as npz."""
    with replaced(path) as partial:
        np.savez_compressed(
            partial,
            features=features.values,
            labels=features.labels,
            paths=np.asarray(features.paths),
            places=places,
        )


def captions(figures: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The lines below each panel's title, which is its method; the run's name where they repeat.

    Accuracies are those of the evaluations if every run has one, all with the same views; otherwise
    what the models make of the very views that are shown, so that they can be compared.
    """
    evaluated = figures[0]["views"] is not None and len({f["views"] for f in figures}) == 1
    repeated = len({facts["method"] for facts in figures}) < len(figures)
    found: list[tuple[str, ...]] = []
    for facts in figures:
        top1 = f"top-1 {facts['top1_of_these_views']:.1f} % (centre views of these videos)"
        if evaluated:
            top1 = f"top-1 {facts['top1']:.1f} % (whole list, {facts['views']})"
        share = 100 * facts["trainable"] / facts["total"]
        lines = (
            top1,
            f"{NEIGHBOURS} nearest neighbours {facts['knn_top1']:.1f} %",
            f"{facts['trainable']:,} trainable parameters ({share:.3g} %)",
        )
        found.append((facts["run"], *lines) if repeated else lines)
    return found


def note_of(settings: dict[str, Any], said: str) -> str:
    """Describe the picture as a whole, in one line."""
    parts = [f"{settings['num_videos']:,} videos of {Path(settings['list']).name}", said]
    if settings["per_class"] != "all":
        parts.append(f"up to {settings['per_class']} videos a class, at random")
    if settings["unreadable"]:
        parts.append(f"{len(settings['unreadable'])} unreadable left out")
    parts.append(f"t-SNE, perplexity {settings['perplexity']:.3g}, seed {settings['seed']}")
    return "; ".join(filter(None, parts))


def _say(settings: dict[str, Any], files: Sequence[Path], seconds: float) -> None:
    for facts, lines in zip(settings["runs"], captions(settings["runs"]), strict=True):
        print(f"{facts['run']}: {', '.join(lines[-3:])}")
    say_unreadable("unreadable, left out", settings["unreadable"])
    print(f"{note_of(settings, '')} in {duration(seconds)}")
    print(f"results: {', '.join(map(str, files))}")
