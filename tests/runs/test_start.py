"""A run begins with another task's adapter and a new head."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import TinySet, write_adapter
from safetensors.torch import load_file, save_file

from vidadapt.config import Config, ConfigError, DataConfig, ModelConfig, yaml_files
from vidadapt.runs import load_adapter

METHOD = {"name": "adaptformer", "bottleneck": 4}


def other_task(folder: Path, tiny_set: TinySet, method: dict, **model: object) -> Path:
    """An adapter of a task with two classes."""
    folder.parent.mkdir()
    names = folder.parent / "names.txt"
    names.write_text("up\ndown\n")
    options = {"backbone": "vit_tiny", "weights": str(tiny_set.weights), **model}
    write_adapter(
        folder,
        Config(
            run_dir="",
            method=method,
            data=DataConfig(label_names=str(names), num_frames=4, crop_size=32),
            model=ModelConfig(**options),
        ),
        seed=3,
    )
    return folder


@pytest.fixture
def other(tiny_set, tmp_path) -> Path:
    return other_task(tmp_path / "other" / "best", tiny_set, METHOD)


@pytest.fixture
def train(tiny_set, run_tool, tmp_path) -> Callable[..., Path]:
    def run(name: str, *words: object, method: dict = METHOD, **changes: object) -> Path:
        options = {f"method__{key}": value for key, value in method.items()}
        options |= {"train__epochs": 1, "train__base_lr": 0.0, **changes}
        run_tool("train", *tiny_set.options(**options), "--run_dir", tmp_path / name, *words)
        return tmp_path / name

    return run


def parts(folder: Path) -> tuple[dict, dict]:
    """Tensors of the method, and of the read-out."""
    tensors = load_file(folder / "adapter.safetensors")
    of_head = {key for key in tensors if key.split(".")[0] in ("head", "fc_norm")}
    return (
        {key: tensor for key, tensor in tensors.items() if key not in of_head},
        {key: tensors[key] for key in of_head if "running" not in key and "num_" not in key},
    )


def equal(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
def test_the_methods_weights_are_the_adapters_and_the_head_is_new(train, other, capsys):
    plain = train("plain")
    started = train("started", "--method.start", other)
    assert str(other) in capsys.readouterr().out
    own, head = parts(started / "last")
    assert equal(own, parts(other)[0]) and not equal(own, parts(plain / "last")[0])
    assert equal(head, parts(plain / "last")[1])
    assert yaml_files.read_yaml(started / "config.yaml", "")["method"]["start"] == str(other)
    assert json.loads((started / "summary.json").read_text())["start"] == str(other)
    assert json.loads((plain / "summary.json").read_text())["start"] is None
    load_adapter(started / "last")  # needs no other adapter


@pytest.mark.slow
def test_a_resumed_run_does_not_load_it_again(train, other, run_tool, tmp_path):
    run = train("run", "--method.start", other, train__base_lr=1.0)
    learned = parts(run / "last")[0]
    assert not equal(learned, parts(other)[0])
    shutil.rmtree(other.parent)
    with pytest.raises(ConfigError, match=r"method\.start"):
        train("run", "--resume", train__base_lr=1.0)
    train("run", "--resume", "--method.start", other, train__base_lr=1.0)
    assert equal(parts(run / "last")[0], learned)
    run_tool("evaluate", "--run_dir", run, "--out", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"--method\.start: is where a training run begins"):
        run_tool("evaluate", "--run_dir", run, "--method.start", other)


@pytest.mark.slow
def test_every_run_of_a_grid_begins_with_it(train, tiny_set, tmp_path):
    method = {"name": "losa"}
    other = other_task(tmp_path / "side" / "best", tiny_set, method)
    words = ("--method.start", other, "--grid.base_lr", "[0,1]")
    root = train("grid", *words, method=method, train__base_lr=None)
    own = {name: parts(root / f"lr{name}_wd0" / "last")[0] for name in (0, 1)}
    assert equal(own[0], parts(other)[0]) and not equal(own[1], parts(other)[0])


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ({"name": "adaptformer", "bottleneck": 8}, r"method\.bottleneck: 4 in the file, 8 asked"),
        ({"name": "lora"}, r"method\.name: 'adaptformer' in the file, 'lora' asked"),
    ],
)
def test_another_method_is_refused(method, said, train, other):
    with pytest.raises(ConfigError, match=rf"method\.start: .*{said}"):
        train("run", "--method.start", other, method=method)


def test_another_backbone_is_refused(train, other, tiny_set, tmp_path):
    state = load_file(tiny_set.weights)
    save_file({key: 2 * tensor for key, tensor in state.items()}, tmp_path / "else.safetensors")
    words = ("run", "--method.start", other)
    with pytest.raises(ConfigError, match=r"method\.start: .*another backbone"):
        train(*words, model__weights=tmp_path / "else.safetensors")
    with pytest.raises(ConfigError, match=r"method\.start: .*model\.num_heads"):
        train(*words, model__num_heads=6)


def test_a_method_without_weights_of_its_own_is_refused(train, tiny_set, tmp_path):
    method = {"name": "linear"}
    probe = other_task(tmp_path / "probe" / "best", tiny_set, method)
    with pytest.raises(ConfigError, match=r"method\.start: linear trains nothing but the head"):
        train("run", "--method.start", probe, method=method)


def test_what_is_no_adapter_is_refused(train, tmp_path):
    with pytest.raises(ConfigError, match=r"method\.start: the folder .* does not exist"):
        train("run", "--method.start", tmp_path / "none")
