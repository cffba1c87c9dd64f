"""Injects faults into real trainings and looks whether each ends as if nothing had happened.

    python tests/chaos/inject_faults.py [--faults 500] [--seed 0] [--kinds killed damaged ...]

Trainings run in processes that are forked from this one, which has imported everything, so that a
fault costs a second or two (elastic jobs: the tests marked `chaos`). Every kind gets its share of
the faults, and what it must come to stands in its function. Only a fault that met a training before
its end counts as injected: a run that ends first is compared, and another one begun. The last line
counts; the exit status is 1 where a fault was not survived, and what is needed to look at it stays
in the folder named.
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
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "training")]

from conftest import TinySet, load_tool, make_tiny_set  # noqa: E402
from misbehaving import faulty  # noqa: E402
from test_resuming import assert_same_run  # noqa: E402

from vidadapt import data, launching  # noqa: E402
from vidadapt.console.progress import duration  # noqa: E402
from vidadapt.files.writing import WriteError  # noqa: E402
from vidadapt.runs import RunError, checkpoints  # noqa: E402

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
        """A recipe, its run that was left alone and the seconds which such a one takes."""
        recipe = self.rng.choice(list(RECIPES))
        if recipe not in self.whole:
            run = self.folder / f"whole_{recipe}"
            finish(self.words(recipe), run)
            again, began = self.new_run(), time.monotonic()
            finish(self.words(recipe), again)  # the first one was slower, with nothing at hand
            self.whole[recipe] = run, time.monotonic() - began
            assert_same_run(again, run)
        return recipe, *self.whole[recipe]

    def new_run(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self.folder)) / "run"


class Child:
    """A training in a process that was forked from this one."""

    def __init__(
        self,
        words: list[str],
        run: Path,
        before: Callable[[], None] | None,
        resume: bool = True,
        output: Path | None = None,
    ) -> None:
        self._output = output or output_file(run)
        self._begun = self._output.stat().st_size if self._output.exists() else 0
        # By way of a pipe, since limits of the child's would hold for a file.
        with self._output.open("ab") as kept:
            self._cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=kept)
        assert self._cat.stdin is not None
        with self._cat.stdin as file:
            self.pid = os.fork()
            if self.pid:
                return
            status = 70
            try:
                os.setsid()
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
                sys.argv = ["tools/train.py", *words, "--run_dir", str(run)]
                sys.argv += ["--resume"] * resume
                if before is not None:
                    before()
                tool = load_tool("train")
                launching.launch(tool.main)
                status = 0
            except SystemExit as ended:
                status = ended.code if isinstance(ended.code, int) else 1
            except KeyboardInterrupt:  # before the tool heeds it
                status = 128 + signal.SIGINT
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
                self._cat.wait(30)
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.005)
        os.killpg(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"did not end within {seconds} s")

    def said(self) -> str:
        """What it printed."""
        return self._output.read_bytes()[self._begun :].decode(errors="replace")


def start(words: list[str], run: Path, before: Callable[[], None] | None = None) -> Child:
    return Child(words, run, before)


def output_file(run: Path) -> Path:
    return run.with_name(run.name + ".txt")


def finish(words: list[str], run: Path) -> str:
    """A training that is left alone; what it said."""
    child = start(words, run)
    assert child.wait() == 0, child.said()
    return child.said()


def met(bench: Bench, faults: int, inject: Callable[[list[str], Path, float], bool]) -> None:
    """Faults one after the other, until so many have met a run before its end; then it is left
    alone. Every run that comes to its end has the bits of one that was left alone throughout.

    Args:
        inject: (words, run, seconds of a whole one) -> whether the run was cut short.
    """
    recipe, whole, seconds = bench.pick()
    words, run = bench.words(recipe), bench.new_run()
    for _ in range(50 * faults):
        if inject(words, run, seconds):
            faults -= 1
        else:
            assert_same_run(run, whole)
            run = bench.new_run()
        if faults == 0:
            finish(words, run)
            assert_same_run(run, whole)
            return
    raise AssertionError(f"{faults} faults never met a run before its end")


def killed(bench: Bench, faults: int) -> None:
    """Signals at random moments."""

    def inject(words: list[str], run: Path, seconds: float) -> bool:
        child = start(words, run)
        end = bench.rng.choice(ENDS)
        time.sleep(bench.rng.uniform(0.0, seconds))
        os.kill(child.pid, end)
        status = child.wait()
        # -end: it had not begun to heed signals.
        assert status in (0, -end, 128 + end), f"status {status} after {end!r}: {child.said()}"
        return status != 0 and not (run / "summary.json").exists()

    met(bench, faults, inject)


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
        said = finish(bench.words(recipe), run)
        assert "warning: " in said, f"{how} {file.name}: nobody said so"
        assert_same_run(run, whole)


def full(bench: Bench, faults: int) -> None:
    """A disk that is full from some size on: one clear error, and what was there stays whole."""

    def inject(words: list[str], run: Path, seconds: float) -> bool:
        size = int(10 ** bench.rng.uniform(2, 6.3))
        child = start(words, run, functools.partial(limit_files, size))
        status, said = child.wait(), child.said()
        assert status in (0, 6), f"{status}, {size} bytes: {said}"
        assert "Traceback" not in said, f"{size} bytes: {said}"
        assert status == 0 or "error: " in said, f"{size} bytes: {said}"
        if (run / "last").exists():
            assert checkpoints.find_checkpoint(run / "last", to_resume=True) is not None
        return status != 0

    met(bench, faults, inject)


def limit_files(size: int) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))


def not_finite(bench: Bench, faults: int) -> None:
    """A loss that is NaN at some step: the run ends and says which; nothing of it is kept."""

    def inject(words: list[str], run: Path, seconds: float) -> bool:
        child = start(words, run, functools.partial(spoil, bench.rng.randrange(1, 12)))
        status, said = child.wait(), child.said()
        assert status in (0, 4), said
        assert status == 0 or "error: the loss is nan at step" in said, said
        return status != 0

    met(bench, faults, inject)


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
        child = start(words, run, functools.partial(break_clip, index, how, run.with_name("log")))
        assert child.wait() == 0, child.said()
        assert "skipped: 2 clips" in child.said(), child.said()
        runs[number] = run
        if number:
            assert_same_run(run, runs[0])


def break_clip(index: int, how: str, log: Path) -> None:
    """In this process the training loader's clips of one sample misbehave."""
    data.splits.train_loader = faulty(data.train_loader, {index: how}, log)


def other_processes(bench: Bench, faults: int) -> None:
    """Stopped, then continued by two processes, twice: every step once, nearly the same weights."""
    run, words = bench.new_run(), bench.words("averaged")
    whole = bench.new_run()
    finish(words, whole)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(ROOT / "tools" / "train.py"), *words]
    command += ["--run_dir", str(run), "--resume"]
    while faults:
        shutil.rmtree(run, ignore_errors=True)
        child = start(words, run)
        while not (run / "last").exists():
            time.sleep(0.005)
        os.kill(child.pid, signal.SIGTERM)
        if child.wait() == 0:
            continue
        pair = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        time.sleep(bench.rng.uniform(4.0, 8.0))
        pair.send_signal(signal.SIGTERM)
        pair.communicate(timeout=120)
        faults -= 1
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        assert len((run / "steps.jsonl").read_text().splitlines()) == 18
        found, wanted = (checkpoints.load_checkpoint(each / "last")[0] for each in (run, whole))
        for name, tensor in found.items():
            torch.testing.assert_close(tensor, wanted[name], rtol=0.05, atol=5e-3, msg=name)


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
    load_tool("train")  # so that no child has to import
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
            except (AssertionError, RunError, WriteError) as error:
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
