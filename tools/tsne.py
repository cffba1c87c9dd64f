"""t-SNE: the features that trained runs give their last layer, side by side, coloured by class."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vidadapt import data, launching, runs
from vidadapt.apps.report import choose
from vidadapt.apps.study import embedding
from vidadapt.apps.study.embedding import Features
from vidadapt.apps.study.embedding_plot import MOST_CLASSES, Panel, write_pictures
from vidadapt.config import ConfigError
from vidadapt.console.naming import printable
from vidadapt.console.progress import duration
from vidadapt.distributed import World
from vidadapt.files.writing import replaced
from vidadapt.lists.reading import Sample, manifest_hash
from vidadapt.serving import Trained, names_of
from vidadapt.serving.trained import asked, find, load, samples_of

EPILOG = """examples:
  python tools/tsne.py --run_dir runs/linear runs/adaptformer --out runs/tsne
  python tools/tsne.py --run_dir runs/ssv2_linear runs/ssv2_adaptformer --out tsne --videos 1000
  python tools/tsne.py --run_dir runs/mine --out tsne --classes "opening something" "closing something"

Writes OUT/tsne.png and OUT/tsne.svg; OUT/tsne.json with every figure of the captions; and for each
run OUT/features_<run>.npz: what its last layer is given of the centre view of each video, with
labels, paths and the places in the picture. Every run must have the same list and classes. Options
of tools/evaluate.py that say where the videos and the backbone are (--data.root DIR,
--model.weights FILE, --checkpoint last, ...) may be given, too, and hold for all runs. Needs
scikit-learn: pip install 'vidadapt[analysis]'.
"""  # noqa: E501
NEIGHBOURS = 5


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Our options, and those that are for tools/evaluate.py's parser."""
    parser = argparse.ArgumentParser(
        prog="tools/tsne.py",
        description="Show how trained runs part the classes of a list, by t-SNE.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--run_dir", nargs="+", action="extend", required=True, metavar="DIR",
        help="folders made by tools/train.py",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument(
        "--split", choices=("test", "dev"), default="test", help="which list; default: test"
    )
    parser.add_argument(
        "--videos", type=int, metavar="N",
        help="at most N videos, equally many of each class, chosen by --seed; default: all",
    )  # fmt: skip
    parser.add_argument(
        "--classes", nargs="+", metavar="N|NAME",
        help=f"the first N classes, or these; default: all, or the {MOST_CLASSES} largest",
    )  # fmt: skip
    parser.add_argument(
        "--perplexity", type=float, metavar="P",
        help="about how many neighbours count; default: 30, or a third of the videos",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the choice and t-SNE; default: 0")
    options, others = parser.parse_known_args(argv)
    if options.videos is not None and options.videos < embedding.LEAST_VIDEOS:
        parser.error(f"--videos: expected {embedding.LEAST_VIDEOS} or more, got {options.videos}")
    if options.seed < 0:
        parser.error(f"--seed: expected 0 or more, got {options.seed}")
    if views := [word for word in others if word.startswith("--eval.")]:
        parser.error(f"{', '.join(views)}: has no effect: the centre view of each video is taken")
    return options, others


def main(world: World) -> None:
    began = time.monotonic()
    options, others = parse(sys.argv[1:])
    if world.size > 1:
        raise ConfigError("tools/tsne.py runs in one process: start it without torchrun")
    embedding.load_sklearn("manifold")
    names = names_of([Path(folder) for folder in options.run_dir], "--run_dir")
    opened = {
        name: open_run(folder, options.split, others)
        for name, folder in zip(names, options.run_dir, strict=True)
    }
    lists = {name: samples_of(run) for name, run in opened.items()}
    manifest = same_manifest(opened, lists)
    runs.check_writable("--out", options.out)
    first, listed = opened[names[0]], lists[names[0]]
    label_names = first.plan.label_names
    classes, said = embedding.chosen_classes(listed, label_names, options.classes, MOST_CLASSES)
    samples = chosen_videos(listed, classes, options.videos, options.seed)
    embedding.check_size(len(samples), perplexity_of(options, len(samples)))
    evaluations = {name: evaluation_of(run, manifest) for name, run in opened.items()}
    looks = [look(name, run, samples, world) for name, run in opened.items()]
    kept = shared([features for features, _ in looks])
    perplexity = perplexity_of(options, len(kept[0].paths))
    places = [embedding.coordinates(one.values, perplexity, options.seed) for one in kept]
    figures = [
        {"run": name, **about, **figures_of(evaluated, features)}
        for (name, evaluated), (_, about), features in zip(
            evaluations.items(), looks, kept, strict=True
        )
    ]
    errors = {path: why for one in kept for path, why in one.errors.items()}
    settings = {
        "list": first.listed,
        "manifest": manifest,
        "num_videos": len(kept[0].paths),
        "videos_in_list": len(listed),
        "classes": [embedding.class_name(label_names, label) for label in classes],
        "classes_chosen": said or "all",
        "per_class": "all" if options.videos is None else options.videos // len(classes),
        "view": "the middle clip, centre crop",
        "features": "input of the head (attentive: of its last layer), at unit length for t-SNE",
        "perplexity": perplexity,
        "init": "pca",
        "seed": options.seed,
        "unreadable": [{"path": path, "error": why} for path, why in errors.items()],
        "runs": figures,
    }
    panels = []
    lines = captions(figures)
    for facts, one, spots, below in zip(figures, kept, places, lines, strict=True):
        file = options.out / f"features_{facts['run'].replace('/', '_')}.npz"
        write_features(file, one, spots)
        facts["file"] = file.name
        panels.append(Panel(spots, one.labels, facts["method"], below))
    runs.write_json(options.out / "tsne.json", settings)
    shown = list(zip(classes, settings["classes"], strict=True))
    files = write_pictures(panels, shown, note_of(settings, said), options.out)
    say(settings, files, time.monotonic() - began)


def open_run(folder: str, split: str, others: list[str]) -> Trained:
    """A run's checkpoint and list, see `trained.find`."""
    cfg, options, adapter = asked(["--run_dir", folder, "--split", split, *others])
    assert cfg is not None
    return find(cfg, options, adapter)


def same_manifest(opened: dict[str, Trained], lists: Mapping[str, Sequence[Sample]]) -> str:
    """The hash of list and class names, which all runs must share to stand side by side.

    Raises:
        ConfigError: the lists or the classes of two runs differ; names both.
    """
    hashes = {
        name: manifest_hash(lists[name], run.plan.label_names) for name, run in opened.items()
    }
    first, *others = opened
    for name in others:
        if hashes[name] == hashes[first]:
            continue
        pair = [(opened[one], len(lists[one])) for one in (first, name)]
        if pair[0][0].plan.label_names != pair[1][0].plan.label_names:
            counts = " and ".join(str(run.plan.num_classes) for run, _ in pair)
            what = f"their class names differ ({counts} classes)"
        else:
            said = " and ".join(f"{run.listed} ({count} videos)" for run, count in pair)
            what = f"their lists differ: {said}"
        raise ConfigError(
            f"--run_dir: {first} and {name} cannot stand side by side: {what}; give runs of one "
            "data set, or one list for all with --data.test_list or --data.dev_list"
        )
    return hashes[first]


def chosen_videos(
    samples: Sequence[Sample], classes: Sequence[int], most: int | None, seed: int
) -> list[Sample]:
    """The videos of these classes, class by class; with `most`, equally many of each at random."""
    if most is not None and most < len(classes):
        raise ConfigError(
            f"--videos: {most} are fewer than the {len(classes)} classes; give more, or --classes"
        )
    per_class = len(samples) if most is None else most // len(classes)
    return choose(samples, classes, per_class, seed)


def perplexity_of(options: argparse.Namespace, num_videos: int) -> float:
    if options.perplexity is not None:
        return options.perplexity
    return embedding.default_perplexity(num_videos)


def look(
    name: str, run: Trained, samples: list[Sample], world: World
) -> tuple[Features, dict[str, Any]]:
    """The features of one run, and what it consists of."""
    loaded = load(run, world, samples)
    cfg, plan = run.config, run.plan
    pinned = world.device.type == "cuda"
    features = embedding.features_of(
        loaded.model,
        data.eval_loader(
            cfg.data, plan, loaded.videos, num_clips=1, num_crops=1, pin_memory=pinned
        ),
        samples,
        num_classes=plan.num_classes,
        normalization=plan.normalization,
        precision=loaded.precision,
        world=world,
        label=f"features of {name}",
    )
    return features, {
        "run_dir": cfg.run_dir,
        "method": cfg.method["name"],
        "checkpoint": run.checkpoint.name,
        "num_frames": plan.sampling.num_frames,
        "head": cfg.model.head,
        "precision": loaded.precision,
        "trainable": loaded.trainable,
        "total": sum(p.numel() for p in loaded.model.parameters()),
    }


def shared(features: Sequence[Features]) -> list[Features]:
    """What is left where a video that one run cannot read is left out of all."""
    broken = {path for one in features for path in one.errors}
    return [one.of(path for path in one.paths if path not in broken) for one in features]


def figures_of(evaluated: dict[str, Any] | None, features: Features) -> dict[str, Any]:
    """The accuracies that stand in a caption, and how well the classes part.

    Args:
        evaluated: see `evaluation_of`.
    """
    return {
        "num_videos": len(features.paths),
        "top1": None if evaluated is None else evaluated["top1"],
        "views": None if evaluated is None else evaluated["views"],
        "top1_of_these_views": embedding.top1(features),
        "knn_top1": embedding.knn_top1(features.values, features.labels, NEIGHBOURS),
        "knn_neighbours": NEIGHBOURS,
        "silhouette": embedding.silhouette(features.values, features.labels),
    }


def evaluation_of(run: Trained, manifest: str) -> dict[str, Any] | None:
    """The evaluation of this checkpoint on this list with most views, if there is one.

    Looked for in the run's folder and, as tools/bench_frames.py leaves it, in `eval` beside it.

    Raises:
        ConfigError: a metrics.json there that tools/evaluate.py did not write.
    """
    home = Path(run.config.run_dir)
    found = []
    for file in sorted([*home.glob("*/metrics.json"), *home.parent.glob("eval/metrics.json")]):
        try:
            metrics = json.loads(file.read_text(encoding="utf-8"))
            of = (metrics["manifest"], metrics["checkpoint"])
            if of == (manifest, run.checkpoint.name) and _same_folder(metrics["run_dir"], home):
                found.append(metrics)
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{file}: is no result of tools/evaluate.py ({error!r}); delete it or move it away"
            ) from error
    return max(found, key=lambda metrics: _num_views(metrics["views"]), default=None)


def _same_folder(said: str, home: Path) -> bool:
    return Path(said).resolve() == home.resolve()


def _num_views(views: str) -> int:
    """Of "2 clips x 3 crops": 6."""
    clips, _, _, crops, _ = views.split()
    return int(clips) * int(crops)


def write_features(path: Path, features: Features, places: np.ndarray) -> None:
    """Features (N, D), labels, paths and places (N, 2) as npz, replaced at once."""
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
    """What the picture as a whole is of."""
    parts = [f"{settings['num_videos']:,} videos of {Path(settings['list']).name}"]
    if said:
        parts.append(said)
    if settings["per_class"] != "all":
        parts.append(f"up to {settings['per_class']} videos a class, at random")
    if settings["unreadable"]:
        parts.append(f"{len(settings['unreadable'])} unreadable left out")
    parts.append(f"t-SNE, perplexity {settings['perplexity']:.3g}, seed {settings['seed']}")
    return "; ".join(parts)


def say(settings: dict[str, Any], files: Sequence[Path], seconds: float) -> None:
    for facts, lines in zip(settings["runs"], captions(settings["runs"]), strict=True):
        print(f"{facts['run']}: {', '.join(lines[-3:])}")
    unreadable = settings["unreadable"]
    if unreadable:
        print(f"unreadable, left out ({len(unreadable)}):")
        for entry in unreadable[:10]:
            print(printable(f"  {entry['path']}: {entry['error']}"))
    print(f"{note_of(settings, '')} in {duration(seconds)}")
    print(f"results: {', '.join(map(str, files))}, {files[0].with_name('tsne.json')}")


if __name__ == "__main__":
    launching.launch(main)
