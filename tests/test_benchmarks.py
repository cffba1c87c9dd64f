"""The benchmarks at a tiny size: well-formed results, right ratios, failures told."""

from __future__ import annotations

import ast
import json
import math
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import (
    cache,
    exchange,
    first_step,
    heads,
    images,
    loader_pairs,
    run,
    scaling,
    scaling_page,
    segments,
    step,
    step_parts,
    unbalanced,
)
from benchmarks.memory import peak_bytes
from benchmarks.step_contenders import read_contender
from benchmarks.step_table import aimed_at
from benchmarks.timing import Target

pytestmark = pytest.mark.slow  # whole runs, or files that take long

TINY = ["--backbone", "vit_tiny", "--num_frames", "2", "--crop_size", "32"]


def table_of(markdown: str) -> list[list[str]]:
    """Cells of the one table, headings first; all rows must be as long."""
    lines = [line for line in markdown.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert set("".join(cells.pop(1))) <= set("-:")
    assert len({len(row) for row in cells}) == 1
    return cells


@pytest.fixture(scope="module")
def steps(tmp_path_factory) -> dict:
    """Results of step.py."""
    pytest.importorskip("peft", reason="test extra: transformers and peft")
    file = tmp_path_factory.mktemp("step") / "step.json"
    contenders = ["full", "adaptformer+block", "transformers-full", "transformers-lora"]
    words = ["--contenders", *contenders, "--rounds", "1", "--json", file]
    step.main([*TINY, *map(str, words)])
    return json.loads(file.read_text())


def test_a_step_table_has_every_figure(steps):
    result = steps
    assert result["table"] == "step"
    assert [row["name"] for row in result["rows"]][3:5] == ["transformers-lora fp32", "full bf16"]
    for row in result["rows"]:
        assert row["problem"] is None
        figures = ("gflop_per_clip", "step_seconds", "matmul_share", "kept_mib_per_clip")
        assert all(0 < row[key] < math.inf for key in (*figures, "clips_per_second", "trainable"))
        assert len(row["seconds"]) == 1
        assert row["clips_per_second"] == pytest.approx(2 / row["step_seconds"])


def test_both_libraries_count_the_same_work_for_the_same_model(steps):
    """The plain model's FLOPs by hand, too: 4 tokens of width 192 in 6 blocks."""
    by_name = {row["name"]: row for row in steps["rows"]}
    ours, theirs = by_name["full fp32"], by_name["transformers-full fp32"]
    tokens, width, depth, classes, pixels = 4, 192, 6, 174, 2 * 16 * 16 * 3
    linear = tokens * 12 * width**2 * depth + width * classes
    attention = 2 * tokens**2 * width * depth
    # The patch embedding has no gradient with respect to the clip.
    products = 3 * (linear + attention) + 2 * tokens * pixels * width
    assert ours["gflop_per_clip"] == pytest.approx(2 * products / 1e9)
    assert theirs["gflop_per_clip"] == pytest.approx(ours["gflop_per_clip"])
    assert ours["trainable"] == theirs["trainable"]
    assert by_name["transformers-lora fp32"]["trainable"] < ours["trainable"] / 10


def test_recomputing_keeps_less(steps):
    kept = {row["name"]: row["kept_mib_per_clip"] for row in steps["rows"]}
    assert kept["adaptformer+block fp32"] < kept["transformers-lora fp32"] / 3


def test_a_model_that_does_not_fit_is_a_row(tmp_path, capsys):
    file = tmp_path / "step.json"
    words = ["--contenders", "linear", "--precision", "fp32", "--batch_size", str(10**15)]
    step.main([*TINY, *words, "--json", str(file)])
    [row] = json.loads(file.read_text())["rows"]
    assert row["problem"] == "does not fit" and row["step_seconds"] is None
    printed = capsys.readouterr().out
    assert "linear fp32: does not fit." in printed
    assert table_of(printed)[1][0] == "linear fp32"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("adaptfomer", "expected one of adaptformer"),
        ("transformers-vpt", "full, lora"),
        ("full+fast", "got fast"),
        ("transformers-full+mlp", "got mlp"),
        ("full+mlp+block", "exclude each other"),
        ("full+block+compile", "exclude each other"),
    ],
)
def test_what_cannot_be_measured_is_told_first(spec, message):
    with pytest.raises(ValueError, match=message):
        read_contender(spec, "fp32")


def test_targets_compare_what_their_names_say():
    """Steps of 1 to 8 s, by hand."""
    seconds = {
        "full fp32": [4.0, 8.0],
        "adaptformer fp32": [2.0, 4.0],
        "adaptformer+mlp fp32": [2.1, 4.2],
        "losa fp32": [1.0, 2.0],
        "transformers-lora fp32": [1.0, 2.0],
    }
    rows = [
        {"name": name, "problem": None, "matmul_share": 0.95, "kept_mib_per_clip": 161.0}
        for name in seconds
    ]
    found = {t.name: (t.measured, t.met) for t in aimed_at(rows, seconds)}
    assert found == {
        "AdaptFormer-64 : transformers + LoRA, fp32, steps/s": (0.5, False),
        "AdaptFormer-64, recompute mlp : none, fp32, time": (pytest.approx(1.05), True),
        "AdaptFormer-64 : full, fp32, time": (0.5, True),
        "LoSA : AdaptFormer-64, fp32, time": (0.5, True),
        "AdaptFormer-64, fp32, share of the matmul rate": (0.95, True),
        "AdaptFormer-64, recompute mlp, fp32, kept for backward, MiB a clip": (161.0, False),
    }


@pytest.mark.parametrize(
    ("sense", "measured", "met"), [(">=", 2.0, True), (">=", 1.9, False), ("<=", 2.1, False)]
)
def test_a_target_is_met_or_not(sense, measured, met):
    assert Target("a : b", 2.0, sense, measured).as_dict()["met"] is met


def test_a_cache_table_has_every_figure(tmp_path, capsys):
    file = tmp_path / "cache.json"
    words = ["--methods", "losa", "--clips", "4", "--epochs", "3", "--batch_size", "2"]
    cache.main([*TINY, *words, "--json", str(file)])
    result = json.loads(file.read_text())
    [row] = result["rows"]
    assert row["clips"] == 4 and len(row["epoch_seconds"]) == 3
    # Of each clip 4 tokens of 192 float32 numbers in 6 layers, and a checksum of 8 bytes.
    assert round(row["cache_mb"] * 1e6) == 4 * (4 * 192 * 4 * 6 + 8)
    [target] = result["targets"]
    assert target["measured"] == row["times_cheaper"] and target["goal"] == 5
    assert [cells[0] for cells in table_of(capsys.readouterr().out)] == ["method", "losa"]


@pytest.mark.parametrize("backbone", ["vit_tiny", "vjepa2_tiny"])
def test_the_parts_of_a_step_bound_it(backbone, tmp_path, capsys):
    pytest.importorskip("peft", reason="test extra: transformers and peft")
    file = tmp_path / "parts.json"
    words = ["--num_frames", "2", "--crop_size", "32", "--rounds", "1", "--json", str(file)]
    step_parts.main(["--backbone", backbone, *words])
    linear, attention, _, bound, _, theirs = json.loads(file.read_text())["rows"]
    assert bound["seconds"] == [linear["seconds"][0] + attention["seconds"][0]]
    assert theirs["times_transformers"] == 1
    assert len(table_of(capsys.readouterr().out)) == 7


def test_heads_have_a_ratio_of_all_to_one(tmp_path, capsys):
    file = tmp_path / "heads.json"
    words = ["--heads", "linear", "--clips", "4", "--dev_clips", "2", "--epochs", "2"]
    words += ["--batch_size", "2", "--rounds", "1", "--json", str(file)]
    heads.main([*TINY, *words])
    result = json.loads(file.read_text())
    [row] = result["rows"]
    assert row["heads"] == 20
    assert row["ratio"] == row["grid_seconds"] / row["one_seconds"]
    [target] = result["targets"]
    assert target["measured"] == row["ratio"] and target["goal"] == 1.3
    assert [cells[0] for cells in table_of(capsys.readouterr().out)] == ["head", "linear"]


def test_exchanges_are_compared_on_two_networks(tmp_path, capfd):
    file = tmp_path / "exchange.json"
    words = ["--backbone", "vit_tiny", "--num_frames", "2", "--crop_size", "32", "--rounds", "1"]
    with pytest.raises(SystemExit) as ended:  # with the status of its processes
        exchange.main([*words, "--batch_size", "2", "--delay_ms", "20", "--json", str(file)])
    assert ended.value.code == 0
    result = json.loads(file.read_text())
    assert len(result["rows"]) == 6 and len(result["targets"]) == 2
    for row in result["rows"]:
        # Gradients of 5.5 million numbers are two messages, the figures a third.
        assert row["step_seconds"] > (0 if row["network"].startswith("this") else 0.04)
    assert "DistributedDataParallel" in capfd.readouterr().out


def test_the_first_step_is_timed(tmp_path):
    file = tmp_path / "first_step.json"
    words = [*TINY, "--clips", "2", "--batch_size", "2", "--rounds", "1", "--json", str(file)]
    first_step.main(words)
    result = json.loads(file.read_text())
    assert result["rows"][0]["first_step_seconds"] == result["targets"][0]["measured"] > 0


def test_curves_of_scaling_and_their_page(tmp_path, capfd):
    words = ["--backbone", "vit_tiny", "--crop_size", "32", "--batch_size", "2", "--rounds", "1"]
    scaling.main(["frames", *words, "--json", str(tmp_path / "day.frames.json")])
    with pytest.raises(SystemExit) as ended:  # with the status of its processes
        scaling.main(["processes", *words, "--json", str(tmp_path / "day.processes.json")])
    assert ended.value.code == 0, capfd.readouterr().err
    frames, processes = (
        json.loads((tmp_path / f"day.{curve}.json").read_text())["rows"]
        for curve in ("frames", "processes")
    )
    assert [(row["name"], row["num_frames"]) for row in frames] == [
        (method, number) for method in ("adaptformer", "full") for number in (2, 4, 8, 16, 32)
    ]
    assert [row["processes"] for row in processes] == [1, 1, 2, 2, 4, 4]
    assert all(row["clips_per_second"] > 0 for row in [*frames, *processes])
    scaling_page.main([str(tmp_path / "day"), "--docs", str(tmp_path)])
    assert (tmp_path / "scaling" / "curves.png").stat().st_size > 10_000
    assert "| full        |   64 |" in (tmp_path / "scaling.md").read_text()


def test_a_projection_is_what_its_parts_allow():
    work, loader = scaling_page.Work(4e11, 344_000_000), {"packed frames": 100.0}
    free = scaling_page.Assumed(network_gb_s=1e9, delay_ms=0)
    for gpus in (1, 8, 64):
        row = scaling_page.projected("full", work, gpus, loader, free)
        assert row["most"] == pytest.approx(500 * gpus)  # 400 TFLOP/s x 0.5 : 0.4 TFLOP
        assert row["efficiency"] == pytest.approx(100, abs=1e-3)
        assert row["packed frames"] == pytest.approx(500 * gpus)
    # Of eight machines each sends 7/4 of 344 MB at 1 GB/s: 602 ms beside a step of 32.
    row = scaling_page.projected("full", work, 64, loader, scaling_page.Assumed(network_gb_s=1.0))
    assert row["exchange_ms"] == pytest.approx(602 + 14 * 0.05)
    assert row["most"] == pytest.approx(64 * 16 / 0.6027)
    assert row["least"] == pytest.approx(64 * 16 / 0.6347)
    starved = scaling_page.projected("full", work, 8, {"packed frames": 1.0}, free)
    assert starved["packed frames"] == 8 * 12


GOOD = """
import json, sys
result = {{"table": "{name}", "settings": {{}}, "rows": [{{"ms": {ms}}}], "targets": [
    {{"name": "{name} : other", "goal": 2.0, "sense": ">=", "measured": {ms}, "met": {ms} >= 2}}
]}}
with open(sys.argv[sys.argv.index("--json") + 1], "w") as file:
    json.dump(result, file)
print("| {name} | ms |\\n|---|---:|\\n| row | {ms} |")
"""
BAD = "import sys; sys.exit('no such file: clip.mp4')"


def script(folder: Path, name: str, code: str) -> list[str]:
    (folder / f"{name}.py").write_text(code)
    return [sys.executable, str(folder / f"{name}.py")]


def test_a_failing_table_costs_no_other(tmp_path, capfd):
    out = tmp_path / "results" / "day.json"
    commands = {
        "first": script(tmp_path, "first", GOOD.format(name="first", ms=3)),
        "broken": script(tmp_path, "broken", BAD),
        "last": script(tmp_path, "last", GOOD.format(name="last", ms=1)),
    }
    day = run.started(out)
    assert run.run_tables(commands, day, out) == ["broken"]
    written = json.loads(out.read_text())
    assert written == day
    assert list(written["tables"]) == ["first", "broken", "last"]
    assert written["tables"]["last"]["rows"] == [{"ms": 1}]
    assert written["tables"]["broken"]["problem"] == "exit status 1"
    assert [(t["table"], t["met"]) for t in written["targets"]] == [
        ("first", True),
        ("last", False),
    ]
    markdown = out.with_suffix(".md").read_text()
    assert "1 of 2 targets met" in markdown and "| row | 3 |" in markdown
    assert "No result: **broken**, exit status 1" in markdown
    assert "no such file: clip.mp4" in capfd.readouterr().err


def test_a_table_measured_again_takes_its_former_place(tmp_path):
    out = tmp_path / "day.json"
    commands = {n: script(tmp_path, n, GOOD.format(name=n, ms=1)) for n in ("one", "two")}
    run.run_tables(commands, run.started(out), out)
    again = script(tmp_path, "one", GOOD.format(name="one", ms=5))
    assert run.run_tables({"one": again}, run.started(out), out) == []
    day = json.loads(out.read_text())
    assert [table["rows"][0]["ms"] for table in day["tables"].values()] == [5, 1]
    assert sorted((t["name"], t["measured"]) for t in day["targets"]) == [
        ("one : other", 5),
        ("two : other", 1),
    ]
    # One that fails now is reported, and leaves what was measured.
    broken = script(tmp_path, "two", BAD)
    assert run.run_tables({"two": broken}, run.started(out), out) == ["two"]
    assert json.loads(out.read_text())["tables"]["two"]["rows"] == [{"ms": 1}]


def test_results_of_two_machines_share_no_file(tmp_path):
    out = tmp_path / "day.json"
    day = run.started(out)
    day["environment"]["cores"] += 1
    out.write_text(json.dumps(day))
    with pytest.raises(ValueError, match=r"cores differ\); choose another --out"):
        run.started(out)
    with pytest.raises(ValueError, match="ends in"):
        run.started(tmp_path / "day.md")


@pytest.mark.skipif(sys.platform != "linux", reason="resets the peak as Linux does")
def test_peak_memory_is_that_of_the_work_alone():
    held = torch.ones(75_000_000)  # 300 MB, freed before: the peak must not go by it
    del held

    def work() -> float:
        first = torch.ones(50_000_000)
        total = float(first.sum())
        del first
        return total + float(torch.ones(25_000_000).sum())

    result, peak = peak_bytes(work, torch.device("cpu"))
    assert result == 75e6
    assert peak is not None and 195e6 < peak < 260e6


def test_segments_are_compared_with_cut_files_and_what_is_done_is_kept(tmp_path, capsys):
    words = ["--films", 1, "--test_films", 1, "--actions", 12, "--epochs", 2, "--seeds", 4]
    words += ["--out", tmp_path / "work", "--json", tmp_path / "a.json"]
    for _ in range(2):
        segments.main([*map(str, words)])
    found = json.loads((tmp_path / "a.json").read_text())
    assert [target["met"] for target in found["targets"]] == [True] * 3
    assert [row["segments"] for row in found["rows"][:2]] == [12, 12]
    assert found["rows"][2]["equal_bits"] and found["rows"][2]["seed"] == 4


def test_every_table_is_a_script_that_explains_itself():
    for name in run.TABLES:
        script = (run.ROOT / "benchmarks" / f"{name}.py").read_text()
        assert ast.get_docstring(ast.parse(script)) and '__name__ == "__main__"' in script


def test_an_unbalanced_set_is_trained_in_each_way_and_tested_on_every_class(tmp_path, capsys):
    ways = ["natural", "logit_adjustment 1"]
    words = ["--ways", *ways, "--seeds", 3, "--epochs", 1, "--draws", 1, "--largest", 10]
    words += ["--dev", 12, "--test", 24, "--work", tmp_path / "work", "--json", tmp_path / "a.json"]
    unbalanced.main([*map(str, words)])
    rows = json.loads((tmp_path / "a.json").read_text())["rows"]
    assert [row["way"] for row in rows] == ways
    listed = (tmp_path / "work" / "train3.txt").read_text().splitlines()
    sizes = [sum(line.endswith(f" {label}") for line in listed) for label in range(12)]
    assert sorted(sizes, reverse=True) == unbalanced.class_counts(10)
    for row in rows:
        top1 = [share for _, share in row["videos_and_top1"]]
        assert [count for count, _ in row["videos_and_top1"]] == unbalanced.class_counts(10)
        assert row["mean_class_accuracy"] == pytest.approx(sum(top1) / 12)
        assert row["4 smallest"] == pytest.approx(sum(top1[8:]) / 4)
    table = table_of(capsys.readouterr().out)
    assert [row[0] for row in table[1:]] == ways


def test_images_are_measured_beside_imagefolder(tmp_path, capsys):
    file = tmp_path / "images.json"
    small = ["--listed", "200", "--starts", "1", "--images", "32", "--rounds", "1"]
    images.main([*small, "--dir", str(tmp_path), "--json", str(file)])
    result = json.loads(file.read_text())
    starts, speeds = result["rows"][:2], result["rows"][2:]
    assert [row["images"] for row in starts] == [100, 200]
    assert all(0 < row["looked_up_seconds"] < row["seconds"] < math.inf for row in starts)
    assert all(0 < row["images_per_second"] < math.inf for row in speeds) and len(speeds) == 4
    assert len(result["targets"]) == 3 and "ImageFolder" in capsys.readouterr().out


def test_pairs_of_loaders_have_ratios_within_a_round(tmp_path, capsys):
    file = tmp_path / "pairs.json"
    words = ["--only", "watched", "copies", "mp4", "--videos", 8, "--rounds", 2, "--clips", 16]
    loader_pairs.main([*map(str, words), "--folder", str(tmp_path), "--json", str(file)])
    result = json.loads(file.read_text())
    rows = {(row["part"], row["name"]): row for row in result["rows"]}
    assert len(rows) == 2 + 3 + 4 and len(result["targets"]) == 3
    for (part, _), row in rows.items():
        base = rows[part, row["to"]]["seconds"]
        each = [a / b for a, b in zip(base, row["seconds"], strict=True)]
        each = [1 / one for one in each] if part == "copies" else each
        assert row["ratio"] == pytest.approx(sum(each) / 2)
    assert [row[1] for row in table_of(capsys.readouterr().out)[1:]] == [part for part, _ in rows]
