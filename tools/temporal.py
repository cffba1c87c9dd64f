"""Temporal: does a trained model, or a data set, use time? Accuracy in other frame orders."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from vidadapt import launching, runs
from vidadapt.apps.study import temporal
from vidadapt.apps.study.temporal_report import markdown, write_pictures
from vidadapt.config import ConfigError
from vidadapt.console.naming import printable
from vidadapt.console.progress import duration
from vidadapt.distributed import World, together
from vidadapt.serving import Trained, names_of, trained

EPILOG = """examples:
  python tools/temporal.py --run_dir runs/ssv2_adaptformer
  torchrun --nproc-per-node 8 tools/temporal.py --run_dir runs/ssv2_adaptformer --split dev
  python tools/temporal.py --run_dir runs/linear runs/adaptformer runs/full --out time_of_ssv2
  python tools/temporal.py --adapter ssv2_adapter --data.root VIDEOS --data.test_list test.txt \\
      --model.weights videomae_vit_b.pth

Every video of the test list is read and decoded once (for each model) and scored with the frames
of its clips in order, reversed, shuffled, and with the middle one repeated. Further options are
those of tools/evaluate.py and hold for all models: --split, --checkpoint, --eval.num_clips,
--eval.num_crops, --data.root, ..., see its --help. Frames are reordered before the model sees
them, so within tubelets, too.

Several models stand side by side, on the same list: one that does not use the order may be unable
to; if any does, the order of its frames tells the data set's classes apart.

Writes temporal.json, temporal.md (verdict, tables), temporal.png and temporal.svg (each class in
the four orders).
"""


def parse(argv: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the words that are for tools/evaluate.py.

    Raises:
        ConfigError: no model, a negative seed, several models without a folder.
        SystemExit: after --help, or on malformed options.
    """
    parser = argparse.ArgumentParser(
        prog="tools/temporal.py",
        description="Say whether a trained model, or a data set, uses time and the frames' order.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for option, text in {
        "--run_dir": "run folders",
        "--adapter": "adapter folders, without their run",
    }.items():
        parser.add_argument(
            option, nargs="+", action="extend", default=[], metavar="DIR", help=text
        )
    parser.add_argument("--seed", type=int, default=0, help="of the shuffling; default 0")
    parser.add_argument(
        "--out", metavar="DIR", help="folder to write; default, for one run: inside the run's"
    )
    known, rest = parser.parse_known_args(argv)
    given = [*known.run_dir, *known.adapter]
    if not given:
        raise ConfigError("give --run_dir FOLDER ... or --adapter FOLDER ..., one model or several")
    if known.seed < 0:
        raise ConfigError(f"--seed: expected 0 or more, got {known.seed}")
    if len(given) > 1 and known.out is None:
        raise ConfigError("--out: give the folder for a report on several models")
    if any(word.replace("-", "_").startswith("__from_scores") for word in rest):
        raise ConfigError("--from_scores: scores hold one order of the frames; give a model")
    return known, rest


def main(world: World) -> None:
    began = time.monotonic()
    with together(world):
        options, words = parse(sys.argv[1:])
        models = find_models(options, words)
        out = output_folder(options, models)
        check_comparable(models)
    found = []
    for name, one in models.items():
        loaded = trained.load(one, world)
        with together(world):
            check_same_list(out, loaded.videos.manifest)
        paths = [sample.path for sample in loaded.videos.samples]
        orders = temporal.frame_orders(paths, one.plan.sampling.num_frames, options.seed)
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
            "seed": options.seed,
            "models": found,
            "seconds": time.monotonic() - began,
            "environment": runs.environment(world.size, str(world.device)),
        }
        runs.write_json(out / "temporal.json", report)
        runs.write_text(out / "temporal.md", markdown(report))
        say(report, [out / "temporal.json", out / "temporal.md", *write_pictures(report, out)])


def find_models(options: argparse.Namespace, words: list[str]) -> dict[str, Trained]:
    """The models by a short name, as tools/evaluate.py would find each."""
    given = [("--run_dir", folder) for folder in options.run_dir]
    given += [("--adapter", folder) for folder in options.adapter]
    names = names_of([Path(folder) for _, folder in given], "--run_dir, --adapter")
    found = {}
    for name, model in zip(names, given, strict=True):
        cfg, asked, adapter = trained.asked([*model, *words])
        assert cfg is not None
        found[name] = trained.find(cfg, asked, adapter)
    return found


def output_folder(options: argparse.Namespace, models: dict[str, Trained]) -> Path:
    """The folder for the report, made and tried before any work is done."""
    first = next(iter(models.values()))
    views = f"{first.plan.num_clips}x{first.plan.num_crops}"
    name = f"temporal_{first.split}_{first.checkpoint.name}_{views}"
    out = Path(options.out) if options.out else Path(first.config.run_dir) / name
    runs.check_writable("--out", out)
    return out


def check_comparable(models: dict[str, Trained]) -> None:
    """Models stand side by side only on the same videos and classes."""
    (first_name, first), *others = models.items()
    videos = trained.samples_of(first)
    for name, one in others:
        if trained.samples_of(one) != videos or one.plan.label_names != first.plan.label_names:
            raise ConfigError(
                f"--run_dir, --adapter: {name} is scored on {one.listed}, {first_name} on "
                f"{first.listed}, whose videos or classes differ; give one list for all with "
                "--data.test_list, or make a report of each"
            )


def check_same_list(out: Path, manifest: str) -> None:
    """A report on another list is not overwritten."""
    earlier = out / "temporal.json"
    if earlier.exists():
        models = json.loads(earlier.read_text(encoding="utf-8"))["models"]
        if models[0]["manifest"] != manifest:
            raise ConfigError(f"--out: {earlier} is a report on another list; choose another")


def say(report: dict[str, Any], files: list[Path]) -> None:
    for line in report["verdicts"]:
        print(line)
    for model in report["models"]:
        unreadable = model["unreadable"]
        if unreadable:
            print(f"{model['name']}: unreadable, wrong in every order ({len(unreadable)}):")
            for entry in unreadable[:10]:
                print(printable(f"  {entry['path']}: {entry['error']}"))
    count = report["models"][0]["num_videos"]
    print(
        f"scored {', '.join(model['name'] for model in report['models'])} on {count} videos of "
        f"{report['list']}, each read once a model and shown in 4 orders of the "
        f"frames, in {duration(report['seconds'])}"
    )
    print(f"results: {', '.join(map(str, files))}")


if __name__ == "__main__":
    launching.launch(main)
