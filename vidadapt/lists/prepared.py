"""A folder that vidadapt prepare wrote: lists, label names and `prepared.json`."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from vidadapt.config import DataConfig
from vidadapt.files import (
    absolute,
    beside,
    check_urls,
    folder_of,
    inside,
    is_there,
    is_url,
    joined,
    read_text,
    refuse_credentials,
    replaced,
)
from vidadapt.lists.reading import refuse_folder

PREPARED_FILE = "prepared.json"


@dataclass(frozen=True)
class Prepared:
    """Content of `prepared.json`.

    Attributes:
        dataset: key of `vidadapt.data.DATASETS`.
        root: absolute folder that the paths in the lists are relative to. In the file it may be
            relative to the folder of the file: copies are there, and may be moved with it.
        lists: file names in the folder by split: `train`, `dev`, `test` (the list whose results
            are reported: the validation list where the test labels are not public).
        label_names: file name of the class names; None: there are none.
        manifests: by the same keys as `lists`, see `vidadapt.lists.reading.manifest_hash`.
        made_by: command and options that made the folder.
        multi_label: a video has any number of labels.
    """

    dataset: str
    root: str
    lists: dict[str, str]
    label_names: str | None
    manifests: dict[str, str]
    made_by: dict[str, Any]
    multi_label: bool = False


def write_prepared(folder: str | Path, prepared: Prepared) -> None:
    """Write the folder's record, replacing an older one atomically."""
    record = Path(folder) / PREPARED_FILE
    with replaced(record) as partial:
        found = asdict(prepared)
        if not prepared.multi_label:
            del found["multi_label"]  # so that versions without it read the folder
        partial.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def read_prepared(folder: str | Path) -> Prepared:
    """Read the folder's record.

    Raises:
        ValueError: there is none, or it cannot be used; says how to make one.
    """
    if is_url(folder):
        refuse_credentials(str(folder))
    elif Path(folder).is_file():
        raise ValueError(f"{folder} is a file; give the folder {Path(folder).parent}")
    record = inside(folder, PREPARED_FILE)
    try:
        prepared = Prepared(**json.loads(read_text(record)))
        here = absolute(folder)
        root = here if prepared.root == "." else joined(here, prepared.root)
        return replace(prepared, root=root)
    except FileNotFoundError as error:
        raise ValueError(
            f"{folder} holds no {PREPARED_FILE}; expected a folder written by vidadapt prepare"
        ) from error
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{record} cannot be used: {error}; prepare the folder anew") from error


def known_root(list_path: str | Path, given: str | Path | None = None) -> Path | str:
    """Absolute folder of a list's videos, or its URL: as given, or as its prepared folder says.

    Raises:
        ValueError: no folder is known, or it does not exist.
    """
    refuse_folder(list_path)
    if given is not None:
        found = str(given)
    elif is_there(beside(list_path, PREPARED_FILE)):
        found = read_prepared(folder_of(list_path)).root
    else:
        raise ValueError(
            f"{list_path}: no folder of videos is known; give --root, the folder that its paths "
            f"are relative to (no {PREPARED_FILE} of vidadapt prepare lies beside it)"
        )
    if is_url(found):
        return found
    if not Path(found).is_dir():
        raise ValueError(
            f"{list_path}: there is no folder {found}; give --root, the folder that its paths are "
            "relative to"
        )
    return Path(os.path.abspath(found))  # noqa: PTH100 (as readers name files)


def known_multi_label(list_path: str | Path) -> bool:
    """Return whether the folder of a list was prepared as a multi-label one."""
    there = is_there(beside(list_path, PREPARED_FILE))
    return there and read_prepared(folder_of(list_path)).multi_label


def with_lists(data: DataConfig, *, same_dataset: bool = True) -> DataConfig:
    """Replace `data.lists` in the data options by its lists, label names and root of videos.

    Args:
        data: a root other than "." is kept: the videos have moved.
        same_dataset: whether data.dataset must be the folder's.

    Raises:
        ValueError: the folder was not prepared, or holds another data set; or one of the keys that
            it replaces is given, too; or a URL holds credentials.
    """
    given = (data.lists, data.train_list, data.dev_list, data.test_list)
    check_urls((*given, data.root, data.label_names, data.quarantine))
    if data.lists is None:
        return data
    keys = [f"{split}_list" for split in ("train", "dev", "test")] + ["label_names"]
    if both := [f"data.{key}" for key in keys if getattr(data, key) is not None]:
        raise ValueError(f"data.lists stands for {', '.join(both)}, too: give one or the other")
    folder = data.lists
    try:
        prepared = read_prepared(folder)
    except ValueError as error:
        raise ValueError(f"data.lists: {error}") from error
    if same_dataset and data.dataset != prepared.dataset:
        raise ValueError(
            f"data.lists: {folder} holds {prepared.dataset}, but data.dataset is {data.dataset}; "
            f"use a configuration for {prepared.dataset}, or add --data.dataset {prepared.dataset}"
        )
    lists = {split: inside(folder, name) for split, name in prepared.lists.items()}
    return replace(
        data,
        lists=None,
        root=prepared.root if data.root == "." else data.root,
        train_list=lists.get("train"),
        dev_list=lists.get("dev"),
        test_list=lists.get("test"),
        label_names=inside(folder, prepared.label_names) if prepared.label_names else None,
        multi_label=prepared.multi_label or data.multi_label,
    )
