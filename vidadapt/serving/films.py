"""Windows over a film: decoded once; overlapping windows share frames, and features where they can.

film = open_film("match.mp4")
for window in windows_of(load("runs/mine"), film, Fraction(2), Fraction(1, 2)):
    window.start, window.probabilities
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from vidadapt.data import DataPlan, crop_corners, cut_views, eval_frames, normalize
from vidadapt.models import FrameByFrame, NonFinite, autocast
from vidadapt.serving.model import Model
from vidadapt.serving.predict import probabilities
from vidadapt.video import Film, ReadError, frames_at

Encode = Callable[[Tensor], Tensor]  # frames (T, S, S, 3) uint8 -> features (T, D)


@dataclass(frozen=True)
class Window:
    """What a model sees in a part of a film.

    Attributes:
        start, end: seconds from the first frame.
        probabilities: (K,) of the classes.
    """

    start: Fraction
    end: Fraction
    probabilities: np.ndarray


def windows_of(model: Model, film: Film, length: Fraction, hop: Fraction) -> Iterator[Window]:
    """Yield the windows that lie wholly in a film, in their order; window k begins at k hops.

    A window's clip has T frames by time: of uniform sampling those in the middle of T equal parts,
    else those at T equal steps from its beginning; the middle crop is taken. Where hops are whole
    steps, overlapping windows show the same frames. A frame is decoded, resized and, by a model
    that sees each frame alone, encoded once. Memory holds the frames of the windows that are open.

    Args:
        film: from `open_film`; it is filled while it is read.
        length, hop: seconds, above 0.

    Raises:
        ReadError: no window lies in the film, or see `frames_at`.
        NonFinite: scores that are not finite.
    """
    adapter, plan = model.adapter, model.adapter.plan
    offsets, encode = offsets_of(plan, length), encoder_of(model)
    squares = _changes_noted(film, squares_of(frames_at(film, times_of(offsets, hop)), plan))
    units = squares if encode is None else _encoded(squares, encode, plan.sampling.num_frames)
    inside = _inside(film, complete(units, offsets, hop), length, hop)
    none = True
    while batch := list(itertools.islice(inside, adapter.config.eval.views_per_forward)):
        none = False
        clips = torch.stack([torch.stack(of_window) for _, of_window in batch])
        starts = [start for start, _ in batch]
        shares = shares_of(model, clips, encode is not None, film.path, starts)
        for start, row in zip(starts, shares, strict=True):
            yield Window(start, start + length, row)
    if none:
        raise ReadError(
            f"{film.path}: lasts {float(film.seconds):.2f} s, less than one window of "
            f"{float(length):g} s; give a shorter one"
        )


def offsets_of(plan: DataPlan, length: Fraction) -> list[Fraction]:
    """Return the times of a window's frames, in seconds from its beginning.

    >>> from vidadapt.runs.adapters import bare_plan
    >>> [float(each) for each in offsets_of(bare_plan(4, 32), Fraction(2))]
    [0.0, 0.5, 1.0, 1.5]
    """
    count = plan.sampling.num_frames
    middle = 1 if plan.sampling.policy == "uniform" else 0
    return [length * (2 * i + middle) / (2 * count) for i in range(count)]


def times_of(offsets: Sequence[Fraction], hop: Fraction) -> Iterator[Fraction]:
    """Yield the times of the frames of all windows without end, ascending, each once."""
    coming: list[Fraction] = []
    for number in itertools.count():
        begin = number * hop + offsets[0]
        while coming and coming[0] < begin:
            time = heapq.heappop(coming)
            while coming and coming[0] == time:
                heapq.heappop(coming)
            yield time
        for offset in offsets:
            heapq.heappush(coming, number * hop + offset)


def squares_of(
    frames: Iterable[tuple[Fraction, int, np.ndarray]], plan: DataPlan
) -> Iterator[tuple[Fraction, Tensor]]:
    """Yield times and the square that the model sees then, (S, S, 3) uint8, made once a frame.

    Args:
        frames: time, number of the frame, and frame (H, W, 3) uint8, see `frames_at`.
    """
    shown: tuple[int, Tensor] | None = None
    for time, number, frame in frames:
        if shown is None or shown[0] != number:
            resized = eval_frames(frame[None], plan.crop_size, plan.framing)
            corner = torch.tensor(crop_corners(resized.shape[1], resized.shape[2], 1, plan.framing))
            [view] = cut_views(resized, torch.zeros(1, 1, dtype=torch.int64), corner)
            shown = number, view[:, 0].permute(1, 2, 0).contiguous()
        yield time, shown[1]


def _changes_noted(
    film: Film, squares: Iterator[tuple[Fraction, Tensor]]
) -> Iterator[tuple[Fraction, Tensor]]:
    """Pass on times and squares; how much each differs from the one before goes to the film."""
    before: Tensor | None = None
    for time, square in squares:
        if before is not None and square is not before:
            film.changes.append((time, (square.float() - before).abs().mean().item()))
        before = square
        yield time, square


def _encoded(
    squares: Iterator[tuple[Fraction, Tensor]], encode: Encode, count: int
) -> Iterator[tuple[Fraction, Tensor]]:
    """Yield times and features (D,) of frames, which are encoded once each, `count` at a time."""
    waiting: list[tuple[Fraction, Tensor]] = []
    known: dict[int, Tensor] = {}  # by the identity of the frame, which `waiting` keeps alive

    def features() -> Iterator[tuple[Fraction, Tensor]]:
        encode_new([frame for _, frame in waiting], known, encode, count)
        for time, frame in waiting:
            yield time, known[id(frame)]

    distinct = 0
    for time, frame in squares:
        if not waiting or frame is not waiting[-1][1]:
            distinct += 1
        if distinct > count:
            yield from features()
            waiting, known, distinct = [], {}, 1
        waiting.append((time, frame))
    if waiting:
        yield from features()


def encode_new(
    frames: Sequence[Tensor], known: dict[int, Tensor], encode: Encode, count: int
) -> None:
    """Add the features of frames that `known` lacks; it goes by their identity.

    Args:
        frames: up to `count` different ones, which the caller keeps alive as long as `known`.
    """
    new = {id(frame): frame for frame in frames if id(frame) not in known}
    if new:
        filled = [*new.values(), *[*new.values()][-1:] * (count - len(new))]
        known.update(zip(new, encode(torch.stack(filled)), strict=False))


def complete(
    units: Iterable[tuple[Fraction, Tensor]], offsets: Sequence[Fraction], hop: Fraction
) -> Iterator[tuple[Fraction, list[Tensor]]]:
    """Yield the beginning of each window and its T units, as soon as its last one is there."""
    held: dict[Fraction, Tensor] = {}
    start = Fraction(0)
    for time, unit in units:
        held[time] = unit
        while time >= start + offsets[-1]:
            yield start, [held[start + offset] for offset in offsets]
            start += hop
            held = {at: of for at, of in held.items() if at >= start + offsets[0]}


def _inside(
    film: Film, windows: Iterator[tuple[Fraction, list[Tensor]]], length: Fraction, hop: Fraction
) -> Iterator[tuple[Fraction, list[Tensor]]]:
    """Pass on the windows that end before the film does, or within half a frame after it."""
    waiting: deque[tuple[Fraction, list[Tensor]]] = deque()
    for window in windows:
        waiting.append(window)
        while waiting and waiting[0][0] + length <= film.seconds:
            yield waiting.popleft()
    half = film.seconds / (2 * film.num_frames) if film.num_frames else 0
    for window in waiting:
        if window[0] + length <= film.seconds + half:
            yield window


def encoder_of(model: Model) -> Encode | None:
    """Return what encodes frames one by one; None: the model sees frames together."""
    module, name = model.module, model.adapter.plan.normalization
    if not isinstance(module, FrameByFrame):
        return None

    @torch.no_grad()
    def encode(frames: Tensor) -> Tensor:
        clip = normalize(frames.permute(3, 0, 1, 2)[None].to(model.device), name)
        with autocast(model.device, model.precision):
            return module.forward_features(clip)[0]

    return encode if _sees_frames_alone(module, encode) else None


def _sees_frames_alone(module: FrameByFrame, encode: Encode) -> bool:
    """Check that no adapter mixes frames: the features of one do not depend on the others."""
    _, count, side, _ = module.clip_shape
    generator = torch.Generator().manual_seed(0)
    frames = torch.randint(256, (count, side, side, 3), dtype=torch.uint8, generator=generator)
    others = frames.flip(1)
    others[0] = frames[0]
    alone, among = encode(frames)[0].float(), encode(others)[0].float()
    return bool((alone - among).abs().max() <= 1e-5 * alone.abs().max())


def shares_of(
    model: Model, units: Tensor, are_features: bool, name: str, starts: Sequence[Fraction]
) -> Iterator[np.ndarray]:
    """Yield the probabilities (K,) of windows.

    Args:
        units: frames (B, T, S, S, 3) uint8 or features (B, T, D).
        name: of the film, and `starts` of the windows, for messages.

    Raises:
        NonFinite: scores that are not finite.
    """
    adapter = model.adapter
    for start, row in zip(starts, _logits(model, units, are_features).numpy(), strict=True):
        if not np.isfinite(row).all():
            raise NonFinite(f"{name}: scores at {float(start):.2f} s are not finite")
        yield probabilities(row[None], adapter.config.eval.fusion, adapter.plan.multi_label)


@torch.no_grad()
def _logits(model: Model, units: Tensor, are_features: bool) -> Tensor:
    """Logits (B, K) float32, on the CPU, of frames (B, T, S, S, 3) or features (B, T, D)."""
    if not are_features:
        return model(units).cpu()
    with autocast(model.device, model.precision):
        return model.module.forward_head(units).float().cpu()
