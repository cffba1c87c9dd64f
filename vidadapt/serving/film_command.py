"""What vidadapt predict does with --window: a timeline of each film."""

from __future__ import annotations

import argparse
import contextlib
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from vidadapt.config import ConfigError
from vidadapt.console import duration, printable, track
from vidadapt.files import absolute, as_json, fetched, is_url, writing
from vidadapt.models import NonFinite
from vidadapt.runs import check_writable
from vidadapt.runs.adapter_json import thresholds_of
from vidadapt.serving.films import Window, windows_of
from vidadapt.serving.given import GivenVideo, find_videos, require_own_names
from vidadapt.serving.model import Model, load
from vidadapt.serving.timeline import (
    Run,
    at_cuts,
    clock,
    runs_of,
    smoothed,
    write_runs,
    write_subtitles,
)
from vidadapt.video import Film, ReadError, TransientReadError, cause_of, film_and_span, open_film

UNITS = {"": Fraction(1), "s": Fraction(1), "ms": Fraction(1, 1000), "min": Fraction(60)}
STILL = 10.0  # seconds; a frame that is shown for longer is said


def seconds(word: str) -> Fraction:
    """Read a length of time: 2, 2s, 0.5s, 500ms or 1min.

    >>> seconds("500ms"), seconds("2")
    (Fraction(1, 2), Fraction(2, 1))

    Raises:
        argparse.ArgumentTypeError: it is none, or not above 0.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?|\.\d+)\s*(ms|min|s|)", word.strip())
    if found is None or not (length := Fraction(found[1]) * UNITS[found[2]]):
        raise argparse.ArgumentTypeError(f"{word!r} is no length of time; give e.g. 2s or 500ms")
    return length


def add_film_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of films."""
    films = parser.add_argument_group("films", "what is seen when, in long videos")
    films.add_argument(
        "--window", type=seconds, metavar="TIME",
        help="look at windows of this length, e.g. 2s, one after the other",
    )  # fmt: skip
    films.add_argument(
        "--hop", type=seconds, metavar="TIME",
        help="from one window's beginning to the next; default: a quarter of --window",
    )  # fmt: skip
    films.add_argument(
        "--timeline", type=Path, metavar="DIR",
        help="write a page with a player, the runs as .csv and .vtt (subtitles), and each window "
        "as a line of .jsonl, for each film",
    )  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """The timeline of one film.

    Attributes:
        video: as it was given.
        film: what was found while it was read.
        runs: in the order in which they end.
        names: of the classes.
        windows: that were looked at.
        problem: what is wrong with the film, whose timeline may be short, or not there, then;
            empty: nothing.
    """

    video: GivenVideo
    film: Film
    runs: list[Run]
    names: Sequence[str]
    windows: int
    problem: str = ""


def check_film_options(options: argparse.Namespace) -> None:
    """Refuse options that do not go together with films, or only with them.

    Raises:
        ConfigError: names the option.
    """
    if options.window is None:
        for name in ("hop", "timeline"):
            if getattr(options, name) is not None:
                raise ConfigError(f"--{name}: goes with --window; give one, or leave it out")
        return
    if options.keys or len(options.adapter or ()) != 1:
        raise ConfigError("--window: give one --adapter; a film is looked at by one model")
    for name in ("num_clips", "num_crops", "sheet", "num_workers"):
        if getattr(options, name) is not None:
            raise ConfigError(
                f"--{name}: has no effect with --window, which takes one clip and the middle crop "
                "of each window, and decodes a film once; leave it out"
            )


def timelines(options: argparse.Namespace) -> Iterator[Seen]:
    """Look at each film as the options say; print its runs, and write its files with --timeline.

    A film that cannot be read has its `problem`; those after it are looked at.

    Raises:
        ConfigError: films whose files would have one name, or lie outside of the folder.
        ValueError: see `load`.
        OSError: a file cannot be written.
    """
    videos = find_videos(options.videos, options.root, options.allow_outside_root)
    for video in videos:
        if film_and_span(video.path)[1] is not None:
            raise ConfigError(
                f"--window: {printable(video.path)}: is a segment; give the whole film"
            )
    if options.timeline is not None:
        require_own_names(videos, "--timeline")
        check_writable("--timeline", options.timeline)
    model = load(options.adapter[0], options.weights, device=options.device)
    for video in videos:
        began, film = time.monotonic(), Film(video.path)
        try:
            with _local(video) as path:
                film = open_film(path)
                seen = _timeline(model, video, film, options)
        except (ReadError, NonFinite) as error:
            problem = str(error).removeprefix(f"{absolute(video.path)}: ")
            seen = Seen(video, film, [], model.labels, 0, problem)
            if options.json:
                print(as_json({"video": video.path, "error": problem}), flush=True)
        _say(seen, time.monotonic() - began)
        yield seen


def _timeline(model: Model, video: GivenVideo, film: Film, options: argparse.Namespace) -> Seen:
    """Look at one film; lines of windows are written while it is read, the rest at its end."""
    length, hop = options.window, options.hop or options.window / 4
    names, runs = model.labels, list[Run]()
    starts: list[Fraction] = []  # of the windows that were looked at
    thresholds = None
    if model.adapter.plan.multi_label:
        thresholds = thresholds_of(model.adapter.about) or [0.5] * len(names)
    if not options.json:
        print(printable(video.path))
    with contextlib.ExitStack() as stack:
        write: Callable[[str], object] = str  # nothing is written
        if options.timeline is not None:
            write = stack.enter_context(_lines(options.timeline, video))

        def noted() -> Iterator[Window]:
            last = film.promised or 0.0
            total = max(1, math.floor((last - float(length)) / float(hop)) + 1)
            windows = windows_of(model, film, length, hop)
            for window in track(windows, total=total, label="predict", unit="windows"):
                starts.append(window.start)
                write(as_json(window_as_dict(window, names, options.top)) + "\n")
                yield window

        found = runs_of(smoothed(noted(), hop), thresholds)
        if thresholds is None and hop < length:
            found = at_cuts(found, film.changes, length)
        for run in found:
            runs.append(run)
            shown = as_json(_run(video, run, names)) if options.json else _line(run, names)
            print(shown, flush=True)
    if options.timeline is not None:
        write_runs(timeline_file(options.timeline, video, "csv"), runs, names)
        write_subtitles(timeline_file(options.timeline, video, "vtt"), runs, names, film.offset)
    return Seen(video, film, runs, names, len(starts), _problem(film))


def timeline_file(folder: Path, video: GivenVideo, ending: str) -> Path:
    """Return the path of one of a film's files: FOLDER/NAME.ENDING."""
    return folder / f"{video.name}.{ending}"


@contextlib.contextmanager
def _lines(folder: Path, video: GivenVideo) -> Iterator[Callable[[str], object]]:
    """Yield what writes lines to a film's .jsonl, which has another name until it is whole.

    What an interrupted or damaged film leaves stays there, for hours may have been spent on it.
    """
    file = timeline_file(folder, video, "jsonl")
    part = timeline_file(folder, video, "part.jsonl")
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("w", encoding="utf-8", buffering=1) as lines:
                yield lines.write
        except BaseException:
            if part.stat().st_size:
                print(f"windows that were looked at: {part}", file=sys.stderr, flush=True)
            else:
                part.unlink()
            raise
        part.replace(file)


@contextlib.contextmanager
def _local(video: GivenVideo) -> Iterator[str]:
    """Yield the path of a film's file, which is fetched from a store where it lies in one.

    Raises:
        TransientReadError: it cannot be fetched now.
    """
    if not is_url(video.path):
        yield absolute(video.path)
        return
    try:
        copy = fetched(video.path)
    except OSError as error:
        raise TransientReadError(f"{video.path}: {cause_of(error)}") from None
    with copy.file:
        yield copy.path


def window_as_dict(window: Window, names: Sequence[str], top: int) -> dict[str, Any]:
    """Return a window's times in seconds and its most probable labels, for JSON."""
    order = np.argsort(-window.probabilities, kind="stable")[:top].tolist()
    return {
        "start": float(window.start),
        "end": float(window.end),
        "top": [
            {"label": k, "name": names[k], "probability": float(window.probabilities[k])}
            for k in order
        ],
    }


def _run(video: GivenVideo, run: Run, names: Sequence[str]) -> dict[str, Any]:
    times = {"start": float(run.start), "end": float(run.end)}
    about = {"label": run.label, "name": names[run.label], "probability": run.probability}
    return {"video": video.path, **times, **about}


def _line(run: Run, names: Sequence[str]) -> str:
    times = f"  {clock(run.start)} - {clock(run.end)}"
    return printable(f"{times} {100 * run.probability:6.1f} %  {names[run.label]}")


def _problem(film: Film) -> str:
    """Say what is wrong with a film that was read to its end; empty: nothing."""
    found = []
    if film.faults:
        first = f"the first: {cause_of(film.faults[0])}"
        found.append(f"{len(film.faults)} decoding error(s), {first}")
    read, promised = float(film.seconds), film.promised
    if promised is not None and read < promised - max(1.0, promised / 100):
        found.append(f"ends after {read:.1f} of {promised:.1f} s that its header promises")
    if film.without_time:
        found.append(
            f"{film.without_time} frame(s) without an ascending timestamp, shown for the mean "
            "duration of a frame"
        )
    return "; ".join(found)


def _say(seen: Seen, spent: float) -> None:
    """Print a film's summary on stderr, and what is wrong with it."""
    film = seen.film
    rate = f"{seen.windows / spent:.1f} windows/s, {float(film.seconds) / spent:.1f} x real time"
    if seen.windows:
        said = (
            f"{seen.video.path}: {seen.windows} windows, {len(seen.runs)} runs in "
            f"{duration(float(film.seconds))} of film, {duration(spent)} ({rate})"
        )
        print(printable(said), file=sys.stderr)
    if film.longest > STILL:
        print(
            printable(f"{seen.video.path}: a frame is shown for {float(film.longest):.1f} s"),
            file=sys.stderr,
        )
    if seen.problem:
        print(printable(f"{seen.video.path}: {seen.problem}"), file=sys.stderr, flush=True)
