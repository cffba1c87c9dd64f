"""A PNG of what `look` found: the training views of each video, class after class."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from vidadapt.apps.report.figures import GREY, INK, RED, RULE, WHITE, fitted, font, write_pages
from vidadapt.apps.report.looking import Shelf
from vidadapt.apps.report.views import Clip

MARGIN, GAP, LINE = 20, 16, 19
ACROSS = 1620  # about the width of a page
THUMB = 64  # side of a frame, at most
TALLEST = 6000  # height of a page without its margins, but at least one row


def write_browse_sheet(shelves: Sequence[Shelf], path: Path) -> list[Path]:
    """Write `path`, and what does not fit a page into path-2, path-3, ...; older ones go.

    Returns:
        The files.
    """
    views = [clip.views[0] for shelf in shelves for clip in shelf.clips]
    frames = len(views[0].indices) if views else 8
    side = max(24, min(THUMB, (ACROSS - 2 * MARGIN) // frames))
    columns = max(1, (ACROSS - 2 * MARGIN + GAP) // (frames * side + GAP))
    width = max(2 * MARGIN + columns * (frames * side + GAP) - GAP, 800)
    files = write_pages(_pages(_rows(shelves, columns, width, side, frames * side), width), path)
    for old in path.parent.glob(f"{path.stem}-*.png"):
        if re.fullmatch(re.escape(path.stem) + r"-\d+", old.stem) and old not in files:
            old.unlink()
    return files


def _pages(rows: Iterator[Image.Image], width: int) -> Iterator[Image.Image]:
    """Rows one below the other, as many as fit a page."""
    held: list[Image.Image] = []
    for row in [*rows, None]:
        filled = sum(one.height for one in held)
        if row is None or (held and filled + row.height > TALLEST):
            page = Image.new("RGB", (width, filled + 2 * MARGIN), WHITE)
            top = MARGIN
            for one in held:
                page.paste(one, (0, top))
                top += one.height
            yield page
            held = []
        if row is not None:
            held.append(row)


def _rows(
    shelves: Sequence[Shelf], columns: int, width: int, side: int, breadth: int
) -> Iterator[Image.Image]:
    """Of each class its heading, its clips side by side, and lines of text in red."""
    for shelf in shelves:
        row = Image.new("RGB", (width, 34), WHITE)
        _draw_heading(ImageDraw.Draw(row), shelf, width)
        yield row
        for start in range(0, len(shelf.clips), columns):
            clips = shelf.clips[start : start + columns]
            views = max(sum(view.epoch is not None for view in clip.views) for clip in clips)
            row = Image.new("RGB", (width, LINE + views * (side + 2) + 10), WHITE)
            for number, clip in enumerate(clips):
                _draw_clip(row, clip, MARGIN + number * (breadth + GAP), side, breadth)
            yield row
        if shelf.broken:
            said = [f"{file}: {cause}" for file, cause in shelf.broken[:3]]
            rest = len(shelf.broken) - len(said)
            said += [f"... and {rest} more broken videos, all in index.html"] if rest else []
            row = Image.new("RGB", (width, len(said) * LINE + 8), WHITE)
            draw = ImageDraw.Draw(row)
            for number, line in enumerate(said):
                text = fitted(draw, line, width - 2 * MARGIN, 13)
                draw.text((MARGIN, number * LINE), text, fill=RED, font=font(13, text))
            yield row


def _draw_heading(draw: ImageDraw.ImageDraw, shelf: Shelf, width: int) -> None:
    draw.line([(MARGIN, 2), (width - MARGIN, 2)], fill=RULE)
    name = shelf.title if shelf.name is None else f"{shelf.label}  {shelf.name}"
    name = fitted(draw, name, width - 2 * MARGIN - 220, 17)
    draw.text((MARGIN, 7), name, fill=INK, font=font(17, name))
    left = MARGIN + draw.textlength(name, font=font(17, name)) + 14
    said = f"{shelf.num_videos} video{'s' * (shelf.num_videos != 1)}"
    draw.text((left, 10), said, fill=GREY if shelf.num_videos else RED, font=font(13))
    if shelf.broken:
        left += draw.textlength(said, font=font(13)) + 10
        draw.text((left, 10), f"{len(shelf.broken)} broken", fill=RED, font=font(13))


def _draw_clip(row: Image.Image, clip: Clip, left: int, side: int, breadth: int) -> None:
    draw = ImageDraw.Draw(row)
    said = f"{clip.facts.num_frames} frames, {clip.width} x {clip.height}"
    room = breadth - int(draw.textlength(said, font=font(12))) - 12
    path = fitted(draw, clip.facts.path, room, 12)
    draw.text((left, 0), path, fill=INK, font=font(12, path))
    draw.text((left + breadth, 0), said, fill=GREY, font=font(12), anchor="ra")
    top = LINE
    for view in clip.views:
        if view.epoch is not None:
            strip = Image.open(io.BytesIO(view.strip))
            row.paste(strip.resize((breadth, side), Image.Resampling.LANCZOS), (left, top))
            for place in range(left + side, left + breadth, side):
                draw.line([(place - 1, top), (place - 1, top + side)], fill=WHITE)
            top += side + 2
