"""Several trained runs or adapters on one list, to be shown side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from glob import glob
from pathlib import Path

from vidadapt import data
from vidadapt.config import ConfigError
from vidadapt.console import printable
from vidadapt.lists import Samples
from vidadapt.serving import Trained, names_of, trained


def find_models(given: Sequence[tuple[str, str]], words: Sequence[str]) -> dict[str, Trained]:
    """Find models as vidadapt evaluate does; by a short name.

    Args:
        given: option (`--run_dir` or `--adapter`) and folder of each.
        words: further options of vidadapt evaluate, for all of them.

    Raises:
        ValueError: one that is not there or given twice, or options that mean nothing.
    """
    options = ", ".join(dict.fromkeys(option for option, _ in given))
    names = names_of([Path(folder) for _, folder in given], options)
    found = {}
    for name, model in zip(names, given, strict=True):
        cfg, asked, adapter = trained.asked([*model, *words])
        assert cfg is not None
        found[name] = trained.find(cfg, asked, adapter)
        data.require_one_label(found[name].plan, options)
    return found


def expanded(
    given: Sequence[tuple[str, str]],
) -> dict[str, list[tuple[str, str]]]:
    """Name each model, and list its folders: several where a pattern names the folds' runs.

    Args:
        given: option, and folder or pattern (with `*`) of each.

    Raises:
        ConfigError: a pattern of which there are no folders.
    """
    options = ", ".join(dict.fromkeys(option for option, _ in given))
    names = names_of([Path(folder) for _, folder in given], options)
    found = {}
    for name, (option, folder) in zip(names, given, strict=True):
        folders = sorted(glob(folder)) if "*" in folder else [folder]  # noqa: PTH207 (absolute, too)
        if not folders:
            raise ConfigError(f"{option}: {folder}: there is no such folder")
        found[name] = [(option, one) for one in folders]
    return found


def shared_samples(models: Mapping[str, Trained]) -> Samples:
    """Read the list, whose videos and classes must be the same for all models.

    Raises:
        ConfigError: two models have different ones; naming them.
    """
    (first_name, first), *others = models.items()
    samples = trained.samples_of(first)
    for name, one in others:
        own = trained.samples_of(one)
        if own != samples or one.plan.label_names != first.plan.label_names:
            raise ConfigError(
                f"--run_dir, --adapter: {first_name} and {name} are scored on {first.listed} "
                f"({len(samples)} videos) and {one.listed} ({len(own)} videos), whose videos or "
                "classes differ; give one list for all with --data.test_list or --data.dev_list, "
                "or call the tool for each"
            )
    return samples


def say_unreadable(title: str, entries: Sequence[Mapping[str, str]]) -> None:
    """Print the first ten of the videos that cannot be read, with path and error."""
    if entries:
        print(f"{title} ({len(entries)}):")
    for entry in entries[:10]:
        print(printable(f"  {entry['path']}: {entry['error']}"))
