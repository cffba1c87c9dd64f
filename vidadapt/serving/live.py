"""Windows over a live stream: one thread reads it, and never waits for the model.

stream = LiveStream(live_source("rtsp://camera/1"))
for seen in live_windows(load("runs/mine"), stream, Fraction(2), Fraction(1, 2)):
    seen.window.start, seen.window.probabilities, seen.latency
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction
from operator import itemgetter

import torch
from torch import Tensor

from vidadapt.data import DataPlan
from vidadapt.serving.films import (
    Window,
    complete,
    encode_new,
    encoder_of,
    offsets_of,
    shares_of,
    squares_of,
    times_of,
)
from vidadapt.serving.model import Model
from vidadapt.video import LiveStream, ReadError, live_frames, shown_at

WAITING = 4  # windows that may wait for the model; the oldest of more is passed over
PATIENCE = 1.0  # seconds; a thread that waits for a silent stream ends with the process
LOOK = 1.0  # seconds between two looks whether the reading thread is heard of


@dataclass(frozen=True)
class LiveWindow:
    """What a model sees in a part of a live stream.

    Attributes:
        part: number of the part of the stream without a gap that holds the window.
        window: its times count from the part's first frame.
        time: when it was answered, by the clock of this machine.
        latency: seconds from the arrival of the last frame that the window shows.
        passed_over: windows before it, since the one before, for which the model was too slow.
    """

    part: int
    window: Window
    time: datetime
    latency: float
    passed_over: int


@dataclass(frozen=True)
class _Clip:
    """The T squares (S, S, 3) uint8 of a window, which waits for the model."""

    number: int
    part: int
    start: Fraction
    squares: list[Tensor]
    arrived: float


Waiting = queue.SimpleQueue[_Clip | Exception | None]  # a clip, or how the reading ended


def live_windows(
    model: Model, stream: LiveStream, length: Fraction, hop: Fraction
) -> Iterator[LiveWindow]:
    """Yield windows of a stream while it comes, until `stream.stop` is set.

    Their frames are those of `windows_of`, and a window is answered as soon as its last frame is
    known: when the next one is there. No window holds frames of two parts. Memory holds the frames
    of the windows that are open, and of `WAITING` more.

    Args:
        stream: it is filled while it is read.
        length, hop: seconds, above 0.

    Raises:
        ReadError: see `live_frames`.
        NonFinite: scores that are not finite.
    """
    plan, encode = model.adapter.plan, encoder_of(model)
    waiting: Waiting = queue.SimpleQueue()
    reader = threading.Thread(
        target=_read, args=(stream, plan, length, hop, waiting), daemon=True, name="live stream"
    )
    reader.start()
    before = -1
    known: dict[int, Tensor] = {}  # by the identity of a frame, which `clip` keeps alive
    try:
        while isinstance(clip := _next(waiting, stream), _Clip):
            units = clip.squares
            if encode is not None:
                encode_new(clip.squares, known, encode, plan.sampling.num_frames)
                known = {id(square): known[id(square)] for square in clip.squares}
                units = [known[id(square)] for square in clip.squares]
            [shares] = shares_of(
                model, torch.stack(units)[None], encode is not None, stream.name, [clip.start]
            )
            yield LiveWindow(
                clip.part,
                Window(clip.start, clip.start + length, shares),
                datetime.now().astimezone(),
                time.monotonic() - clip.arrived,
                clip.number - before - 1,
            )
            before = clip.number
    finally:
        stream.stop.set()
        reader.join(PATIENCE)
    if clip is not None:
        raise clip


def _next(waiting: Waiting, stream: LiveStream) -> _Clip | Exception | None:
    """Wait for the next clip, or for how the reading ended.

    The driver of a camera may block the reading thread for ever, as may the search for a host's
    address: where the thread ought to have given up long ago, this does.
    """
    while True:
        with contextlib.suppress(queue.Empty):
            return waiting.get(timeout=LOOK)
        silent = time.monotonic() - stream.heard
        if silent > stream.give_up + 3 * stream.stall + LOOK:
            return ReadError(
                f"{stream.name}: no frame for {silent:.1f} s, given up (reading it blocks)"
            )


def _read(
    stream: LiveStream, plan: DataPlan, length: Fraction, hop: Fraction, waiting: Waiting
) -> None:
    """Read a stream to its end; its windows wait, of too many the newest; then how it ended."""
    offsets, numbers = offsets_of(plan, length), itertools.count()
    ended: Exception | None = None
    try:
        for part, shown in itertools.groupby(live_frames(stream), key=itemgetter(0)):
            frames = shown_at(
                stream.name, (of_part[1:] for of_part in shown), times_of(offsets, hop)
            )
            for start, squares in complete(squares_of(frames, plan), offsets, hop):
                while waiting.qsize() >= WAITING:
                    with contextlib.suppress(queue.Empty):
                        waiting.get_nowait()
                waiting.put(_Clip(next(numbers), part, start, squares, stream.arrived))
    except Exception as error:
        ended = error
    waiting.put(ended)
