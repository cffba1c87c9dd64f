"""Train from Python as `vidadapt train` does."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vidadapt import distributed, launching, methods, training
from vidadapt.apps.prepare.commands.lists import prepare_folder
from vidadapt.apps.report import write_report_after
from vidadapt.config import SECTIONS, ConfigError, flattened, hints_of, import_named, new_name
from vidadapt.console import did_you_mean, require_known
from vidadapt.lists import PREPARED_FILE, read_prepared
from vidadapt.serving import Model, load

Folder = str | os.PathLike[str]


def finetune(
    videos: Folder,
    method: str = "adaptformer",
    *,
    run_dir: Folder,
    config: Folder = "custom",
    overrides: Mapping[str, Any] | None = None,
    plugins: Sequence[str] = (),
    lists: Folder | None = None,
    resume: bool = False,
    **keys: Any,
) -> Model:
    """Fine-tune a backbone on videos, in a run folder like that of the train command.

    It trains in this process, or under torchrun in all of them. Interrupted, the same call with
    `resume=True` goes on.

    Args:
        videos: a folder with a sub-folder of videos for each class, which is divided into train,
            dev and test lists first; or a prepared folder of lists.
        method: key of `METHODS`.
        run_dir: folder to write.
        config: YAML to begin with, or the name of one that comes with vidadapt; default: the recipe
            for 50 to 5,000 videos of one's own.
        overrides: keys of the configuration with their values, dotted or nested, e.g.
            {"train.epochs": 20}. With {"grid.base_lr": [0.1, 0.3]} several runs train side by side,
            see docs/methods.md, and the best is returned.
        plugins: modules to import first, and to note in the run, see docs/extending.md.
        lists: folder for the lists that are made; default: `run_dir` with `_lists` behind it.
        resume: continue the run in `run_dir`.
        keys: the same as `overrides` by the last word of a key, where only one key ends so, e.g.
            weights, epochs, batch_size, num_frames, bottleneck.

    Returns:
        The trained model: of the best epoch where there is a development list, else of the last.

    Raises:
        ValueError, OSError: what cannot be trained, naming key, file or line. For other errors, see
            docs/failures.md.
    """
    import_named(plugins)
    require_known("method", method, methods.METHODS)
    chosen = {**_full_keys(method, keys), **flattened(overrides or {})}
    with launching.joined() as world:
        folder = distributed.from_main(
            world,
            lambda: prepared_lists(Path(videos), Path(lists or f"{os.fspath(run_dir)}_lists")),
        )
        words = ["--config", os.fspath(config)]
        if plugins:
            words += ["--plugins", ",".join(plugins)]
        words += [f"--run_dir={os.fspath(run_dir)}", f"--method.name={method}"]
        words += [f"--data.lists={folder}", f"--data.dataset={read_prepared(folder).dataset}"]
        words += [f"--{key}={_word(value)}" for key, value in chosen.items()]
        words += ["--resume"] if resume else []
        with distributed.together(world):
            cfg, options = training.read_command(words, world)
        root = chosen_run = Path(cfg.run_dir)
        if options.grid is None:
            training.train(world, cfg, options)
        else:
            training.train_grid(world, cfg, options)
            found = distributed.from_main(world, lambda: training.read_grid(root))
            assert found is not None
            chosen_run = root / found["best"]
        write_report_after(chosen_run, world)
        return load(chosen_run, cfg.model.weights, device=world.device)


def prepared_lists(videos: Path, out: Path) -> Path:
    """Return a folder of lists: `videos` if it is one, else `out`, made from it."""
    if (videos / PREPARED_FILE).is_file():
        return videos
    if not videos.is_dir():
        raise ConfigError(
            f"videos: expected a folder with a sub-folder for each class, or a prepared folder of "
            f"lists; {videos} is no folder"
        )
    prepare_folder(videos, out)
    return out


def _full_keys(method: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Find the key of the configuration that each last word stands for.

    Raises:
        ConfigError: no key ends so, or several do.

    >>> _full_keys("adaptformer", {"epochs": 3, "bottleneck": 16})
    {'train.epochs': 3, 'method.bottleneck': 16}
    """
    known: dict[str, list[str]] = {}
    for section, names in {
        **{name: hints_of(of) for name, of in SECTIONS.items()},
        "method": methods.default_options(method),
    }.items():
        for name in names:
            known.setdefault(name, []).append(f"{section}.{name}")
    for name in keys:
        if name not in known:
            said = new_name(f"data.{name}") or did_you_mean(name, known)
            raise ConfigError(f"{name}: no key of the configuration; {said}")
        if len(known[name]) > 1:
            raise ConfigError(
                f"{name}: stands for {' and '.join(known[name])}; give the one in overrides"
            )
    return {known[name][0]: value for name, value in keys.items()}


def _word(value: Any) -> str:
    """A value as the command line spells it.

    >>> [_word(value) for value in (True, None, 0.1, [8, 14, 14], "7-12", Path("a"))]
    ['true', 'null', '0.1', '[8, 14, 14]', '7-12', 'a']
    """
    return os.fspath(value) if isinstance(value, str | os.PathLike) else json.dumps(value)
