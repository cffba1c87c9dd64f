"""Options of a study's command: the fields of a dataclass."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields, is_dataclass
from types import NoneType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from docstring_parser import parse

from vidadapt.config import ConfigError, import_plugins, out_of_range, spelt

Options = TypeVar("Options")
REST = "rest"  # field for the words of a command line that are none of its own options


def parse_options(
    kind: type[Options], argv: Sequence[str] | None, tool: str, description: str, epilog: str
) -> Options:
    """Parse a command line by the fields of a dataclass; their help is its docstring's.

    The plug-ins that it names are imported first.

    The type of a field says what its option takes: of `bool` nothing, of `Sequence[X]` one value or
    more (all those of a repeated option, if there is no default), of a `Literal` one of its values;
    in place of a dataclass there are the options of its fields.

    Args:
        kind: if it has a field `rest`, that is for all words that are no options.
        argv: None: that of this process.
        tool: name of the command in tools/.

    Raises:
        ConfigError: a number that is out of its range, see `typed.Within`.
        SystemExit: after --help, or malformed options.
    """
    parser = argparse.ArgumentParser(
        prog=f"vidadapt {tool}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    for name, how in _arguments(kind):
        parser.add_argument(f"--{name}", **how)
    words = spelt(list(sys.argv[1:] if argv is None else argv))
    import_plugins(words)
    known, rest = parser.parse_known_args(words)
    if rest and not hasattr(kind, REST):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return _made(kind, {**vars(known), REST: rest})


def _arguments(kind: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and arguments of argparse's `add_argument` for every option."""
    hints = get_type_hints(kind)
    helps = {
        one.arg_name: (one.description or "").rstrip(".") for one in parse(kind.__doc__).params
    }
    for field in fields(kind):
        name, default = field.name, field.default
        if is_dataclass(hints[name]):
            yield from _arguments(hints[name])
        elif name != REST:
            how = _taken(hints[name]) | {"default": default, "help": helps.get(name, "")}
            if default is MISSING:
                how |= {"default": None, "required": True}
            elif isinstance(default, tuple):
                how |= (
                    {"default": list(default)} if default else {"default": None, "action": "extend"}
                )
            if how["default"] is not None and hints[name] is not bool:
                how["help"] += "; default: %(default)s"
            yield name, how


def _made(kind: Any, values: dict[str, Any]) -> Any:
    """The dataclass with these values, its ranges checked."""
    hints = get_type_hints(kind)
    nested = {name: _made(hint, values) for name, hint in hints.items() if is_dataclass(hint)}
    given = {name: value for name, value in {**values, **nested}.items() if value is not None}
    made = kind(**{field.name: given[field.name] for field in fields(kind) if field.name in given})
    if problems := out_of_range(made, "--"):
        raise ConfigError("; ".join(problems))
    return made


def _taken(hint: Any) -> dict[str, Any]:
    """Arguments of `add_argument` for a type.

    >>> _taken(int | None), _taken(Sequence[float] | None), _taken(Literal["a", "b"])
    ({'type': <class 'int'>}, {'nargs': '+', 'type': <class 'float'>}, {'choices': ('a', 'b')})
    """
    if hint is bool:
        return {"action": "store_true"}
    if get_origin(hint) is Literal:
        return {"choices": get_args(hint)}
    parts = [part for part in get_args(hint) if part is not NoneType]
    if get_origin(hint) is Sequence:
        return {"nargs": "+", "type": parts[0]}
    return _taken(parts[0]) if parts else {"type": hint}
