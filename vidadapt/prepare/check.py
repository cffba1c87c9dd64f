"""Every file of a list decoded once: a table, the frame-count index, a quarantine, a picture."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vidadapt.data.frame_index import (
    Job,
    count_jobs,
    index_path,
    load_index,
    merge_index,
    stamp_of,
)
from vidadapt.data.lists import read_label_names, read_list
from vidadapt.data.prepared import root_of
from vidadapt.data.quarantine import write_quarantine
from vidadapt.prepare.check_file import decode_whole
from vidadapt.prepare.check_picture import write_picture
from vidadapt.prepare.check_table import Row, appending, read_table, row_of, write_table
from vidadapt.progress import track

STORE_EVERY = 60.0  # seconds between two stores of the frame-count index


@dataclass(frozen=True)
class Plan:
    """A list that is to be checked, and the files that will tell of it.

    Attributes:
        list_path: the list.
        root: folder that its paths are relative to.
        labels: label by path, in the list's order.
        label_names: of labels.txt beside the list; None without one.
        table, picture, quarantine, index: files to write.
    """

    list_path: Path
    root: Path
    labels: dict[str, int]
    label_names: tuple[str, ...] | None
    table: Path
    picture: Path
    quarantine: Path
    index: Path


@dataclass(frozen=True)
class Checked:
    """What a check found.

    Attributes:
        rows: one a video, in the list's order.
        num_held: how many rows an earlier check had left.
    """

    plan: Plan
    rows: tuple[Row, ...]
    num_held: int

    def unreadable(self) -> list[Row]:
        """Rows of files of which no frame decodes."""
        return [row for row in self.rows if not row.num_frames]


def plan_checks(lists: Sequence[Path], root: Path | None, out: Path | None) -> list[Plan]:
    """Read the lists and settle where everything lies.

    Args:
        root: of all the lists; None: what prepared.json beside a list says.
        out: folder for the files that a check writes; None: beside each list.

    Raises:
        ValueError: a list or its labels.txt cannot be used, no root is known, or two lists would
            write the same files.
    """
    plans: list[Plan] = []
    for list_path in lists:
        found = root or root_of(list_path)
        if found is None:
            raise ValueError(
                f"{list_path}: no folder of videos is known; give --root, the folder that its "
                "paths are relative to (no prepared.json of tools/prepare.py lies beside it)"
            )
        # Labels are the training's business, and a missing file is a row of the table.
        samples = read_list(list_path, found, num_classes=sys.maxsize, check_files=False)
        names = list_path.parent / "labels.txt"
        folder = out or list_path.parent
        plans.append(
            Plan(
                list_path,
                Path(os.path.abspath(found)),  # noqa: PTH100 (as readers name files)
                {sample.path: sample.label for sample in samples},
                tuple(read_label_names(names)) if names.is_file() else None,
                folder / f"{list_path.name}.check.csv",
                folder / f"{list_path.name}.check.png",
                folder / f"{list_path.name}.quarantine.txt",
                index_path(list_path, out),
            )
        )
        earlier = {plan.table: plan.list_path for plan in plans[:-1]}
        if plans[-1].table in earlier:
            raise ValueError(
                f"{list_path} and {earlier[plans[-1].table]} would both write {plans[-1].table}; "
                "give each list once, or check those of one name one by one"
            )
    return plans


def check(
    plan: Plan, reader: str, num_processes: int, time_limit: float, progress: bool = True
) -> Checked:
    """Decode each file once, in processes of their own, and write all that is found.

    A file whose row holds, see `Row.holds`, is not decoded again: a check that was killed goes on
    where it was.

    Args:
        reader: key of `READERS`, as data.reader of the training.
        time_limit: seconds after which the decoding of one file counts as hung.

    Raises:
        OSError: a file cannot be written.
        ValueError: what lies at the place of the table or of the index is none.
    """
    plan.table.parent.mkdir(parents=True, exist_ok=True)
    known = read_table(plan.table)
    rows: dict[str, Row] = {}
    jobs: list[Job] = []
    held = {}
    for path, label in plan.labels.items():
        file = plan.root / path
        stamp = stamp_of(path, file, reader)
        if isinstance(stamp, str):
            rows[path] = Row(path, label, requested=reader, error=stamp)
        elif path in known and known[path].stamp() == stamp:
            rows[path] = replace(known[path], label=label)
            held[stamp] = rows[path].frame_count(str(file))
        else:
            jobs.append(Job(stamp, str(file)))
    if missing := held.keys() - load_index(plan.index).keys():
        merge_index({stamp: held[stamp] for stamp in missing}, plan.index)
    with appending(plan.table) as append:
        results = count_jobs(decode_whole, jobs, plan.index, num_processes, time_limit, STORE_EVERY)
        title = f"checking {plan.list_path.name}"
        for job, found in track(
            results, total=len(jobs), label=title, unit="videos", shown=progress
        ):
            path = job.stamp.path
            rows[path] = row_of(found, job.stamp, job.file, plan.labels[path])
            append(rows[path])
    checked = Checked(plan, tuple(rows[path] for path in plan.labels), len(held))
    write_table(plan.table, checked.rows)
    write_quarantine(plan.quarantine, {row.path: row.error for row in checked.unreadable()})
    write_picture(plan.picture, plan.list_path.name, checked.rows, plan.label_names)
    return checked
