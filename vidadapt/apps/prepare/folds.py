"""Make the folders of a cross-validation: in each another part of the groups is the test list."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vidadapt.apps.prepare import videos
from vidadapt.apps.prepare.annotations import Annotations, Entry
from vidadapt.apps.prepare.build import COUNTED, REPORT, Options, gather, write
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.splits import (
    choose_folds,
    group_of,
    members_of,
    merge_groups,
    take_out,
)
from vidadapt.apps.prepare.write import check_folder
from vidadapt.lists import (
    FOLDS_FILE,
    PREPARED_FILE,
    FoldedVideo,
    ListError,
    Prepared,
    fold_names,
    index_path,
    write_folds,
)


def build_folds(
    annotations: Annotations,
    files: videos.Files,
    out: Path,
    report: Report,
    *,
    num_folds: int | None,
    options: Options,
    made_by: Mapping[str, Any],
) -> Iterator[tuple[Path, Prepared, Report]]:
    """Write OUT/fold1, OUT/fold2 and so on, each as `build` would, and last `folds.csv`.

    Videos with the same content are one group. Files are compared and counted once.

    Args:
        annotations: all videos in `train`.
        num_folds: None: each group is a fold.
        options: `dev_fraction` is of the videos that are not in the fold.
        report: gets what was found of all videos; it is written to OUT/report.txt.
        made_by: for each `prepared.json`.

    Yields:
        Of each fold its folder, its record, and what was found of its lists alone.

    Raises:
        ValueError: the source has other lists than train, or fewer groups than folds; the folder
            holds something else.
    """
    if set(annotations.splits) != {"train"}:
        raise ValueError(
            f"--folds: the source has the lists {', '.join(annotations.splits)} already; leave "
            "out --folds, or the column or folders that name them"
        )
    found, same = gather(annotations, files, out, report, options, ("dev", "test"))
    entries = merge_groups(found["train"], same)
    folds = choose_folds(members_of(entries), num_folds, options.seed)
    placed = {entry.key: f"fold{folds[group_of(entry)]}" for entry in entries}
    rows = [FoldedVideo(e.key, e.classes[0], group_of(e), placed[e.key]) for e in entries]
    names = fold_names(rows)
    _check_out(out, names, str(made_by["command"]))
    (out / FOLDS_FILE).unlink(missing_ok=True)  # no cross-validation until all is written
    options = replace(options, known=(out, *(out / name for name in names)))
    for number, name in enumerate(names, start=1):
        own = Report()
        test = tuple(entry for entry in entries if placed[entry.key] == name)
        rest = tuple(entry for entry in entries if placed[entry.key] != name)
        # Another seed in each fold: no group is always in the development list.
        train, dev = take_out(
            rest,
            options.dev_fraction,
            options.seed + number,
            name="dev",
            label_names=annotations.label_names,
            report=own,
        )
        _check_trained(train, (*dev, *test), annotations.label_names, own)
        lists = {"train": train, **({"dev": dev} if dev else {}), "test": test}
        about = {**made_by, "fold": name}
        prepared = write(annotations, lists, same, files, out / name, own, options, about)
        yield out / name, prepared, own
    write_folds(out, rows)
    report.write(out / REPORT)
    index_path(out / f"{COUNTED}.txt").unlink(missing_ok=True)


def _check_out(out: Path, names: Sequence[str], command: str) -> None:
    """Check that nothing else is in the folder, before any list is written.

    Raises:
        ListError: it holds lists without folds, or more folds than there will be.
    """
    if (out / PREPARED_FILE).exists():
        raise ListError(f"{out} holds lists without folds: choose another folder, or delete it")
    if older := sorted(
        {file.parent.name for file in out.glob(f"fold*/{PREPARED_FILE}")} - {*names}
    ):
        raise ListError(
            f"{out} holds {', '.join(older)} of an earlier call with more folds: choose another "
            "folder, or delete it"
        )
    for name in names:
        check_folder(out / name, command)


def _check_trained(
    train: Sequence[Entry], others: Sequence[Entry], label_names: Sequence[str], report: Report
) -> None:
    """Report classes of dev and test of which train has no video."""
    for label in sorted({e.classes[0] for e in others} - {e.classes[0] for e in train}):
        report.problem("classes that train has not", label_names[label])
