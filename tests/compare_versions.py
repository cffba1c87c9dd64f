"""Compare what another version of this project makes of the demo with what this one makes of it.

    python -m tests.compare_versions 16c4dab                 every case, about a quarter of an hour
    python -m tests.compare_versions 16c4dab --cases full losa --keep runs/compared

Both versions render the demo's videos, train each case (seeded, on the CPU), evaluate it with
2 clips x 3 crops. Videos, configurations, losses of every step, results of every epoch, adapters,
scores and metrics must be equal, adapters byte for byte; times are left out, and so are keys that
the other version does not know. Then this version evaluates and resumes a run that the other one
began. The exit status is 1 where anything differs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vidadapt.config import yaml_files

ROOT = Path(__file__).parents[1]
COUNTS = "train=192,dev=48,test=96"
TIMES = ("seconds", "seconds_per_video", "clips_per_second", "loader_wait_share")
CASES: dict[str, list[str]] = {
    "linear": ["--config", "linear"],
    "adaptformer": ["--config", "adaptformer"],
    "two_processes": ["--config", "adaptformer", "--train.accumulation", "2"],
    "vpt": ["--config", "vpt"],
    "arc": ["--config", "arc"],
    "losa": ["--config", "losa"],
    "lora": [
        *("--config", "lora", "--model.head", "linear", "--train.optimizer", "sgd"),
        *("--train.ema", "0.9"),
    ],
    "ssf": ["--config", "ssf", "--train.recompute", "mlp"],
    "st_adapter": ["--config", "st_adapter", "--data.sampling", "videomae_dense"],
    "mixed": [
        *("--config", "adaptformer", "--train.mixup", "0.8", "--train.cutmix", "1.0"),
        *("--train.label_smoothing", "0.1", "--data.repeated_augmentation", "2"),
    ],
    "cached": ["--config", "linear", "--cache.dir", "features"],
    "full": ["--config", "adaptformer", "--method.name", "full", "--train.layer_decay", "0.75"],
}


@dataclass(frozen=True)
class Version:
    """A checkout, and the folder in which it works.

    Attributes:
        checkout: of the project.
        folder: where its tools run; every path they are given is relative to it.
    """

    checkout: Path
    folder: Path

    def run(self, tool: str, *words: object, processes: int = 1) -> None:
        """Run a tool; what it says goes to `output.txt`.

        Raises:
            SystemExit: it failed.
        """
        command = [sys.executable, str(self.checkout / "tools" / f"{tool}.py"), *map(str, words)]
        if processes > 1:
            torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node")
            command[1:1] = [*torchrun, str(processes)]
        environment = {
            **os.environ,
            **{
                "PYTHONPATH": str(self.checkout),
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
            },
        }
        with (self.folder / "output.txt").open("ab") as output:
            done = subprocess.run(
                command, cwd=self.folder, env=environment, stdout=output, stderr=output, check=False
            )
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed; see {self.folder / 'output.txt'}")

    def render(self) -> None:
        """Render the demo's videos and lists."""
        self.run(
            *("prepare", "synthetic", "videos", "--family", "target", "--counts", COUNTS),
            *("--difficulty", "0.4,0.8", "--seed", "0"),
        )

    def train(self, case: str, run_dir: str, epochs: int, *more: str) -> None:
        """Train one of `CASES` for some epochs."""
        words = list(CASES[case])
        words[1] = str(self.checkout / "configs" / "demo" / f"{words[1]}.yaml")
        lists = [
            word
            for split in ("train", "dev", "test")
            for word in (f"--data.{split}_list", f"videos/{split}.txt")
        ]
        self.run(
            *("train", *words, "--run_dir", run_dir, "--data.root", "videos", *lists),
            *("--data.label_names", "videos/labels.txt", "--train.epochs", epochs, *more),
            processes=2 if case == "two_processes" else 1,
        )

    def evaluate(self, run_dir: str, out: str) -> None:
        """Evaluate a run with 2 clips x 3 crops."""
        self.run(
            *("evaluate", "--run_dir", run_dir, "--out", out),
            *("--eval.num_clips", "2", "--eval.num_crops", "3"),
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision", help="the other version: a commit, tag or branch of git")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="keep what both made in this new folder")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.keep or Path(temporary) / "made"
        folder.mkdir(parents=True)
        with checked_out(arguments.revision, Path(temporary) / "other") as checkout:
            failed = compare(checkout, folder.resolve(), arguments.cases, arguments.epochs)
    print(f"{failed} differ" if failed else "all equal")
    sys.exit(failed > 0)


@contextmanager
def checked_out(revision: str, folder: Path):
    """Check a revision out into a folder of its own, for as long as it is needed."""
    git = ["git", "-C", str(ROOT), "worktree"]
    subprocess.run([*git, "add", "--detach", "--quiet", str(folder), revision], check=True)
    try:
        yield folder
    finally:
        subprocess.run([*git, "remove", "--force", str(folder)], check=True)


def compare(checkout: Path, folder: Path, cases: list[str], epochs: int) -> int:
    """Let both versions do everything, and print a line for each comparison.

    Returns:
        How many differ.
    """
    old, new = Version(checkout, folder / "old"), Version(ROOT, folder / "new")
    differences = list[str]()

    def check(name: str, read: Callable[[Path], Any], file: str, other: str = "") -> None:
        first, second = read(old.folder / file), read(new.folder / (other or file))
        second = as_known(second, first)
        print(f"{'equal' if first == second else 'DIFFERENT':9} {name}", flush=True)
        if first != second:
            differences.append(name)

    for version in (old, new):
        version.folder.mkdir()
        version.render()
    check("videos and lists", everything, "videos")
    for case in cases:
        for version in (old, new):
            version.train(case, case, epochs)
            version.evaluate(case, f"{case}/eval")
        for file, read in READ.items():
            check(f"{case}: {file}", read, f"{case}/{file}")
    case = cases[0]
    new.evaluate(str(old.folder / case), "of_old")
    check(f"{case}: this version evaluates the other's run", scores, f"{case}/eval", "of_old")
    # Begun by the other version, and continued by this one from its last checkpoint.
    old.train(case, "begun", epochs, "--train.checkpoint_steps", "2")
    (old.folder / "begun").rename(new.folder / "begun")
    drop_last_epoch(new.folder / "begun")
    new.train(case, "begun", epochs, "--train.checkpoint_steps", "2", "--resume")
    for file in ("steps.jsonl", "last/adapter.safetensors"):
        check(f"{case}: this version resumes the other's run: {file}", READ[file], f"{case}/{file}",
              f"begun/{file}")  # fmt: skip
    return len(differences)


def drop_last_epoch(run_dir: Path) -> None:
    """Leave of a finished run what it was before its last checkpoint."""
    (run_dir / "summary.json").unlink()
    for file in sorted((run_dir / "last").iterdir()):
        file.unlink()
    (run_dir / "last").rmdir()
    (run_dir / "last.1").rename(run_dir / "last")


def everything(folder: Path) -> dict[str, bytes]:
    """Return the bytes of every video, list and name below a folder; not of indexes, with times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.suffix in (".mp4", ".avi", ".webm", ".txt")
    }


def lines(path: Path) -> list[dict[str, Any]]:
    """Return the lines of a log without times."""
    return [untimed(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def untimed(found: Any) -> Any:
    """Return JSON values without times."""
    if isinstance(found, dict):
        kept = {key: value for key, value in found.items() if not key.endswith(TIMES)}
        return {key: untimed(value) for key, value in kept.items()}
    return [untimed(value) for value in found] if isinstance(found, list) else found


def as_known(found: Any, known: Any) -> Any:
    """Return JSON values without keys that this version has added; each list is as long as it was.

    >>> as_known([{"loss": 1.0, "top1": 50.0}, {}], [{"loss": 2.0}, {"lr": 0.1}])
    [{'loss': 1.0}, {}]
    """
    if isinstance(found, dict) and isinstance(known, dict):
        return {key: as_known(found[key], known[key]) for key in found if key in known}
    if isinstance(found, list) and isinstance(known, list) and len(found) == len(known):
        return [as_known(one, other) for one, other in zip(found, known, strict=True)]
    return found


def scores(folder: Path) -> dict[str, Any]:
    """Return all arrays of an evaluation's scores, and its metrics; not the folder of its run."""
    with np.load(folder / "scores.npz") as arrays:
        found = {name: arrays[name].tolist() for name in arrays.files if name != "about"}
    metrics = json.loads((folder / "metrics.json").read_text())
    return {**found, "top1": metrics["top1"], "top5": metrics["top5"]}


def figures_of(found: dict[str, Any]) -> Any:
    """Return an evaluation's figures without times and `root`, which older versions do not name."""
    return untimed({key: value for key, value in found.items() if key != "root"})


READ: dict[str, Callable[[Path], Any]] = {
    "config.yaml": lambda path: yaml_files.read_yaml(path, "run_dir"),
    "steps.jsonl": lines,
    "log.jsonl": lines,
    "last/adapter.safetensors": Path.read_bytes,
    "last/adapter.json": lambda path: untimed(json.loads(path.read_text())),
    "best/adapter.safetensors": Path.read_bytes,
    "eval": scores,
    "eval/metrics.json": lambda path: figures_of(json.loads(path.read_text())),
}


if __name__ == "__main__":
    main()
