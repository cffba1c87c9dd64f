"""Read and write configurations and other settings as strict YAML."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from vidadapt.config.renamed import file_with_new_keys
from vidadapt.config.schema import SECTIONS, Config, ConfigError, as_dict
from vidadapt.console import printable

MOST_NODES = 100_000  # values in a YAML file


def flattened(nested: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Join nested keys: {"a": {"b": 1}} -> {"a.b": 1}, without run_dir."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}.")
        elif prefix + key != "run_dir":
            flat[prefix + key] = value
    return flat


def dump(config: Config) -> str:
    """Write the resolved configuration as YAML that `--config` reads back."""
    return as_yaml(as_dict(config))


def load(path: Path) -> dict[str, Any]:
    """Read what `dump` wrote, in the form of `as_dict`; missing keys get their defaults.

    Raises:
        ConfigError: see `read_yaml`.
    """
    written = file_with_new_keys(read_yaml(path, "run_dir"))
    for key in SECTIONS:
        if not isinstance(written.get(key) or {}, dict):
            raise ConfigError(
                f"run_dir: {printable(str(path))}: expected a mapping of keys to values under {key}"
            )
    sections = {key: {**vars(of()), **(written.get(key) or {})} for key, of in SECTIONS.items()}
    return {**written, **sections}


def read_yaml(path: Path, option: str) -> dict[str, Any]:
    """Read the mapping that a YAML file holds.

    Raises:
        ConfigError: the file cannot be read, or holds something else or a key twice; the message
            names `option` and file. A pipe (of `<(...)`) is refused: files are read again.
    """
    shown = printable(str(path))
    if path.is_fifo():
        raise ConfigError(
            f"{option}: {shown} is a pipe, whose text can be read only once; a file is needed"
        )
    try:
        text = path.read_text(encoding="utf-8")
        _check_nodes(yaml.compose(text, Loader=yaml.SafeLoader))
        content = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise ConfigError(f"{option}: cannot read {shown} ({error})") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{option}: {shown} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{option}: {shown}: expected a mapping of keys to values")
    return content


def without_key(path: Path, key: str) -> str:
    """Return the text of a YAML mapping without one key; `read_yaml` has checked it."""
    top = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.SafeLoader)
    assert isinstance(top, yaml.MappingNode)
    top.value = [(name, value) for name, value in top.value if name.value != key]
    return yaml.serialize(top, Dumper=yaml.SafeDumper, allow_unicode=True)


def _check_nodes(top: yaml.Node | None) -> None:
    """Refuse equal keys, of which PyYAML silently takes the last one, and files whose aliases
    expand to too many values, or endlessly.
    """
    waiting, count = [top], 0
    while waiting:
        node = waiting.pop()
        count += 1
        if count > MOST_NODES:
            raise yaml.YAMLError(
                f"more than {MOST_NODES:,} values, with what its aliases stand for"
            )
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        if isinstance(node, yaml.MappingNode):
            seen = set()
            for key, value in node.value:
                if isinstance(key, yaml.ScalarNode):
                    if key.value in seen:
                        raise yaml.YAMLError(
                            f"line {key.start_mark.line + 1}: the key {key.value!r} is here twice"
                        )
                    seen.add(key.value)
                waiting.append(value)


def as_yaml(settings: Mapping[str, Any]) -> str:
    """Nested settings as YAML, in their order."""
    return yaml.dump(dict(settings), Dumper=_Dumper, sort_keys=False, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Dumper that quotes texts which jsonargparse reads as numbers, but not PyYAML: `1e5`."""


_Dumper.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?[0-9.][0-9_.]*[eE][-+]?[0-9]+$"),
    list("-+.0123456789"),
)
