"""Plug-ins: modules of the user's own, which add entries to METHODS, METRICS and their like.

A plug-in is code, so it is imported only where somebody names it: with `--plugins` in the command,
or as `plugins` in a file that the command gives with `--config`. A run's config.yaml and an
adapter.json keep the names of the plug-ins that they were made with. They may come from a stranger,
so nothing is imported for them: a plug-in that they name must have been imported before.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidadapt.config.schema import ConfigError
from vidadapt.config.shipped import config_file
from vidadapt.config.yaml_files import read_yaml
from vidadapt.console import printable

OPTION = "--plugins"
HELP = (
    "modules to import first, separated by commas; they may add methods, backbones, data sets and "
    "metrics (docs/extending.md)"
)


def import_plugins(argv: Sequence[str]) -> list[str]:
    """Import the plug-ins that a command names; call it before the command is parsed.

    Args:
        argv: the words of the command, which are left as they are.

    Returns:
        See `named_plugins`.

    Raises:
        ConfigError: see `named_plugins` and `import_named`.
    """
    names = named_plugins(argv)
    import_named(names)
    return names


def named_plugins(argv: Sequence[str]) -> list[str]:
    """List the plug-ins that a command names: those of `--config` files, then of `--plugins`.

    Raises:
        ConfigError: a file that cannot be read, or `--plugins` without a name.
    """
    names: list[str] = []
    for word in _values(argv, "--config"):
        file = config_file(word)
        names += named_in(read_yaml(Path(file), "--config"), file)
    for value in _values(argv, OPTION):
        names += value.split(",")
    return list(dict.fromkeys(names))


def import_named(names: Sequence[str]) -> None:
    """Import modules, which may also lie in the working directory.

    Raises:
        ConfigError: one that is not there, or that raises an error; naming it and the place.
    """
    here = str(Path.cwd())
    if names and here not in sys.path:
        sys.path.append(here)  # last, so that no file there hides an installed module
    for name in names:
        is_file = name.endswith(".py")
        if is_file or not all(part.isidentifier() for part in name.split(".")):
            hint = f"; give {name[:-3]}" if is_file and "/" not in name else ""
            raise ConfigError(
                f"plugins: expected the name of a module, got {printable(name)!r}{hint}"
            )
        importlib.invalidate_caches()
        try:
            importlib.import_module(name)
        except Exception as error:
            raise ConfigError(_why(name, error)) from error


def named_in(content: dict[str, Any], source: object) -> list[str]:
    """Read the plug-ins that a configuration or an adapter.json names.

    Raises:
        ConfigError: they are no list of names; names `source`.
    """
    names = content.get("plugins") or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ConfigError(f"{printable(str(source))}: plugins: expected a list of modules")
    return names


def require_imported(content: dict[str, Any], source: object) -> None:
    """Refuse a run or adapter whose plug-ins have not been imported; nothing is imported here.

    Args:
        content: of its config.yaml or adapter.json.
        source: that file.

    Raises:
        ConfigError: names the file and the plug-ins, and how to name them oneself.
    """
    missing = [name for name in named_in(content, source) if name not in sys.modules]
    if missing:
        named = printable(",".join(missing))
        raise ConfigError(
            f"{printable(str(source))}: was made with plug-ins, and none is imported that you do "
            f"not name: if you trust it, add {OPTION} {named} (Python: import {named})"
        )


def _values(argv: Sequence[str], option: str) -> list[str]:
    """Find every value of an option, in both spellings, `--option X` and `--option=X`."""
    found = []
    for place, word in enumerate(argv):
        if word == "--":
            break
        if word.startswith(f"{option}="):
            found.append(word.partition("=")[2])
        elif word == option and place + 1 < len(argv):
            found.append(argv[place + 1])
        elif word == option:
            raise ConfigError(f"{option}: expected a value behind it")
    return found


def _why(name: str, error: Exception) -> str:
    """Say why a module could not be imported."""
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        if name == error.name or name.startswith(f"{error.name}."):
            return (
                f"plugins: there is no module {name}; install it, put it into the working "
                f"directory ({Path.cwd()}), or set PYTHONPATH to its folder"
            )
        return f"plugins: {name} needs {error.name}, which is not installed"
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"plugins: {name} failed at {place.filename}:{place.lineno}: {error!r}"
