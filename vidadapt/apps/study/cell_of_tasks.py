"""Join the cells of all tasks into one, which has a line in the results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from vidadapt.apps.study.cell_of_folds import mean, means, problem_of, same_in_all
from vidadapt.apps.study.cells import Work
from vidadapt.apps.study.matrix import Cell
from vidadapt.evaluation import in_percent
from vidadapt.files import write_json
from vidadapt.lists import TaskLists

OF_A_TASK = ("num_videos", "dev_top1", "best_epoch", "base_lr", "grid", "trainable", "manifests")
FINISHED = "tasks.json"  # in the folder of the joined cell


def cell_of_tasks(
    work: Work,
    whole: Cell,
    tasks: Mapping[str, TaskLists],
    found: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Return the result of all tasks as `Work.work_on` returns that of one.

    Accuracies and most other figures are means over the tasks, each of which counts the same;
    videos are counted together; environment and config are those of the first task.

    Args:
        found: of `work_on` and `chosen_by`, by task.
    """
    line = {"cell": whole.name, "seed": whole.seed}
    if problem := problem_of(found):
        return {**line, "problem": problem}
    of_tasks = {
        name: {
            "group": tasks[name].group or None,
            **{key: one[key] for key in in_percent()},
            **{key: one.get(key) for key in OF_A_TASK},
        }
        for name, one in found.items()
    }
    by_group = group_means({name: (one["group"], one["top1"]) for name, one in of_tasks.items()})
    folder = work.folder / whole.name
    folder.mkdir(parents=True, exist_ok=True)
    joined = {"tasks": of_tasks, **by_group}
    write_json(folder / FINISHED, joined)
    manifests = {name: one["manifests"] for name, one in of_tasks.items()}
    digest = hashlib.sha256(json.dumps(manifests, sort_keys=True).encode()).hexdigest()
    first = next(iter(found.values()))
    return {
        **same_in_all(found.values()),
        **means(found.values()),
        **line,
        **{key: mean([one[key] for one in found.values()]) for key in (*in_percent(), "trainable")},
        "num_videos": sum(one["num_videos"] for one in found.values()),
        "unreadable": sum(one["unreadable"] for one in found.values()),
        "manifests": {"test": digest},
        "tasks": joined,
        "num_classes": None,
        "environment": first["environment"],
        "config": first["config"],
    }


def group_means(top1: Mapping[str, tuple[str | None, float]]) -> dict[str, Any]:
    """Return VTAB's means: of the tasks of each group, and of these means.

    Args:
        top1: group and top-1 of each task; a task without a group is in no mean of a group, and
            then there is no mean over groups.

    Returns:
        `groups`, by name, and `mean_over_groups`, or None.

    >>> group_means({"a": ("Natural", 80.0), "b": ("Natural", 60.0), "c": ("Structured", 40.0)})
    {'groups': {'Natural': 70.0, 'Structured': 40.0}, 'mean_over_groups': 55.0}
    >>> group_means({"a": (None, 80.0)})
    {'groups': {}, 'mean_over_groups': None}
    """
    names = dict.fromkeys(group for group, _ in top1.values() if group is not None)
    groups = {
        name: mean([value for group, value in top1.values() if group == name]) for name in names
    }
    all_have_one = all(group is not None for group, _ in top1.values())
    return {
        "groups": groups,
        "mean_over_groups": mean(list(groups.values())) if all_have_one else None,
    }
