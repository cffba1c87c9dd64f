"""A matrix of training runs: variants x frames x parts x seeds, each an ordinary configuration."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from vidadapt.config import ConfigError, config_file, yaml_files
from vidadapt.config.plugins import named_in
from vidadapt.console import require_known
from vidadapt.lists import FINAL_FOLDER, ListError, TaskLists, fold_names, read_folds

Overrides = Mapping[str, Any]

NAME = r"[A-Za-z0-9][A-Za-z0-9._+=-]*"  # of variants and tasks, which name folders
NAME_IN_WORDS = "letters, digits and . _ + = -"

# Set by the matrix itself: what a variant or a configuration sets would be lost.
OWN_KEYS = {"data.num_frames": "--frames", "train.seed": "--seeds"}
LISTS = ("data.lists", "data.train_list", "data.dev_list", "data.test_list", "data.label_names")


@dataclass(frozen=True)
class Cell:
    """One training run and its evaluation.

    Attributes:
        variant: name of what is compared.
        frames: T.
        seed: train.seed.
        base_lr: rate from a grid; None: the settings' own.
        settings: nested, a YAML for vidadapt train.
        part: fold of a cross-validation, or task of several; empty: there is but one.
        final: it is trained on a task's lists for the last training.
    """

    variant: str
    frames: int
    seed: int
    base_lr: float | None
    settings: dict[str, Any] = field(compare=False)
    part: str = ""
    final: bool = False

    @property
    def name(self) -> str:
        """Its folder.

        >>> Cell("vpt", 8, 0, None, {}).name, Cell("vpt", 8, 0, 0.024, {}, "fold3").name
        ('vpt_8f_s0', 'vpt_8f_s0_fold3_lr0.024')
        """
        part = f"_{self.part}" if self.part else ""
        final = f"_{FINAL_FOLDER}" if self.final else ""
        rate = "" if self.base_lr is None else f"_lr{self.base_lr:g}"
        return f"{self.variant}_{self.frames}f_s{self.seed}{part}{final}{rate}"

    @property
    def whole(self) -> Cell:
        """The cell that has a line in the results: all folds, or all tasks, together.

        >>> Cell("vpt", 8, 0, 0.024, {}, "fold3").whole.name
        'vpt_8f_s0_joined'
        """
        joined = replace(self, part="joined", final=False, base_lr=None)
        return joined if self.part else self


@dataclass(frozen=True)
class Matrix:
    """The runs to compare, as the files describe them.

    Attributes:
        base: nested settings as in the YAML of vidadapt train.
        variants: overrides of the base with dotted keys, by name.
        prepare: words for vidadapt prepare that make the videos; empty: they are there.
        parts: `data.lists` by fold of a cross-validation or by task; empty: the base says them.
        finals: `data.lists` of the last training, by task; the others have none of their own.
    """

    base: dict[str, Any]
    variants: dict[str, dict[str, Any]]
    prepare: tuple[str, ...]
    parts: Mapping[str, str] = field(default_factory=dict)
    finals: Mapping[str, str] = field(default_factory=dict)

    def chosen(self, names: Sequence[str] | None, methods: Collection[str]) -> Matrix:
        """The matrix with the variants of these names, in their order; with all without names.

        The name of a method that is no variant is that method with its own defaults.

        Raises:
            ConfigError: a name that is neither, with near ones; or no variant at all.
        """
        if names is None:
            if not self.variants:
                raise ConfigError(
                    "--methods: name some; neither --config nor --sweep has `variants`"
                )
            return self
        known = {name: {"method.name": name} for name in methods} | self.variants
        chosen = {name: known[require_known("--methods", name, known)] for name in names}
        return replace(self, variants=chosen)

    def over_folds(self, folder: Path) -> Matrix:
        """The matrix whose cells are of each fold of a folder that vidadapt prepare --folds wrote.

        Raises:
            ConfigError: there are none, or the base or a variant names lists of its own.
        """
        self._refuse_lists("--folds")
        try:
            names = fold_names(read_folds(folder))
        except ListError as error:
            raise ConfigError(f"--folds: {error}") from error
        return replace(self, parts={name: str(folder / name) for name in names})

    def over_tasks(self, tasks: Mapping[str, TaskLists]) -> Matrix:
        """The matrix whose cells are of each task.

        Raises:
            ConfigError: the base or a variant names lists of its own, or a task's name cannot name
                folders of cells.
        """
        self._refuse_lists("--tasks")
        for name in tasks:
            if not re.fullmatch(NAME, name):
                raise ConfigError(f"--tasks: {name!r} names folders; use {NAME_IN_WORDS}")
        finals = {name: str(of.reported) for name, of in tasks.items() if of.reported != of.lists}
        return replace(
            self, parts={name: str(of.lists) for name, of in tasks.items()}, finals=finals
        )

    def _refuse_lists(self, option: str) -> None:
        for about in (yaml_files.flattened(self.base), *self.variants.values()):
            if given := [key for key in about if key in LISTS and about[key] is not None]:
                raise ConfigError(f"{given[0]}: is set by {option}; leave it out")

    @property
    def part_names(self) -> tuple[str, ...]:
        """The folds or tasks of a cell; one without a name where there is but one."""
        return tuple(self.parts) or ("",)

    def cell(
        self,
        variant: str,
        frames: int,
        seed: int,
        base_lr: float | None = None,
        part: str | None = None,
        *,
        final: bool = False,
    ) -> Cell:
        """The cell with everything that it sets.

        Args:
            base_lr: rate from a grid; None: the settings' own.
            part: None: the first.
            final: of a task with lists for the last training, on these.
        """
        part = self.part_names[0] if part is None else part
        final = final and part in self.finals
        own: dict[str, Any] = {"data.num_frames": frames, "train.seed": seed}
        if part:
            own["data.lists"] = (self.finals if final else self.parts)[part]
        if base_lr is not None:
            own["train.base_lr"] = base_lr
        settings = settings_of(self.base, {**self.variants[variant], **own})
        return Cell(variant, frames, seed, base_lr, settings, part, final)

    def cells(
        self,
        frames: Sequence[int],
        seeds: Sequence[int],
        rates: Mapping[tuple[str, str], float | None],
    ) -> list[Cell]:
        """Every cell: a seed of all before the next seed, so that an unfinished table says most.

        Args:
            rates: base_lr by variant and part; of others the settings' own.
        """
        return [
            self.cell(variant, number, seed, rates.get((variant, part)), part, final=True)
            for seed in seeds
            for number in frames
            for variant in self.variants
            for part in self.part_names
        ]


def read_matrix(config: Path, sweep: Path | None, plugins: str | None = None) -> Matrix:
    """A training configuration with `variants` and `prepare` beside its own keys; and a sweep.

    Args:
        sweep: YAML whose `variants` take the place of the configuration's.
        plugins: modules of `--plugins`, separated by commas; every cell gets them.

    Raises:
        ConfigError: a file that cannot be read or holds something else, naming file and key.
    """
    config = Path(config_file(str(config)))
    content = yaml_files.read_yaml(config, "--config")
    base = {key: value for key, value in content.items() if value is not None}  # an empty section
    variants = _variants(base.pop("variants", {}), config)
    prepare = base.pop("prepare", [])
    if not isinstance(prepare, list):
        raise ConfigError(f"{config}: prepare: expected a list of words for vidadapt prepare")
    if sweep is not None:
        sweep = Path(config_file(str(sweep), "--sweep"))
        content = yaml_files.read_yaml(sweep, "--sweep")
        if set(content) != {"variants"}:
            raise ConfigError(
                f"{sweep}: expected the key `variants` alone, a mapping of names to overrides; got "
                f"{', '.join(map(str, content)) or 'nothing'}"
            )
        variants = _variants(content["variants"], sweep)
    if plugins is not None:
        base["plugins"] = list(dict.fromkeys([*named_in(base, config), *plugins.split(",")]))
    _refuse_own(yaml_files.flattened(base), config)
    return Matrix(base, variants, tuple(map(str, prepare)))


def _variants(content: Any, file: Path) -> dict[str, dict[str, Any]]:
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: variants: expected a mapping of names to overrides")
    for name, overrides in content.items():
        if not re.fullmatch(NAME, str(name)):
            raise ConfigError(f"{file}: variants: {name!r} names folders; use {NAME_IN_WORDS}")
        if not isinstance(overrides, dict) or not all("." in str(key) for key in overrides):
            raise ConfigError(
                f"{file}: variants: {name}: expected overrides with dotted keys, as "
                "{method.bottleneck: 16}"
            )
        _refuse_own(overrides, file)
    return {str(name): dict(overrides) for name, overrides in content.items()}


def _refuse_own(flat: Overrides, file: Path) -> None:
    for key in flat.keys() & OWN_KEYS.keys():
        if flat[key] is not None:
            raise ConfigError(f"{file}: {key}: is set by {OWN_KEYS[key]}; leave it out")


def settings_of(base: Mapping[str, Any], overrides: Overrides) -> dict[str, Any]:
    """The base with overrides, without its options of a method that the overrides replace.

    >>> base = {"method": {"name": "vpt", "num_prompts": 8}, "train": {"epochs": 2}}
    >>> settings_of(base, {"method.name": "linear", "train.base_lr": 0.1})
    {'method': {'name': 'linear'}, 'train': {'epochs': 2, 'base_lr': 0.1}}
    """
    found = deepcopy(dict(base))
    before = (found.get("method") or {}).get("name", "adaptformer")
    if overrides.get("method.name", before) != before:
        found["method"] = {}
    for key, value in overrides.items():
        *sections, last = key.split(".")
        place = found
        for section in sections:
            if not isinstance(place.get(section), dict):
                place[section] = {}
            place = place[section]
        place[last] = value
    return found
