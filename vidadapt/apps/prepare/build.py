"""Make a folder of lists from annotations and files: checked, split, counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vidadapt.apps.prepare import archives, overlap, videos
from vidadapt.apps.prepare.annotations import SPLITS, Annotations, Entry, check_names
from vidadapt.apps.prepare.report import Report
from vidadapt.apps.prepare.splits import group_of, merge_groups, take_out
from vidadapt.apps.prepare.write import UNFINISHED, UNLABELLED, fits_a_line, write_lists
from vidadapt.lists import (
    Prepared,
    Sample,
    counted_videos,
    index_path,
    label_named,
    parse_line,
    write_prepared,
)
from vidadapt.video import film_of

REPORT = "report.txt"
COUNTED = ".counted"  # stem of the list whose index holds what is counted before the split
Found = dict[str, tuple[Entry, ...]]  # by split; keys are paths of lists, no group is empty


@dataclass(frozen=True)
class Options:
    """Options of a preparation.

    Attributes:
        dev_fraction: of each class's training videos, to be taken out into `dev`; 0: none.
        test_fraction: of each class's videos, to be taken out into `test` first; 0: none.
        seed: of both.
        reader: key of `vidadapt.video.READERS`, for the video index.
        index: whether to count frames at all.
        known: folders of lists of the same videos, whose frame counts are valid here, too.
        processes: for comparing files and for counting frames.
        time_limit: seconds for counting the frames of one file; None: no limit.
        progress: show it on stderr.
    """

    dev_fraction: float = 0.0
    test_fraction: float = 0.0
    seed: int = 0
    reader: str = "auto"
    index: bool = True
    known: tuple[Path, ...] = ()
    processes: int = 1
    time_limit: float | None = 300.0
    progress: bool = True


def build(
    annotations: Annotations,
    files: videos.Files,
    out: str | Path,
    report: Report,
    *,
    options: Options,
    made_by: Mapping[str, Any],
) -> Prepared:
    """Write the lists (`OUT/train.txt`, ...), `labels.txt`, `report.txt`, and last `prepared.json`.

    Lists keep the annotations' order. Official lists stay as they are, even where two of them share
    a video. In lists that are taken out here, videos of one group or content stay together; with
    `options.index`, neither they nor the rest of train have a video that cannot be read.
    The same input gives the same bytes in every file.

    Args:
        annotations: what the source says.
        files: what `videos.find` found.
        out: folder to write; see `write.check_folder`.
        report: gets what was found; `report.txt` is written from it.
        made_by: for `prepared.json`; its `command` is the one whose lists may be replaced.

    Raises:
        ValueError: not one annotated video has a file, options contradict the splits, a class name
            that no file can hold, or the folder holds other lists.
    """
    out = Path(out)
    taken_out = [name for name in ("dev", "test") if getattr(options, f"{name}_fraction")]
    if given := [name for name in taken_out if name in annotations.splits]:
        raise ValueError(f"the source has a {given[0]} list: --{given[0]}_fraction must be 0")
    if taken_out and "train" not in annotations.splits:
        raise ValueError(f"the source has no train list: --{taken_out[0]}_fraction must be 0")
    found, same = gather(annotations, files, out, report, options, taken_out)
    if taken_out:
        found = _split(found, same, annotations.label_names, options, report)
    prepared = write(annotations, found, same, files, out, report, options, made_by)
    index_path(out / f"{COUNTED}.txt").unlink(missing_ok=True)
    return prepared


def gather(
    annotations: Annotations,
    files: videos.Files,
    out: Path,
    report: Report,
    options: Options,
    taken_out: Sequence[str],
) -> tuple[Found, list[tuple[str, ...]]]:
    """Find the file of each entry, and compare the files' contents.

    Args:
        out: folder where counts are kept until the lists are written.
        taken_out: lists that will be taken out of train; if any, videos of train that cannot be
            read are left out, with `options.index`.

    Returns:
        Entries by split, and sets of videos or segments with the same content.

    Raises:
        ValueError: not one annotated video has a file, or a class name that no file can hold.
    """
    check_names(annotations.label_names, report)
    found, sizes = _locate(annotations, files, report)
    same = overlap.identical(
        files.root, sizes, report, threads=options.processes, progress=options.progress
    )
    same = overlap.of_segments(same, (one.key for entries in found.values() for one in entries))
    if taken_out and options.index:
        found = _readable(found, files.root, out, options, report)
    _check_classes(annotations, found, report, taken_out)
    return found, same


def write(
    annotations: Annotations,
    found: Found,
    same: Sequence[Sequence[str]],
    files: videos.Files,
    out: Path,
    report: Report,
    options: Options,
    made_by: Mapping[str, Any],
) -> Prepared:
    """Write a folder of lists, whose videos are known; see `build`.

    Args:
        found, same: of `gather`.

    Raises:
        ListError: the folder holds other lists.
    """
    samples = {s: [Sample(one.key, one.label) for one in found[s]] for s in found}
    overlap.check_segments(samples, files.root, report)
    overlap.check_overlap(
        samples, same, annotations.label_names, report, official=bool(annotations.expected)
    )
    unlabelled = _unlabelled(annotations, files, report)
    prepared = write_lists(annotations, samples, files.root, out, made_by, unlabelled=unlabelled)
    if options.index:
        _count_frames(samples, files.root, out, options, report)
    report.write(out / REPORT)
    write_prepared(out, prepared)
    (out / UNFINISHED).unlink(missing_ok=True)
    return prepared


def _locate(
    annotations: Annotations, files: videos.Files, report: Report
) -> tuple[Found, dict[str, int]]:
    """Return by split the entries that have a file, each file once in a split, and files' bytes.

    Raises:
        ValueError: no entry has a file.
    """
    entries = [entry for entries in annotations.splits.values() for entry in entries]
    matched = videos.match(entries, files, report)
    videos.check_match(entries, matched, files, report, unlisted=annotations.unlisted)
    for archive in archives.find(files.root, files.others) if report.missing else []:
        line = f"{archive.first}: {archives.command(archive)}"
        report.lack("archives that are not unpacked; run this again with --unpack, or", line)
    sizes = videos.sizes(files, dict.fromkeys(matched.values()), report)
    found: Found = {}
    for split, listed in annotations.splits.items():
        first: dict[str, Entry] = {}
        for entry in listed:
            path = matched.get(entry.key)
            if path is None:
                continue
            film, path = path, path + entry.fragment
            if path in first:
                line = f"{entry.source}: {path} is already in {first[path].source}, which counts"
                if entry.label != first[path].label:
                    names = [
                        label_named(e.label, annotations.label_names) for e in (first[path], entry)
                    ]
                    line += f" (as {names[0]}, here {names[1]})"
                report.problem(f"one video twice in {split}", line)
            elif not _can_be_listed(path):
                report.problem(videos.UNLISTABLE, repr(path))
            else:
                group = entry.group or (film if entry.fragment else group_of(entry))
                first[path] = replace(entry, key=path, group=group)
        found[split] = tuple(entry for path, entry in first.items() if film_of(path) in sizes)
    if not any(found.values()):
        raise ValueError(
            f"{files.root}: not one of {len(entries):,} annotated videos is there, among "
            f"{len(files.videos):,} video files\n{report.text()}"
        )
    return found, sizes


def _unlabelled(annotations: Annotations, files: videos.Files, report: Report) -> list[str]:
    """Return the paths of the source's videos without labels, as far as they are there."""
    keys = annotations.unlisted if annotations.unlisted_are else ()
    matched = videos.match([Entry(key, -1, "", "") for key in keys], files, Report())
    found = list(dict.fromkeys(path for path in matched.values() if _can_be_listed(path)))
    if keys:
        line = f"{UNLABELLED}: {len(found):,} of {len(keys):,} {annotations.unlisted_are}"
        report.note("videos without labels, for predictions", line)
    return found


def _can_be_listed(path: str) -> bool:
    """Return True if a line of a list gives the path back.

    >>> _can_be_listed("a b, #1.mp4"), _can_be_listed(" a.mp4"), _can_be_listed("a\\nb.mp4")
    (True, False, False)
    """
    return fits_a_line(path) and parse_line(f"{path} 0") == (path, "0")


def _check_classes(
    annotations: Annotations, found: Found, report: Report, taken_out: Sequence[str]
) -> None:
    """Report splits and classes that lack videos, before `taken_out` leave train."""
    for split, entries in annotations.splits.items():
        if len(found[split]) != len(entries):
            what = "annotated videos" if annotations.expected else "videos"
            line = f"{split}: {len(found[split]):,} of {len(entries):,} {what} are listed"
            if taken_out and split == "train":
                line += f", with those taken out for {' and '.join(taken_out)}"
            report.lack("videos by split", line)
    for split, entries in annotations.splits.items():
        annotated = Counter(label for entry in entries for label in entry.classes)
        here = {label for entry in found[split] for label in entry.classes}
        for label, name in enumerate(annotations.label_names):
            if label in here:
                continue
            if annotated[label]:
                line = f"{name} ({split}): none of {annotated[label]} videos"
                report.lack("classes without a video", line)
            else:  # official annotations that lack a class are themselves incomplete
                tell = report.lack if annotations.expected else report.problem
                tell = report.note if annotations.may_lack_classes else tell
                tell("classes without a video", f"{name} ({split}): none annotated")


def _readable(found: Found, root: Path, out: Path, options: Options, report: Report) -> Found:
    """Report the videos of train that cannot be read, and return the videos without them.

    Counts are stored at once, for the lists and for the next call if this one is interrupted.
    """
    out.mkdir(parents=True, exist_ok=True)
    samples = {COUNTED: [Sample(entry.key, entry.label) for entry in found["train"]]}
    broken = _count_frames(samples, root, out, options, Report())
    for error in broken.values():
        report.problem("videos that cannot be read, left out", _below(root, error))
    return found | {"train": tuple(one for one in found["train"] if one.key not in broken)}


def _split(
    found: Found,
    same: Sequence[Sequence[str]],
    label_names: Sequence[str],
    options: Options,
    report: Report,
) -> Found:
    """Return the splits, with test and dev taken out of train as asked."""
    parts = {"train": merge_groups(found["train"], same)}
    for name, fraction in (("test", options.test_fraction), ("dev", options.dev_fraction)):
        parts["train"], parts[name] = take_out(
            parts["train"],
            fraction,
            options.seed,
            name=name,
            label_names=label_names,
            report=report,
        )
    parts = found | {name: taken for name, taken in parts.items() if taken or name == "train"}
    return {name: parts[name] for name in SPLITS if name in parts}


def _count_frames(
    samples: Mapping[str, Sequence[Sample]],
    root: Path,
    out: Path,
    options: Options,
    report: Report,
) -> dict[str, str]:
    """Fill the video index of each list, and report what cannot be read in full.

    A video that another list had before (of another seed, fraction or official split) is not
    counted again.

    Returns:
        By path, why a video cannot be read.
    """
    broken = {}
    names = (*SPLITS, COUNTED)
    indexes = [index_path(folder / f"{s}.txt") for folder in (*options.known, out) for s in names]
    for split, found in samples.items():
        if not found:
            continue
        counted = counted_videos(
            out / f"{split}.txt",
            root.absolute(),
            found,
            options.reader,
            others=indexes,
            num_workers=options.processes,
            progress=options.progress,
            time_limit=options.time_limit,
            limit_key="--time_limit",
        )
        for place, facts in enumerate(map(counted.facts, range(len(counted)))):
            if facts.error:
                broken[found[place].path] = facts.error
                report.problem(
                    "videos that cannot be read; see vidadapt check_videos",
                    f"{split}: {_below(root, facts.error)}",
                )
            elif line := facts.truncated:
                report.note("truncated videos", f"{split}: {line}")
            if facts.remark:
                title = "segments with another end, or times by the mean rate"
                report.note(title, f"{split}: {found[place].path}: {facts.remark}")
    return broken


def _below(root: Path, error: str) -> str:
    """The error of a file, which is named by its path below the root, as in the lists."""
    return error.removeprefix(f"{root.absolute()}/")
