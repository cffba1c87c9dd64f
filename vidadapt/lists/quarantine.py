"""The quarantine: a list of files that are never opened, each with the cause.

One file a line: its list path, a tab and the cause. vidadapt check_videos writes the quarantine,
`data.quarantine` names it. Training leaves these files out, evaluation counts them as wrong. A film
that is named bars all its segments; a segment bars itself, in any spelling.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vidadapt.config import DataConfig
from vidadapt.console import printable
from vidadapt.files import read_text, replaced
from vidadapt.lists.reading import ListError, listing
from vidadapt.video import film_of, same_name


def read_quarantine(path: str | Path | None, root: str | Path = "") -> dict[str, str]:
    """Read causes by list path, in the spelling of `same_name` below the root; none for None.

    Files that are in no list, empty lines and an empty file are allowed. The first line on a file
    counts, so that the quarantines of several lists may be joined into one file.

    Raises:
        ListError: the file is missing or not text, or lines are not a path, a tab and a cause: one
            error with the first ones as file:line.
    """
    if path is None:
        return {}
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ListError(
            f"data.quarantine: cannot read {path}: {error}; vidadapt check_videos writes it"
        ) from error
    causes: dict[str, str] = {}
    problems = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        name, _, cause = line.rpartition("\t")
        if name.strip() and cause.strip():
            causes.setdefault(same_name(name.strip(), root), printable(cause.strip()))
        else:
            problems.append(f"{path}:{number}: {line.strip()!r}")
    if problems:
        title = f"data.quarantine: {path}: expected lines of a path, a tab and the cause"
        raise ListError(listing(title, problems))
    return causes


def barred_files(data: DataConfig) -> dict[str, str]:
    """Causes, by list path as `same_name` spells it, of what must not be opened; see `barring`.

    Raises:
        ListError: see `read_quarantine`.
    """
    listed = read_quarantine(data.quarantine, data.root)
    return {path: f"{cause} (quarantined by {data.quarantine})" for path, cause in listed.items()}


def barring(barred: Mapping[str, str], path: str, root: str | Path) -> str:
    """Return why a video of a list must not be opened, itself or its whole film; empty: it may be.

    Args:
        barred: of `barred_files`.
        root: of the list and of the quarantine.

    >>> barring({"a.mp4": "hangs"}, "/d/./a.mp4#t=1,2", "/d")
    'hangs'
    >>> barring({"a.mp4#t=1,2": "hangs"}, "a.mp4", "/d")
    ''
    """
    if not barred:
        return ""
    own = barred.get(same_name(path, root), "")
    return own or (barred.get(same_name(film_of(path), root), "") if "#" in path else "")


def write_quarantine(path: Path, causes: Mapping[str, str]) -> None:
    """Write causes by list path, replacing the file; an empty one says that nothing is wrong."""
    lines = [f"{name}\t{' '.join(cause.split())}\n" for name, cause in causes.items()]
    text = "".join(lines)
    with replaced(path) as partial:
        # A cause may name a folder whose name is not valid Unicode.
        partial.write_text(text, encoding="utf-8", errors="backslashreplace", newline="\n")
