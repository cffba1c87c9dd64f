"""The files of a folder of lists, and which of its lists a run takes for what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidadapt.data.lists import (
    LABELS,
    ListError,
    Sample,
    manifest_hash,
    read_label_names,
    write_list,
)
from vidadapt.data.prepared import RECORD, Prepared, read_prepared
from vidadapt.prepare.annotations import Annotations

SPLITS = ("train", "dev", "val", "test")


def write_lists(
    annotations: Annotations,
    samples: Mapping[str, Sequence[Sample]],
    root: Path,
    out: Path,
    made_by: Mapping[str, Any],
) -> Prepared:
    """Write labels and lists, and take away the lists of an earlier preparation.

    Args:
        samples: by split; empty ones get no list.
        root: folder that the paths are relative to.

    Raises:
        ListError: label names that no file can hold, or the folder has other lists.
    """
    out.mkdir(parents=True, exist_ok=True)
    earlier = set()
    if (out / RECORD).exists():
        before = read_prepared(out)
        earlier = {*before.lists.values(), before.label_names}
    kept = {split: found for split, found in samples.items() if found}
    new = {f"{split}.txt": _text(found) for split, found in kept.items()}
    new[LABELS] = "".join(f"{name}\n" for name in annotations.label_names)
    for name in [LABELS, *(f"{split}.txt" for split in SPLITS)]:
        path, text = out / name, new.get(name, "")
        # A call that was interrupted has left what would be written now.
        if path.exists() and name not in earlier and path.read_bytes() != text.encode():
            raise ListError(
                f"{path} is there and was not written by a preparation: choose another folder, or "
                "delete it"
            )
    partial = out / f".{LABELS}.partial"
    partial.write_text(new[LABELS], encoding="utf-8")
    try:
        names = read_label_names(partial)
        (out / RECORD).unlink(missing_ok=True)  # until all is written, the folder is none
        partial.replace(out / LABELS)
    finally:
        partial.unlink(missing_ok=True)
    for name in earlier - new.keys():
        (out / name).unlink(missing_ok=True)
    for split, found in kept.items():
        write_list(out / f"{split}.txt", found)
    return Prepared(
        dataset=annotations.dataset,
        root=str(root.absolute()),
        lists={split: f"{name}.txt" for split, name in _roles(kept).items()},
        label_names=LABELS,
        manifests={s: manifest_hash(kept[name], names) for s, name in _roles(kept).items()},
        made_by=dict(made_by),
    )


def _text(samples: Sequence[Sample]) -> str:
    return "".join(f"{sample.path} {sample.label}\n" for sample in samples)


def _roles(splits: Mapping[str, Any]) -> dict[str, str]:
    """Which list a run reports on, and which it selects by.

    >>> _roles({"train": 1, "val": 1}), _roles({"train": 1, "val": 1, "test": 1})
    ({'train': 'train', 'test': 'val'}, {'train': 'train', 'dev': 'val', 'test': 'test'})
    >>> _roles({"train": 1, "dev": 1, "val": 1, "test": 1})
    {'train': 'train', 'dev': 'dev', 'val': 'val', 'test': 'test'}
    """
    if "val" not in splits:
        return {split: split for split in splits}
    if "test" not in splits:
        return {("test" if split == "val" else split): split for split in splits}
    return {("dev" if split == "val" and "dev" not in splits else split): split for split in splits}
