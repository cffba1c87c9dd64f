"""Every benchmark, one after the other, each in a process of its own; `make bench`.

Results go into one JSON file a day and the Markdown made from it. A table that is measured again
on the same day takes the place of its former self, whose file keeps the others. Where a table
fails, the others are measured nonetheless.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import day_report
from vidadapt import runs
from vidadapt.console import duration
from vidadapt.data import cores
from vidadapt.files import write_json, write_text

ROOT = Path(__file__).parents[1]
TABLES = ("loader", "loader_pairs", "views", "copies", "step", "cache", "heads")
INSTRUCTIONS = ("avx2", "avx512_f", "avx512_bf16", "amx_bf16", "amx_fp16")  # of torch's names


def main(argv: list[str] | None = None) -> None:
    args = parse(argv)
    commands = {name: [sys.executable, "-m", f"benchmarks.{name}"] for name in args.only}
    out = args.out or Path(__file__).parent / "results" / f"{datetime.date.today()}.json"
    try:
        day = started(out)
    except ValueError as error:
        sys.exit(f"bench: {error}")
    failed = run_tables(commands, day, out)
    print(f"results: {out} and {out.with_suffix('.md')}")
    missed = [target["name"] for target in day["targets"] if not target["met"]]
    print("\n".join([f"{len(missed)} of {len(day['targets'])} targets missed", *missed]))
    if failed:
        sys.exit(f"bench: without a result: {', '.join(failed)}; see above")


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--only", nargs="+", choices=TABLES, default=TABLES, help="tables; default: all"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.json",
        help="default: benchmarks/results/<date>.json; the Markdown is written beside it",
    )
    return parser.parse_args(argv)


def started(out: Path) -> dict[str, Any]:
    """The day's results so far, or none.

    Raises:
        ValueError: the file's name is not one of JSON, or it holds what was measured elsewhere.
    """
    if out.suffix != ".json":
        raise ValueError(f"--out: expected a name that ends in .json, got {out}")
    here = environment()
    if not out.exists():
        date = str(datetime.date.today())
        return {"date": date, "environment": here, "tables": {}, "targets": []}
    day: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    changed = [key for key, value in here.items() if day["environment"].get(key) != value]
    if changed:
        raise ValueError(
            f"{out} was measured on another machine or with other libraries ({', '.join(changed)} "
            "differ); choose another --out"
        )
    return day


def run_tables(commands: Mapping[str, Sequence[str]], day: dict[str, Any], out: Path) -> list[str]:
    """Measure tables, and write the day's results after each of them.

    Args:
        commands: of each table, to which `--json FILE` is added. What it prints is its Markdown.
        day: results so far; edited in place. A table that fails leaves its former result there.

    Returns:
        The tables that failed.
    """
    failed = []
    for number, (name, command) in enumerate(commands.items(), start=1):
        print(f"{number}/{len(commands)} {name}", file=sys.stderr, flush=True)
        table, targets = measured(command)
        if table["problem"] is not None:
            failed.append(name)
        former = day["tables"].get(name, {"problem": "not measured"})
        if table["problem"] is None or former["problem"] is not None:
            others = [target for target in day["targets"] if target["table"] != name]
            day["tables"][name] = table
            day["targets"] = others + [{"table": name, **target} for target in targets]
        out.parent.mkdir(parents=True, exist_ok=True)
        write_json(out, day)
        write_text(out.with_suffix(".md"), day_report(day))
        outcome = table["problem"] or "done"
        took = duration(table["seconds"])
        print(f"{number}/{len(commands)} {name}: {outcome} in {took}", file=sys.stderr, flush=True)
    return failed


def measured(command: Sequence[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One table and its targets; its `problem` says why there is no result."""
    began = time.monotonic()
    problem, result, markdown = None, {}, ""
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "table.json"
        done = subprocess.run(
            [*command, "--json", str(written)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            problem = f"exit status {done.returncode}"
        elif not written.exists():
            problem = "it wrote no JSON"
        else:
            result, markdown = json.loads(written.read_text(encoding="utf-8")), done.stdout
    table = {
        "problem": problem,
        "seconds": round(time.monotonic() - began, 1),
        "git_commit": runs.environment(1, "cpu")["git_commit"],
        "settings": result.get("settings", {}),
        "rows": result.get("rows", []),
        "markdown": markdown,
    }
    return table, result.get("targets", [])


def environment() -> dict[str, Any]:
    """What the figures depend on, beside the code: processor, cores, instructions, libraries."""
    ours = runs.environment(1, "cpu")
    others = {name: _version(name) for name in ("torchcodec", "transformers", "peft")}
    has = torch.cpu.get_capabilities()
    return {
        "cpu": _processor(),
        "cores": cores(),
        "instructions": [name for name in INSTRUCTIONS if has.get(name)],
        "python": ours["python"],
        "packages": {**ours["packages"], **others},
    }


def _processor() -> str:
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else "unknown processor"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
