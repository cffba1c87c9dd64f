"""Runs and adapters by URL: fetched once, as far as needed, and then as local ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import ALONE, TinySet, load_tool
from object_store import SECRET

from benchmarks.store_server import Store
from vidadapt.runs import RunError, adapters

pytestmark = pytest.mark.usefixtures("own_cache")


OPTIONS = ("--method.name", "lora")  # which can be exported


@pytest.fixture(scope="module")
def trained(tiny_set: TinySet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch, with a development list."""
    run = tmp_path_factory.mktemp("trained") / "mine"
    words = ["tools/train.py", "--run_dir", str(run), *OPTIONS, *tiny_set.options(train__epochs=1)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", words)
        load_tool("train").main(ALONE)
    return run


@pytest.fixture
def stored(trained: Path, store: Store) -> Path:
    """The run copied into the store, as `s3://bucket/runs/mine`."""
    return Path(shutil.copytree(trained, store.folder / "bucket" / "runs" / "mine"))


def fetched_files(store: Store) -> set[str]:
    """Names of the objects that were read; an attempt to list the bucket is none."""
    home = "/bucket/runs/mine/"
    return {path.removeprefix(home) for path, _ in store.gets() if path.startswith(home)}


def test_predictions_and_exports_of_a_run_by_url_are_those_of_the_local_one(
    tiny_set: TinySet, trained: Path, stored: Path, store: Store, tmp_path: Path, capsys
) -> None:
    said = []
    video = str(tiny_set.root / "test 1 [x]#.mp4")
    for run in (str(trained), "s3://bucket/runs/mine", "s3://bucket/runs/mine/best"):
        own = ["--weights", str(tiny_set.weights)] if run.endswith("/best") else []
        capsys.readouterr()
        load_tool("predict").main([video, "--adapter", run, "--json", *own])
        [found] = json.loads(capsys.readouterr().out)["predictions"].values()
        said.append(found)
        load_tool("export").main([run, str(tmp_path / f"{len(said)}.safetensors"), *own])
    assert said[0] == said[1] == said[2]
    files = [(tmp_path / f"{n + 1}.safetensors").read_bytes() for n in range(3)]
    assert files[0] == files[1] == files[2]


def test_only_what_is_needed_is_fetched_and_once(stored: Path, store: Store) -> None:
    own = {"adapter.json", "adapter.safetensors", "checksums.json"}
    folder = adapters.find_adapter("s3://bucket/runs/mine")
    best = {f"best/{name}" for name in own} | {"config.yaml", "environment.json"}
    assert fetched_files(store) == best
    assert {path.name for path in folder.iterdir()} == own and folder.name == "best"
    store.asked.clear()
    assert adapters.find_adapter("s3://bucket/runs/mine/") == folder
    assert not fetched_files(store)
    shutil.rmtree(stored / "best")
    last = adapters.find_adapter("s3://bucket/runs/mine")  # without trainer.pt, which it has
    assert last.name == "last" and (stored / "last" / "trainer.pt").exists()
    assert not any("trainer" in name for name in fetched_files(store))
    adapters.read_adapter(last)


def test_an_adapter_that_changes_is_fetched_again(
    tiny_set: TinySet, stored: Path, store: Store
) -> None:
    url = "s3://bucket/runs/mine/last"
    before = adapters.read_adapter(url)
    other = stored / "last"
    shutil.rmtree(other)
    model, saved = adapters.load_adapter(before.folder, weights=tiny_set.weights)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    adapters.save_adapter(other, model, saved.about)
    after = adapters.read_adapter(url)
    key = next(iter(before.tensors))
    assert not torch.equal(before.tensors[key].float(), after.tensors[key].float())


@pytest.mark.slow
def test_features_of_an_adapter_by_url_are_those_of_the_local_one(
    tiny_set: TinySet, trained: Path, stored: Path, tmp_path: Path, run_tool
) -> None:
    found = []
    for number, run in enumerate((str(trained), "s3://bucket/runs/mine")):
        out = tmp_path / f"features{number}"
        run_tool("features", tiny_set.root / "test 1 [x]#.mp4", "--adapter", run, "--out", out)
        arrays = [file for file in sorted(out.rglob("*")) if file.suffix in (".npy", ".npz")]
        assert arrays
        found.append([file.read_bytes() for file in arrays])
    assert found[0] == found[1]


@pytest.mark.slow
def test_an_evaluation_of_a_run_by_url_is_that_of_the_local_one(
    trained: Path, stored: Path, tmp_path: Path, run_tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = []
    for run in (str(trained), "s3://bucket/runs/mine"):
        for more in ((), ("--checkpoint", "last", "--out", tmp_path / f"last{len(found)}")):
            run_tool("evaluate", "--run_dir", run, *more)
    names = [trained / "eval_test_best_2x3", tmp_path / "mine" / "eval_test_best_2x3"]
    for pair in (names, [tmp_path / "last0", tmp_path / "last0"]):
        metrics = [json.loads((name / "metrics.json").read_text()) for name in pair]
        assert metrics[0]["top1"] == metrics[1]["top1"]
        assert metrics[0]["adapter_sha256"] == metrics[1]["adapter_sha256"]
        found.append(metrics)
    assert found[0][1]["run_dir"] == "s3://bucket/runs/mine"
    text = (names[1] / "metrics.json").read_text()
    assert SECRET not in text


def test_what_is_no_run_or_damaged_is_refused_by_its_url(stored: Path, store: Store) -> None:
    with pytest.raises(RunError, match="s3://bucket/runs"):
        adapters.find_adapter("s3://bucket/runs")
    with pytest.raises(RunError, match=r"s3://bucket/runs/none"):
        adapters.find_adapter("s3://bucket/runs/none")
    with pytest.raises(ValueError, match=r"s3://") as told:
        adapters.find_adapter("s3://me:pass1234@bucket/runs/mine")
    assert "pass1234" not in str(told.value)
    file = stored / "best" / "adapter.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(RunError, match="s3://bucket/runs/mine"):
        adapters.find_adapter("s3://bucket/runs/mine")
    store.refuse = True
    with pytest.raises(PermissionError):
        adapters.find_adapter("s3://bucket/runs/mine")
