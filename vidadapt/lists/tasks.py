"""Folders of lists of several tasks, which are compared together: one folder a task.

TASKS/cifar/         a prepared folder; its `made_by` may name a `group` of tasks
TASKS/cifar/final/   a prepared folder for the last training, e.g. on train and dev together
TASKS/kitti/         ...
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vidadapt.lists.prepared import PREPARED_FILE, read_prepared
from vidadapt.lists.reading import ListError

FINAL_FOLDER = "final"


@dataclass(frozen=True)
class TaskLists:
    """The folders of a task.

    Attributes:
        lists: prepared folder by which settings are chosen.
        reported: prepared folder of the training that is reported: `final` in `lists`, or `lists`.
        group: of tasks, over which a mean is taken; empty: none.
    """

    lists: Path
    reported: Path
    group: str


def read_tasks(folder: Path) -> dict[str, TaskLists]:
    """Find the tasks of a folder by their names, in the order of their groups, then names.

    Raises:
        ListError: it holds no prepared folder, or one that cannot be used.
    """
    found = {}
    for record in folder.glob(f"*/{PREPARED_FILE}"):
        lists = record.parent
        final = lists / FINAL_FOLDER
        try:
            group = str(read_prepared(lists).made_by.get("group", ""))
            reported = final if final.is_dir() else lists
            read_prepared(reported)
        except ValueError as error:
            raise ListError(str(error)) from error
        found[lists.name] = TaskLists(lists, reported, group)
    if not found:
        raise ListError(
            f"{folder} holds no folder with a {PREPARED_FILE}; expected a folder of the lists of "
            "each task, as vidadapt prepare vtab writes it"
        )
    return dict(sorted(found.items(), key=lambda item: (item[1].group, item[0])))
