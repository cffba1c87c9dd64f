"""vidadapt bench_frames as a user runs it: whole, killed and started again, twice at once."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, TinySet, load_tool

from vidadapt import methods
from vidadapt.apps.study.cells import Work
from vidadapt.apps.study.cost import Machine, this_machine
from vidadapt.apps.study.matrix import Matrix, read_matrix
from vidadapt.apps.study.matrix_checks import configurations
from vidadapt.apps.study.matrix_run import measured
from vidadapt.apps.study.results import read_results
from vidadapt.apps.study.tool_calls import CellFailed
from vidadapt.config import ConfigError
from vidadapt.files import Held, held

SLOW = pytest.mark.slow  # whole runs in processes of their own

# Of a line, what a clock or a memory gauge gave.
MEASURED = {
    *("step_seconds", "step_spread_percent", "peak_memory_bytes", "peak_process_bytes"),
    *("matmul_tflops", "matmul_share", "data_seconds_per_clip", "data_spread_percent"),
    *("data_share", "clips_per_second", "epoch_seconds", "run_epoch_seconds", "noisy"),
    *("run_epoch_spread_percent", "evaluation_seconds_per_video", "environment", "config"),
}


def settings(tiny_set: TinySet, **variants: dict) -> dict:
    return {
        "data": {
            "root": str(tiny_set.root),
            **{f"{split}_list": str(path) for split, path in tiny_set.lists.items()},
            "label_names": str(tiny_set.root / "labels.txt"),
            "sampling": "uniform8",
            "crop_size": 32,
            "num_workers": 0,
        },
        "model": {"backbone": "vit_tiny", "weights": str(tiny_set.weights)},
        "train": {
            **{"epochs": 3, "batch_size": 4, "warmup_epochs": 0, "base_lr": 1.0},
            "precision": "fp32",
        },
        "eval": {"num_clips": 2, "num_crops": 3},
        "variants": variants,
    }


VARIANTS = {
    "linear": {"method.name": "linear", "train.base_lr": 0.5},
    "adapter-4": {"method.name": "adaptformer", "method.bottleneck": 4},
}


def call(config: Path, out: Path, *options: object) -> list[str]:
    tool = str(ROOT / "tools" / "bench_frames.py")
    words = ["--config", config, "--frames", 2, "--steps", 2, "--out", out, *options]
    return [sys.executable, tool, *map(str, words)]


def run(config: Path, out: Path, *options: object) -> int:
    """Call the tool in this process; its exit status."""
    return load_tool("bench_frames").main(call(config, out, *options)[2:])


HERE = this_machine()


def cell_of(base: dict, overrides: dict):
    """The cell of one variant, `x`, at 2 frames."""
    return Matrix(base, {"x": overrides}, ()).cell("x", 2, 0)


@pytest.fixture(scope="module")
def config(tiny_set, tmp_path_factory) -> Path:
    file = tmp_path_factory.mktemp("matrix") / "tiny.yaml"
    file.write_text(
        yaml.safe_dump(settings(tiny_set, **VARIANTS), sort_keys=False), encoding="utf-8"
    )
    return file


@pytest.fixture(scope="module")
def whole(config) -> Path:
    """The folder of a benchmark that nothing interrupted."""
    out = config.parent / "whole"
    done = subprocess.run(call(config, out), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@SLOW
def test_every_cell_is_an_ordinary_run_and_evaluation(whole):
    lines = {line["cell"]: line for line in read_results(whole / "results.jsonl")}
    assert list(lines) == ["linear_2f_s0", "adapter-4_2f_s0"]
    for name, line in lines.items():
        folder = whole / "cells" / name
        tested = json.loads((folder / "eval" / "metrics.json").read_text())
        summary = json.loads((folder / "run" / "summary.json").read_text())
        assert (line["top1"], line["num_videos"]) == (tested["top1"], 7)
        assert line["views"] == "2 clips x 3 crops"
        assert (line["trainable"], line["total"]) == (summary["trainable"], summary["total"])
        saved = folder / "run" / "last" / "adapter.safetensors"
        assert line["adapter_bytes"] <= saved.stat().st_size <= line["adapter_bytes"] + 200
        assert line["config"]["data"]["num_frames"] == line["frames"] == 2
        assert [entry["epoch"] for entry in line["curve"]] == [1, 2, 3]
        assert line["problem"] is None
    table = (whole / "table.md").read_text()
    assert all(variant in table for variant in VARIANTS)
    assert (whole / "plots" / "parameters.svg").exists()


@SLOW
def test_the_table_is_made_from_the_lines_alone(whole, tmp_path):
    (tmp_path / "results.jsonl").write_bytes((whole / "results.jsonl").read_bytes())
    load_tool("bench_frames").main(["--report", str(tmp_path)])
    for name in ("table.md", "table.csv", "plots/parameters.svg"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


@SLOW
def test_killed_and_started_again_it_ends_as_if_nothing_had_happened(config, whole):
    out = config.parent / "killed"
    shutil.copytree(whole / "costs", out / "costs")  # they are not measured again
    first, second = (out / "cells" / f"{name}_2f_s0" for name in VARIANTS)
    with subprocess.Popen(call(config, out), stdout=subprocess.DEVNULL) as child:
        deadline = time.monotonic() + 240
        while not (second / "run" / "log.jsonl").exists():
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.02)
        child.send_signal(signal.SIGKILL)
    untouched = (first / "cell.json").stat().st_mtime_ns
    assert not (second / "cell.json").exists()
    assert run(config, out) == 0
    assert (first / "cell.json").stat().st_mtime_ns == untouched
    ours, others = (read_results(folder / "results.jsonl") for folder in (out, whole))
    for mine, other in zip(ours, others, strict=True):
        assert mine.keys() == other.keys()
        assert {k: mine[k] for k in mine.keys() - MEASURED} == {
            k: other[k] for k in other.keys() - MEASURED
        }


@SLOW
def test_two_calls_on_one_folder(config, whole):
    """The second is refused at once, whatever the first is at; nothing is changed by it."""
    before = {path: path.read_bytes() for path in whole.rglob("*.json*")}
    with (
        held(whole / "results.jsonl", "--out"),
        pytest.raises(Held, match=rf"--out: .*results\.jsonl is in use by process {os.getpid()}"),
    ):
        run(config, whole)
    assert {path: path.read_bytes() for path in whole.rglob("*.json*")} == before


@SLOW
def test_a_call_about_a_part_keeps_the_rest(config, whole, tmp_path):
    out = tmp_path / "a copy"
    shutil.copytree(whole, out)
    lines = {line["cell"]: line for line in read_results(whole / "results.jsonl")}
    run(config, out, "--methods", "linear")
    assert {line["cell"]: line for line in read_results(out / "results.jsonl")} == lines
    for options, message in (
        (["--cost_only"], "linear_2f_s0 was trained here"),
        (["--processes", "2"], "was trained by 1, now asked for 2"),
    ):
        with pytest.raises(ValueError, match=message):
            run(config, out, "--methods", "linear", *options)
    assert {line["cell"]: line for line in read_results(out / "results.jsonl")} == lines
    shutil.rmtree(out / "cells" / "adapter-4_2f_s0")
    run(config, out, "--methods", "linear")
    assert [line["cell"] for line in read_results(out / "results.jsonl")] == ["linear_2f_s0"]


@SLOW
def test_all_seeds_have_one_cost(config, whole):
    asked = load_tool("bench_frames").parse(call(config, whole, "--seeds", 1)[2:])
    found = measured(read_matrix(config, None), {}, asked, HERE)
    (line, _) = read_results(whole / "results.jsonl")
    assert found["linear", 2]["step_seconds"] == line["step_seconds"]


@SLOW
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
@pytest.mark.parametrize("stage", ["prepare", "cost"])
def test_killed_it_leaves_no_process_behind(stage, tiny_set, tmp_path):
    content = settings(tiny_set, **VARIANTS)
    if stage == "prepare":
        content["prepare"] = ["synthetic", str(tmp_path / "made"), "--counts", "train=100000"]
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    words = call(tmp_path / "c.yaml", tmp_path / "out", "--steps", 1_000_000)
    left: set[str] = set()
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as child:
        children = Path(f"/proc/{child.pid}/task/{child.pid}/children")
        try:
            deadline = time.monotonic() + 120
            while not any(_says(pid, "\0prepare\0", "spawn_main") for pid in left):
                assert child.poll() is None and time.monotonic() < deadline
                time.sleep(0.1)
                left |= set(children.read_text().split())
            time.sleep(2)  # past its start
            left |= set(children.read_text().split())
        finally:
            child.send_signal(signal.SIGKILL)  # or leaving the block would wait for its end
    deadline = time.monotonic() + 60
    while any(_says(pid, "python") for pid in left):
        assert time.monotonic() < deadline, left
        time.sleep(0.2)


def _says(pid: str, *words: str) -> bool:
    """Whether a running process has one of these words in its command."""
    try:
        return any(word in Path(f"/proc/{pid}/cmdline").read_text() for word in words)
    except OSError:
        return False


@SLOW
def test_other_settings_are_refused(tiny_set, whole, tmp_path):
    changed = settings(tiny_set, **VARIANTS)
    changed["train"]["epochs"] = 4
    (tmp_path / "other.yaml").write_text(yaml.safe_dump(changed), encoding="utf-8")
    before = {path: path.read_bytes() for path in whole.rglob("*.json*")}
    with pytest.raises(ConfigError, match=r"train\.epochs: 3 -> 4"):
        run(tmp_path / "other.yaml", whole, "--methods", "linear")
    assert {path: path.read_bytes() for path in whole.rglob("*.json*")} == before


def test_what_another_precision_made_is_refused(tiny_set, tmp_path):
    """train.precision auto is another on another machine: one table has one."""
    content = settings(tiny_set, linear={"method.name": "linear"})
    del content["train"]["precision"]
    file, out = tmp_path / "c.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    cell = read_matrix(file, None).cell("linear", 2, 0)
    there = Machine(HERE.device, "fp32" if HERE.auto == "bf16" else "bf16")
    measured_there = {"device": there.device, "precision": there.auto}
    about = {"settings": cell.settings, "processes": 1, "steps": 2, "line": measured_there}
    for made, text, message in (
        (out / "costs" / "linear_2f.json", about, f"was measured .*in {there.auto}, .*{HERE.auto}"),
        (
            out / "cells" / cell.name / "run" / "environment.json",
            {"processes": 1, "precision": there.auto},
            f"was trained in {there.auto}, .*{HERE.auto}",
        ),
    ):
        made.parent.mkdir(parents=True)
        made.write_text(json.dumps(text), encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            run(file, out)
        assert Work(out / "cells", 1, there).finished(cell) is None
        shutil.rmtree(out)
    pinned = cell_of(content, {"method.name": "linear", "train.precision": "fp32"})
    assert HERE.precision(pinned.settings) == there.precision(pinned.settings) == "fp32"


@SLOW
def test_of_a_grid_the_best_rate_is_run_and_one_that_fails_is_none(tmp_path, tiny_set, capsys):
    """A loss that is not finite costs only its own cell."""
    variants = {"wild": {"method.name": "linear"}}
    file = tmp_path / "wild.yaml"
    file.write_text(yaml.safe_dump(settings(tiny_set, **variants)), encoding="utf-8")
    out = tmp_path / "out"
    assert run(file, out, "--rates", 1e30, 0.5) == 0
    (line,) = read_results(out / "results.jsonl")
    assert (line["cell"], line["base_lr"]) == ("wild_2f_s0_lr0.5", 0.5)
    best = json.loads((out / "cells" / line["cell"] / "run" / "summary.json").read_text())["best"]
    assert line["grid"] == {"1e+30": 0, "0.5": best["dev_top1"]}
    assert run(file, out, "--rates", 0.5) == 0
    (line,) = read_results(out / "results.jsonl")
    assert line["grid"] == {"0.5": best["dev_top1"]}
    capsys.readouterr()
    assert run(file, out, "--rates", 1e30) == 1
    assert "the same command tries them again" in capsys.readouterr().err
    (line,) = read_results(out / "results.jsonl")
    assert line["top1"] is None and "the loss is nan" in line["problem"]
    assert line["problem"] in (out / "table.md").read_text()


@SLOW
def test_the_rates_of_a_probe_are_trained_side_by_side(tmp_path, tiny_set):
    """Each cell is the one that is trained alone; what a killed grid has left is taken up."""
    variants = {"probe": {"method.name": "linear"}, "all": {"method.name": "bitfit"}}
    file = tmp_path / "probes.yaml"
    file.write_text(yaml.safe_dump(settings(tiny_set, **variants)), encoding="utf-8")
    out, alone = tmp_path / "out", tmp_path / "alone"
    assert run(file, out, "--methods", "probe", "--rates", 0.5) == 0
    # One rate is there, two are new: they train together.
    assert run(file, out, "--rates", 0.5, 0.25, 1) == 0
    assert run(file, alone, "--methods", "probe", "--rates", 0.25) == 0
    runs = [folder / "cells" / "probe_2f_s0_lr0.25" / "run" for folder in (out, alone)]
    assert [json.loads((one / "summary.json").read_text())["side_by_side"] for one in runs] == [
        2,
        1,
    ]
    for name in ("last/adapter.safetensors", "steps.jsonl"):
        assert (runs[0] / name).read_bytes() == (runs[1] / name).read_bytes()
    assert yaml.safe_load((runs[0] / "config.yaml").read_text())["run_dir"] == str(runs[0])
    one = json.loads((out / "cells" / "all_2f_s0_lr0.5" / "run" / "summary.json").read_text())
    assert one["side_by_side"] == 1
    assert not list((out / "cells").glob("*_grid"))


def test_impossible_cells_are_refused_before_any_work(tiny_set, tmp_path):
    for name, overrides, message in (
        ("odd", {"method.name": "adaptformer", "method.bottlneck": 4}, "odd at 2 frames"),
        ("none", {"method.name": "adaptformr"}, "adaptformer"),
        ("layers", {"method.name": "adaptformer", "method.layers": "7-99"}, "layers"),
        ("random", {"method.name": "adaptformer", "model.weights": None}, r"model\.weights"),
        ("list", {"method.name": "linear", "data.dev_list": "no.txt"}, r"no\.txt: no such file"),
        ("rate", {"method.name": "linear", "train.base_lr": -1}, r"train\.base_lr"),
    ):
        file = tmp_path / f"{name}.yaml"
        file.write_text(yaml.safe_dump(settings(tiny_set, **{name: overrides})), encoding="utf-8")
        with pytest.raises(ValueError, match=message):
            run(file, tmp_path / "out")
        assert not (tmp_path / "out" / "cells").exists()
    with pytest.raises(ValueError, match=r"train\.base_lr.* -2"):
        run(file, tmp_path / "out", "--methods", "linear", "--rates", 0.1, -2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rates", "0.024", "0.0240000001"], "--rates: each once"),
        (["--rates_at", "2"], "--rates_at: is about --rates"),
        (["--report", "runs"], "give one of --config FILE and --report"),
        (["--steps", "1"], "--steps: expected 2 or more, got 1"),
    ],
)
def test_options_that_mean_nothing_are_refused(tmp_path, options, message):
    (tmp_path / "c.yaml").write_text("{}")
    with pytest.raises(ConfigError, match=message):
        run(tmp_path / "c.yaml", tmp_path, *options)


def test_files_that_are_no_benchmark(tmp_path):
    for text, message in (
        ("variants: [linear]", "expected a mapping of names"),
        ("variants: {a/b: {method.name: linear}}", "names folders"),
        ("variants: {a: {method: linear}}", "dotted keys"),
        ("variants: {a: {train.seed: 1}}", "is set by --seeds"),
        ("data: {num_frames: 8}", "is set by --frames"),
        ("- 1", "expected a mapping"),
        ("variants:\n  a: {method.name: vpt}\n  a: {method.name: lora}", "line 3: the key 'a'"),
    ):
        file = tmp_path / "bad.yaml"
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ConfigError, match=message):
            read_matrix(file, None)


def test_the_demo_benchmark_is_possible():
    """Every variant of configs/demo.yaml, at the numbers of frames that its header names."""
    demo = read_matrix(ROOT / "configs" / "demo.yaml", None)
    for name in demo.variants:
        for frames in (2, 4, 8):
            [cfg] = configurations(demo.cell(name, frames, 0), [])
            assert cfg.method["name"] in methods.METHODS
            assert cfg.data.num_frames == frames


def test_a_failed_tool_is_told_in_its_own_words(tmp_path, tiny_set):
    base = settings(tiny_set)
    del base["variants"]
    cell = cell_of(base, {"data.train_list": "no.txt"})
    with pytest.raises(CellFailed, match=r"no\.txt") as failed:
        Work(tmp_path, 1, HERE).dev_accuracy(cell)
    assert (failed.value.kind, failed.value.status) == ("usage", 2)


@SLOW
def test_a_rate_whose_clips_were_all_skipped_has_not_diverged(tmp_path, tiny_set):
    """Files damaged after they were counted say nothing about the rate."""
    videos = tmp_path / "videos"
    shutil.copytree(tiny_set.root, videos)
    base = settings(tiny_set)
    del base["variants"]
    base["data"] |= {"root": str(videos), "index_dir": str(tmp_path), "max_skipped": 1000}
    words = ["--root", str(videos), "--index-dir", str(tmp_path), "--processes", "1"]
    load_tool("prepare").main(["index", *map(str, tiny_set.lists.values()), *words])
    for path in videos.glob("*.mp4"):  # size and time stay
        facts = path.stat()
        path.write_bytes(bytes(facts.st_size))
        os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    cell = cell_of(base, {"method.name": "linear", "train.precision": "fp16"})
    with pytest.raises(CellFailed) as failed:
        Work(tmp_path, 1, HERE).dev_accuracy(cell)
    assert (failed.value.kind, failed.value.status) == ("data", 3)
    failure = json.loads((tmp_path / cell.name / "run" / "failure.json").read_text())
    assert (failure["kind"], failure["epoch"], failure["rank"]) == ("data", 1, 0)
    assert "skipped.jsonl" in failure["message"]
