"""A picture of predictions: for each video the frames that the model saw, and bars of labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from vidadapt.apps.report.figures import (
    GREEN,
    GREY,
    INK,
    RED,
    RULE,
    WHITE,
    fitted,
    font,
    write_pages,
)

if TYPE_CHECKING:  # else every user of the room would import the models, too
    from vidadapt.serving import GivenVideo, Guess, Prediction, Shown

MARGIN, GAP = 24, 4
THUMB, COLUMNS = 132, 8
PANEL, BAR = 420, 24
HEADER, LINE = 34, 22
BEST, OTHER, BEHIND = "#7aace2", "#cbdcef", "#f6f7f9"  # of bars
RIGHT = "#1d7a3d"  # as text, which the green of bars is too light for


def write_prediction_sheets(
    predictions: Sequence[Prediction], path: Path, *, rows_per_page: int = 10
) -> list[Path]:
    """Write PNG pages: `path`, and for further videos `path` with -2, -3, ... before its ending.

    Returns:
        The files.
    """
    starts = range(0, len(predictions), rows_per_page)
    return write_pages((_page(predictions[s : s + rows_per_page]) for s in starts), path)


def _page(predictions: Sequence[Prediction]) -> Image.Image:
    """Each video's header, its frames with their times, and a panel for each adapter."""
    columns = max([min(COLUMNS, len(p.shown.frames)) for p in predictions if p.shown] or [COLUMNS])
    panels = max([1, *(len(p.guesses) for p in predictions)])
    width = 2 * MARGIN + columns * (THUMB + GAP) + panels * (MARGIN + PANEL)
    rows = [_row(prediction, columns, width) for prediction in predictions]
    page = Image.new("RGB", (width, MARGIN + sum(row.height for row in rows) + LINE), WHITE)
    top = MARGIN
    for row in rows:
        page.paste(row, (0, top))
        top += row.height
    note = "Frames: the middle clip of the evaluation, centre crop, as the model sees it."
    if any(p.video.label is not None for p in predictions):
        note += " Green bar: the label that the list gives."
    place = (MARGIN, page.height - LINE - 8)
    ImageDraw.Draw(page).text(place, note, fill=GREY, font=font(13))
    return page


def _row(prediction: Prediction, columns: int, width: int) -> Image.Image:
    lines = -(-len(prediction.shown.frames) // columns) if prediction.shown else 0
    bars = max([0, *(len(guesses) for guesses in prediction.guesses.values())])
    height = HEADER + max(lines * (THUMB + GAP), LINE + bars * (BAR + GAP)) + MARGIN * 3 // 2
    row = Image.new("RGB", (width, height), WHITE)
    draw = ImageDraw.Draw(row)
    rule = height - MARGIN * 3 // 4
    draw.line([(MARGIN, rule), (width - MARGIN, rule)], fill=RULE)
    path, room = Path(prediction.video.path), width - 2 * MARGIN
    if prediction.given:
        said = fitted(draw, f"the list says: {prediction.given}", room // 3, 15)
        draw.text((width - MARGIN, 3), said, fill=INK, font=font(15, said), anchor="ra")
        room -= room // 3 + MARGIN
    name = fitted(draw, path.name, room * 2 // 3, 19)
    draw.text((MARGIN, 0), name, fill=INK, font=font(19, name))
    rest = MARGIN + draw.textlength(name, font=font(19, name)) + 12
    where = fitted(draw, str(path.parent), int(MARGIN + room - rest), 14)
    draw.text((rest, 4), where, fill=GREY, font=font(14, where))
    if prediction.error:
        said = fitted(draw, f"cannot be read: {prediction.error}", room, 15)
        draw.text((MARGIN, HEADER), said, fill=RED, font=font(15, said))
        return row
    if prediction.shown is not None:
        _draw_frames(row, draw, prediction.shown, columns)
    left = 2 * MARGIN + columns * (THUMB + GAP)
    for adapter, guesses in prediction.guesses.items():
        views = prediction.views[adapter]
        beside = int(draw.textlength(views, font=font(12))) + (70 if prediction.given else 12)
        title = fitted(draw, adapter, PANEL - beside, 15)
        draw.text((left, HEADER - 2), title, fill=INK, font=font(15, title))
        draw.text((left + PANEL, HEADER), views, fill=GREY, font=font(12), anchor="ra")
        if prediction.given:
            right = prediction.is_right(adapter)
            place = left + draw.textlength(title, font=font(15, title)) + 10
            said, colour = ("right", RIGHT) if right else ("wrong", RED)
            draw.text((place, HEADER - 2), said, fill=colour, font=font(15, said))
        _draw_bars(draw, guesses, prediction.video, left)
        left += PANEL + MARGIN
    return row


def _draw_frames(row: Image.Image, draw: ImageDraw.ImageDraw, shown: Shown, columns: int) -> None:
    for number, frame in enumerate(shown.frames):
        line, column = divmod(number, columns)
        left, upper = MARGIN + column * (THUMB + GAP), HEADER + line * (THUMB + GAP)
        thumb = Image.fromarray(np.ascontiguousarray(frame))
        row.paste(thumb.resize((THUMB, THUMB), Image.Resampling.LANCZOS), (left, upper))
        if shown.times is None:
            continue
        text, corner = f"{shown.times[number]:.2f} s", (left + 5, upper + THUMB - 5)
        box = draw.textbbox(corner, text, font=font(12), anchor="ls")
        draw.rectangle((box[0] - 4, box[1] - 3, box[2] + 4, box[3] + 4), fill=INK)
        draw.text(corner, text, fill=WHITE, font=font(12), anchor="ls")


def _draw_bars(
    draw: ImageDraw.ImageDraw, guesses: Sequence[Guess], video: GivenVideo, left: int
) -> None:
    """A bar as long as the probability behind each label; green: the label that the list gives."""
    for number, guess in enumerate(guesses):
        upper = HEADER + LINE + number * (BAR + GAP)
        draw.rectangle((left, upper, left + PANEL, upper + BAR), fill=BEHIND)
        colour = BEST if number == 0 else OTHER
        colour = GREEN if video.has(guess.label) else colour
        length = round(PANEL * guess.probability)
        if length > 0:
            draw.rectangle((left, upper, left + length, upper + BAR), fill=colour)
        middle = upper + BAR // 2
        share = f"{100 * guess.probability:.1f} %"
        text = fitted(draw, guess.name, PANEL - 80, 14)
        draw.text((left + 7, middle), text, fill=INK, font=font(14, text), anchor="lm")
        draw.text((left + PANEL - 7, middle), share, fill=INK, font=font(14), anchor="rm")
