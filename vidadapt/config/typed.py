"""Check that values from a file have the types that the code expects; nothing else does."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints


def fits(value: Any, hint: Any) -> bool:
    """Whether a value fits a type hint. A float is finite and may be an int; a bool is no number.

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
    """The type hints of a class's fields, or of a method's options."""
    return {k: hint for k, hint in get_type_hints(of).items() if k not in ("model", "return")}


def misfits(values: Mapping[str, Any], hints: Mapping[str, Any], prefix: str) -> list[str]:
    """Each value that is not of its type, as "key: value where type is expected".

    >>> misfits({"epochs": "3"}, {"epochs": int}, "train.")
    ["train.epochs: '3' where int is expected"]
    """
    return [
        f"{prefix}{key}: {values[key]!r:.100} where {_named(hint)} is expected"
        for key, hint in hints.items()
        if key in values and not fits(values[key], hint)
    ]


def _named(hint: Any) -> str:
    if hint is float:
        return "a finite float"
    return hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
