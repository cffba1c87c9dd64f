"""`python -m benchmarks.gpu`, tried on the CPU; what fails costs its own row."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from benchmarks import gpu
from benchmarks.gpu_page import page
from benchmarks.gpu_parts import PARTS, Measurements, Part, Place


def read(raw: Path, kind: str) -> list[dict]:
    lines = map(json.loads, raw.read_text().splitlines())
    return [line for line in lines if line["kind"] == kind]


@pytest.mark.slow
def test_a_trial_has_every_figure_and_its_page_can_be_made_again(tmp_path):
    words = ["--device", "cpu", "--tiny", "--minutes", "15", "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "benchmarks.gpu", *words, "--folder", str(tmp_path / "work")]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    raw = tmp_path / "out" / "gpu.jsonl"
    ended = {line["part"]: line["problem"] for line in read(raw, "part")}
    assert ended == dict.fromkeys(PARTS)
    rows = read(raw, "row")
    assert {row["part"] for row in rows} == set(PARTS)
    assert all(row["problem"] is None for row in rows)
    for part, key in {"steps": "clips_per_second", "frames": "matmul_share"}.items():
        assert all(row[key] > 0 for row in rows if row["part"] == part)
    assert all(row["largest_batch"] == 4 for row in rows if row["part"] == "large")

    again = tmp_path / "again.md"
    gpu.main(["--out", str(raw.parent), "--page", str(again)])
    assert again.read_text() == raw.with_suffix(".md").read_text()
    for part in PARTS.values():
        assert f"## {part.title}\n" in again.read_text()


def good(place: Place) -> Measurements:
    return {"one": lambda: {"passed": 1}}


def broken(place: Place) -> Measurements:
    def wants() -> dict:
        return {"passed": len(torch.empty(10**15))}

    return {"wants": wants, "divides": lambda: {"passed": 1 // 0}, **good(place)}


def dies(place: Place) -> Measurements:
    return {**good(place), "two": lambda: os._exit(3)}


def hangs(place: Place) -> Measurements:
    return {**good(place), "two": lambda: {"passed": time.sleep(1000)}}


@pytest.mark.slow
def test_a_part_that_fails_costs_no_other(tmp_path):
    parts = {
        name: Part(name, measure, least=0, most=most)
        for name, (measure, most) in {
            "tests": (good, 200),
            "steps": (broken, 200),
            "large": (dies, 200),
            "loader": (hangs, 12),
            "vjepa": (good, gpu.STOP),  # no time for a row
            "frames": (good, 200),
        }.items()
    }
    raw = tmp_path / "gpu.jsonl"
    gpu.begin(raw, "cpu", tiny=True)
    place = Place("cpu", True, tmp_path, time.monotonic() + 600)
    problems = gpu.run_parts(parts, place, raw)
    found = {(row["part"], row["name"]): row["problem"] for row in read(raw, "row")}
    assert found == {
        ("tests", "one"): None,
        ("steps", "wants"): "out of memory",
        ("steps", "divides"): "ZeroDivisionError: integer division or modulo by zero",
        ("steps", "one"): None,
        ("large", "one"): None,
        ("loader", "one"): None,
        ("vjepa", "one"): "not run: no time left",
        ("frames", "one"): None,
    }
    ended = {line["part"]: line["problem"] for line in read(raw, "part")}
    assert {name for name, problem in ended.items() if problem} == {"large", "loader"}
    assert len(problems) == 5 and all(line.split(":")[0] in parts for line in problems)
    # With no time left for anything, all of it is listed.
    late = gpu.run_parts(parts, Place("cpu", True, tmp_path, time.monotonic()), raw)
    assert [line.split(":")[0] for line in late[-6:]] == [*parts]
    assert len(read(raw, "row")) == len(found)


def test_a_part_that_is_not_run_again_keeps_its_rows(tmp_path):
    raw = tmp_path / "gpu.jsonl"
    row = {"kind": "row", "part": "tests", "name": "one", "problem": None, "failed": 0}
    gpu.begin(raw, "cpu", tiny=False)
    gpu.add(raw, {**row, "passed": 11111})
    gpu.add(raw, {"kind": "part", "part": "tests", "problem": None})
    gpu.begin(raw, "cpu", tiny=False)
    gpu.add(raw, {"kind": "part", "part": "tests", "problem": "not run: 1 s left"})
    assert "11111" in page(raw) and "1 s left" not in page(raw)
    gpu.begin(raw, "cpu", tiny=False)
    gpu.add(raw, {**row, "passed": 22222})
    gpu.add(raw, {"kind": "part", "part": "tests", "problem": "ended with status 3"})
    assert "22222" in page(raw) and "11111" not in page(raw)
    assert "Ended with status 3" in page(raw)


def test_figures_of_a_trial_and_of_a_device_share_no_file(tmp_path):
    raw = tmp_path / "gpu.jsonl"
    gpu.begin(raw, "cpu", tiny=False)
    with pytest.raises(ValueError, match="choose another --out"):
        gpu.begin(raw, "cpu", tiny=True)


def test_aims_are_judged_by_the_rows_that_they_name(tmp_path):
    raw = tmp_path / "gpu.jsonl"
    gpu.begin(raw, "cpu", tiny=False)
    for name, rate in {"adaptformer": 1300.0, "losa": 1.0}.items():
        figures = {"clips_per_second": rate, "matmul_share": 0.4, "problem": None}
        gpu.add(raw, {"kind": "row", "part": "steps", "name": name, **figures})
    cells = [[cell.strip() for cell in line.split("|")] for line in page(raw).splitlines()]
    assert {row[1]: row[4] for row in cells if row[-2:-1] in (["met"], ["missed"])} == {
        "AdaptFormer-64, share of the matmul rate": "missed",
        "AdaptFormer-64, clips/s": "met",
    }
