"""Facts of a training run from its files, as the page of a report takes them."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidadapt import runs
from vidadapt.apps.report.evaluated import METRICS_FILE, Evaluated, read_evaluation
from vidadapt.config import yaml_files
from vidadapt.data import CHANGED, SKIPPED, read_changes, read_skips
from vidadapt.files import is_url
from vidadapt.launching import read_failure
from vidadapt.lists import MANY, ListError, read_list

CONFIG, LOG, SUMMARY = "config.yaml", "log.jsonl", "summary.json"


@dataclass(frozen=True)
class ListFacts:
    """One list of a run.

    Attributes:
        split: "train", "dev" or "test".
        path: as the configuration names it.
        num_videos: that the training used; before its end the lines that the file has; None: it
            cannot be read from here.
        manifest: hash of what was used of it; None: not known before the run's end.
    """

    split: str
    path: str
    num_videos: int | None
    manifest: str | None


@dataclass(frozen=True)
class Run:
    """A training run; or an evaluation outside of any run's folder, which has no settings.

    Attributes:
        name: tells it from the others of the page.
        settings: every key of the configuration, "section.key".
        defaults: the same keys with their defaults, for the run's method.
        lists: those that are set.
        environment: content of environment.json; empty: there is none.
        log: the lines of log.jsonl, one an epoch; finite numbers only.
        summary: content of summary.json; empty: the run has not ended.
        failure: content of failure.json; None: it did not fail.
        files: what became of single files: title -> lines; only titles that have some.
        evaluations: in the order of their folders' names.
        unusable: why other results in the run's folder cannot be shown.
    """

    folder: Path
    name: str
    settings: Mapping[str, Any]
    defaults: Mapping[str, Any]
    lists: tuple[ListFacts, ...]
    environment: Mapping[str, Any]
    log: tuple[dict[str, float], ...]
    summary: Mapping[str, Any]
    failure: Mapping[str, Any] | None
    files: Mapping[str, Sequence[str]]
    evaluations: tuple[Evaluated, ...]
    unusable: tuple[str, ...] = ()


def read_run(folder: Path, name: str) -> Run:
    """Read a run's folder, or that of an evaluation.

    Raises:
        ValueError, OSError: it is neither, or a file in it cannot be used; names it.
    """
    if not (folder / CONFIG).is_file():
        if not (folder / METRICS_FILE).is_file():
            raise ValueError(
                f"RUN: {folder} holds neither {CONFIG} of a training run nor {METRICS_FILE} of an "
                "evaluation; give a folder that vidadapt train or vidadapt evaluate made"
            )
        found = (read_evaluation(folder, None),)
        return Run(folder, name, {}, {}, (), {}, (), {}, None, {}, found)
    settings = _settings(folder)
    method = {"name": settings["method.name"]}
    environment, summary = read_object(folder / runs.ENVIRONMENT), read_object(folder / SUMMARY)
    home = Path(str(environment.get("working_directory") or "."))
    root = located(home, str(settings["data.root"]))
    evaluations, unusable = _evaluations(folder, root)
    return Run(
        folder=folder,
        name=name,
        settings=settings,
        defaults=runs.all_settings({"method": method}),
        lists=tuple(_lists(settings, summary, home)),
        environment=environment,
        log=read_log(folder / LOG),
        summary=summary,
        failure=read_failure(folder),
        files=_files(folder, summary),
        evaluations=evaluations,
        unusable=unusable,
    )


def _evaluations(folder: Path, root: Path | str) -> tuple[tuple[Evaluated, ...], tuple[str, ...]]:
    """The evaluations in a run's folder, and why others cannot be shown."""
    found, unusable = [], []
    for file in sorted(folder.glob(f"*/{METRICS_FILE}")):
        try:
            found.append(read_evaluation(file.parent, root))
        except (OSError, ValueError) as error:
            unusable.append(str(error))
    return tuple(found), tuple(unusable)


def _settings(folder: Path) -> dict[str, Any]:
    content = yaml_files.read_yaml(folder / CONFIG, "RUN")
    try:
        return runs.all_settings(content)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"RUN: {folder / CONFIG} is not the configuration of a run ({error!r})"
        ) from error


def _lists(settings: Mapping[str, Any], summary: Mapping[str, Any], home: Path) -> list[ListFacts]:
    """The lists that are set, with the number of videos that each has now."""
    used, manifests = summary.get("videos"), summary.get("manifests")
    found = []
    for split in ("train", "dev", "test"):
        path = settings[f"data.{split}_list"]
        if path is None:
            continue
        number = used.get(split) if isinstance(used, dict) else None
        if number is None:
            several = bool(settings.get("data.multi_label", False))
            number = _lines(located(home, str(path)), several)
        manifest = manifests.get(split) if isinstance(manifests, dict) else None
        found.append(ListFacts(split, str(path), number, manifest))
    return found


def _lines(path: Path | str, multi_label: bool) -> int | None:
    try:
        listed = read_list(path, ".", MANY, allow_outside_root=True, multi_label=multi_label)
        return len(listed)
    except ListError:
        return None


def located(home: Path, path: str) -> Path | str:
    """Return where a path of a run is: seen from here, or else from the run's working directory."""
    if is_url(path):
        return path
    from_home = home / path
    return from_home if path == "." or not os.path.exists(path) else Path(path)  # noqa: PTH110


def _files(folder: Path, summary: Mapping[str, Any]) -> dict[str, list[str]]:
    """List what became of single files in training."""
    warnings = summary.get("warnings")
    warnings = warnings if isinstance(warnings, dict) else {}
    skips = [
        f"epoch {skip.epoch}: {skip.path}: {skip.reason}" for skip in read_skips(folder / SKIPPED)
    ]
    changes = [f"{path}: {why}" for path, why in read_changes(folder / CHANGED).items()]
    found = {
        "Left out of training": _texts(summary.get("left_out")),
        "Skipped clips": skips,
        "Changed since they were counted": changes,
        "Read only at a second try": _texts(summary.get("tried_again")),
        **{f"Warnings on the {split} list": _texts(said) for split, said in warnings.items()},
    }
    return {title: lines for title, lines in found.items() if lines}


def _texts(value: Any) -> list[str]:
    return [str(line) for line in value] if isinstance(value, list) else []


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON object; empty, where there is no file.

    Raises:
        ValueError: the file holds something else; names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is damaged, expected a JSON object ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected a JSON object")
    return content


def read_log(path: Path) -> tuple[dict[str, float], ...]:
    """Read the lines of log.jsonl; of each the finite numbers.

    Raises:
        ValueError: a line that is no JSON object with its epoch; names file and line. The last
            line of a run that was killed may be half written: it is left out.
    """
    if not path.exists():
        return ()
    texts = path.read_text(encoding="utf-8").splitlines()
    lines = []
    for number, text in enumerate(texts, start=1):
        try:
            line = json.loads(text)
            finite = {key: float(value) for key, value in line.items() if _is_finite(value)}
            lines.append({**finite, "epoch": float(line["epoch"])})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if number == len(texts):
                break
            raise ValueError(
                f"{path}:{number}: expected a JSON object with the key epoch ({error!r}); delete "
                "the line"
            ) from error
    return tuple(lines)


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
