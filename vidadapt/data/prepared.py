"""A folder of lists as tools/prepare.py leaves it: lists, label names, and `prepared.json`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

RECORD = "prepared.json"


@dataclass(frozen=True)
class Prepared:
    """What `prepared.json` says.

    Attributes:
        dataset: key of `vidadapt.data.DATASETS`.
        root: absolute folder that the paths in the lists are relative to.
        lists: file names in the folder by what a run calls them: `train`, `dev`, `test` (the list
            that is reported: the validation list where the test labels are not public).
        label_names: file name of the class names.
        manifests: by the same keys as `lists`, see `vidadapt.data.lists.manifest_hash`.
        made_by: command and options that made the folder.
    """

    dataset: str
    root: str
    lists: dict[str, str]
    label_names: str
    manifests: dict[str, str]
    made_by: dict[str, Any]


def write_prepared(folder: str | Path, prepared: Prepared) -> None:
    """Write the folder's record, replacing it at once."""
    record = Path(folder) / RECORD
    partial = record.with_name(f".{RECORD}.{os.getpid()}.partial")
    partial.write_text(json.dumps(asdict(prepared), indent=2) + "\n", encoding="utf-8")
    partial.replace(record)


def read_prepared(folder: str | Path) -> Prepared:
    """The folder's record.

    Raises:
        ValueError: there is none, or it cannot be used; says how to make one.
    """
    record = Path(folder) / RECORD
    try:
        return Prepared(**json.loads(record.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} holds no {RECORD}; expected a folder written by tools/prepare.py"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{record} cannot be used: {error}; prepare the folder anew") from error


def root_of(list_path: str | Path) -> str | None:
    """The folder of videos of a list that lies in a prepared folder; None: it lies in none."""
    folder = Path(list_path).parent
    return read_prepared(folder).root if (folder / RECORD).is_file() else None
