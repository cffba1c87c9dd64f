"""A PNG of what `look` found: the training views of each video, class after class."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

from vidadapt.apps.report.browse import Shelf
from vidadapt.apps.report.lettering import fitted, font
from vidadapt.apps.report.page import heading
from vidadapt.apps.report.views import Clip
from vidadapt.files.writing import replaced

MARGIN, GAP, LINE = 20, 16, 19
ACROSS = 1620  # about the width of a page
THUMB = 64  # side of a frame, at most
TALLEST = 6000  # height of a page, at most one row more
WHITE, INK, GREY, RULE = (255, 255, 255), (28, 30, 34), (112, 116, 122), (222, 224, 228)
FAULT = (190, 52, 52)


@dataclass(frozen=True)
class _Row:
    """A class heading, clips side by side, or lines of text in red."""

    heading: Shelf | None
    clips: tuple[Clip, ...]
    faults: tuple[str, ...]


def write_sheet(shelves: Sequence[Shelf], path: Path) -> list[Path]:
    """Write `path`, and what does not fit a page into path-2, path-3, ...; older ones go.

    Returns:
        The files.
    """
    views = [clip.views[0] for shelf in shelves for clip in shelf.clips]
    frames = len(views[0].indices) if views else 8
    side = max(24, min(THUMB, (ACROSS - 2 * MARGIN) // frames))
    columns = max(1, (ACROSS - 2 * MARGIN + GAP) // (frames * side + GAP))
    width = max(2 * MARGIN + columns * (frames * side + GAP) - GAP, 800)
    pages: list[list[_Row]] = [[]]
    filled = 0
    for row in _rows(shelves, columns):
        height = _height(row, side)
        if filled + height > TALLEST and pages[-1]:
            pages.append([])
            filled = 0
        pages[-1].append(row)
        filled += height
    files = []
    for number, rows in enumerate(pages, start=1):
        file = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        drawn = _page(rows, width, side, frames * side)
        with replaced(file) as partial:
            drawn.save(partial, format="PNG", optimize=True)
        files.append(file)
    for old in path.parent.glob(f"{path.stem}-*.png"):
        if re.fullmatch(re.escape(path.stem) + r"-\d+", old.stem) and old not in files:
            old.unlink()
    return files


def _rows(shelves: Sequence[Shelf], columns: int) -> Iterator[_Row]:
    for shelf in shelves:
        yield _Row(shelf, (), ())
        for start in range(0, len(shelf.clips), columns):
            yield _Row(None, shelf.clips[start : start + columns], ())
        if shelf.broken:
            said = [f"{file}: {cause}" for file, cause in shelf.broken[:3]]
            rest = len(shelf.broken) - len(said)
            said += [f"... and {rest} more broken videos, all in index.html"] if rest else []
            yield _Row(None, (), tuple(said))


def _trained(clip: Clip) -> int:
    return sum(view.epoch is not None for view in clip.views)


def _height(row: _Row, side: int) -> int:
    if row.heading is not None:
        return 34
    if row.faults:
        return len(row.faults) * LINE + 8
    return LINE + max(_trained(clip) for clip in row.clips) * (side + 2) + 10


def _page(rows: Sequence[_Row], width: int, side: int, breadth: int) -> Image.Image:
    height = 2 * MARGIN + sum(_height(row, side) for row in rows)
    image = Image.new("RGB", (width, height), WHITE)
    draw = ImageDraw.Draw(image)
    top = MARGIN
    for row in rows:
        if row.heading is not None:
            _draw_heading(draw, row.heading, top, width)
        for number, clip in enumerate(row.clips):
            left = MARGIN + number * (breadth + GAP)
            _draw_clip(image, draw, clip, left, top, side, breadth)
        for number, line in enumerate(row.faults):
            text = fitted(draw, line, width - 2 * MARGIN, 13)
            draw.text((MARGIN, top + number * LINE), text, fill=FAULT, font=font(13))
        top += _height(row, side)
    return image


def _draw_heading(draw: ImageDraw.ImageDraw, shelf: Shelf, top: int, width: int) -> None:
    draw.line([(MARGIN, top + 2), (width - MARGIN, top + 2)], fill=RULE)
    name = heading(shelf) if shelf.name is None else f"{shelf.label}  {shelf.name}"
    name = fitted(draw, name, width - 2 * MARGIN - 220, 17)
    draw.text((MARGIN, top + 7), name, fill=INK, font=font(17))
    left = MARGIN + draw.textlength(name, font=font(17)) + 14
    said = f"{shelf.num_videos} video{'s' * (shelf.num_videos != 1)}"
    draw.text((left, top + 10), said, fill=GREY if shelf.num_videos else FAULT, font=font(13))
    if shelf.broken:
        left += draw.textlength(said, font=font(13)) + 10
        draw.text((left, top + 10), f"{len(shelf.broken)} broken", fill=FAULT, font=font(13))


def _draw_clip(
    image: Image.Image,
    draw: ImageDraw.ImageDraw,
    clip: Clip,
    left: int,
    top: int,
    side: int,
    breadth: int,
) -> None:
    facts = f"{clip.count.num_frames} frames, {clip.width} x {clip.height}"
    room = breadth - int(draw.textlength(facts, font=font(12))) - 12
    name = fitted(draw, clip.path, room, 12)
    draw.text((left, top), name, fill=INK, font=font(12))
    draw.text((left + breadth, top), facts, fill=GREY, font=font(12), anchor="ra")
    top += LINE
    for view in clip.views:
        if view.epoch is not None:
            strip = Image.open(io.BytesIO(view.strip))
            image.paste(strip.resize((breadth, side), Image.Resampling.LANCZOS), (left, top))
            for place in range(left + side, left + breadth, side):
                draw.line([(place - 1, top), (place - 1, top + side)], fill=WHITE)
            top += side + 2
