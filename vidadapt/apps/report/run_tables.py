"""Tables of the page on training runs: what was trained, on what, at which cost, and results."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import PurePath
from statistics import median
from typing import Any

from vidadapt.apps.report.evaluated import Evaluated
from vidadapt.apps.report.run_files import Run
from vidadapt.console import duration
from vidadapt.data import DATASETS, SAMPLINGS
from vidadapt.evaluation import METRICS, MULTI_LABEL_METRICS, Metric, metrics_in
from vidadapt.lists import class_sizes

# Title -> one value for each run; empty: not known, or without a meaning for it.
Rows = Mapping[str, Sequence[str]]
KNOWN = METRICS | MULTI_LABEL_METRICS


def groups_of(runs: Sequence[Run]) -> dict[str, dict[str, list[str]]]:
    """Make the groups of facts that the page shows; rows that no run fills are left out."""
    makers: dict[str, Callable[[Run], dict[str, str]]] = {
        "Model": model_facts,
        "Data": data_facts,
        "Cost": cost_facts,
        "Environment": environment_facts,
    }
    groups = {title: _side_by_side([make(run) for run in runs]) for title, make in makers.items()}
    return {title: rows for title, rows in groups.items() if rows}


def _side_by_side(columns: Sequence[Mapping[str, str]]) -> dict[str, list[str]]:
    keys = dict.fromkeys(key for column in columns for key in column)
    rows = {key: [column.get(key, "") for column in columns] for key in keys}
    return {key: values for key, values in rows.items() if any(values)}


def model_facts(run: Run) -> dict[str, str]:
    """Method, parameters, backbone and recipe."""
    of = run.settings
    if not of:
        return {}
    options = [
        f"{key.removeprefix('method.')} {said(value)}"
        for key, value in of.items()
        if key.startswith("method.") and key != "method.name"
    ]
    trained, total = run.summary.get("trainable"), run.summary.get("total")
    share = ""
    if isinstance(trained, int) and isinstance(total, int) and total > 0:
        share = f"{trained:,} of {total:,} ({100 * trained / total:.2f} %)"
    batch = f"{of['train.batch_size']} x {of['train.accumulation']}"
    processes = run.environment.get("processes")
    return {
        "Method": str(of["method.name"]) + (f" ({', '.join(options)})" if options else ""),
        "Parameters that train": share,
        "Backbone": f"{said(of['model.backbone'])}, head {said(of['model.head'])}",
        "Weights": said(of["model.weights"]) if of["model.weights"] else "none",
        "Recipe": (
            f"{said(of['train.optimizer'])}, base_lr {said(of['train.base_lr'])}, "
            f"{said(of['train.epochs'])} epochs, seed {said(of['train.seed'])}"
        ),
        "Best epoch": best_epoch(run),
        "Batch x accumulation x processes": (
            f"{batch} x {processes}" if isinstance(processes, int) else batch
        ),
        "Precision": said(run.environment.get("precision", of["train.precision"])),
    }


def best_epoch(run: Run) -> str:
    """Say which epoch was chosen on the development list, and by which metric."""
    best, select = run.summary.get("best"), str(run.settings["train.select"])
    if not isinstance(best, dict) or f"dev_{select}" not in best or select not in KNOWN:
        return ""
    value, title = best[f"dev_{select}"], KNOWN[select].title
    return f"{best['epoch']}, by {title} on the development list: {value:.2f} %"


def data_facts(run: Run) -> dict[str, str]:
    """Data set, clips and lists."""
    of = run.settings
    if not of:
        return {}
    dataset = DATASETS.get(str(of["data.dataset"]))
    sampling = of["data.sampling"] or (dataset.sampling if dataset else "")
    preset = SAMPLINGS.get(str(sampling))
    frames = of["data.num_frames"] or (preset.num_frames if preset else "?")
    found = {
        "Data set": said(of["data.dataset"]),
        "Clips": f"{frames} frames of {of['data.crop_size']} pixels, sampling {sampling}",
    }
    for one in run.lists:
        number = "not there now" if one.num_videos is None else f"{one.num_videos:,} videos"
        manifest = f", manifest {one.manifest[:12]}" if isinstance(one.manifest, str) else ""
        found[f"{one.split} list"] = f"{one.path}: {number}{manifest}"
    counts = run.summary.get("class_counts")
    if isinstance(counts, dict) and counts and all(isinstance(n, int) for n in counts.values()):
        found["Training videos of the classes"] = class_sizes(counts)
    return found


def cost_facts(run: Run) -> dict[str, str]:
    """Time of the run and of its parts, without the time that it stood still; memory."""
    found = {}
    seconds = run.summary.get("seconds")
    if isinstance(seconds, int | float):
        found["Time"] = duration(seconds)
    if run.log:
        found["Epochs"] = f"{run.log[-1]['epoch']:g} of {run.settings['train.epochs']}"
    for title, key, form in (
        ("Training of an epoch", "train_seconds", duration),
        ("Validation of an epoch", "validate_seconds", duration),
        ("Speed", "clips_per_second", lambda value: f"{value:,.3g} clips/s"),
        ("Waiting for data", "loader_wait_share", lambda value: f"{100 * value:.0f} %"),
    ):
        if values := [line[key] for line in run.log if key in line]:
            found[title] = form(median(values)) + (" (median)" if len(values) > 1 else "")
    for title, key in (
        ("Peak memory of a device", "peak_device_bytes"),
        ("Peak memory of a process", "peak_process_bytes"),
    ):
        if isinstance(peak := run.summary.get(key), int):
            found[title] = f"{peak / 1e9:.2f} GB"
    for one in run.evaluations:
        if isinstance(spent := one.results.get("seconds"), int | float):
            found[f"Evaluation {one.folder.name}"] = duration(spent)
    return found


def environment_facts(run: Run) -> dict[str, str]:
    """Versions and machine."""
    of = run.environment
    packages = of.get("packages")
    versions = packages.items() if isinstance(packages, dict) else ()
    command = of.get("command")
    return {
        "Command": " ".join(map(str, command)) if isinstance(command, list) else "",
        "Device": str(of.get("device") or ""),
        "Platform": str(of.get("platform") or ""),
        "Python": str(of.get("python") or ""),
        "Packages": ", ".join(f"{name} {version}" for name, version in versions if version),
        "Commit": str(of.get("git_commit") or ""),
    }


def changed_settings(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Keys that are not at their default in some run."""
    return _settings(
        runs, lambda key: any(r.settings.get(key) != r.defaults.get(key) for r in runs)
    )


def different_settings(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Keys whose values are not the same in all runs."""
    of = [run.settings for run in runs if run.settings]
    return _settings(
        runs, lambda key: any(one.get(key) != of[0].get(key) or key not in one for one in of)
    )


def all_settings(runs: Sequence[Run]) -> dict[str, list[str]]:
    """Every key of the configurations."""
    return _settings(runs, lambda key: True)


def _settings(runs: Sequence[Run], wanted: Callable[[str], bool]) -> dict[str, list[str]]:
    keys = sorted({key for run in runs for key in run.settings})
    return {
        key: [said(run.settings[key]) if key in run.settings else "" for run in runs]
        for key in keys
        if wanted(key)
    }


def said(value: Any) -> str:
    """Write a value of a configuration as YAML and the command line do.

    >>> said(None), said(True), said(0.1), said([8, 14]), said("vit_base")
    ('null', 'true', '0.1', '[8, 14]', 'vit_base')
    """
    return value if isinstance(value, str) else json.dumps(value)


def metrics_shown(evaluations: Iterable[Evaluated]) -> dict[str, Metric]:
    """Return the metrics that some of the evaluations have; without any, those of one label."""
    found = {key: one for each in evaluations for key, one in metrics_in(each.results).items()}
    return found or METRICS


def result_columns(shown: Mapping[str, Metric]) -> list[str]:
    """Headings of `result_row`."""
    figures = [f"{metric.title} {metric.unit}" for metric in shown.values()]
    return ["List", "Checkpoint", "Views", "Fusion", "Videos", "Unreadable", *figures, "ECE %"]


def result_row(one: Evaluated, shown: Mapping[str, Metric]) -> list[str]:
    """The protocol of an evaluation and its figures."""
    of = one.results
    frames, side = of.get("num_frames"), of.get("crop_size")
    clip = f", {frames} frames of {side} pixels" if frames and side else ""
    figures = [f"{of[name]:.2f}" if name in of else "" for name in shown]
    return [
        PurePath(str(of.get("list", ""))).name or one.folder.name,
        str(of.get("checkpoint", "")),
        f"{of.get('views', '')}{clip}",
        str(of.get("fusion", "")),
        f"{of.get('num_videos', 0):,}",
        f"{len(of.get('unreadable', ())):,}",
        *figures,
        "" if one.details is None else f"{100 * one.details.calibration.ece:.2f}",
    ]


def notes_of(runs: Sequence[Run]) -> list[str]:
    """List what to know first: runs that failed or have not ended, and random weights."""
    found = []
    for run in runs:
        name = f"{run.name}: " if len(runs) > 1 else ""
        if run.failure is not None:
            found.append(
                f"{name}the run failed ({run.failure.get('kind')}): {run.failure.get('message')}"
            )
        elif run.settings and not run.summary:
            found.append(f"{name}the run has not ended: the figures are those of its log so far.")
        if run.settings.get("model.weights") == "random":
            found.append(f"{name}the backbone has random weights: nothing is pre-trained.")
        found += [f"{name}not shown: {why}" for why in run.unusable]
        for one in run.evaluations:
            if unreadable := one.results.get("unreadable"):
                found.append(
                    f"{name}{one.folder.name}: {len(unreadable):,} unreadable videos count as "
                    "wrong."
                )
    return found
