"""What vidadapt predict does with --live: a line for each window of a stream, as it comes."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vidadapt.config import ConfigError
from vidadapt.console import duration, printable
from vidadapt.files import as_json
from vidadapt.models import NonFinite
from vidadapt.serving.film_command import seconds, window_as_dict
from vidadapt.serving.live import LiveWindow, live_windows
from vidadapt.serving.model import load
from vidadapt.serving.timeline import clock
from vidadapt.video import LiveStream, ReadError, live_source, require_camera

KEPT = 100_000  # latencies of the last windows, for the summary


def add_live_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of live streams."""
    live = parser.add_argument_group("live streams", "what is seen now; goes with --window")
    live.add_argument(
        "--live", action="store_true",
        help="the one source is a camera of this machine (0 or /dev/video0), or a stream at a URL "
        "(rtsp://, http://, https://, udp://); Ctrl-C ends it",
    )  # fmt: skip
    live.add_argument(
        "--stall", type=seconds, metavar="TIME",
        help="without a frame for so long, the stream is opened again; default: 10s",
    )  # fmt: skip
    live.add_argument(
        "--give_up", type=seconds, metavar="TIME",
        help="without a frame for so long, the stream is given up; default: 60s",
    )  # fmt: skip


def check_live_options(options: argparse.Namespace) -> None:
    """Refuse options that do not go together with --live, or only with it.

    Raises:
        ConfigError: names the option.
        ValueError: the source is no live stream.
    """
    if not options.live:
        for name in ("stall", "give_up"):
            if getattr(options, name) is not None:
                raise ConfigError(f"--{name}: goes with --live; add it, or leave this out")
        return
    if options.window is None:
        raise ConfigError("--live: goes with --window, e.g. --window 2s")
    for name in ("timeline", "root"):
        if getattr(options, name) is not None:
            raise ConfigError(
                f"--{name}: is for files, and has no effect with --live; leave it out"
            )
    if options.allow_outside_root:
        raise ConfigError("--allow_outside_root: is for lists, not for --live; leave it out")
    if len(options.videos) != 1:
        raise ConfigError(
            f"--live: expected one camera or address, got {len(options.videos)}; look at each with "
            "a command of its own"
        )
    live_source(options.videos[0])


@dataclass
class _Answers:
    """What came of a stream's windows.

    Attributes:
        windows: that were answered.
        passed_over: those that were not.
        latencies: seconds, of the last `KEPT` windows.
    """

    windows: int = 0
    passed_over: int = 0
    latencies: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))


def look(options: argparse.Namespace) -> int:
    """Print a line for each window until Ctrl-C or SIGTERM, then a summary on stderr.

    Returns:
        The exit status: 1 if the stream was given up, or a score was not finite.

    Raises:
        ValueError: see `load` and `require_camera`.
    """
    source = live_source(options.videos[0])
    require_camera(source)  # before a model is loaded
    stream, answers = LiveStream(source), _Answers()
    stream.stall = float(options.stall or stream.stall)
    stream.give_up = float(options.give_up or stream.give_up)
    model = load(options.adapter[0], options.weights, device=options.device)
    problem, began = "", time.monotonic()
    try:
        with _stopped_by_signals():
            hop = options.hop or options.window / 4
            for seen in live_windows(model, stream, options.window, hop):
                answers.windows += 1
                answers.passed_over += seen.passed_over
                answers.latencies.append(seen.latency)
                write = _as_json if options.json else _as_line
                print(write(seen, model.labels, options.top), flush=True)
    except KeyboardInterrupt:
        pass
    except (ReadError, NonFinite) as error:
        problem = str(error)
    _say(stream, answers, time.monotonic() - began)
    if problem:
        print(printable(f"error: {problem}"), file=sys.stderr, flush=True)
    return int(bool(problem))


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM raise KeyboardInterrupt, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {
        number: signal.signal(number, signal.default_int_handler)
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _as_json(seen: LiveWindow, names: Sequence[str], top: int) -> str:
    about: dict[str, Any] = {
        "part": seen.part,
        **window_as_dict(seen.window, names, top),
        "time": seen.time.isoformat(timespec="milliseconds"),
        "latency": round(seen.latency, 4),
        "passed_over": seen.passed_over,
    }
    return as_json(about)


def _as_line(seen: LiveWindow, names: Sequence[str], top: int) -> str:
    labels = ", ".join(
        f"{100 * each['probability']:.1f} % {each['name']}"
        for each in window_as_dict(seen.window, names, top)["top"]
    )
    times = f"{seen.part}  {clock(seen.window.start)} - {clock(seen.window.end)}"
    said = f"{seen.time:%H:%M:%S}  {times}  after {seen.latency:.2f} s  {labels}"
    if seen.passed_over:
        said += f"  ({seen.passed_over} windows before it passed over)"
    return printable(said)


def _say(stream: LiveStream, answers: _Answers, spent: float) -> None:
    """Print the summary on stderr."""
    said = [
        f"{answers.windows} windows, {answers.passed_over} passed over",
        f"{duration(float(stream.seconds))} of stream ({stream.num_frames} frames) in "
        f"{duration(spent)}",
        f"{max(0, stream.connections - 1)} reconnections",
        f"{stream.num_faults} decoding errors",
    ]
    if answers.latencies:
        median, late = np.percentile(answers.latencies, (50, 95))
        said.insert(1, f"latency {median:.2f} s (median), {late:.2f} s (95 %)")
    if stream.first_fault:
        said[-1] += f", the first: {stream.first_fault}"
    if stream.num_damaged:
        said.append(f"{stream.num_damaged} damaged frames, which were shown")
    if stream.jumps:
        said.append(f"timestamps jumped {stream.jumps} times")
    if stream.without_time:
        said.append(f"{stream.without_time} frames without an ascending timestamp")
    print(printable(f"{stream.name}: {'; '.join(said)}"), file=sys.stderr, flush=True)
