"""Text in pictures: a font that is there, and text cut to a width."""

from __future__ import annotations

import functools

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@functools.cache
def font(size: int) -> Font:
    """DejaVu Sans where the system has it (it knows more scripts), else Pillow's own font."""
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        return ImageFont.load_default(size)


def fitted(draw: ImageDraw.ImageDraw, text: str, width: int, size: int) -> str:
    """The text in one line; one that is wider than `width` pixels loses its middle.

    Labels often differ in their last words, paths in their last folders.
    """
    text = " ".join(text.splitlines())
    kept, short = len(text), text
    while kept > 0 and draw.textlength(short, font=font(size)) > width:
        kept -= 1
        head = kept // 2
        short = f"{text[:head]}...{text[len(text) - kept + head :]}"
    return short
