"""Colours, fonts and whole files, which all pictures share.

Pictures drawn by matplotlib take `new_figure`, `named` and `write_figure`, pages drawn by Pillow
`font`, `fitted` and `write_pages`. matplotlib is imported where it is used: it takes half a second.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageDraw, ImageFont

from vidadapt.apps.report.fonts import best_font, drawable
from vidadapt.files import replaced

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, GREY, RULE, WHITE = "#1c1e22", "#5c6068", "#dcdee2", "#ffffff"
BLUE, ORANGE, RED, GREEN = "#4878a8", "#e0963c", "#be3434", "#7ec794"
DPI = 150
PLAIN: dict[str, Any] = {"parse_math": False}  # of a text: a name may hold dollar signs


def named(texts: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Texts that matplotlib can draw, which may hold names, and the options to draw them with."""
    from matplotlib.font_manager import fontManager, get_font

    families = []
    for file in dict.fromkeys(filter(None, map(best_font, texts))):
        fontManager.addfont(file)
        families.append(get_font(file).family_name)
    fonts = {"fontfamily": ["DejaVu Sans", *families]} if families else {}
    return [drawable(text) for text in texts], PLAIN | fonts


def new_figure(size: tuple[float, float], **spaces: Any) -> Figure:
    """A figure that places its parts itself.

    Args:
        size: inches.
        spaces: `w_pad`, `h_pad`, `wspace`, `hspace` of matplotlib's ConstrainedLayoutEngine.
    """
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    return Figure(figsize=size, dpi=DPI, layout=ConstrainedLayoutEngine(**spaces))


def write_figure(figure: Figure, *paths: Path) -> list[Path]:
    """Write a figure to each path, PNG or SVG by its ending, and return the paths.

    The same figure gives the same bytes. Texts of an SVG stay texts.
    """
    import matplotlib

    # SVG names its parts by chance unless it has a salt, and holds the date unless it is refused.
    with matplotlib.rc_context({"svg.hashsalt": "vidadapt", "svg.fonttype": "none"}):
        for path in paths:
            metadata = {"Date": None} if path.suffix == ".svg" else None
            with replaced(path) as partial:
                figure.savefig(partial, format=path.suffix[1:], dpi=DPI, metadata=metadata)
    return list(paths)


def write_pages(pages: Iterable[Image.Image], path: Path) -> list[Path]:
    """Write PNG pages: `path`, then `path` with -2, -3, ... before its ending; return the paths."""
    files = []
    for number, page in enumerate(pages, start=1):
        files.append(path if number == 1 else path.with_stem(f"{path.stem}-{number}"))
        with replaced(files[-1]) as partial:
            page.save(partial, format="PNG", optimize=True)
    return files


def font(size: int, text: str = "") -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """DejaVu Sans, or the installed font that has most letters of a text."""
    return _font(size, best_font(text))


@functools.cache
def _font(size: int, file: str | None) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    if file is not None:
        return ImageFont.truetype(file, size)
    try:
        return ImageFont.truetype("DejaVuSans.ttf", size)
    except OSError:
        from matplotlib import get_data_path

        return ImageFont.truetype(Path(get_data_path(), "fonts/ttf/DejaVuSans.ttf"), size)


def fitted(draw: ImageDraw.ImageDraw, text: str, width: int, size: int) -> str:
    """The text in one line, `drawable`; one wider than `width` pixels loses its middle.

    Labels often differ in their last words, paths in their last folders.
    """
    text = drawable(" ".join(text.splitlines()))
    kept, short, used = len(text), text, font(size, text)
    while kept > 0 and draw.textlength(short, font=used) > width:
        kept -= 1
        head = kept // 2
        short = f"{text[:head]}...{text[len(text) - kept + head :]}"
    return short
