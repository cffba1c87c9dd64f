"""Fonts for names in any script.

DejaVu Sans has Latin, Greek, Cyrillic, Arabic and more, but no Chinese, Japanese or Korean. A text
that it cannot write is written in the installed font that has most of its letters. A letter that
this font lacks, too, is shown as its escape (`\\u5f15`): as boxes, all classes would look the same.
"""

from __future__ import annotations

import functools
import sys
import unicodedata

from vidadapt.console import printable

_told: set[str] = set()


def best_font(text: str) -> str | None:
    """File of the installed font that has most letters of a text; None: DejaVu Sans has."""
    missing = frozenset(letter for letter in text if not _has(None, letter))
    return _most_of(missing, frozenset(text)) if missing else None


def drawable(text: str) -> str:
    """The text, with the escape of each letter that its `best_font` lacks; said once on stderr."""
    used = best_font(text)
    lacking = sorted({letter for letter in text if not _has(used, letter)})
    if new := [letter for letter in lacking if letter not in _told]:
        _told.update(new)
        print(
            f"note: no font on this machine has {printable(' '.join(new))}: pictures show escapes "
            f"like {_escaped(new[0])}; install a font of that script, e.g. fonts-noto-cjk for "
            "Chinese, Japanese and Korean",
            file=sys.stderr,
        )
    return "".join(_escaped(letter) if letter in lacking else letter for letter in text)


def _escaped(letter: str) -> str:
    return letter.encode("ascii", "backslashreplace").decode()


def _has(file: str | None, letter: str) -> bool:
    """Check if a font (None: DejaVu Sans) has a letter; one without a shape needs none."""
    if ord(letter) < 0x7F or unicodedata.category(letter) in ("Cc", "Cf", "Zs"):
        return True
    return ord(letter) in _letters(file) or unicodedata.name(letter, "").startswith("VARIATION")


@functools.cache
def _letters(file: str | None) -> frozenset[int]:
    """Code points that a font file has; none if it cannot be read or drawn in any size."""
    from matplotlib import get_data_path
    from matplotlib.ft2font import FT2Font

    try:
        opened = FT2Font(file or f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf")
    except (OSError, RuntimeError, UnicodeError):
        return frozenset()
    return frozenset(opened.get_charmap()) if opened.scalable else frozenset()


@functools.cache
def _most_of(missing: frozenset[str], wanted: frozenset[str]) -> str | None:
    """The font that has most of the wanted letters and some of the missing ones; None: none has."""
    found = [
        (sum(_has(file, letter) for letter in wanted), file)
        for file in _installed()
        if any(_has(file, letter) for letter in missing)
    ]
    most = max((count for count, _ in found), default=0)
    return next((file for count, file in found if count == most), None)


@functools.cache
def _installed() -> tuple[str, ...]:
    """Font files of the system, of which any may be new since matplotlib listed them."""
    from matplotlib.font_manager import findSystemFonts

    return tuple(sorted(findSystemFonts()))
