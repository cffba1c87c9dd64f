"""Names: suggestions for a mistyped one, safe printing of untrusted ones, and what differs."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def printable(text: str) -> str:
    """Return the text with control characters, line separators and invisible characters as escapes.

    The last are Unicode's format characters (Cf): they reverse the order of letters, or make two
    names look alike.

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
    """Apply `printable` to each line, so that line breaks stay: for error messages.

    >>> printable_lines("a: two bad lines" + chr(10) + "b" + chr(7))
    'a: two bad lines\\nb\\\\x07'
    """
    return "\n".join(map(printable, text.split("\n")))


def class_name(label: int, label_names: Sequence[str] | None) -> str:
    """Return the name of a label; where it has none, its number.

    >>> class_name(1, ["push", "pull"]), class_name(3, None)
    ('pull', 'class 3')
    """
    known = label_names is not None and label < len(label_names)
    return label_names[label] if label_names is not None and known else f"class {label}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Make a question of the known names near a wrong one; empty if none is near.

    >>> did_you_mean("adaptfomer", ["linear", "adaptformer"]), did_you_mean("x", ["linear"])
    ('did you mean adaptformer?', '')
    """
    near = difflib.get_close_matches(name, list(known), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(near)}?" if near else ""


def require_known(key: str, name: str, known: Iterable[str]) -> str:
    """Check that `name` is one of `known`, and return it.

    Args:
        key: of the configuration, for the error.

    Raises:
        ValueError: it is not; the message gives the key, near names and all known ones.
    """
    names = list(known)
    if name in names:
        return name
    hint = " ".join(filter(None, [did_you_mean(name, names), f"Known: {', '.join(names)}"]))
    raise ValueError(f"{key}: {name!r} is unknown; {hint}")


def differing(
    old: Mapping[str, Any], new: Mapping[str, Any], line: str = "{key}: {old!r} -> {new!r}"
) -> list[str]:
    """List the keys under which two mappings differ, in alphabetical order, one line each.

    A missing key has the value None.

    Args:
        line: form of a line.

    >>> differing({"epochs": 3, "seed": 0}, {"epochs": 4, "seed": 0})
    ['epochs: 3 -> 4']
    """
    return [
        line.format(key=key, old=old.get(key), new=new.get(key))
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
    ]
