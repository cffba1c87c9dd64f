"""Join the evaluations of the folds of a cross-validation into one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidadapt.config import ConfigError
from vidadapt.console import differing
from vidadapt.evaluation import (
    Fusion,
    Scores,
    cross_validated,
    join_folds,
    load_scores,
    measure,
    save_scores,
    write_tables,
)
from vidadapt.lists import (
    FOLDS_FILE,
    FoldedVideo,
    Sample,
    fold_names,
    group_numbers,
    manifest_hash,
    read_folds,
)

# What makes scores another model's or another protocol's: one result is of one of each.
SAME = ("method", "num_frames", "crop_size", "normalization", "precision")

Found = tuple[Path, Scores, dict[str, Any]]  # file, its scores, and the facts kept with them


def join_scores(
    folder: Path, files: Sequence[Path], fusion: Fusion, out: Path | None
) -> dict[str, Any]:
    """Join the scores of all folds of a cross-validation into one result.

    Args:
        folder: that `vidadapt prepare --folds` wrote.
        files: a scores.npz of the test list of each fold, in any order.
        out: folder for scores.npz and tables.

    Returns:
        Content of metrics.json.

    Raises:
        ConfigError: scores of other videos, of a fold twice, of none, of other views, or folds that
            differ in what `SAME` names.
    """
    videos = read_folds(folder)
    found = _by_fold(folder, videos, files)
    folds = {name: scores for name, (_, scores, _) in found.items()}
    try:
        scores = join_folds(folds)
    except ValueError as error:
        raise ConfigError(f"--from_scores: {error}") from error
    _refuse_differing(found)
    first, *others = [facts for _, _, facts in found.values()]
    names = first.get("label_names")
    labelled = zip(scores.paths, scores.labels.tolist(), strict=True)
    about = {
        **{key: v for key, v in first.items() if all(one.get(key) == v for one in others)},
        "list": str(folder / FOLDS_FILE),
        "manifest": manifest_hash([Sample(path, label) for path, label in labelled], names),
    }
    if out is not None:
        save_scores(out / "scores.npz", scores, about)
        write_tables(out, scores, fusion, names)
    return {
        **measure(scores, fusion),
        **about,
        **cross_validated(folds, fusion, group_numbers(videos)),
    }


def _refuse_differing(found: Mapping[str, Found]) -> None:
    (first, (_, _, facts)), *others = found.items()
    for name, (_, _, own) in others:
        one, other = ({key: about.get(key) for key in SAME} for about in (facts, own))
        if said := differing(one, other, line="{key}: {old} and {new}"):
            raise ConfigError(
                f"--from_scores: {first} and {name} differ ({'; '.join(said)}); train and "
                "evaluate every fold in the same way"
            )


def _by_fold(
    folder: Path, videos: Sequence[FoldedVideo], files: Sequence[Path]
) -> Mapping[str, Found]:
    """Read the scores, and find the fold of each by its videos and their labels."""
    listed: dict[str, dict[str, int]] = {name: {} for name in fold_names(videos)}
    for video in videos:
        listed[video.fold][video.path] = video.label
    found: dict[str, Found] = {}
    for file in files:
        scores, about = load_scores(file)
        if scores.labels.ndim == 2:
            raise ConfigError(f"--from_scores: {file} is multi-label; --folds joins single labels")
        held = dict(zip(scores.paths, scores.labels.tolist(), strict=True))
        name = next((name for name, own in listed.items() if own == held), None)
        if name is None:
            raise ConfigError(
                f"--from_scores: {file} holds scores of {about.get('list')}, which is the test "
                f"list of no fold of {folder}; name scores of the folds' test lists alone"
            )
        if name in found:
            raise ConfigError(
                f"--from_scores: {found[name][0]} and {file} are both of {name}; name one of each"
            )
        found[name] = file, scores, about
    if missing := [name for name in listed if name not in found]:
        raise ConfigError(
            f"--from_scores: of {', '.join(missing)} of {folder} there is none among the "
            f"{len(files)} files that it names; evaluate each fold, and name all"
        )
    return {name: found[name] for name in listed}
