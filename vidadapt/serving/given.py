"""The videos and adapters that a command line names."""

from __future__ import annotations

import argparse
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vidadapt.config import ConfigError, DataConfig
from vidadapt.console import printable
from vidadapt.files import beside, folder_of, is_there, is_url, joined, read_text
from vidadapt.lists import (
    HEADER_FIELDS,
    IMAGE_ENDINGS,
    PATH_COLUMNS,
    PREPARED_FILE,
    VIDEO_ENDINGS,
    Label,
    ListError,
    is_image,
    is_video,
    known_root,
    label_text,
    other_spelling,
    parse_labels,
    parse_line,
    spelled,
    with_lists,
)
from vidadapt.video import control_character, film_of, leads_outside, same_name

_LABEL = re.compile("[0-9]{1,18}")
LISTS = (".txt", ".csv", ".tsv", ".lst", ".list")


def add_videos(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which videos, see `find_videos`."""
    parser.add_argument("videos", nargs="+", help="video files, folders (at any depth), or lists")
    parser.add_argument(
        "--root", metavar="DIR",
        help="of a list's paths; default: what prepared.json beside it says, else its own folder",
    )  # fmt: skip
    parser.add_argument(
        "--allow_outside_root", action="store_true",
        help="lists are trusted: their paths may lead out of that folder",
    )  # fmt: skip


@dataclass(frozen=True)
class GivenVideo:
    """A video as the user names it, with its label where a list gives one.

    Attributes:
        path: of its file, or its URL.
        label: of the list; None: none gives one.
        name: path within the folder that was named, or within the list's root; else the last part.
    """

    path: str
    label: Label | None = None
    name: str = field(default="", compare=False)

    def has(self, label: int) -> bool:
        """Return whether the list gives this label, alone or among others."""
        return label in self.label if isinstance(self.label, tuple) else label == self.label


def find_videos(
    arguments: Sequence[str],
    root: str | None = None,
    allow_outside_root: bool = False,
    multi_label: bool = False,
) -> list[GivenVideo]:
    """List the videos that files, folders (at any depth) and lists name, each once, in their order.

    A video that is named twice has the label of the list that gives one.

    Args:
        arguments: folders, whose hidden files are passed over; lists, known by their ending (see
            `LISTS`), of lines `path label` or `path`; anything else is a video. Videos and
            lists may be URLs.
        root: folder, or its URL, that the paths of lists are relative to; default: what
            `prepared.json` beside the list says, else the list's own.
        allow_outside_root: the paths of lists may lead out of it, see `bounds.leads_outside`.
        multi_label: lines of lists are `path 3,17,42` or `path`.

    Raises:
        ListError: a list that cannot be read or leads out of its root, a folder or a list without
            videos, or a video with two labels.
    """
    found: dict[str, GivenVideo] = {}
    for argument in arguments:
        path = Path(argument)
        if is_url(argument) and path.suffix.lower() not in LISTS:
            inside = [GivenVideo(argument, name=argument.rpartition("/")[2])]
        elif not is_url(argument) and path.is_dir():
            inside = _inside(path)
            if not inside:
                raise ListError(
                    f"{path}: no file in this folder ends in .mp4, .avi, .webm or another ending "
                    f"of videos ({', '.join(sorted(VIDEO_ENDINGS))}) or images "
                    f"({', '.join(sorted(IMAGE_ENDINGS))})"
                )
        elif path.suffix.lower() in LISTS:
            folder: Path | str = folder_of(argument) if root is None else root
            if root is None and is_there(beside(argument, PREPARED_FILE)):
                folder = known_root(argument)
            inside = _listed(argument, folder, allow_outside_root, multi_label)
        else:
            inside = [GivenVideo(argument, name=path.name)]
        for video in inside:
            known = found.setdefault(same_name(video.path), video)
            if known.label is None:
                found[same_name(video.path)] = replace(known, label=video.label)
            elif video.label is not None and video.label != known.label:
                raise ListError(
                    f"{argument}: {video.path} has the label {label_text(video.label)} and, "
                    f"before, {label_text(known.label)}; a video has one line, "
                    "or the same label in each"
                )
    return list(found.values())


def _inside(folder: Path) -> list[GivenVideo]:
    """Videos of a folder, or images where it has no video, at any depth, in the order of paths.

    Hidden files and folders (`.x`, macOS's `._x`) are passed over, as `vidadapt prepare` does;
    what is passed over is said on stderr.
    """
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    hidden = [
        file
        for file in files
        if any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    passed = set(hidden)
    shown = [file for file in files if file not in passed]
    found = [file for file in shown if is_video(file.name)]
    # Pictures beside videos are rarely meant.
    images = [file for file in shown if is_image(file.name)]
    found, kind = (found, "video") if found or not images else (images, "image")
    others = sorted(set(shown) - set(found))
    said = [
        f"{len(some)} {what} ({printable(_first_names(folder, some))})"
        for what, some in (("hidden", hidden), (f"no {kind} by its ending", others))
        if some
    ]
    if said:
        print(f"{printable(str(folder))}: passed over {' and '.join(said)}", file=sys.stderr)
    return [GivenVideo(str(file), name=str(file.relative_to(folder))) for file in found]


def _first_names(folder: Path, files: Sequence[Path], most: int = 5) -> str:
    names = [str(file.relative_to(folder)) for file in files[:most]]
    return ", ".join([*names, *(["..."] if len(files) > most else [])])


def list_with_labels(
    given: Path, split: str, root: str | os.PathLike[str] | None
) -> tuple[DataConfig, str]:
    """Find a list with labels, by its file or its prepared folder.

    Args:
        split: of a prepared folder, `test`, `dev` or `train`.
        root: folder that its paths are relative to; default: what the prepared folder says, else
            the list's own.

    Returns:
        Data options with its root, and where the folder has them its label names; and the list.

    Raises:
        ValueError: the folder was not prepared, or has no such list.
    """
    if given.is_dir():
        options = with_lists(DataConfig(lists=str(given)), same_dataset=False)
        listed = getattr(options, f"{split}_list")
        if listed is None:
            raise ConfigError(f"split: {given} has no {split} list")
    else:
        options, listed = DataConfig(root=str(given.parent)), str(given)
        if (given.parent / PREPARED_FILE).is_file():
            options = replace(options, root=str(known_root(given)))
    return (options if root is None else replace(options, root=os.fspath(root))), listed


def _listed(
    path: str, root: Path | str, allow_outside_root: bool, multi_label: bool
) -> list[GivenVideo]:
    try:
        lines = read_text(path).split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ListError(f"cannot read {path}: {error}") from error
    videos: list[GivenVideo] = []
    label: Label | None
    respelled = []
    for number, line in enumerate((line.strip() for line in lines), start=1):
        fields = parse_line(line)
        if not line or (not videos and _is_header(line, root)):
            continue
        if problem := _refused(line, root, allow_outside_root):
            raise ListError(f"{path}:{number}: {problem} (line: {line!r:.300})")
        name, label = line, None
        # A path may end in a number, too: if there is such a file, the line means it.
        if not _is_there(root, line):
            if multi_label and (labelled := parse_labels(line)) is not None:
                name, label = labelled
            elif not multi_label and fields is not None and _LABEL.fullmatch(fields[1]):
                name, label = fields[0], int(fields[1])
        if not _is_there(root, name) and (other := other_spelling(root, name)):
            respelled.append(f"{spelled(name)} is {spelled(other)}")
            name = other
        videos.append(GivenVideo(joined(root, name), label, name))
    if respelled:
        print(
            f"{path}: {len(respelled)} of its names are those of files in another Unicode "
            f"spelling: {respelled[0]}",
            file=sys.stderr,
        )
    if not videos:
        raise ListError(f"{path} lists no video; expected lines 'path label' or 'path'")
    return videos


def _is_there(root: Path | str, name: str) -> bool:
    """Check if a list's path names a local file, or a segment of one; stores are not asked."""
    # Unlike Path.is_file, False where a line is too long for a path.
    return os.path.isfile(film_of(joined(root, name)))  # noqa: PTH113


def _is_header(line: str, root: Path | str) -> bool:
    """Check if the first line of a list names its columns: one of paths, or two."""
    fields = parse_line(line)
    names_label = fields is not None and fields[1].lower() in HEADER_FIELDS
    return names_label or (line.lower() in PATH_COLUMNS and not _is_there(root, line))


def _refused(line: str, root: Path | str, allow_outside_root: bool) -> str:
    """Reason why a line of a list must not be used; empty: it may be."""
    if character := control_character(line):
        return f"it holds the control character {character}; rename the file"
    if not allow_outside_root and leads_outside(line, root):
        return f"it leads out of the folder {root}; add --allow_outside_root if it is to be trusted"
    return ""


def list_unreadable(lines: Sequence[str]) -> None:
    """List videos that cannot be read on stderr, a line each: its path and the cause."""
    if lines:
        print(f"unreadable ({len(lines)}):", file=sys.stderr)
    for line in lines:
        print(printable(f"  {line}"), file=sys.stderr)


def require_own_names(videos: Sequence[GivenVideo], option: str) -> None:
    """Check that files named after videos can be written into one folder.

    Args:
        option: that gives the folder.

    Raises:
        ConfigError: names that are the same, lead out of the folder, or are not valid Unicode.
    """
    twice = [name for name, count in Counter(video.name for video in videos).items() if count > 1]
    if twice:
        raise ConfigError(
            f"{option}: {len(twice)} names belong to several videos (the first: "
            f"{printable(twice[0])}); give the folder that holds all of them, or each a call and a "
            "folder of its own"
        )
    if unknown := next((video.name for video in videos if not _is_unicode(video.name)), None):
        raise ConfigError(
            f"{option}: {printable(unknown)}: its name is not valid Unicode, which tables need; "
            "rename the file"
        )
    for video in videos:
        if Path(video.name).is_absolute() or ".." in Path(video.name).parts:
            raise ConfigError(
                f"{printable(video.name)}: its files would lie outside of {option}; make --root "
                "the folder that holds all videos of the list"
            )


def _is_unicode(text: str) -> bool:
    """Check that a name can be written as UTF-8: Linux allows any bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def names_of(folders: Sequence[Path], option: str = "--adapter") -> list[str]:
    """Name each adapter's or run's folder by its last parts that tell them apart.

    If all names end in `run`, as in cells of vidadapt bench_frames, that part is dropped.

    Args:
        option: that gives the folders, for the message.

    Raises:
        ConfigError: a folder is given twice.

    >>> names_of([Path("runs/a/best"), Path("runs/b/best"), Path("c")])
    ['a/best', 'b/best', 'c']
    >>> names_of([Path("cells/linear_8f_s0/run"), Path("cells/vpt_8f_s0/run")])
    ['linear_8f_s0', 'vpt_8f_s0']
    """
    parts = [Path(os.path.normpath(Path.cwd() / folder)).parts for folder in folders]
    for number, mine in enumerate(parts):
        if mine in parts[:number]:
            raise ConfigError(f"{option}: {folders[number]} is given twice")
    names = []
    for mine in parts:
        count = 2 if mine[-1] in ("best", "last", "run") else 1
        while count < len(mine) and sum(o[-count:] == mine[-count:] for o in parts) > 1:
            count += 1
        names.append(str(Path(*mine[-count:])))
    if all(name.endswith("/run") for name in names):
        return [name.removesuffix("/run") for name in names]
    return names
