"""Write the files of a folder of lists, and decide what a run uses each list for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidadapt.apps.prepare.annotations import SPLITS, Annotations
from vidadapt.files import replaced
from vidadapt.lists import (
    LABELS_FILE,
    PREPARED_FILE,
    ListError,
    Prepared,
    Sample,
    manifest_hash,
    read_label_names,
    read_prepared,
    write_list,
)
from vidadapt.video import control_character

UNLABELLED = "unlabelled.txt"  # official videos without labels, for predictions: a path a line
UNFINISHED = ".unfinished"  # names the command that writes a folder, and its files, until the end


def check_folder(out: Path, command: str) -> None:
    """Check that a command may write its lists to a folder, before hours of work are spent.

    It may replace its own, also those that an interrupted call left.

    Raises:
        ListError: it is no folder, its record is damaged, or it holds lists that another command,
            or no preparation, wrote.
    """
    if out.exists() and not out.is_dir():
        raise ListError(f"{out} is a file: expected a folder to write")
    owner, owned = _owned(out)
    if owner not in ("", command):
        raise ListError(
            f"{out} was written by 'vidadapt prepare {owner}': choose another folder, or delete it"
        )
    for name in (LABELS_FILE, UNLABELLED, *(f"{split}.txt" for split in SPLITS)):
        if name not in owned and (out / name).exists():
            raise ListError(
                f"{out / name} is there and was not written by a preparation: choose another "
                "folder, or delete it"
            )


def write_lists(
    annotations: Annotations,
    samples: Mapping[str, Sequence[Sample]],
    root: Path,
    out: Path,
    made_by: Mapping[str, Any],
    *,
    unlabelled: Sequence[str] = (),
) -> Prepared:
    """Write labels and lists, and delete the other lists of an earlier preparation.

    Until `prepared.json` is written, too, the file `UNFINISHED` names their command.

    Args:
        samples: by split; empty ones get no list.
        root: folder that the paths are relative to.
        unlabelled: paths for `UNLABELLED`; none: there is no such file.

    Raises:
        ListError: label names that no file can hold, or see `check_folder`.
    """
    command = str(made_by["command"])
    check_folder(out, command)
    wrong = [name for name in annotations.label_names if not fits_a_line(name)]
    if wrong:
        raise ListError(f"no file can hold the class name {wrong[0]!r}: rename the class")
    out.mkdir(parents=True, exist_ok=True)
    kept = {split: found for split, found in samples.items() if found}
    files = [
        LABELS_FILE,
        *(f"{split}.txt" for split in kept),
        *([UNLABELLED] if unlabelled else []),
    ]
    _, earlier = _owned(out)
    with replaced(out / LABELS_FILE) as partial:
        text = "".join(f"{name}\n" for name in annotations.label_names)
        partial.write_text(text, encoding="utf-8")
        names = read_label_names(partial)
        with replaced(out / UNFINISHED) as claim:
            owned = [command, *sorted({*earlier, *files})]
            claim.write_text("".join(f"{line}\n" for line in owned), encoding="utf-8")
        (out / PREPARED_FILE).unlink(missing_ok=True)  # no prepared folder until all is written
    for name in earlier.difference(files):
        (out / name).unlink(missing_ok=True)
    for split, found in kept.items():
        write_list(out / f"{split}.txt", found)
    if unlabelled:
        with replaced(out / UNLABELLED) as partial:
            partial.write_text("".join(f"{path}\n" for path in unlabelled), encoding="utf-8")
    return Prepared(
        dataset=annotations.dataset,
        root=str(root.absolute()),
        lists={split: f"{name}.txt" for split, name in _roles(kept).items()},
        label_names=LABELS_FILE,
        manifests={s: manifest_hash(kept[name], names) for s, name in _roles(kept).items()},
        made_by={**made_by, **({"unlabelled": len(unlabelled)} if unlabelled else {})},
        multi_label=annotations.multi_label,
    )


def fits_a_line(text: str) -> bool:
    """Return True if a line of a UTF-8 file can hold a text, and no terminal obeys it.

    >>> fits_a_line("a b"), fits_a_line("a\\nb"), fits_a_line("\\udce9"), fits_a_line("\\x1b[31m")
    (True, False, False, False)
    """
    if control_character(text):
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return len(f"{text} ".splitlines()) == 1


def _owned(out: Path) -> tuple[str, set[str]]:
    """Return the command that wrote a folder's lists and label names, and their files."""
    if (out / UNFINISHED).exists():
        command, *files = (out / UNFINISHED).read_text(encoding="utf-8").splitlines()
        return command, set(files)
    if (out / PREPARED_FILE).exists():
        try:
            before = read_prepared(out)
        except ValueError as error:
            raise ListError(
                f"what {out} holds is unknown, its {PREPARED_FILE} is damaged: choose another "
                "folder, or delete it"
            ) from error
        return before.made_by.get("command", ""), {
            *(*before.lists.values(), LABELS_FILE),
            *([UNLABELLED] if before.made_by.get("unlabelled") else []),
        }
    return "", set()


def _roles(splits: Mapping[str, Any]) -> dict[str, str]:
    """Return the list of each role: a run selects by `dev` and reports on `test`.

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
