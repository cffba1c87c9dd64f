"""results.jsonl: one JSON object a finished cell, from which table and plots are made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from vidadapt.evaluation import in_percent
from vidadapt.files import write_text

Line = Mapping[str, Any]

# Keys of a line by the kind of their values; those of NEVER_NULL are known of every cell.
TEXTS = (
    *("cell", "variant", "method", "views", "backbone", "precision", "device", "problem"),
)  # fmt: skip
SETTINGS = (
    *("frames", "seed", "processes", "epochs", "base_lr", "num_videos", "crop_size"),
    *("num_classes", "batch_size", "threads"),
)
FIGURES = (
    *("unreadable", "dev_top1", "best_epoch"),
    *("trainable", "total", "share_percent", "adapter_bytes", "forward_flops_per_clip"),
    *("training_flops_per_clip", "step_seconds", "step_spread_percent", "peak_memory_bytes"),
    *("peak_process_bytes", "matmul_tflops", "matmul_share", "data_seconds_per_clip"),
    *("data_spread_percent", "data_share", "clips_per_second", "epoch_seconds"),
    *("run_epoch_seconds", "run_epoch_spread_percent", "evaluation_seconds_per_video"),
)
LISTS = ("noisy", "curve")
OBJECTS = ("options", "grid", "manifests", "environment", "config", "cross_validation", "tasks")
NEVER_NULL = ("cell", "variant", "method", "frames", "options")


class ResultsError(ValueError):
    """A file of results that cannot be used; the message names file and line."""


def read_results(path: Path) -> list[dict[str, Any]]:
    """The lines of a results.jsonl, in its order.

    Raises:
        ResultsError: no such file, no line, a line that is no JSON object, holds NaN, lacks a key,
            has a value of another kind, or is about the same cell as an earlier one.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ResultsError(
            f"{path}: cannot be read ({error.strerror}); vidadapt bench_frames --config writes it"
        ) from error
    lines: list[dict[str, Any]] = []
    seen: dict[str, int] = {}
    for number, written in enumerate(text.splitlines(), start=1):
        place = f"{path}:{number}"
        try:
            line = json.loads(written, parse_constant=_refuse)
        except ValueError as error:
            raise ResultsError(f"{place}: not valid JSON ({error})") from error
        if isinstance(line, dict):  # older lines lack what is newer
            newer = (*in_percent(), "cross_validation", "tasks")
            line |= {name: None for name in newer if name not in line}
        _check(line, place)
        first = seen.setdefault(line["cell"], number)
        if first != number:
            raise ResultsError(f"{place}: cell {line['cell']} is in line {first}, too")
        lines.append(line)
    if not lines:
        raise ResultsError(f"{path}: holds no line; no cell has been finished yet")
    return lines


def write_results(path: Path, lines: Sequence[Line]) -> None:
    """Write the file whole: under another name, then renamed.

    Raises:
        ResultsError: a line that `read_results` would refuse; what was there before is unharmed.
    """
    texts = []
    for number, line in enumerate(lines, start=1):
        place = f"{path}:{number}"
        _check(line, place)
        try:
            texts.append(json.dumps(dict(line), ensure_ascii=False, allow_nan=False) + "\n")
        except ValueError as error:
            raise ResultsError(f"{place}: cell {line['cell']}: {error}") from error
    write_text(path, "".join(texts))


def of_earlier_calls(before: Sequence[Line], now: Sequence[Line]) -> list[Line]:
    """The lines of a results.jsonl that stay beside those of a call.

    A line of the call takes the place of those with its variant, frames and seed, whatever their
    rate; and a trained cell that of the cost of its variant and frames alone.

    >>> a, b, cost = ({"variant": "vpt", "frames": 2, "seed": seed} for seed in (0, 1, None))
    >>> of_earlier_calls([a, cost], [b]) == [a], of_earlier_calls([a], [a])
    (True, [])
    """
    taken = {(line["variant"], line["frames"], line["seed"]) for line in now}
    trained = {
        (line["variant"], line["frames"]) for line in (*before, *now) if line["seed"] is not None
    }
    return [
        line
        for line in before
        if (line["variant"], line["frames"], line["seed"]) not in taken
        and (line["seed"] is not None or (line["variant"], line["frames"]) not in trained)
    ]


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no figure; what is not known is null")


def kinds() -> dict[str, tuple[str, type | tuple[type, ...]]]:
    """Return the kind of each key of a line: in words, and its types."""
    return {
        **dict.fromkeys(TEXTS, ("a text", str)),
        **dict.fromkeys((*SETTINGS, *FIGURES, *in_percent()), ("a number", (int, float))),
        **dict.fromkeys(LISTS, ("a list", list)),
        **dict.fromkeys(OBJECTS, ("an object", dict)),
    }


def _check(line: Any, place: str) -> None:
    if not isinstance(line, dict):
        raise ResultsError(f"{place}: expected a JSON object, got {str(line)[:40]}")
    missing = [key for key in kinds() if key not in line]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ResultsError(
            f"{place}: lacks {', '.join(missing[:5])}{more}; vidadapt bench_frames writes every key"
        )
    for key, (kind, types) in kinds().items():
        value = line[key]
        if value is None and key not in NEVER_NULL:
            continue
        if not isinstance(value, types) or isinstance(value, bool):
            allowed = kind if key in NEVER_NULL else f"{kind} or null"
            raise ResultsError(f"{place}: {key}: expected {allowed}, got {value!r}")
