"""Injects faults into real trainings and looks whether each ends as if nothing had happened.

    python tests/chaos/inject_faults.py [--faults 500] [--seed 0] [--kinds killed damaged ...]

Trainings run in processes that are forked from this one, which has imported everything, so that a
fault costs a second or two (elastic jobs: the tests marked `chaos`). Every kind gets its share of
the faults, and what it must come to stands in its function. The last line counts; the exit status
is 1 where a fault was not survived, and what is needed to look at it stays in the folder named.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "data")]

from conftest import TinySet, load_tool, make_tiny_set  # noqa: E402
from misbehaving import faulty  # noqa: E402
from test_resuming import assert_same_run  # noqa: E402

from vidadapt import checkpoints, data, launching, steps  # noqa: E402
from vidadapt.data.readers import ReadError  # noqa: E402
from vidadapt.progress import duration  # noqa: E402
from vidadapt.runs import RunError  # noqa: E402

ENDS = (signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
RECIPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "random": {
        "method__dropout": 0.3,
        "train__mixup": 0.8,
        "train__cutmix": 1.0,
        "data__rand_augment": "true",
        "model__head": "linear",
    },
    "averaged": {"train__ema": 0.9, "model__head": "linear", "train__optimizer": "adamw"},
    "accumulated": {
        "train__batch_size": 2,
        "train__accumulation": 2,
        "train__precision": "bf16",
        "train__clip_grad": 1.0,
    },
}


@dataclass
class Bench:
    """What the faults share: a set of videos, and the runs that were left alone."""

    folder: Path
    tiny_set: TinySet
    rng: random.Random
    whole: dict[str, tuple[Path, float]] = field(default_factory=dict)

    def words(self, recipe: str, **more: Any) -> list[str]:
        changes = {
            "train__epochs": 3,
            "data__repeated_augmentation": 2,
            "train__checkpoint_steps": 1,
            "train__base_lr": 0.05,
            **RECIPES[recipe],
            **more,
        }
        return self.tiny_set.options(**changes)

    def pick(self) -> tuple[str, Path, float]:
        """A recipe, its run that was left alone and the seconds which that took."""
        recipe = self.rng.choice(list(RECIPES))
        if recipe not in self.whole:
            run, began = self.folder / f"whole_{recipe}", time.monotonic()
            assert start(self.words(recipe), run).wait() == 0, output(run)
            self.whole[recipe] = run, time.monotonic() - began
        return recipe, *self.whole[recipe]

    def new_run(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder)) / "run"


class Child:
    """A training in a process that was forked from this one."""

    def __init__(self, words: list[str], run: Path, before: Callable[[], None] | None) -> None:
        # By way of a pipe, since limits of the child's would hold for a file.
        with (
            output_file(run).open("ab") as kept,
            subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=kept).stdin as file,  # type: ignore[union-attr]
        ):
            self.pid = os.fork()
            if self.pid:
                return
            status = 70
            try:
                os.setsid()
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
                sys.argv = ["tools/train.py", *words, "--run_dir", str(run), "--resume"]
                if before is not None:
                    before()
                tool = load_tool("train")
                errors = (ValueError, OSError, ReadError, steps.NonFiniteLoss)
                launching.launch(tool.main, errors)
                status = 0
            except SystemExit as ended:
                status = ended.code if isinstance(ended.code, int) else 1
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                os._exit(status)

    def wait(self, seconds: float = 120) -> int:
        """Its exit status; a run that does not end is a fault that was not survived."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"did not end within {seconds} s")


def start(words: list[str], run: Path, before: Callable[[], None] | None = None) -> Child:
    return Child(words, run, before)


def output_file(run: Path) -> Path:
    return run.with_name(run.name + ".txt")


def output(run: Path) -> str:
    return output_file(run).read_text(errors="replace")


def finish(words: list[str], run: Path) -> None:
    assert start(words, run).wait() == 0, output(run)


def killed(bench: Bench, faults: int) -> None:
    """Signals at random moments, one after the other; then left alone: bit-equal."""
    recipe, whole, seconds = bench.pick()
    run, words = bench.new_run(), bench.words(recipe)
    for _ in range(faults):
        child = start(words, run)
        end = bench.rng.choice(ENDS)
        time.sleep(bench.rng.uniform(0.0, seconds))
        os.kill(child.pid, end)
        status = child.wait()
        # 0: it was done; -end: it had not begun to heed signals.
        assert status in (0, -end, 128 + end), f"status {status} after {end!r}: {output(run)}"
    finish(words, run)
    assert_same_run(run, whole)


def damaged(bench: Bench, faults: int) -> None:
    """The newest checkpoint loses a file, an end or a bit: the one before is used, bit-equal."""
    recipe, whole, _ = bench.pick()
    run = bench.new_run()
    shutil.copytree(whole, run)
    for _ in range(faults):
        file = bench.rng.choice(sorted((run / "last").iterdir()))
        content = bytearray(file.read_bytes())
        how = bench.rng.choice(("lost", "cut", "flipped", "emptied"))
        if how == "lost":
            file.unlink()
        else:
            place = bench.rng.randrange(len(content))
            if how == "flipped":
                content[place] ^= 1 << bench.rng.randrange(8)
            file.write_bytes(
                b"" if how == "emptied" else content[: None if how == "flipped" else place]
            )
        finish(bench.words(recipe), run)
        assert "warning: " in output(run), f"{how} {file.name}: nobody said so"
        assert_same_run(run, whole)


def full(bench: Bench, faults: int) -> None:
    """A disk that is full from some size on: one clear error, and what was there stays whole."""
    recipe, whole, _ = bench.pick()
    run, words = bench.new_run(), bench.words(recipe)
    for _ in range(faults):
        size = int(10 ** bench.rng.uniform(2, 6.3))
        status = start(words, run, functools.partial(limit_files, size)).wait()
        said = output(run)
        assert status in (0, 1), f"{status}, {size} bytes: {said}"
        assert "Traceback" not in said, f"{size} bytes: {said}"
        if status == 1:
            assert "error: " in said, f"{size} bytes: {said}"
        if (run / "last").exists():
            assert checkpoints.find_checkpoint(run / "last") is not None
    finish(words, run)
    assert_same_run(run, whole)


def limit_files(size: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def not_finite(bench: Bench, faults: int) -> None:
    """A loss that is NaN at some step: the run ends and says which; nothing of it is kept."""
    recipe, whole, _ = bench.pick()
    run, words = bench.new_run(), bench.words(recipe)
    for _ in range(faults):
        status = start(words, run, functools.partial(spoil, bench.rng.randrange(1, 12))).wait()
        assert status in (0, 1), output(run)
        assert status == 0 or "error: the loss is nan at step" in output(run)
    finish(words, run)
    assert_same_run(run, whole)


def spoil(call: int) -> None:
    """In this process the loss is NaN from the call on."""
    calls = iter(range(1, 10**9))
    known = torch.nn.functional.cross_entropy

    def cross_entropy(*arguments: Any, **options: Any) -> torch.Tensor:
        loss = known(*arguments, **options)
        return loss * torch.nan if next(calls) >= call else loss

    torch.nn.functional.cross_entropy = cross_entropy


def unreadable(bench: Bench, faults: int) -> None:
    """Clips that hang or kill their loader process: skipped as one that cannot be read is."""
    index, words = bench.rng.randrange(12), None
    runs = {}
    hows = ["unreadable", *(bench.rng.choice(("hang", "segfault", "exit")) for _ in range(faults))]
    for number, how in enumerate(hows):
        run = bench.new_run()
        words = bench.words(
            "plain", data__num_workers=1, data__clip_timeout=2, data__max_skipped=4, train__epochs=1
        )
        broken = functools.partial(break_clip, index, how, run.with_name("log"))
        assert start(words, run, broken).wait() == 0, output(run)
        assert "skipped: 2 clips" in output(run), output(run)
        runs[number] = run
        if number:
            assert_same_run(run, runs[0])


def break_clip(index: int, how: str, log: Path) -> None:
    """In this process the training loader's clips of one sample misbehave."""
    known = data.train_loader

    def train_loader(*arguments: Any, **options: Any) -> Any:
        return faulty(known(*arguments, **options), {index: how}, log)

    data.train_loader = train_loader


def other_processes(bench: Bench, faults: int) -> None:
    """Stopped, then continued by two processes: every step once, nearly the same weights."""
    run, words = bench.new_run(), bench.words("averaged")
    for _ in range(faults):
        shutil.rmtree(run, ignore_errors=True)
        child = start(words, run)
        while not (run / "last").exists():
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGTERM)
        assert child.wait() in (0, 143), output(run)
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", "2", str(ROOT / "tools" / "train.py"), *words]
        done = subprocess.run(
            [*command, "--run_dir", str(run), "--resume"],
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        assert len((run / "steps.jsonl").read_text().splitlines()) == 18


# Kind: (function, faults at once, share of all).
KINDS: dict[str, tuple[Callable[[Bench, int], None], int, float]] = {
    "killed": (killed, 8, 0.52),
    "damaged": (damaged, 4, 0.15),
    "full": (full, 4, 0.12),
    "not_finite": (not_finite, 4, 0.10),
    "unreadable": (unreadable, 3, 0.09),
    "other_processes": (other_processes, 1, 0.02),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--faults", type=int, default=510)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    folder = Path(tempfile.mkdtemp(prefix="vidadapt_chaos_"))
    bench = Bench(folder, make_tiny_set(folder / "tiny_set"), random.Random(args.seed))
    began, injected, survived = time.monotonic(), 0, 0
    shares = sum(KINDS[kind][2] for kind in args.kinds)
    for kind in args.kinds:
        work, at_once, share = KINDS[kind]
        for number in range(max(1, round(args.faults * share / shares / at_once))):
            injected += at_once
            try:
                work(bench, at_once)
                survived += at_once
            except (AssertionError, RunError) as error:
                print(f"NOT SURVIVED: {kind}, round {number}: {error}", flush=True)
            took = duration(time.monotonic() - began)
            print(f"{kind}: {survived} of {injected} faults survived, {took}", flush=True)
    if survived == injected:
        shutil.rmtree(folder)
    else:
        print(f"runs and their output: {folder}")
    print(f"faults: {injected} injected, {survived} survived")
    return int(survived < injected)


if __name__ == "__main__":
    sys.exit(main())
