"""Own videos in a table, a csv file (`,` `;` or tab) with a header:

    path,label,split,group
    kitchen/0001.mp4,open fridge,train,anna
    kitchen/0002.mp4,close fridge,test,ben

`path` and `label` are required. Labels are names, whose ids are those of the sorted names, or
numbers, which are kept. Videos of one `group` are never on both sides of a split made here.

Rows may be segments of films, by two columns `start` and `end`, in seconds or as `hh:mm:ss.ss`; an
empty cell is the film's beginning or end. Columns whose names hold `frame` count frames, from 0 and
without the last (`start_frame`, `end_frame`); `start_frame` with `stop_frame`, as in EPIC-Kitchens,
count from 1 and with it. Of a table in which each file comes once, the columns are taken for
segments only if they are named by --start_column and --end_column, since clips that are cut already
often keep them. Segments of one film are a group where no column says another.

With --multi_label a cell under `label` holds any number of labels, `run;jump`; with
--label_columns there is a column of 0 and 1 for each class instead.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from vidadapt.apps.prepare import segment_columns
from vidadapt.apps.prepare.annotations import SPLIT_OF, SPLITS, Annotations, Entry, table_lines
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.videos import Files
from vidadapt.console import did_you_mean
from vidadapt.lists import PATH_COLUMNS, read_label_names, without_ending

COLUMNS = {
    "path": ", ".join(PATH_COLUMNS),
    "label": "label, label_name, class, class_name, category, action, target, label_id, class_id",
    "split": "split, subset, set, partition",
    "group": "group, group_id",
    "start": "start_timestamp, start, start_time, time_start, start_sec, start_seconds, t_start, "
    "from, begin, start_frame",
    "end": "stop_timestamp, end_timestamp, end, end_time, time_end, end_sec, end_seconds, t_end, "
    "to, stop, stop_frame, end_frame",
}
SEPARATOR = ";"  # of labels in a cell
_INTEGER = re.compile(r"-?[0-9]+")


def read(
    table: Path,
    files: Files,
    report: Report,
    *,
    columns: dict[str, str | None],
    label_names: Path | None = None,
    multi_label: bool = False,
    label_columns: Sequence[str] = (),
) -> Annotations:
    """Read a table: the splits that it names, or `train` alone.

    Args:
        table: UTF-8 text.
        files: of `videos.find`; paths are relative to its root, or else to the table's folder.
        report: gets rows that cannot be used.
        columns: by key of `COLUMNS`, the column's name; None: the first of the usual names.
        label_names: file with one class name a line, in label order.
        multi_label: labels of a video are separated by `SEPARATOR`, or it has none.
        label_columns: classes with a column of 0 and 1 each, in label order; empty: there is one
            column of labels.

    Raises:
        ValueError: no header, no such column, starts in frames with ends in seconds, no usable row,
            or labels that are no class ids or only one class.
    """
    multi_label = multi_label or bool(label_columns)
    rows = _rows(table, columns, report, label_columns, may_lack_labels=multi_label)
    written = [_written(row["label"], multi_label) for _, row in rows]
    if label_columns:
        names = tuple(label_columns)
        label_of = {name: label for label, name in enumerate(names)}
    else:
        every = [label for labels in written for label in labels]
        names, label_of = _classes(table, every, label_names, report)
    if len(names) < 2:
        raise ValueError(f"{table}: expected at least two classes, found {names[0]!r} alone")
    videos = set(files.videos)
    entries: dict[str, list[Entry]] = {split: [] for split in SPLITS}
    for (source, row), labels in zip(rows, written, strict=True):
        split = SPLIT_OF.get(row["split"].lower() or "train")
        path = _below_root(row["path"], table, files.root, videos)
        if unknown := [label for label in labels if label not in label_of]:
            hint = did_you_mean(unknown[0], label_of)
            report.problem("unknown labels", f"{source}: {unknown[0]!r} {hint}".rstrip())
        elif split is None:
            wanted = "train, dev, val or test"
            report.problem("unknown splits", f"{source}: {row['split']!r}, expected {wanted}")
        elif path is None:
            line = f"{source}: {row['path']} is not below {files.root}"
            report.problem("videos outside the folder of videos", line)
        else:
            numbers = tuple(sorted(label_of[label] for label in labels))
            label = numbers if multi_label else numbers[0]
            entries[split].append(Entry(path, label, row["group"], source, row["fragment"]))
    return Annotations(
        dataset="custom",
        label_names=names,
        splits={split: tuple(found) for split, found in entries.items() if found},
        expected={},
        multi_label=multi_label,
    )


def _written(cell: str, multi_label: bool) -> list[str]:
    """Return the labels of a cell, each once.

    >>> _written("run; jump;run", True), _written("", True), _written("a;b", False)
    (['run', 'jump'], [], ['a;b'])
    """
    if not multi_label:
        return [cell]
    return list(dict.fromkeys(part.strip() for part in cell.split(SEPARATOR) if part.strip()))


def _rows(
    table: Path,
    columns: dict[str, str | None],
    report: Report,
    label_columns: Sequence[str],
    *,
    may_lack_labels: bool,
) -> list[tuple[str, dict[str, str]]]:
    """Return source and cells by key of `COLUMNS` of the usable rows; report the others.

    Of `label_columns`, the names of those with a 1 are put together into the label.
    """
    lines = list(table_lines(table, "a csv file in UTF-8", ",;\t"))
    header = lines[0][1] if lines else []
    if label_columns:
        columns = {**columns, "label": label_columns[0]}
    chosen = {key: _column(table, header, key, columns.get(key)) for key in COLUMNS}
    classes = {name: _column(table, header, "label", name) for name in label_columns}
    named = {key: header[at] for key in ("start", "end") if (at := chosen[key]) is not None}
    if not _gives_segments(table, named, columns, [c for _, c in lines[1:]], chosen, report):
        named = {}
    rows = []
    for source, cells in lines[1:]:
        if not any(cells):
            continue
        if len(cells) != len(header):
            line = f"{source}: {len(cells)} fields, the header has {len(header)}"
            report.problem("unusable rows", line)
            continue
        values = {key: "" if at is None else cells[at] for key, at in chosen.items()}
        marks = {name: cells[at] for name, at in classes.items() if at is not None}
        if wrong := [name for name, mark in marks.items() if mark not in ("0", "1")]:
            line = f"{source}: {marks[wrong[0]]!r} under {wrong[0]}, expected 0 or 1"
            report.problem("unusable rows", line)
            continue
        if marks:
            values["label"] = SEPARATOR.join(name for name, mark in marks.items() if mark == "1")
        optional = {"group", "start", "end", *(["label"] if may_lack_labels else [])}
        needed = [at for key, at in chosen.items() if at is not None and key not in optional]
        if any(not cells[at] for at in needed):
            empty = [header[at] for at in needed if not cells[at]]
            report.problem("unusable rows", f"{source}: nothing under {', '.join(empty)}")
            continue
        try:
            fragment = segment_columns.fragment(values["start"], values["end"], named)
        except ValueError as error:
            report.problem("unusable rows", f"{source}: {error}")
        else:
            rows.append((source, {**values, "fragment": fragment}))
    if not rows:
        raise ValueError(f"{table} has no row that can be used\n{report.text()}".rstrip())
    return rows


def _gives_segments(
    table: Path,
    named: dict[str, str],
    given: dict[str, str | None],
    lines: list[list[str]],
    chosen: dict[str, int | None],
    report: Report,
) -> bool:
    """Return whether rows are segments of films: their columns were named, or a film comes twice.

    Args:
        named: start and end -> the column that the header has for it.
        given: the same, as asked for.

    Raises:
        ValueError: one of the columns was named alone, or one has frames and the other seconds.
    """
    shown = " and ".join(map(repr, named.values()))
    asked = [key for key in ("start", "end") if given.get(key)]
    if len(named) < 2:
        if asked:
            raise ValueError(
                f"{table}:1: --{asked[0]}_column alone; segments need a start and an end column"
            )
        if named:
            report.note("columns that are not used", f"{shown}: segments need a start and an end")
        return False
    at, *ends = [at for key in ("path", "start", "end") if (at := chosen[key]) is not None]
    whole = [cells for cells in lines if len(cells) > max(at, *ends)]
    parts = {(without_ending(cells[at]), *(cells[end] for end in ends)) for cells in whole}
    if not asked and len(parts) == len({film for film, *_ in parts}):
        report.note(
            "columns that are not used: each file is one video",
            f"{shown}; if they are segments of the files, add --start_column {named['start']} "
            f"--end_column {named['end']}",
        )
        return False
    report.note("segments of films", segment_columns.meaning(table, named))
    return True


def _column(table: Path, header: list[str], key: str, given: str | None) -> int | None:
    """Return the place of a column; None: an optional column is missing."""
    shown = ", ".join(header)
    if given is not None:
        if given not in header:
            hint = did_you_mean(given, header)
            raise ValueError(f"{table}:1: no column {given!r} {hint} The header has: {shown}")
        return header.index(given)
    place = _place(header, COLUMNS[key])
    if place is None and key in ("path", "label"):
        raise ValueError(
            f"{table}:1: expected a header with a {key} column such as 'path,label', got "
            f"{shown!r}; name the column with --{key}_column, or add the header"
        )
    return place


def _place(header: list[str], usual: str) -> int | None:
    """Return the place of the first of the usual names that the header has, in any case."""
    lower = [name.lower() for name in header]
    return next((lower.index(name) for name in usual.split(", ") if name in lower), None)


def _classes(
    table: Path, labels: list[str], label_names: Path | None, report: Report
) -> tuple[tuple[str, ...], dict[str, int]]:
    """Return the names in label order, and the id of each label as the table writes it."""
    written = sorted(set(labels))
    names = tuple(read_label_names(label_names)) if label_names else ()
    numbers = [label for label in written if _INTEGER.fullmatch(label)]
    if len(numbers) == len(written):
        most = max(int(label) for label in written)
        if not names and most >= len(labels):
            raise ValueError(
                f"{table}: labels go up to {most}, but there are {len(labels)} videos; "
                "expected ids from 0, or class names"
            )
        names = names or tuple(str(label) for label in range(most + 1))
        return names, {n: int(n) for n in numbers if 0 <= int(n) < len(names)}
    if numbers:
        report.note("labels that are numbers, among names", ", ".join(numbers))
    names = names or tuple(written)
    return names, {name: label for label, name in enumerate(names)}


def _below_root(path: str, table: Path, root: Path, videos: set[str]) -> str | None:
    """Return the path below the root, as `videos.find` writes it; None: it is elsewhere."""
    if path in videos:
        return path
    if "/" not in path:
        path = path.replace("\\", "/")
    places = [root / path, table.absolute().parent / path, root.absolute().parent / path]
    below = [os.path.relpath(place, root).replace(os.sep, "/") for place in places]
    known = [name for name in below if name in videos]
    name = (known or below)[0]
    return None if name.startswith("../") or os.path.isabs(name) else name  # noqa: PTH117
