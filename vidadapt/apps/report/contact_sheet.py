"""A picture of predictions: for each video the frames that the model saw, and bars of labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vidadapt.apps.report.lettering import fitted, font
from vidadapt.files.writing import replaced
from vidadapt.serving.predict import Guess, Prediction, Shown

MARGIN, GAP = 24, 4
THUMB, COLUMNS = 132, 8
PANEL, BAR = 420, 24
HEADER, LINE = 34, 22
WHITE, INK, GREY, RULE = (255, 255, 255), (28, 30, 34), (120, 124, 130), (222, 224, 228)
BEST, OTHER, GIVEN, FAULT = (122, 172, 226), (203, 220, 239), (126, 199, 148), (190, 52, 52)


def write_sheets(
    predictions: Sequence[Prediction], path: Path, *, rows_per_page: int = 10
) -> list[Path]:
    """Write PNG pages: `path`, and for further videos `path` with -2, -3, ... before its ending.

    Returns:
        The files.
    """
    pages = [
        predictions[start : start + rows_per_page]
        for start in range(0, len(predictions), rows_per_page)
    ]
    files = []
    for number, rows in enumerate(pages, start=1):
        file = path if number == 1 else path.with_stem(f"{path.stem}-{number}")
        drawn = sheet(rows)
        with replaced(file) as partial:
            drawn.save(partial, format="PNG")
        files.append(file)
    return files


def sheet(predictions: Sequence[Prediction]) -> Image.Image:
    """One page: each video's header, its frames with their times, and a panel for each adapter."""
    columns = max([min(COLUMNS, len(p.shown.frames)) for p in predictions if p.shown] or [COLUMNS])
    panels = max([len(p.guesses) for p in predictions] or [1])
    width = 2 * MARGIN + columns * (THUMB + GAP) + max(panels, 1) * (MARGIN + PANEL)
    heights = [_height(p, columns) for p in predictions]
    image = Image.new("RGB", (width, MARGIN + sum(heights) + LINE), WHITE)
    draw = ImageDraw.Draw(image)
    top = MARGIN
    for prediction, height in zip(predictions, heights, strict=True):
        _draw_row(image, draw, prediction, top, columns)
        top += height
        line = top - MARGIN * 3 // 4
        draw.line([(MARGIN, line), (width - MARGIN, line)], fill=RULE)
    note = "Frames: the middle clip of the evaluation, centre crop, as the model sees it."
    if any(p.video.label is not None for p in predictions):
        note += " Green: the label that the list gives."
    draw.text((MARGIN, image.height - LINE - 8), note, fill=GREY, font=font(13))
    return image


def _height(prediction: Prediction, columns: int) -> int:
    lines = -(-len(prediction.shown.frames) // columns) if prediction.shown else 0
    bars = max([len(guesses) for guesses in prediction.guesses.values()] or [0])
    panel = LINE + bars * (BAR + GAP) if bars else LINE
    return HEADER + max(lines * (THUMB + GAP), panel) + MARGIN * 3 // 2


def _draw_row(
    image: Image.Image, draw: ImageDraw.ImageDraw, prediction: Prediction, top: int, columns: int
) -> None:
    width = image.width - 2 * MARGIN
    path = Path(prediction.video.path)
    name = fitted(draw, path.name, width * 2 // 3, 19)
    draw.text((MARGIN, top), name, fill=INK, font=font(19))
    rest = MARGIN + draw.textlength(name, font=font(19)) + 12
    where = fitted(draw, str(path.parent), int(MARGIN + width - rest), 14)
    draw.text((rest, top + 4), where, fill=GREY, font=font(14))
    top += HEADER
    if prediction.error:
        said = fitted(draw, f"cannot be read: {prediction.error}", width, 15)
        draw.text((MARGIN, top), said, fill=FAULT, font=font(15))
        return
    if prediction.shown is not None:
        _draw_frames(image, draw, prediction.shown, top, columns)
    left = 2 * MARGIN + columns * (THUMB + GAP)
    for adapter, guesses in prediction.guesses.items():
        views = prediction.views[adapter]
        title = fitted(draw, adapter, PANEL - int(draw.textlength(views, font=font(12))) - 12, 15)
        draw.text((left, top - 2), title, fill=INK, font=font(15))
        draw.text((left + PANEL, top), views, fill=GREY, font=font(12), anchor="ra")
        _draw_bars(draw, guesses, prediction.video.label, left, top + LINE)
        left += PANEL + MARGIN


def _draw_frames(
    image: Image.Image, draw: ImageDraw.ImageDraw, shown: Shown, top: int, columns: int
) -> None:
    for number, frame in enumerate(shown.frames):
        row, column = divmod(number, columns)
        left, upper = MARGIN + column * (THUMB + GAP), top + row * (THUMB + GAP)
        thumb = Image.fromarray(np.ascontiguousarray(frame))
        image.paste(thumb.resize((THUMB, THUMB), Image.Resampling.LANCZOS), (left, upper))
        if shown.times is None:
            continue
        text, corner = f"{shown.times[number]:.2f} s", (left + 5, upper + THUMB - 5)
        box = draw.textbbox(corner, text, font=font(12), anchor="ls")
        draw.rectangle((box[0] - 4, box[1] - 3, box[2] + 4, box[3] + 4), fill=INK)
        draw.text(corner, text, fill=WHITE, font=font(12), anchor="ls")


def _draw_bars(
    draw: ImageDraw.ImageDraw, guesses: Sequence[Guess], given: int | None, left: int, top: int
) -> None:
    """A bar as long as the probability behind each label; green: the label that the list gives."""
    for number, guess in enumerate(guesses):
        upper = top + number * (BAR + GAP)
        draw.rectangle((left, upper, left + PANEL, upper + BAR), fill=(246, 247, 249))
        colour = BEST if number == 0 else OTHER
        colour = GIVEN if guess.label == given else colour
        length = round(PANEL * guess.probability)
        if length > 0:
            draw.rectangle((left, upper, left + length, upper + BAR), fill=colour)
        middle = upper + BAR // 2
        share = f"{100 * guess.probability:.1f} %"
        text = fitted(draw, guess.name, PANEL - 80, 14)
        draw.text((left + 7, middle), text, fill=INK, font=font(14), anchor="lm")
        draw.text((left + PANEL - 7, middle), share, fill=INK, font=font(14), anchor="rm")
