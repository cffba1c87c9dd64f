"""Own videos in one folder per class:

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

from vidadapt.apps.prepare.annotations import Annotations, Entry
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.videos import UNLISTABLE, Files
from vidadapt.apps.prepare.write import fits_a_line
from vidadapt.console.naming import did_you_mean
from vidadapt.lists.prepared import RECORD

SPLITS = {
    "train": "train",
    "training": "train",
    "dev": "dev",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def read(files: Files, report: Report) -> Annotations:
    """Take classes from folders: `train` alone, or the splits that have folders.

    Args:
        files: of `videos.find`.
        report: gets videos in no class folder, names that no list holds, classes without a video,
            and classes that train lacks.

    Raises:
        ValueError: fewer than two classes, or two folders for one split.
    """
    top = sorted({video.split("/")[0] for video in files.videos if "/" in video})
    split_of = {name: SPLITS[name.lower()] for name in top if name.lower() in SPLITS}
    if "train" not in split_of.values() or len(split_of) < 2:
        split_of = {}
    for split in set(split_of.values()):
        twice = [name for name in split_of if split_of[name] == split]
        if len(twice) > 1:
            raise ValueError(f"{files.root}: {' and '.join(twice)} are both {split}; join them")
    present = {"train", *split_of.values()}
    entries: dict[str, list[Entry]] = {s: [] for s in SPLITS.values() if s in present}
    named: list[tuple[str, str, str]] = []  # split, class, video
    outside: list[str] = []
    for video in files.videos:
        parts = video.split("/")
        split = split_of.get(parts[0], "") if split_of else "train"
        inner = parts[1:] if split_of else parts
        if not fits_a_line(video):
            outside.append(video)
            report.problem(UNLISTABLE, repr(video))
        elif not split:
            outside.append(video)
            report.problem(f"videos outside {', '.join(split_of)}; left out", video)
        elif len(inner) < 2:
            outside.append(video)
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
    for split, name, video in named:
        entries[split].append(Entry(video, label_of[name], "", name))
    classes = {split: {name for place, name, _ in named if place == split} for split in entries}
    _check_classes(files, split_of, classes, report)
    return Annotations(
        dataset="custom",
        label_names=tuple(names),
        splits={split: tuple(found) for split, found in entries.items()},
        expected={},
        unlisted=tuple(outside),  # reported above
    )


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
    prepared = {other.rpartition("/")[0] for other in files.others if other.endswith(RECORD)}
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
