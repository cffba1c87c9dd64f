"""Every file of a list decoded once: a table, the frame-count index, a quarantine, a picture."""

from __future__ import annotations

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
from vidadapt.data.lists import LABELS, read_label_names, read_list
from vidadapt.data.packed import file_of
from vidadapt.data.prepared import known_root
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
        num_held: how many rows an earlier check had left, or the check of another list.
    """

    plan: Plan
    rows: tuple[Row, ...]
    num_held: int

    def unreadable(self) -> list[Row]:
        """Rows of files of which no frame decodes."""
        return [row for row in self.rows if not row.num_frames]


def plan_checks(
    lists: Sequence[Path], root: Path | None, out: Path | None, allow_outside_root: bool = False
) -> list[Plan]:
    """Read the lists and settle where everything lies; what would stop a check later stops it here.

    Args:
        root: of all the lists; None: what prepared.json beside a list says.
        out: folder for the files that a check writes; None: beside each list.
        allow_outside_root: see `read_list`.

    Raises:
        ValueError: a list or its labels.txt cannot be used, no root is known, none of a list's
            videos lies in it, two lists would write the same files, or what lies at the place of
            a table or of an index is none.
        OSError: the files cannot be written.
    """
    plans: list[Plan] = []
    for list_path in lists:
        found = known_root(list_path, root)
        # Labels are the training's business, and a missing file is a row of the table.
        samples = read_list(
            list_path,
            found,
            num_classes=sys.maxsize,
            check_files=False,
            allow_outside_root=allow_outside_root,
        )
        if not any(file_of(found / sample.path).exists() for sample in samples):
            raise ValueError(
                f"{list_path}: none of its {len(samples):,} videos is there, "
                f"{found / samples[0].path} nor any other; give --root, the folder that its paths "
                "are relative to"
            )
        names = list_path.with_name(LABELS)
        folder = out or list_path.parent
        plans.append(
            Plan(
                list_path,
                found,
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
    for plan in plans:
        _begin(plan)
    return plans


def _begin(plan: Plan) -> None:
    """See that the table and the index can be read and written."""
    try:
        read_table(plan.table)
        plan.table.parent.mkdir(parents=True, exist_ok=True)
        with appending(plan.table):
            pass
    except OSError as error:
        raise OSError(
            f"{plan.table} cannot be written ({error.strerror}); give --out, a folder that can"
        ) from error
    load_index(plan.index)


def check(
    plan: Plan,
    reader: str,
    num_processes: int,
    time_limit: float,
    others: Sequence[Checked] = (),
) -> Checked:
    """Decode each file once, in processes of their own, and write all that is found.

    A file whose row holds, see `Row.holds`, is not decoded again: a check that was killed goes on
    where it was.

    Args:
        reader: key of `READERS`, as data.reader of the training.
        time_limit: seconds after which the decoding of one file counts as hung.
        others: lists that were checked just now; what they share with this one is not decoded
            again.

    Raises:
        OSError: a file cannot be written.
        ValueError: what lies at the place of the table or of the index is none.
    """
    known = read_table(plan.table)
    for other in others:
        if other.plan.root == plan.root:
            known |= {row.path: row for row in other.rows if row.holds}
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
        for job, found in track(results, total=len(jobs), label=title, unit="videos"):
            path = job.stamp.path
            rows[path] = row_of(found, job.stamp, job.file, plan.labels[path])
            append(rows[path])
    checked = Checked(plan, tuple(rows[path] for path in plan.labels), len(held))
    write_table(plan.table, checked.rows)
    write_quarantine(plan.quarantine, {row.path: row.error for row in checked.unreadable()})
    write_picture(plan.picture, plan.list_path.name, checked.rows, plan.label_names)
    return checked
