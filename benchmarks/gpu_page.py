"""The page of `benchmarks.gpu`, made from its raw lines alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.gpu_parts import PARTS, Row
from benchmarks.report import rows_table, targets_table
from benchmarks.step_table import COLUMNS
from benchmarks.timing import Target

FILE = "gpu.jsonl"

STEPS = {"batch": ("batch", "d"), **COLUMNS}
COLUMNS_OF: Mapping[str, Mapping[str, tuple[str, str]]] = {
    "tests": {"passed": ("passed", "d"), "failed": ("failed", "d"), "skipped": ("skipped", "d")},
    "large": {**STEPS, "largest batch": ("largest_batch", "d"), "tried to": ("largest_tried", "d")},
    "loader": {
        "batch": ("batch", "d"),
        "workers": ("workers", "d"),
        "training clips/s": ("clips_per_second", ",.0f"),
        "model alone": ("model_clips_per_second", ",.0f"),
        "loader alone": ("loader_clips_per_second", ",.0f"),
        "training : model": ("fed_share", ".2f"),
        "busy share": ("busy_share", ".2f"),
    },
    "views": {
        "videos": ("videos", "d"),
        "views": ("views", "d"),
        "videos/s": ("videos_per_second", ",.1f"),
    },
}

# Part, row, key -> what is aimed at; all at least.
AIMS = {
    ("steps", "adaptformer", "matmul_share"): ("AdaptFormer-64, share of the matmul rate", 0.5),
    ("steps", "adaptformer", "clips_per_second"): ("AdaptFormer-64, clips/s", 1250),
    ("large", "4 B losa", "largest_batch"): ("LoSA on 4 billion parameters, largest batch", 8),
    ("loader", "adaptformer", "fed_share"): ("Training from packed clips : model alone", 0.95),
}

NOTES = """\
Steps: as `python -m benchmarks.step` measures them, the device waited for. Trained: parameters.
Share: the FLOPs of the method by time, over the rate at which plain matrix products of the model's
layers run in the same round and precision. Kept: what forward keeps for backward. Peak: model,
optimiser and activations of a step. Hours: of 168,913 clips x 90 epochs at this rate. `+flash` and
`+plain` force a kernel of attention, `+compile` is `torch.compile`, `+block` computes blocks again;
`transformers-` is that library's model. Largest batch: at most an eighth below the true one, up to
what was tried. Training from packed clips: steps of a real run (`--profile`); busy share: of the
time in which the device does not wait for data."""


def page(raw: Path) -> str:
    """Markdown of what the file holds: of each part its newest run that has rows.

    Raises:
        FileNotFoundError: there is no such file.
    """
    lines = lines_of(raw)
    found = [(name, *latest(name, lines)) for name in PARTS]
    rows = {name: part_rows for name, _, part_rows, _ in found}
    title = "# On a GPU"
    texts = [title, "Made by `make gpu` from `gpu.jsonl`: nothing here is written by hand."]
    aims = [] if lines[0]["tiny"] else aimed_at(rows)
    if lines[0]["tiny"]:
        texts.append("A trial: small models and few steps. The figures mean nothing.")
    if aims:
        texts.append(targets_table([aim.as_dict() for aim in aims]))
    for name, machine, part_rows, problem in found:
        texts.append(f"## {PARTS[name].title}")
        if problem:
            texts.append(f"{problem.capitalize()}.")
        if part_rows:
            columns = COLUMNS_OF.get(name, STEPS)
            texts += [rows_table(part_rows, columns, "what"), *said(part_rows)]
            texts.append(machine_of(machine))
    return "\n\n".join([*texts, NOTES]) + "\n"


def lines_of(raw: Path) -> list[Row]:
    """Read the file."""
    return [json.loads(line) for line in raw.read_text(encoding="utf-8").splitlines()]


def latest(part: str, lines: Sequence[Row]) -> tuple[Row, list[Row], str | None]:
    """Machine, rows and problem of the newest run of a part that has rows."""
    machine: Row = {}
    found: tuple[Row, list[Row], str | None] = ({}, [], "not run")
    rows: list[Row] = []
    for line in lines:
        if line["kind"] == "machine":
            machine, rows = line, []
        elif line["part"] == part and line["kind"] == "row":
            rows.append(line)
            found = (machine, rows, "ended before its end")
        elif line["part"] == part and (rows or not found[1]):
            found = (machine, rows, line["problem"])
    return found


def aimed_at(rows: Mapping[str, Sequence[Row]]) -> list[Target]:
    """The aims whose figures were measured."""
    return [
        Target(title, goal, ">=", row[key])
        for (part, name, key), (title, goal) in AIMS.items()
        for row in rows[part]
        if row["name"] == name and row.get(key) is not None
    ]


def said(rows: Sequence[Row]) -> list[str]:
    """What went wrong, a list; nothing where nothing did."""
    lines = [f"- {row['name']}: {row['problem']}" for row in rows if row["problem"]]
    return ["\n".join(lines)] if lines else []


def machine_of(machine: Mapping[str, Any]) -> str:
    """One line of what figures depend on."""
    memory = machine["memory_bytes"]
    gib = f" ({memory / 2**30:.0f} GiB)" if memory else ""
    versions = machine["packages"]
    cuda = f", CUDA {machine['cuda']}" if machine["cuda"] else ""
    return (
        f"{machine['on']}{gib}, {machine['cpu']}, {machine['cores']} cores, torch "
        f"{versions['torch']}{cuda}, commit {(machine['git_commit'] or 'unknown')[:12]}."
    )
