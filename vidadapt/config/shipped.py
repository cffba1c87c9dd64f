"""Files that come with the package: configurations and label lists, found by name."""

from __future__ import annotations

from pathlib import Path

from vidadapt.config.schema import ConfigError
from vidadapt.console import did_you_mean, printable

PACKAGE = Path(__file__).parents[1]


def shipped(folder: str) -> Path:
    """Return the folder `configs` or `data_lists` of the package, else of the checkout."""
    installed = PACKAGE / folder
    return installed if installed.is_dir() else PACKAGE.parent / folder


def config_file(word: str, option: str = "--config") -> str:
    """Return the path of a configuration: a file, or the name of one that comes with the package.

    A file is taken first. A name is `ssv2/adaptformer` or `configs/ssv2/adaptformer.yaml`.

    Raises:
        ConfigError: there is neither; with the names that are near.
    """
    if Path(word).exists() and not Path(word).is_dir():
        return word
    folder = shipped("configs")
    name = word.removeprefix("configs/").removesuffix(".yaml")
    names = sorted(
        path.relative_to(folder).with_suffix("").as_posix() for path in folder.rglob("*.yaml")
    )
    if name in names:
        return str(folder / f"{name}.yaml")
    hint = did_you_mean(name, names) or f"or a name that comes with vidadapt: {', '.join(names)}"
    raise ConfigError(f"{option}: cannot read {printable(word)}: give a YAML file; {hint}")
