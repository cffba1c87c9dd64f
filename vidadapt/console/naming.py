"""Names: the near ones of a mistyped one, and how one from a stranger is shown."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable


def printable(text: str) -> str:
    """The text with what a terminal obeys, what breaks a line, and what cannot be seen, as escapes.

    The last are Unicode's format characters (Cf): they turn the order of letters round, or make
    two names alike.

    >>> printable("a" + chr(27) + "[31mb, c é視.mp4") == "a" + chr(92) + "x1b[31mb, c é視.mp4"
    True
    >>> printable("4pm" + chr(0x202e) + "gpj") == "4pm" + chr(92) + "u202egpj"
    True
    """
    return "".join(
        c.encode("unicode_escape").decode()
        if not c.isprintable() and unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs")
        else c
        for c in text
    )


def printable_lines(text: str) -> str:
    """`printable`, but lines stay lines: for the message of an error.

    >>> printable_lines("a: two bad lines" + chr(10) + "b" + chr(7))
    'a: two bad lines\\nb\\\\x07'
    """
    return "\n".join(map(printable, text.split("\n")))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with the known names near a wrong one; empty if none is near.

    >>> did_you_mean("adaptfomer", ["linear", "adaptformer"]), did_you_mean("x", ["linear"])
    ('did you mean adaptformer?', '')
    """
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else ""


def require_known(key: str, name: str, known: Iterable[str]) -> str:
    """`name`, if it is one of `known`.

    Args:
        key: of the configuration.

    Raises:
        ValueError: naming the key, the near names and all known ones.
    """
    names = list(known)
    if name in names:
        return name
    hint = " ".join(filter(None, [did_you_mean(name, names), f"Known: {', '.join(names)}"]))
    raise ValueError(f"{key}: {name!r} is unknown; {hint}")
