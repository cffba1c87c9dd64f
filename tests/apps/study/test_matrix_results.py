"""Table and CSV say what results.jsonl says, and what in it must be minded."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest
from result_lines import cell, cost, failed, matrix

from vidadapt.apps.study.matrix import Cell
from vidadapt.apps.study.matrix_run import summarise
from vidadapt.apps.study.overview import overview, seconds_left
from vidadapt.apps.study.results import ResultsError, read_results, write_results
from vidadapt.apps.study.table import csv_text, markdown


def tables(text: str) -> list[list[dict[str, str]]]:
    """Every table of a Markdown text, rows as heading -> cell."""
    found: list[list[list[str]]] = [[]]
    for line in text.splitlines():
        if line.startswith("|"):
            found[-1].append([part.strip() for part in line.strip("|").split("|")])
        elif found[-1]:
            found.append([])
    return [[dict(zip(rows[0], row, strict=True)) for row in rows[2:]] for rows in found if rows]


def row_of(text: str, variant: str, frames: int) -> dict[str, str]:
    (found,) = [
        row for row in tables(text)[-1] if (row["variant"], row["frames"]) == (variant, str(frames))
    ]
    return found


def test_what_is_written_is_read(tmp_path):
    lines = [*matrix(), failed(cell("full", 2, 0), "loss is not finite")]
    write_results(tmp_path / "results.jsonl", lines)
    assert read_results(tmp_path / "results.jsonl") == lines
    assert [path.name for path in tmp_path.iterdir()] == ["results.jsonl"]


def broken(**changed: object) -> str:
    return json.dumps({**cell("vpt", 2, 0), **changed})


@pytest.mark.parametrize(
    "second, message",
    [
        ("{", "2: not valid JSON"),
        ("[1]", "2: expected a JSON object"),
        ('{"cell": "a"}', "2: lacks variant, method"),
        (broken(top1=math.nan), "2: not valid JSON (NaN is no figure"),
        (broken(top1="41"), "2: top1: expected a number or null, got '41'"),
        (broken(frames=None), "2: frames: expected a number, got None"),
        (broken(top1=True), "2: top1: expected a number or null, got True"),
        (broken(cell="linear_2f_s0"), "2: cell linear_2f_s0 is in line 1, too"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, second, message):
    path = tmp_path / "results.jsonl"
    path.write_text(json.dumps(cell("linear", 2, 0)) + "\n" + second + "\n")
    with pytest.raises(ResultsError) as error:
        read_results(path)
    assert str(error.value).startswith(f"{path}:{message}")


def test_no_file_and_no_line_are_told(tmp_path):
    path = tmp_path / "results.jsonl"
    with pytest.raises(ResultsError, match="cannot be read"):
        read_results(path)
    path.touch()
    with pytest.raises(ResultsError, match="holds no line"):
        read_results(path)


@pytest.mark.parametrize("changed", [{"top1": math.nan}, {"curve": [{"loss": math.inf}]}])
def test_no_figure_is_refused_and_what_was_there_stays(tmp_path, changed):
    path = tmp_path / "results.jsonl"
    write_results(path, matrix())
    before = path.read_bytes()
    with pytest.raises(ResultsError, match=r"results\.jsonl:1: cell linear_2f_s0"):
        write_results(path, [cell("linear", 2, 0, **changed)])
    assert path.read_bytes() == before


def test_the_report_is_made_from_the_lines_alone(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    for folder in (here, there):
        folder.mkdir()
        write_results(folder / "results.jsonl", [cost("linear", 2), cost("vpt", 2)])
        summarise(folder)
    for name in ("table.md", "table.csv"):
        (here / name).write_text("old")
    summarise(here)
    written = sorted(path.relative_to(here) for path in here.rglob("*.*"))
    names = ["plots/cost.png", "plots/cost.svg", "results.jsonl", "table.csv", "table.md"]
    assert list(map(str, written)) == names
    for path in written:
        assert (here / path).read_bytes() == (there / path).read_bytes()


def test_accuracies_are_mean_and_deviation_over_the_seeds():
    lines = matrix()
    text = markdown(lines)
    by_frames, full = tables(text)
    for variant in ("linear", "vpt", "adaptformer"):
        for frames in (2, 4, 8):
            own = [x for x in lines if (x["variant"], x["frames"]) == (variant, frames)]
            row = row_of(text, variant, frames)
            for heading, key in {
                "top-1 %": "top1",
                "top-5 %": "top5",
                "mean class %": "mean_class_accuracy",
            }.items():
                values = np.array([line[key] for line in own])
                assert row[heading] == f"{values.mean():.2f} ± {values.std(ddof=1):.2f}"
            assert row["seeds"] == "3"
            (short,) = [r for r in by_frames if r["top-1 %"] == variant]
            assert short[f"{frames} frames"] == row["top-1 %"]
    assert [(row["frames"], row["variant"]) for row in full[:4]] == [
        *(("2", name) for name in ("linear", "vpt", "adaptformer")),
        ("4", "linear"),
    ]


def test_figures_of_a_row_in_the_units_of_its_headings():
    text = markdown([cell("adaptformer", 8, 0), cell("bottleneck_16", 8, 0)])
    assert len(tables(text)) == 1
    row = row_of(text, "adaptformer", 8)
    assert row == {
        "variant": "adaptformer",
        "method": "adaptformer",
        "frames": "8",
        "seeds": "1",
        "top-1 %": f"{20 + 20 + 3 * 8**0.5:.2f}",
        "top-5 %": f"{40 + 20 + 3 * 8**0.5:.2f}",
        "mean class %": f"{40 - 1 + 3 * 8**0.5:.2f}",
        "trainable": "1,324,974",
        "%": "1.534",
        "file MB": "5.300",
        "forward GFLOP": "72.0",
        "training GFLOP": "200",
        "step ms": "987 (4 %)",
        "peak MB": "4,000",
        "of matmul %": "50.0",
        "data %": "25.0",
        "clips/s": "2.50",
        "s/epoch": "240",
        "run s/epoch": "264",
        "eval ms/video": "250",
    }
    assert "mean ± sample standard deviation" in text


def test_failed_and_missing_cells_are_shown():
    lines = [line for line in matrix() if line["cell"] != "linear_8f_s2"]
    lines = [
        failed(line, "train failed:\n  loss is not finite") if line["cell"] == "vpt_4f_s1" else line
        for line in lines
    ]
    text = markdown(lines)
    assert row_of(text, "vpt", 4)["seeds"] == "2 of 3"
    assert row_of(text, "linear", 8)["seeds"] == "2 of 3"
    assert row_of(text, "linear", 2)["seeds"] == "3"
    known = [x["top1"] for x in matrix() if x["cell"] in ("vpt_4f_s0", "vpt_4f_s2")]
    assert row_of(text, "vpt", 4)["top-1 %"].startswith(f"{np.mean(known):.2f} ±")
    assert row_of(text, "vpt", 4)["run s/epoch"] == "133"
    assert "25 of 27 cells have accuracies: 1 failed, 1 not run." in text
    assert "Without all of 3 seeds: vpt at 4 frames, linear at 8 frames." in text
    assert "- vpt_4f_s1: train failed: loss is not finite\n" in text
    whole = markdown(matrix())
    assert "Failed" not in whole and "not run" not in whole


def test_a_row_whose_cells_all_failed_keeps_its_costs():
    lines = [cell("linear", 8, 0), failed(cell("full", 8, 0), "out of memory")]
    row = row_of(markdown(lines), "full", 8)
    assert (row["seeds"], row["top-1 %"], row["s/epoch"]) == ("0 of 1", "", "240")
    assert row["trainable"] == "86,361,006"


def test_timings_that_spread_are_marked():
    noisy = {"noisy": ["step_spread_percent"], "step_spread_percent": 14.0}
    text = markdown([cell("linear", 8, 0), cell("vpt", 8, 0, **noisy)])
    assert row_of(text, "vpt", 8)["step ms"] == "987 (14 %) †"
    assert row_of(text, "vpt", 8)["data %"] == "25.0 †"
    assert "†" not in "".join(row_of(text, "linear", 8).values())
    assert "† in 1 of 2 rows" in text
    assert "†" not in markdown(matrix())
    slow = markdown([cell("linear", 8, 0, noisy=["run_epoch_spread_percent"])])
    assert row_of(slow, "linear", 8)["run s/epoch"] == "264 †"


def test_costs_alone_leave_the_columns_of_accuracies_out():
    text = markdown([cost("linear", 2), cost("linear", 4)])
    assert len(tables(text)) == 1
    row = row_of(text, "linear", 4)
    assert not {"seeds", "top-1 %", "top-5 %", "eval ms/video", "run s/epoch"} & row.keys()
    assert row["s/epoch"] == "120" and "from step and data time" in text
    assert "not run" not in text and "videos evaluated" not in text


def test_the_caption_says_what_is_shared_and_what_differs():
    text = markdown(matrix())
    assert text.startswith(
        "vit_base; crops of 224 x 224 pixels; 12 classes; 120 videos evaluated; 2 clips x 3 crops; "
        "cpu; fp32; 1 process; 2 threads; batches of 4 clips; 3 epochs; base_lr 0.3"
    )
    other = [cell("linear", 8, 0), cell("vpt", 8, 0, batch_size=2, base_lr=0.01)]
    text = markdown(other)
    about = text.split("\n\n")[0]
    assert "batches of" not in about and "has a column: batch, base_lr." in about
    assert row_of(text, "vpt", 8)["batch"] == "2" and row_of(text, "linear", 8)["batch"] == "4"


def test_cells_of_other_lists_or_software_are_pointed_out():
    environment = {"python": "3.11.7", "packages": {"torch": "2.12"}}
    first = cell("linear", 8, 0)
    text = markdown([first, cell("vpt", 8, 0, environment=environment)])
    assert "not all made with the same software: torch: 2.11, 2.12." in text
    assert "video lists are not the same" in markdown(
        [first, cell("vpt", 8, 0, manifests={"test": "1"})]
    )
    assert "same" not in markdown([first, cell("vpt", 8, 0)])


def test_a_grid_and_unreadable_videos_are_said():
    text = markdown([cell("linear", 8, 0, grid={"0.5": 30.0, "0.05": 40.0}, unreadable=3)])
    assert "base_lr: of 0.05, 0.5, the best on the development list" in text
    assert "Up to 3 videos could not be read" in text


def test_accuracies_of_the_development_list_are_called_so():
    dev = {"train": "0" * 64, "dev": "1" * 64}
    said = "accuracies are of the development list"
    assert said in markdown([cell("linear", 8, 0, manifests=dev)])
    assert said not in markdown([cell("linear", 8, 0, manifests=dev | {"test": "2" * 64})])


def test_csv_round_trip():
    lines = [*matrix(), failed(cell("full", 2, 0), 'said "no", then\nstopped')]
    read = list(csv.DictReader(io.StringIO(csv_text(lines))))
    assert len(read) == len(lines)
    for got, line in zip(read, lines, strict=True):
        flat = {k: v for k, v in line.items() if not isinstance(v, list | dict)}
        flat = {k: v for k, v in flat.items() if k in got}
        assert flat.keys() == got.keys() - {"options"}
        for key, value in flat.items():
            if isinstance(value, str):
                assert got[key] == value
            else:
                assert json.loads(got[key] or "null") == value
        assert json.loads(got["options"]) == line["options"]
    nested = {
        "curve",
        "grid",
        "manifests",
        "environment",
        "config",
        "noisy",
        "cross_validation",
        "tasks",
    }
    assert read[0].keys() == (lines[0].keys() - nested)


def test_overview_has_every_seed_in_its_place():
    cells = [Cell(v, t, s, None, {}) for s in (0, 1) for t in (8, 2) for v in ("linear", "vpt")]
    known = {"linear_2f_s0": 41.26, "linear_2f_s1": 40.9, "vpt_8f_s0": None}
    lines = {cell: {"top1": known[cell.name]} for cell in cells if cell.name in known}
    heading, *rows = [line.split() for line in overview(cells, lines)]
    assert heading == ["top-1", "%", "2", "frames", "8", "frames"]
    assert rows == [["linear", "41.3", "40.9", ".", "."], ["vpt", ".", ".", "!", "."]]


def test_seconds_left():
    measured = {2: [10.0, 20.0], 8: [90.0], 4: []}
    assert seconds_left([2, 2, 8], measured) == 15 + 15 + 90
    assert seconds_left([16], measured) == 180
    assert seconds_left([4], measured) == 30  # 4 is nearer to 2
    assert seconds_left([], measured) == 0
    assert seconds_left([4], {4: []}) is None
