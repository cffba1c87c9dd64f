"""The page of an explanation: frames, what speaks for a label in them, what each is worth."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image
from torch import Tensor

from vidadapt.apps.report.page import render_page
from vidadapt.files import write_json, writing

if TYPE_CHECKING:  # else every user of the room would import the models, too
    from vidadapt.serving import Explanation, Recognition

QUALITY = 85  # of WebP


def write_explanation_page(
    found: Explanation,
    whole: Recognition,
    clip: Tensor,
    names: Sequence[str],
    name: str,
    folder: Path,
) -> Path:
    """Write FOLDER/NAME.html, and its numbers as FOLDER/NAME.json; return the page's path.

    Args:
        whole: what the model says of the whole video, all its views.
        clip: (3, T, S, S) uint8 that was explained.
        names: of the classes.
        name: of the video.

    Raises:
        WriteError: the disk refused them.
    """
    page = folder / f"{name}.html"
    with writing(page):
        page.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "label": found.label,
        "name": names[found.label],
        "probability": found.probability,
        "best_in_clip": names[found.best],
        "whole_video": [
            {"label": one.label, "name": one.name, "probability": one.probability}
            for one in whole.guesses
        ],
        "log_odds_that_fall": found.cells.tolist(),
        "drop_without_frame": found.drops.tolist(),
        "answer_without_frame": [names[label] for label in found.answers],
        "frames_that_are_needed": list(found.needed),
    }
    write_json(folder / f"{name}.json", about)
    largest = float(found.cells.abs().max()) or 1.0
    most = max(float(found.drops.abs().max()), 1e-9)
    render_page(
        "explanation.html.j2",
        page,
        title=name,
        facts={
            "explained": names[found.label],
            "probability in this clip": f"{100 * found.probability:.1f} %",
            "best label in this clip": names[found.best],
            "the whole video": ", ".join(
                f"{one.name} {100 * one.probability:.1f} %" for one in whole.guesses[:3]
            ),
            "largest fall of the log-odds": f"{float(found.cells.max()):.2f}",
            "frames without which the best label is another": ", ".join(map(str, found.needed))
            or "none found",
        },
        side=clip.shape[-1],
        frames=[
            {
                "picture": _webp(clip[:, place]),
                "cells": [[value / largest for value in row] for row in cells],
                "drop": float(found.drops[place]),
                "width": abs(float(found.drops[place])) / most,
                "answer": names[found.answers[place]],
                "other": found.answers[place] != found.best,
                "needed": place in found.needed,
            }
            for place, cells in enumerate(found.cells.tolist())
        ],
    )
    return page


def _webp(frame: Tensor) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(frame.permute(1, 2, 0).numpy()).save(buffer, "WEBP", quality=QUALITY)
    return buffer.getvalue()
