"""Parts of a set that machines pack on their own, and the folder of copies joined of them.

    FAST/1-of-3/shards/00000.tar    what the first of three machines has packed, ...
    FAST/1-of-3/copies.csv          ... size, frames and PSNR of its copies
    FAST/1-of-3/part.json           ... and what it found; there when it is done
    FAST/train.txt                  of the joined folder: 1-of-3/shards/00000.tar/NAME label

A part has every N-th video, in the order of the lists. Joining moves no frame.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vidadapt.apps.prepare.copied_lists import Originals, copy_names
from vidadapt.apps.prepare.copies import Copy, load_table
from vidadapt.apps.prepare.copying import CLAIM
from vidadapt.apps.prepare.report import Report
from vidadapt.files import write_json
from vidadapt.lists import MOST_LISTED
from vidadapt.video import ReadError, open_video

DONE = "part.json"
OWN = ("root", "part")  # of a part's claim: may differ from that of another


@dataclass(frozen=True)
class Part:
    """A part that is done, as its `part.json` says.

    Attributes:
        videos: digest of the list paths that it had.
        left_out: list paths that were not copied.
        report: attributes of its `Report`.
    """

    videos: str
    left_out: list[str]
    report: dict[str, dict[str, list[str]]]


def part_name(part: int, number: int) -> str:
    """Name of the folder of a part, and of the part in its claim: 2-of-8."""
    return f"{part}-of-{number}"


def part_names(number: int) -> list[str]:
    """Names of all N parts."""
    return [part_name(1 + n, number) for n in range(number)]


def part_of(originals: Originals, part: int, number: int) -> Originals:
    """Take every N-th video of all lists from the I-th on.

    Raises:
        ValueError: there is none; or two videos of the whole set would have one name as copies.
    """
    copy_names(originals.paths, originals.root, None)
    chosen = set(originals.paths[part - 1 :: number])
    if not chosen:
        raise ValueError(
            f"--shard {part}/{number}: the lists have {len(originals.paths):,} videos; choose "
            "fewer parts"
        )
    lists = {
        name: tuple(sample for sample in samples if sample.path in chosen)
        for name, samples in originals.lists.items()
    }
    return replace(originals, lists=lists)


def write_part(folder: Path, originals: Originals, copies: Iterable[str], report: Report) -> None:
    """Note that a part is done, and what it could not copy."""
    left_out = sorted({*originals.paths} - {*copies})
    part = Part(_digest(originals.paths), left_out, asdict(report))
    write_json(folder / DONE, asdict(part))


def joined(
    originals: Originals, out: Path, number: int, claim: Mapping[str, Any], report: Report
) -> dict[str, Copy]:
    """Check all N parts; return the copies by source path.

    Args:
        out: holds the folders of the parts.
        claim: of one machine's copies, with which those of the parts are compared.
        report: gets what the parts found.

    Returns:
        Copies in the order of the lists; their list paths are relative to `out`.

    Raises:
        ValueError: names a part that is missing, not done, of other lists or with other settings,
            or the copies of it that are missing or damaged.
    """
    found: dict[str, Copy] = {}
    for n, name in enumerate(part_names(number)):
        folder, again = out / name, f"give its command with --shard {1 + n}/{number} again"
        part = _read(folder, again)
        _check_claim(folder, claim)
        paths = part_of(originals, 1 + n, number).paths
        rows = {path: row for path, row in load_table(folder).items() if row.copy}
        if part.videos != _digest(paths) or not {*paths} - {*part.left_out} <= rows.keys():
            raise ValueError(f"{folder}: it was made of other lists; {again}")
        copied = [rows[path] for path in paths if path not in part.left_out]
        if lost := [line for row in copied if (line := _lost(folder, row))]:
            shown = "\n  ".join(lost[:MOST_LISTED])
            raise ValueError(
                f"{folder}: {len(lost)} of its {len(copied)} copies cannot be read; bring the "
                f"folder here again, with its tars and their indices\n  {shown}"
            )
        found |= {row.path: replace(row, copy=f"{name}/{row.copy}") for row in copied}
        for kind, findings in part.report.items():
            for title, lines in findings.items():
                getattr(report, kind).setdefault(title, []).extend(lines)
    return {path: found[path] for path in originals.paths if path in found}


def _read(folder: Path, again: str) -> Part:
    try:
        return Part(**json.loads((folder / DONE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        there = "it is not done" if folder.is_dir() else "there is no such part"
        raise ValueError(f"{folder}: {there}; {again}, or bring its folder here") from None
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{folder / DONE} cannot be used: {error}; {again}") from None


def _check_claim(folder: Path, claim: Mapping[str, Any]) -> None:
    """Raise ValueError unless a part was made with these settings."""
    held = json.loads((folder / CLAIM).read_text(encoding="utf-8"))
    keys = sorted({*claim, *held} - {*OWN})
    if differing := [f"{key} {held.get(key)}" for key in keys if claim.get(key) != held.get(key)]:
        raise ValueError(
            f"{folder}: its copies were made with {', '.join(differing)}; give --join the same "
            "options as all its parts"
        )


def _lost(folder: Path, row: Copy) -> str:
    """Say what is wrong with a copy; only the index of its tar is read. Empty: nothing."""
    try:
        with open_video(folder / row.copy) as video:
            if len(video) != row.frames:
                return f"{folder / row.copy}: {len(video)} frames, of {row.frames} that were packed"
    except ReadError as error:
        return str(error)
    return ""


def _digest(paths: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(paths).encode("utf-8", "surrogateescape")).hexdigest()
