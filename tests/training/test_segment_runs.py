"""Runs on segments of films are runs on the files that were cut from them."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import TinySet, launch, load_tool
from safetensors.torch import load_file
from test_resuming import interrupted, resumed

from benchmarks.segments import cut_at, write_film
from vidadapt.lists import Sample, read_list, write_list
from vidadapt.video import film_of


@pytest.fixture(scope="module")
def joined(tiny_set: TinySet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lists of segments of two films and, in the same order, of the files cut from them."""
    folder = tmp_path_factory.mktemp("joined")
    rng = np.random.default_rng(3)
    lists: dict[str, list[Sample]] = {"parts": [], "cut": []}
    for film in range(2):
        counts = rng.integers(9, 14, 6).tolist()
        scenes = []
        for number, n in enumerate(counts):
            frames = rng.integers(0, 60, (n, 96, 128, 3), dtype=np.uint8)
            frames[..., number % 3] += 120
            scenes.append(frames)
        stamps = np.cumsum(rng.integers(15, 90, sum(counts))).tolist()
        write_film(folder / f"{film}.mkv", iter(scenes), stamps)
        starts = np.cumsum(counts).tolist()
        names = [f"{film}_{number}.mkv" for number in range(6)]
        cut_at(folder / f"{film}.mkv", starts[:-1], [folder / name for name in names])
        begins = [stamps[0], *(stamps[start] for start in starts[:-1])]
        ends = [f",{(end - stamps[0]) / 1000:.3f}" for end in begins[1:]] + [""]
        for number, (begin, end, name) in enumerate(zip(begins, ends, names, strict=True)):
            part = f"{film}.mkv#t={(begin - stamps[0]) / 1000:.3f}{end}"
            lists["parts"].append(Sample(part, number % 3))
            lists["cut"].append(Sample(name, number % 3))
    for kind, samples in lists.items():
        write_list(folder / f"{kind}_train.txt", samples)
        write_list(folder / f"{kind}_test.txt", samples[1:5])
    return folder


def options(tiny_set: TinySet, joined: Path, kind: str, **changes: object) -> list[str]:
    chosen = {"data__root": joined, "data__train_list": joined / f"{kind}_train.txt",
              "data__dev_list": None, "data__test_list": None, "model__head": "linear"}  # fmt: skip
    return tiny_set.options(**chosen, **changes)


def learned(run: Path) -> bytes:
    return (run / "last" / "adapter.safetensors").read_bytes()


def test_training_on_segments_is_training_on_the_cut_files_bit_for_bit(
    tiny_set, joined, run_tool, tmp_path
) -> None:
    for kind in ("parts", "cut"):
        run_tool("train", *options(tiny_set, joined, kind), "--run_dir", tmp_path / kind)
        test = joined / f"{kind}_test.txt"
        out = tmp_path / kind / "eval"
        run_tool("evaluate", "--run_dir", tmp_path / kind, "--out", out, "--data.test_list", test)
    assert learned(tmp_path / "parts") == learned(tmp_path / "cut")
    scores = [
        json.loads((tmp_path / kind / "eval" / "metrics.json").read_text())
        for kind in ("parts", "cut")
    ]
    assert scores[0]["top1"] == scores[1]["top1"] and scores[0]["num_videos"] == 4


def test_a_run_on_segments_resumes_and_is_the_same_on_two_processes(
    tiny_set, joined, run_tool, tmp_path
) -> None:
    words = options(tiny_set, joined, "parts", train__epochs=3, train__checkpoint_steps=1)
    run_tool("train", *words, "--run_dir", tmp_path / "whole")
    status, _ = interrupted(words, tmp_path / "stopped", signal.SIGKILL)
    assert status == -signal.SIGKILL
    resumed(words, tmp_path / "stopped")
    assert learned(tmp_path / "stopped") == learned(tmp_path / "whole")
    halved = options(tiny_set, joined, "parts", train__epochs=3, train__batch_size=2)
    launch("train", *halved, "--run_dir", tmp_path / "two", processes=2)
    one, two = (
        load_file(tmp_path / run / "last" / "adapter.safetensors") for run in ("whole", "two")
    )
    for name, tensor in one.items():  # only the order of sums differs
        torch.testing.assert_close(tensor, two[name], rtol=1e-3, atol=1e-5)


def predict(videos: Path, run: Path) -> None:
    assert load_tool("predict").main([str(videos), "--adapter", str(run), "--json"]) == 0


def test_predictions_of_a_segment_are_those_of_its_file(
    tiny_set, joined, run_tool, tmp_path, capsys
) -> None:
    run_tool("train", *options(tiny_set, joined, "cut"), "--run_dir", tmp_path / "run")
    said = {}
    for kind in ("parts", "cut"):
        capsys.readouterr()
        listed = joined / f"{kind}_test.txt"
        predict(listed, tmp_path / "run")
        lines = map(json.loads, capsys.readouterr().out.splitlines())
        said[kind] = [{**line, "video": ""} for line in lines]
    assert said["parts"] == said["cut"] and len(said["cut"]) == 4
    part = read_list(joined / "parts_test.txt", joined, 3)[0].path
    predict(joined / part, tmp_path / "run")
    [alone] = map(json.loads, capsys.readouterr().out.splitlines())
    assert alone["predictions"] == said["cut"][0]["predictions"]
    assert film_of(alone["video"]).endswith(".mkv") and "#t=" in alone["video"]
