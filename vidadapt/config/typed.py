"""Check that values from a file have the types and ranges that the code expects."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


@dataclass(frozen=True)
class Within:
    """The range of a number, beside its type: `Annotated[int, Within("[1, inf)")]`.

    >>> 1 in Within("[1, inf)"), 0 in Within("(0, 1]"), math.nan in Within("[0, inf)")
    (True, False, False)
    >>> [str(Within(interval)) for interval in ("[1, inf)", "(0, inf)", "[0, 1)")]
    ['1 or more', 'more than 0', 'a number in [0, 1)']
    """

    interval: str

    def __contains__(self, value: float) -> bool:
        least, most = map(float, self.interval[1:-1].split(","))
        return (
            least < value < most
            or (value == least and self.interval[0] == "[")
            or (value == most and self.interval[-1] == "]")
        )

    def __str__(self) -> str:
        least, most = self.interval[1:-1].split(", ")
        if most == "inf":
            return f"{least} or more" if self.interval[0] == "[" else f"more than {least}"
        return f"a number in {self.interval}"


def fits(value: Any, hint: Any) -> bool:
    """Check that a value fits a type hint.

    A float is finite and may be an int; a bool is no number.

    >>> fits(3, int), fits(True, int), fits(3, float), fits("a", int | None), fits(None, int | None)
    (True, False, True, False, True)
    >>> fits([1, "2"], list[int]), fits("best", Literal["best", "last"]), fits({}, dict)
    (False, True, True)
    """
    origin, parts = get_origin(hint), get_args(hint)
    if hint is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in parts)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in parts)
    if origin in (list, tuple):
        return isinstance(value, origin) and all(fits(item, parts[0]) for item in value)
    if origin is dict or hint is dict:
        return isinstance(value, dict)
    if hint is float:
        return type(value) in (int, float) and math.isfinite(value)
    return type(value) is (type(None) if hint is None else hint)


def hints_of(of: Any) -> dict[str, Any]:
    """Find the type hints of a class's fields, or of a method's options."""
    return {k: hint for k, hint in get_type_hints(of).items() if k not in ("model", "return")}


def misfits(values: Mapping[str, Any], hints: Mapping[str, Any], prefix: str) -> list[str]:
    """List each value that is not of its type, as "key: value where type is expected".

    >>> misfits({"epochs": "3"}, {"epochs": int}, "train.")
    ["train.epochs: '3' where int is expected"]
    """
    return [
        f"{prefix}{key}: {values[key]!r:.100} where {_named(hint)} is expected"
        for key, hint in hints.items()
        if key in values and not fits(values[key], hint)
    ]


def out_of_range(options: Any, prefix: str) -> list[str]:
    """List each number of a dataclass that is not `Within` the range of its field; None is in each.

    The types must be right, see `misfits`.
    """
    hints = get_type_hints(type(options), include_extras=True)
    return [
        f"{prefix}{key}: expected {within}, got {value}"
        for key, hint in hints.items()
        for within in getattr(hint, "__metadata__", ())
        if (value := getattr(options, key)) is not None and value not in within
    ]


def _named(hint: Any) -> str:
    if hint is float:
        return "a finite float"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
