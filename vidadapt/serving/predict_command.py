"""The command line of vidadapt predict, and what it prints."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from vidadapt import methods
from vidadapt.config import check_evaluation, parse_published, plugins
from vidadapt.console import duration, printable, track
from vidadapt.files import as_json, is_url
from vidadapt.lists import label_text, read_label_names
from vidadapt.runs import adapters, from_hub
from vidadapt.serving.film_command import add_film_options, check_film_options
from vidadapt.serving.given import LISTS, add_videos, find_videos, list_unreadable, names_of
from vidadapt.serving.live_command import add_live_options, check_live_options
from vidadapt.serving.predict import Guess, Prediction, Predictor, workers_for
from vidadapt.serving.published import find_published

EPILOG = f"""examples:
  vidadapt predict clip.mp4 --adapter runs/ssv2_adaptformer
  vidadapt predict VIDEOS/ --adapter ssv2_adapter --weights videomae_vit_b.pth --json
  vidadapt predict test.txt --root VIDEOS --adapter runs/ssv2 --adapter runs/hmdb51 \\
      --sheet out.png
  vidadapt predict VIDEOS/ --model.weights FOLDER --model.head from_file \\
      --data.sampling videomae_dense
  vidadapt predict match.mp4 --adapter runs/ssv2 --window 2s --hop 0.5s --timeline match/
  vidadapt predict rtsp://CAMERA/1 --live --adapter runs/ssv2 --window 2s --hop 0.5s

A video is looked at as in the adapter's evaluation: its own clips, crops, normalisation and fusion.
Adapters of one backbone whose clips are cut alike share the decoding, and linear probes and LoSA
also one pass of the backbone. In the place of adapters, --model.head from_file takes the
classifier in a weights file, with the keys of vidadapt evaluate for data, model and views.
Lists ({", ".join(LISTS)}) hold lines `path label` or
`path`; with labels, the summary says how many predictions agree, unless the
adapters have different classes. Hidden files of a folder (`.x`) are passed over. Videos that
cannot be read are listed at the end, and the exit status is 1 then (others: docs/failures.md).
With --window a film is decoded once, whatever its length, and overlapping windows share its frames;
their labels, smoothed, are its timeline. With --live each window of a camera or a stream has a line
of its own as it comes (docs/films.md).
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add all options but the time limit of counting."""
    add_videos(parser)
    parser.add_argument(
        "--adapter", action="append", metavar="DIR",
        help="adapter folder, e.g. runs/mine/best; a run's folder (its best, else its last); or "
        "hub:OWNER/NAME[@REVISION] or a URL in a store, which is fetched; "
        "may be given several times",
    )  # fmt: skip
    parser.add_argument(
        "--weights", metavar="FILE", help="the backbone's; default: those of the adapter's run"
    )
    parser.add_argument("--top", type=int, default=5, metavar="N", help="labels to show; default 5")
    parser.add_argument("--num_clips", type=int, metavar="N", help="default: the adapter's")
    parser.add_argument("--num_crops", type=int, metavar="N", help="default: the adapter's")
    parser.add_argument(plugins.OPTION, metavar="MODULES", help=plugins.HELP)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="one JSON object a line, not a table")
    form.add_argument("--sheet", type=Path, metavar="PNG", help="a picture instead; 10 videos each")
    parser.add_argument(
        "--num_workers", type=int, metavar="N",
        help="decoding processes; default: none up to 7 videos, else 4 or as many as cores",
    )  # fmt: skip
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    add_film_options(parser)
    add_live_options(parser)


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """End the program where options cannot be used; choose the device where none is given.

    Raises:
        SystemExit: a device that is not there, or a number below its least.
        ValueError: no picture can be written where --sheet says.
    """
    options.device = usable_device(parser, options.device)
    for name, least in (("top", 1), ("num_clips", 1), ("num_crops", 1), ("num_workers", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            parser.error(f"--{name}: expected {least} or more, got {value}")
    check_film_options(options)
    check_live_options(options)
    if options.adapter is None and not options.keys:
        parser.error(
            "give --adapter DIR, or --model.weights FILE --model.head from_file for the classifier "
            "in a weights file"
        )
    for name in ("adapter", "weights") if options.keys else ():
        if getattr(options, name) is not None:
            parser.error(f"--{name}: is for adapters; leave it out with --model.head from_file")
    sheet = options.sheet
    if sheet is not None and sheet.suffix.lower() != ".png":
        raise ValueError(f"--sheet: expected a file that ends in .png, got {sheet}")
    if sheet is not None and not sheet.absolute().parent.is_dir():
        raise ValueError(f"--sheet: the folder of {sheet} does not exist; make it first")


def usable_device(parser: argparse.ArgumentParser, given: str | None) -> str:
    """Return the device of --device; where none is given, cuda if there is one, else cpu.

    Raises:
        SystemExit: it is not there.
    """
    device = given or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        parser.error(f"--device: {device} cannot be used: {str(error).splitlines()[0]}")
    return device


def predictions(options: argparse.Namespace) -> list[Prediction]:
    """Predict as the options say; each is printed as it comes, unless a picture is wanted."""
    # Before a model is loaded, so that a wrong path is said at once.
    where = options.root, options.allow_outside_root
    videos = find_videos(options.videos, *where, multi_label=are_multi_label(options.adapter or []))
    predictor = _published(options) if options.keys else predictor_of(options)
    if len({predictor.adapter(name).classes for name in predictor.names}) > 1 and any(
        video.label is not None for video in videos
    ):
        print(
            "labels of the list are left out: the adapters have different classes, so the same "
            "number means different things to them",
            file=sys.stderr,
        )
        videos = [replace(video, label=None) for video in videos]
    workers = options.num_workers
    if workers is None:
        workers = workers_for(len(videos))
    sheet = options.sheet is not None
    found = predictor(
        videos, top=options.top, num_workers=workers, shown=sheet, time_limit=options.time_limit
    )
    found = track(found, total=len(videos), label="predict", unit="videos")
    return list(found if sheet else _printed(found, options.json))


def are_multi_label(given: Sequence[str]) -> bool:
    """Return whether adapters know several labels a video, and lists hold them."""
    folders = map(adapters.find_adapter, given)
    kinds = {adapters.read_adapter(folder).plan.multi_label for folder in folders}
    return kinds == {True}


def predictor_of(options: argparse.Namespace) -> Predictor:
    """Load the adapters that options name, see `Predictor`; fetch those that are elsewhere."""
    folders = [adapters.find_adapter(folder) for folder in options.adapter]
    shown = [
        Path(given) if from_hub.is_reference(given) or is_url(given) else folder
        for given, folder in zip(options.adapter, folders, strict=True)
    ]
    return Predictor(
        dict(zip(names_of(shown), folders, strict=True)),
        weights=options.weights,
        num_clips=options.num_clips,
        num_crops=options.num_crops,
        device=options.device,
    )


def _published(options: argparse.Namespace) -> Predictor:
    config = parse_published(options.keys, methods.METHODS)
    given = {"num_clips": options.num_clips, "num_crops": options.num_crops}
    views = {key: number for key, number in given.items() if number is not None}
    config = replace(config, eval=replace(config.eval, **views))
    check_evaluation(config)
    names = config.data.label_names
    found = find_published(config, None if names is None else read_label_names(names))
    predictor, report = Predictor.of_published(found, options.device)
    print(report, file=sys.stderr)
    said = f"{found.head}; its classes: {found.class_order}"
    print(printable(f"published classifier {found.name}: {said}"), file=sys.stderr)
    return predictor


def conclude(found: Sequence[Prediction], seconds: float, json_lines: bool) -> int:
    """Print a summary and the unreadable videos; return the exit status: 1 if there are some."""
    # With --json the output holds nothing but JSON.
    print(_summary(found, seconds), file=sys.stderr if json_lines else sys.stdout)
    unreadable = [prediction for prediction in found if prediction.error]
    list_unreadable([f"{one.video.path}: {one.error}" for one in unreadable])
    return 1 if unreadable else 0


def _printed(predictions: Iterator[Prediction], json_lines: bool) -> Iterator[Prediction]:
    """Print each as it comes."""
    for prediction in predictions:
        shown = as_json(_as_dict(prediction)) if json_lines else _as_table(prediction)
        print(shown, flush=True)
        yield prediction


def _as_dict(prediction: Prediction) -> dict[str, Any]:
    video = prediction.video
    about: dict[str, Any] = {"video": video.path, "given": video.label}
    if prediction.error:
        return {**about, "error": prediction.error}
    said = {
        name: {"views": prediction.views[name], "top": [_guess(guess) for guess in guesses]}
        for name, guesses in prediction.guesses.items()
    }
    return {**about, "predictions": said}


def _guess(guess: Guess) -> dict[str, Any]:
    return {key: value for key, value in asdict(guess).items() if value is not None}


def _as_table(prediction: Prediction) -> str:
    given = prediction.video.label
    shown = printable(prediction.video.path)
    named = "" if given is None else f"  (label {label_text(given)} in the list)"
    lines = [shown + named]
    if prediction.error:
        lines.append("  cannot be read")
    for name, guesses in prediction.guesses.items():
        lines.append(printable(f"  {name} ({prediction.views[name]})"))
        lines += [
            f"  {100 * guess.probability:6.1f} %  {printable(guess.name)}"
            + ", predicted" * bool(guess.predicted)
            + "  <- the list's" * prediction.video.has(guess.label)
            for guess in guesses
        ]
    return "\n".join(lines)


def _summary(predictions: Sequence[Prediction], seconds: float) -> str:
    read = [prediction for prediction in predictions if not prediction.error]
    said = f"{len(read)} of {len(predictions)} videos in {duration(seconds)}"
    labelled = [prediction for prediction in read if prediction.video.label is not None]
    if labelled:
        several = isinstance(labelled[0].video.label, tuple)
        said += "; the predicted labels are" if several else "; the first label is"
        said += " the list's: " + ", ".join(
            f"{name} {sum(p.is_right(name) for p in labelled)} of {len(labelled)}"
            for name in labelled[0].guesses
        )
    return said
