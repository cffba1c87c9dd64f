"""The table of checked videos: one row a file, appended as it comes, read back to continue."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, astuple, dataclass, fields
from pathlib import Path
from typing import Protocol

from vidadapt.data.frame_index import Counted, FrameCount, Stamp, truncated


@dataclass(frozen=True)
class Row:
    """What is known of one file of a list; an empty cell where it is not.

    Attributes:
        path, label: as in the list.
        size: in bytes; of a packed video, that of its tar.
        mtime_ns: modification time in nanoseconds, of the same.
        requested: the reader that was asked for.
        reader: the one that holds its contract on this file.
        container, pixel_format: by FFmpeg's names.
        codec: e.g. `h264`.
        width, height: in pixels, as shown: after the rotation.
        rotation: in degrees, as it stands in the file.
        frame_rate: mean frames a second by the header, or else by the timestamps.
        duration: in seconds, of what decodes.
        header_frames: frames that the header promises.
        num_frames: frames that decode; 0: the file is unreadable.
        truncated: whether the header promises more frames than decode, see `truncated`.
        doubt: why no reader seeks in this file; empty: one may.
        error: the first error that was met; of an unreadable file, the cause.
        holds: whether a further run takes this row while the file keeps its size and modification
            time. Not where the error need not be the file's fault: missing, hung, disk, memory.
    """

    path: str
    label: int
    size: int | None = None
    mtime_ns: int | None = None
    requested: str = ""
    reader: str = ""
    container: str = ""
    codec: str = ""
    pixel_format: str = ""
    width: int | None = None
    height: int | None = None
    rotation: int | None = None
    frame_rate: float | None = None
    duration: float | None = None
    header_frames: int | None = None
    num_frames: int = 0
    truncated: bool = False
    doubt: str = ""
    error: str = ""
    holds: bool = False

    def stamp(self) -> Stamp | None:
        """The state of the file that the row tells of; None: the row does not hold."""
        if not self.holds or self.size is None or self.mtime_ns is None:
            return None
        return Stamp(self.path, self.size, self.mtime_ns, self.requested)

    def frame_count(self, file: str) -> FrameCount:
        """The row of the frame-count index; `file` is where the video lies."""
        error = "" if self.num_frames else f"{file}: {self.error}"
        reader = self.reader or self.requested
        return FrameCount(self.path, self.num_frames, self.header_frames, self.codec, reader, error)


HEADER = [field.name for field in fields(Row)]
_INTEGERS = {"label", "size", "mtime_ns", "width", "height", "rotation"}
_INTEGERS |= {"header_frames", "num_frames"}
_NUMBERS = {"frame_rate", "duration"}
_TRUTHS = {"truncated", "holds"}


def row_of(counted: Counted, stamp: Stamp, file: str, label: int) -> Row:
    """The row of a file that was decoded; `file` is where it lies."""
    count, survey = counted.row, counted.survey
    look = asdict(survey.look) if survey and survey.look else {}
    cause = count.error.removeprefix(f"{file}: ")
    return Row(
        path=count.path,
        label=label,
        size=stamp.size,
        mtime_ns=stamp.mtime_ns,
        requested=stamp.requested,
        reader=count.reader if count.num_frames else "",
        codec=count.codec,
        header_frames=count.header_frames,
        num_frames=count.num_frames,
        truncated=bool(count.num_frames and truncated(count)),
        doubt=survey.doubt if survey else "",
        error=cause or (survey.cause if survey else ""),
        holds=counted.lasts,
        **look,
    )


class Append(Protocol):
    """Adds a row at the end of the table; it is on disk when this returns."""

    def __call__(self, row: Row) -> None: ...


@contextmanager
def appending(path: Path) -> Iterator[Append]:
    """Add rows to a table, which is begun where there is none.

    Half a last line, which a kill leaves, is removed first.

    Raises:
        OSError: it cannot be written.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        content = b""
    whole = content[: content.rfind(b"\n") + 1]
    if whole != content:
        os.truncate(path, len(whole))
    with path.open("a", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")

        def append(row: Row) -> None:
            writer.writerow(_cells(row))
            file.flush()

        if not whole:
            writer.writerow(HEADER)
            file.flush()
        yield append


def read_table(path: Path) -> dict[str, Row]:
    """Rows by path, the last one where there are several; none where there is no table.

    A last line that a kill cut off is left out.

    Raises:
        ValueError: it is no such table; names the line.
    """
    try:
        text = path.read_bytes().decode("utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return {}
    rows: dict[str, Row] = {}
    for number, line in enumerate(text.split("\n")[:-1], start=1):
        try:
            cells = next(csv.reader([line]), [])
            if number == 1 and cells == HEADER:
                continue
            row = _row(cells)
        except (ValueError, csv.Error) as error:
            raise ValueError(
                f"{path}:{number}: no row of a table of tools/check_videos.py; delete the file, "
                "and the videos are checked anew"
            ) from error
        rows[row.path] = row
    return rows


def write_table(path: Path, rows: Sequence[Row]) -> None:
    """Write the rows in their order, replacing the table at once."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        writer.writerows(map(_cells, rows))
    partial.replace(path)


def _cells(row: Row) -> list[str]:
    """A row as text: no line breaks, so that a line is a row."""
    return [_cell(value) for value in astuple(row)]


def _cell(value: str | float | None) -> str:
    """One value as text.

    >>> [_cell(value) for value in (True, False, None, 3, 29.97002997, "a b\\nc")]
    ['yes', 'no', '', '3', '29.97003', 'a b c']
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None:
        return ""
    return f"{value:.7g}" if isinstance(value, float) else str(value).replace("\n", " ")


def _row(cells: Sequence[str]) -> Row:
    values: dict[str, object] = dict(zip(HEADER, cells, strict=True))
    for name in _INTEGERS:
        values[name] = int(str(values[name])) if values[name] else None
    for name in _NUMBERS:
        values[name] = float(str(values[name])) if values[name] else None
    for name in _TRUTHS:
        values[name] = {"yes": True, "no": False}.get(str(values[name]))
    if any(values[name] in (None, "") for name in ("path", "label", "num_frames", *_TRUTHS)):
        raise ValueError("a cell is empty")
    return Row(**values)  # type: ignore[arg-type]
