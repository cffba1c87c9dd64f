"""Own videos or images in one folder per class:

    VIDEOS/                     or, where the splits are made already:
      juggle/                   VIDEOS/
        any name.mp4              train/
        deeper/another.MOV          juggle/
      wave/                         wave/
        ...                       val/    (or dev/)
                                  test/

Class ids are those of the sorted folder names.
"""

from __future__ import annotations

from vidadapt.apps.prepare.annotations import SPLIT_OF, SPLITS, Annotations, Entry
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.videos import UNLISTABLE, Files
from vidadapt.apps.prepare.write import fits_a_line
from vidadapt.console import did_you_mean
from vidadapt.lists import PREPARED_FILE


def read(files: Files, report: Report, dataset: str) -> Annotations:
    """Take classes from folders: `train` alone, or the splits that have folders.

    Args:
        files: of `videos.find`.
        dataset: key of `vidadapt.data.DATASETS` for own files.
        report: gets videos in no class folder, names that no list holds, classes without a video,
            and classes that train lacks.

    Raises:
        ValueError: fewer than two classes, or two folders for one split.
    """
    top = sorted({video.split("/")[0] for video in files.videos if "/" in video})
    split_of = {name: SPLIT_OF[name.lower()] for name in top if name.lower() in SPLIT_OF}
    if "train" not in split_of.values() or len(split_of) < 2:
        split_of = {}
    for split in set(split_of.values()):
        twice = [name for name in split_of if split_of[name] == split]
        if len(twice) > 1:
            raise ValueError(f"{files.root}: {' and '.join(twice)} are both {split}; join them")
    named: list[tuple[str, str, str]] = []  # split, class, video
    for video in files.videos:
        parts = video.split("/")
        split = split_of.get(parts[0], "") if split_of else "train"
        inner = parts[1:] if split_of else parts
        if not fits_a_line(video):
            report.problem(UNLISTABLE, repr(video))
        elif not split:
            report.problem(f"videos outside {', '.join(split_of)}; left out", video)
        elif len(inner) < 2:
            report.problem("videos in no class folder; left out", video)
        else:
            named.append((split, inner[0], video))
    names = sorted({name for _, name, _ in named})
    if len(names) < 2:
        raise ValueError(
            f"{files.root}: expected one folder of videos per class and at least two classes, "
            f"found {', '.join(names) or 'none'}{_instead(files, names)}"
        )
    label_of = {name: label for label, name in enumerate(names)}
    present = {"train", *split_of.values()}
    splits = {
        split: tuple(Entry(v, label_of[name], "", name) for s, name, v in named if s == split)
        for split in SPLITS
        if split in present
    }
    classes = {split: {entry.source for entry in entries} for split, entries in splits.items()}
    _check_classes(files, split_of, classes, report)
    reported = set(files.videos) - {video for _, _, video in named}
    return Annotations(dataset, tuple(names), splits, expected={}, unlisted=tuple(reported))


def _instead(files: Files, names: list[str]) -> str:
    """Return a hint at the folder that may have been meant instead of one without classes."""
    outside = sum("/" not in video for video in files.videos)
    if outside:
        return f", and {outside} videos in no class folder; did you mean the folder above?"
    below = [parts[1] for parts in (video.split("/") for video in files.videos) if len(parts) > 2]
    return f"; did you mean {files.root / names[0]}?" if len(set(below)) > 1 else ""


def _check_classes(
    files: Files, split_of: dict[str, str], classes: dict[str, set[str]], report: Report
) -> None:
    """Report class folders without a video, and classes of which train has none."""
    prepared = {other.rpartition("/")[0] for other in files.others if other.endswith(PREPARED_FILE)}
    for folder in files.folders:
        parts = folder.split("/")
        split = split_of.get(parts[0]) if split_of else "train"
        is_class = len(parts) == (2 if split_of else 1) and folder and folder not in prepared
        if is_class and split and parts[-1] not in classes[split]:
            report.problem("class folders without a video", folder)
    for split, names in classes.items():
        for name in sorted(names - classes["train"]):
            hint = did_you_mean(name, classes["train"])
            report.problem("classes that train has not", f"{split}: {name} {hint}".rstrip())
