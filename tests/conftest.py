"""A tiny data set, a tiny backbone file, and the tools called as a user calls them."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import huggingface_hub.constants
import numpy as np
import pytest
import torch
import warm
from in_browser import browser  # noqa: F401 (a fixture)
from object_store import own_cache, store  # noqa: F401 (fixtures)
from safetensors.torch import save_file
from stand_in_hub import TOKEN, StandIn, serving

from vidadapt import data, methods, models
from vidadapt.apps.synthetic import write_video
from vidadapt.config import (
    Config,
    DataConfig,
    EvalConfig,
    ModelConfig,
    TrainConfig,
    yaml_files,
)
from vidadapt.distributed import World
from vidadapt.lists import Sample, write_list
from vidadapt.models import VideoModel
from vidadapt.runs import adapter_json, adapters, assemble

ROOT = Path(__file__).parents[1]
ALONE = World(0, 1, torch.device("cpu"))
ON_CUDA = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no CUDA device"),
]


# Files of slow tests that take a process of `make test-slow` for two minutes and more, longest
# first: begun last, they would run alone at the end.
LONGEST = (
    *("test_benchmarks.py", "apps/study/test_matrix_harness.py", "test_gpu_benchmark.py"),
    *("training/test_sharding.py", "test_readme_data.py", "serving/test_programs.py"),
    *("commands/test_installed.py", "test_docs.py", "launching/test_elastic.py"),
    *("training/test_mirror.py", "launching/test_slurm.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests of the longest files first."""
    place = {ROOT / "tests" / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def pytest_collection_finish() -> None:
    """Leave what imports and collecting made out of collections of garbage: 0.25 s of each."""
    gc.freeze()


@dataclass(frozen=True)
class TinySet:
    """Three classes of small clips with lists and a random vit_tiny file."""

    root: Path
    lists: dict[str, Path]
    weights: Path

    def options(self, **changes: Any) -> list[str]:
        """The command line of a quick run, with `section__key=value` changes (None: left out)."""
        chosen = {
            "data__root": self.root,
            "data__train_list": self.lists["train"],
            "data__dev_list": self.lists["dev"],
            "data__test_list": self.lists["test"],
            "data__label_names": self.root / "labels.txt",
            "data__sampling": "uniform8",
            "data__num_frames": 4,
            "data__crop_size": 32,
            "data__num_workers": 0,
            "model__backbone": "vit_tiny",
            "model__weights": self.weights,
            "train__epochs": 2,
            "train__batch_size": 4,
            "train__warmup_epochs": 0,
            "train__base_lr": 1.0,
            "train__precision": "fp32",
            **changes,
        }
        return [
            part
            for key, value in chosen.items()
            if value is not None
            for part in (f"--{key.replace('__', '.')}", str(value))
        ]


@pytest.fixture(scope="session")
def tiny_set(tmp_path_factory) -> TinySet:
    return make_tiny_set(tmp_path_factory.mktemp("tiny_set"))


def make_tiny_set(root: Path) -> TinySet:
    """Its videos, lists and weights in a folder."""
    root.mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    lists = {}
    for split, count in {"train": 12, "dev": 5, "test": 7}.items():
        samples = []
        for number in range(count):
            label = number % 3
            frames = rng.integers(0, 60, (12 + number % 4, 48, 64, 3), dtype=np.uint8)
            frames[..., label] += 120
            name = f"{split} {number} [x]#.mp4"
            write_video(root / name, frames, 12)
            samples.append(Sample(name, label))
        lists[split] = root / f"{split}.txt"
        write_list(lists[split], samples)
    (root / "labels.txt").write_text("red\ngreen\nblue\n", encoding="utf-8")
    torch.manual_seed(0)
    model, _ = models.build("vit_tiny", num_frames=4, crop_size=32, num_classes=3, head="linear")
    weights = root / "backbone.safetensors"
    save_file({k: v for k, v in model.state_dict().items() if "head" not in k}, weights)
    return TinySet(root, lists, weights)


def tiny_adapter(tiny_set: TinySet, method: str, **evaluation: Any) -> Config:
    """The configuration of an adapter of the tiny backbone, for `write_adapter`, in float32."""
    return Config(
        run_dir="",
        method={"name": method},
        data=DataConfig(label_names=str(tiny_set.root / "labels.txt"), num_frames=4, crop_size=32),
        model=ModelConfig(backbone="vit_tiny", weights=str(tiny_set.weights)),
        train=TrainConfig(precision="fp32"),
        eval=EvalConfig(**evaluation),
    )


def write_adapter(
    folder: Path, cfg: Config, *, seed: int, spread: float = 0.05, metrics: dict | None = None
) -> VideoModel:
    """Write the adapter of a configuration, its trained tensors moved at random; its model.

    The folder is that of a run, with the configuration beside it.
    """
    plan = data.resolve(cfg.data, cfg.eval)
    model, _, backbone = assemble.adapted_model(cfg, plan)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in methods.trainable_state(model).values():
            if tensor.is_floating_point():
                tensor.add_(torch.rand(tensor.shape, generator=generator) * spread)
    about = adapter_json.describe_adapter(cfg, plan, backbone, "0" * 64)
    adapters.save_adapter(folder, model, about | ({"metrics": metrics} if metrics else {}))
    (folder.parent / "config.yaml").write_text(yaml_files.dump(cfg), encoding="utf-8")
    return model.eval()


@pytest.fixture
def hub(monkeypatch, tmp_path) -> Iterator[StandIn]:
    """An empty stand-in for the Hugging Face hub, with a login, and an empty cache."""
    constants = huggingface_hub.constants
    with serving() as server:
        template = "/{repo_id}/resolve/{revision}/{filename}"
        for name, value in {
            "ENDPOINT": server.address,
            "HUGGINGFACE_CO_URL_TEMPLATE": server.address + template,
            "HF_HUB_CACHE": str(tmp_path / "hub_cache"),
            "HF_TOKEN_PATH": str(tmp_path / "no_token"),
            "HF_HUB_DISABLE_XET": True,
            "HF_HUB_OFFLINE": False,
        }.items():
            monkeypatch.setattr(constants, name, value)
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        yield server


def load_tool(name: str) -> ModuleType:
    return import_module(f"vidadapt.commands.{name}")


@pytest.fixture
def run_tool(monkeypatch) -> Callable[..., None]:
    """Run the main function of a tool in this process; its errors are raised."""

    def run(name: str, *arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", [f"tools/{name}.py", *map(str, arguments)])
        load_tool(name).main(ALONE)

    return run


def launch(
    tool: str, *arguments: object, processes: int = 1, check: bool = True
) -> subprocess.CompletedProcess[str]:
    """Run a tool as a user does, alone or as several processes; under torchrun if it may fail."""
    if processes > 1 and not check:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(processes), str(warm.tool(tool))]
        return subprocess.run(
            [*command, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env={**os.environ, **warm.FIXED},
        )
    done = warm.run(warm.tool(tool), *arguments, processes=processes)
    if check:
        assert done.returncode == 0, done.stdout + done.stderr
    return done


def run_program(file: str, *arguments: object) -> None:
    """A program that lies beside the tests; what it printed, where it fails."""
    done = warm.run(file, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "UserWarning" not in done.stderr, done.stderr


def processes_with(mark: str) -> list[str]:
    """Command lines of running processes that were started with this variable."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes().split(b"\0"):
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        except OSError:  # it has ended, or is another user's
            continue
    return found
