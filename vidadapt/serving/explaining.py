"""Why a model says what it says of a clip: where in its frames, and which frames, the evidence is.

Nothing is assumed of the model: parts of the clip are hidden, and it is asked again. So it is the
same for every method on every backbone, with or without attention or gradients, and each number is
what it says it is: by how much the answer changes. (Attention maps and gradients say what a model
looks at, not what it needs: https://arxiv.org/abs/1902.10186, https://arxiv.org/abs/1810.03292.)
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from vidadapt.serving.model import Model

AT_ONCE = 8  # clips
GREY = 128


@dataclass(frozen=True, eq=False)
class Explanation:
    """What speaks for a label in one clip.

    Attributes:
        label: number of the class.
        probability: that the model gives it.
        cells: (T, G, G) float32: by how much the label's log-odds fall where a cell of a frame and
            of its neighbours is blurred, in natural logarithms; negative: they rise.
        drops: (T,) float32, by how much the probability falls without each frame.
        best: number of the most probable class of the clip.
        answers: the best label without each frame.
        needed: frames that, left out together, change the best label, and each of them needed for
            that: one, if one is enough. Empty: no set was found.
    """

    label: int
    probability: float
    cells: Tensor
    drops: Tensor
    best: int
    answers: tuple[int, ...]
    needed: tuple[int, ...]


def explain(model: Model, clip: Tensor, label: int | None = None, grid: int = 7) -> Explanation:
    """Explain a label of a clip (3, T, S, S) uint8; default: the best one.

    It takes T * grid * grid + 2 * T forward passes or a few less.

    Args:
        grid: cells in a row and in a column of a frame.

    Raises:
        ValueError: no such label, or a grid of less than 1 or more than S.
    """
    names, side = model.labels, clip.shape[-1]
    if not 1 <= grid <= side or (label is not None and not 0 <= label < len(names)):
        raise ValueError(f"expected a grid of 1 to {side}, and a label below {len(names)}")
    several = model.adapter.plan.multi_label
    logits = model(clip[None])[0].cpu()
    best = int(logits.argmax())
    chosen = best if label is None else label
    shares = _shares(logits, several)
    without = _asked(model, [left_out(clip, [frame]) for frame in range(clip.shape[1])])
    drops = shares - _shares(without, several)
    answers = tuple(without.argmax(1).tolist())
    return Explanation(
        label=chosen,
        probability=float(shares[chosen]),
        cells=_cells(model, clip, chosen, grid),
        drops=drops[:, chosen],
        best=best,
        answers=answers,
        needed=_needed(model, clip, best, answers, drops[:, best]),
    )


def hidden(clip: Tensor, blurred: Tensor, cell: tuple[int, int, int], grid: int) -> Tensor:
    """The clip with a cell (frame, row, column) blurred, in the frames before and after it, too.

    Neighbours show nearly the same: with one frame hidden alone, a model sees it in the next one.
    """
    frame, row, column = cell
    edges = [round(place * clip.shape[-1] / grid) for place in range(grid + 1)]
    part = (
        slice(None),
        slice(max(0, frame - 1), frame + 2),
        slice(edges[row], edges[row + 1]),
        slice(edges[column], edges[column + 1]),
    )
    found = clip.clone()
    found[part] = blurred[part]
    return found


def blurred_clip(clip: Tensor, grid: int) -> Tensor:
    """The clip (3, T, S, S) with each frame blurred as far as a cell is wide."""
    sigma = clip.shape[-1] / grid
    size = min(2 * round(sigma) + 1, 2 * clip.shape[-1] - 1)  # the border is mirrored once at most
    return gaussian_blur(clip.transpose(0, 1), [size, size], [sigma, sigma]).transpose(0, 1)


def left_out(clip: Tensor, frames: Sequence[int]) -> Tensor:
    """The clip with some frames replaced by the nearest ones that stay, earlier ones first.

    Where none stays, as of an image, it is grey.
    """
    stay = [place for place in range(clip.shape[1]) if place not in frames]
    if not stay:
        return torch.full_like(clip, GREY)
    shown = [min(stay, key=lambda at: (abs(at - place), at)) for place in range(clip.shape[1])]
    return clip[:, shown]


def _cells(model: Model, clip: Tensor, label: int, grid: int) -> Tensor:
    num_frames, blurred = clip.shape[1], blurred_clip(clip, grid)
    places = itertools.product(range(num_frames), range(grid), range(grid))
    clips = (hidden(clip, blurred, place, grid) for place in places)
    asked = _asked(model, itertools.chain([clip], clips))
    odds = _log_odds(asked, label, model.adapter.plan.multi_label)
    return (odds[0] - odds[1:]).view(num_frames, grid, grid)


def _needed(
    model: Model, clip: Tensor, best: int, answers: Sequence[int], drops: Tensor
) -> tuple[int, ...]:
    """Frames whose absence changes the best label, see `Explanation.needed`.

    Args:
        answers: the best label without each frame.
        drops: (T,), by how much the probability of the best label falls without each frame.
    """

    def changes(frames: Sequence[int]) -> bool:
        return int(model(left_out(clip, frames)[None])[0].argmax()) != best

    order = drops.argsort(descending=True).tolist()
    if len(order) > 1 and (alone := [frame for frame in order if answers[frame] != best]):
        return (alone[0],)
    for count in range(2, len(order)):  # one frame at least stays
        if changes(order[:count]):
            found = order[:count]
            for frame in reversed(order[:count]):
                fewer = [one for one in found if one != frame]
                if fewer and changes(fewer):
                    found = fewer
            return tuple(sorted(found))
    return ()


def _asked(model: Model, clips: Iterable[Tensor]) -> Tensor:
    """Logits (N, K) float32 of clips, of which only a few are made at a time."""
    left, found = iter(clips), []
    while part := list(itertools.islice(left, AT_ONCE)):
        found.append(model(torch.stack(part)).cpu())
    return torch.cat(found)


def _shares(logits: Tensor, several: bool) -> Tensor:
    return logits.sigmoid() if several else logits.softmax(-1)


def _log_odds(logits: Tensor, label: int, several: bool) -> Tensor:
    """Natural logarithm of p / (1 - p) of the label (N,)."""
    if several:
        return logits[:, label]
    others = torch.arange(logits.shape[1]) != label
    return logits[:, label] - logits[:, others].logsumexp(1)
