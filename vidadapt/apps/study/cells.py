"""One cell of a benchmark: train, evaluate, and one line of what came out.

    <cell>/config.yaml   its settings, as tools/train.py takes them
    <cell>/run/          the training's run folder
    <cell>/eval/         metrics.json and scores.npz of the evaluation
    <cell>/output.txt    what both commands printed
    <cell>/cell.json     what its line of results.jsonl has beside the cost: the cell is finished

A cell of a grid over learning rates has a run alone unless its rate is chosen.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vidadapt import runs
from vidadapt.apps.study.benchmark import NOISY_PERCENT, spread_percent
from vidadapt.apps.study.plan import Cell
from vidadapt.config import Config, ConfigError, yaml_files
from vidadapt.console import differing
from vidadapt.data.workers import cores
from vidadapt.evaluation import IN_PERCENT
from vidadapt.files.locks import Held
from vidadapt.launching.failures import FAILURE, name_of_status, read_failure
from vidadapt.runs.differences import settings

TOOLS = Path(__file__).parents[3] / "tools"
LOCK, FINISHED = ".lock", "cell.json"
PATIENCE = 60  # seconds that the processes of a killed call have to end
PR_SET_PDEATHSIG = 1  # of Linux's prctl

# What only a trained cell knows.
TRAINED = (
    *("seed", *IN_PERCENT, "num_videos", "unreadable", "views"),
    *("dev_top1", "best_epoch", "evaluation_seconds_per_video", "curve", "grid", "manifests"),
    *("run_epoch_seconds", "run_epoch_spread_percent", "environment", "config"),
)


class CellFailed(RuntimeError):
    """A training or an evaluation ended with an error; the message says where to read it.

    Attributes:
        kind: of its failure, see `launching.failures`; `unknown` where nothing tells.
        status: its exit status.
    """

    def __init__(self, message: str, kind: str, status: int) -> None:
        super().__init__(message)
        self.kind, self.status = kind, status


@dataclass(frozen=True)
class Work:
    """Where and how cells are worked on.

    Attributes:
        folder: of all cells.
        processes: of a training and of an evaluation.
        lock: from `only_one`; held by what runs for a cell, too.
        shown: whether a terminal shows how far a training is.
    """

    folder: Path
    processes: int
    lock: int
    shown: bool = True

    def finished(self, cell: Cell) -> dict[str, Any] | None:
        """What an earlier call found of a cell, or None.

        Raises:
            ConfigError: it, or its begun training, had other settings or another number of
                processes, of which the global batch is made; naming what differs.
        """
        folder = self.folder / cell.name
        environment = folder / "run" / "environment.json"
        if environment.exists():
            before = json.loads(environment.read_text(encoding="utf-8"))["processes"]
            if before != self.processes:
                raise ConfigError(
                    f"--processes: {folder} was trained by {before}, now asked for "
                    f"{self.processes}; ask for {before}, choose another --out, or delete that "
                    "folder"
                )
        written = folder / "config.yaml"
        if written.exists():
            before = settings(yaml_files.read_yaml(written, "--out"))
            changed = differing(before, settings(cell.settings))
            if changed:
                raise ConfigError(
                    f"--out: {folder} was made with other settings ({'; '.join(changed)}); "
                    "restore them, choose another --out, or delete that folder"
                )
        line = folder / FINISHED
        return json.loads(line.read_text(encoding="utf-8")) if line.exists() else None

    def work_on(
        self, cell: Cell, cfg: Config, grid: Mapping[float, float] | None
    ) -> dict[str, Any]:
        """Train and evaluate; what came out. Where something fails, `problem` says what.

        Args:
            cfg: the cell's configuration; which seed and rate it has does not matter.
            grid: see `chosen_by`.
        """
        folder = self.folder / cell.name
        found = {"cell": cell.name, "seed": cell.seed, **chosen_by(cell, grid)}
        try:
            summary = self._train(cell, cfg.train.epochs)
            tested = self._evaluate(cell, "dev" if cfg.data.test_list is None else "test")
        except CellFailed as error:
            return {**found, "problem": str(error)}
        log = (folder / "run" / "log.jsonl").read_text(encoding="utf-8").splitlines()
        environment = (folder / "run" / "environment.json").read_text(encoding="utf-8")
        found |= {
            **_of_training(summary, [json.loads(text) for text in log]),
            **_of_evaluation(tested),
            "environment": json.loads(environment),
            "config": yaml_files.load(folder / "run" / "config.yaml"),
        }
        runs.write_json(folder / FINISHED, found)
        return found

    def is_trained(self, cell: Cell) -> bool:
        """Whether its training has ended well."""
        return self._summary(cell).exists()

    def dev_top1(self, cell: Cell) -> float:
        """The best top-1 of the cell's training on the development list; 0 where it diverged.

        Raises:
            CellFailed: the training ended with another error, which says nothing about the rate.
        """
        self.finished(cell)
        try:
            summary = self._train(cell, None)
        except CellFailed as error:
            if error.kind != "diverged":
                raise
            print(f"{cell.name}: {error}", flush=True)
            return 0.0
        return float(summary["best"]["dev_top1"])

    def _train(self, cell: Cell, epochs: int | None) -> dict[str, Any]:
        folder = self.folder / cell.name
        summary = self._summary(cell)
        if not summary.exists():
            folder.mkdir(parents=True, exist_ok=True)
            runs.write_text(folder / "config.yaml", yaml_files.as_yaml(cell.settings))
            words = ["--config", folder / "config.yaml", "--run_dir", folder / "run", "--resume"]
            log = folder / "run" / "log.jsonl"
            with _followed(log, cell.name, epochs, self.shown) as look:
                self._run("train", words, folder, folder / "run", look)
        return json.loads(summary.read_text(encoding="utf-8"))

    def _summary(self, cell: Cell) -> Path:
        return self.folder / cell.name / "run" / "summary.json"

    def _evaluate(self, cell: Cell, split: str) -> dict[str, Any]:
        folder = self.folder / cell.name
        metrics = folder / "eval" / "metrics.json"
        if not metrics.exists():
            words = ["--run_dir", folder / "run", "--split", split, "--out", metrics.parent]
            self._run("evaluate", words, folder, metrics.parent, lambda: None)
        return json.loads(metrics.read_text(encoding="utf-8"))

    def _run(
        self,
        tool: str,
        words: Sequence[object],
        folder: Path,
        made: Path,
        look: Callable[[], None],
    ) -> None:
        """A tool in processes of its own, which end when this one does.

        Args:
            made: folder that it writes, with its `failure.json` where it fails.
        """
        (made / FAILURE).unlink(missing_ok=True)
        launcher = [sys.executable]
        if self.processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone"]
            launcher += ["--nproc-per-node", str(self.processes)]
        command = [*launcher, str(TOOLS / f"{tool}.py"), *map(str, words)]
        output = folder / "output.txt"
        with output.open("ab") as file:
            file.write(f"$ {' '.join(command)}\n".encode())
            file.flush()
            began = file.tell()
            with subprocess.Popen(
                command,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=os.environ | threads_of(self.processes),
                **_tied(self.lock),
            ) as child:
                try:
                    while child.poll() is None:
                        time.sleep(0.2)
                        look()
                except BaseException:
                    child.terminate()
                    raise
        if child.returncode != 0:
            failure = read_failure(made)
            if failure is None:
                said = last_words(output.read_bytes()[began:].decode(errors="replace"))
                failure = {"kind": name_of_status(child.returncode), "message": said}
            raise CellFailed(
                f"tools/{tool}.py ended with exit status {child.returncode} (see {output}): "
                + failure["message"],
                failure["kind"],
                failure.get("status") or child.returncode,
            )


def last_words(said: str) -> str:
    """The line of a failed tool's output that tells why: its own error, else the last one.

    >>> last_words("epoch 1\\nerror: step 3: the loss is not finite\\nworker 0 failed\\n")
    'step 3: the loss is not finite'
    """
    own = re.findall(r"^(?:\[rank \d+\] )?error: (.+)$", said, flags=re.MULTILINE)
    return (own or said.strip().splitlines() or ["it printed nothing"])[-1]


def cost_line(variant: str, frames: int, cost: Mapping[str, Any], processes: int) -> dict[str, Any]:
    """The line of what was not trained: `cost.cell_cost` with every other key null."""
    return {
        "cell": f"{variant}_{frames}f",
        "variant": variant,
        "processes": processes,
        **dict.fromkeys(TRAINED),
        **cost,
        "problem": None,
    }


def whole_line(cost: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's line: what came out of it, over the cost of its variant and number of frames.

    Args:
        cost: of `cost_line`.
        found: of `Work.work_on`.
    """
    line = {**cost, **found}
    spreads = ("step_spread_percent", "data_spread_percent", "run_epoch_spread_percent")
    return line | {"noisy": [key for key in spreads if (line[key] or 0) > NOISY_PERCENT]}


def chosen_by(cell: Cell, grid: Mapping[float, float] | None) -> dict[str, Any]:
    """What a line says of the grid that chose the cell's rate; nothing without one.

    Args:
        grid: top-1 on the development list by rate.
    """
    if grid is None:
        return {}
    return {
        "grid": {f"{rate:g}": top1 for rate, top1 in grid.items()},
        "base_lr": cell.base_lr,
    }


def prepare(words: Sequence[str], lock: int) -> None:
    """Run tools/prepare.py, which does nothing where it was done.

    Args:
        lock: as `Work.lock`.

    Raises:
        CellFailed: it ended with an error.
    """
    command = [sys.executable, str(TOOLS / "prepare.py"), *words]
    done = subprocess.run(command, check=False, **_tied(lock))
    if done.returncode != 0:
        raise CellFailed(
            f"prepare: tools/prepare.py {' '.join(words)} failed; see above",
            name_of_status(done.returncode),
            done.returncode,
        )


@contextmanager
def only_one(out: Path) -> Iterator[int]:
    """Keep other calls away from a folder; a file descriptor that child processes keep open.

    What a killed call left running is waited for.

    Raises:
        Held: another call works on the folder.
        ConfigError: its disk keeps no locks.
    """
    with (out / LOCK).open("a+") as file:
        deadline = time.monotonic() + PATIENCE
        while not _locked(file.fileno()):
            file.seek(0)
            holder = file.read().strip()
            if not holder or Path(f"/proc/{holder}").exists() or time.monotonic() > deadline:
                raise Held(
                    f"--out: another call (process {holder or 'unknown'}) works on {out}; wait "
                    "for its end, or choose another --out"
                )
            time.sleep(0.5)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield file.fileno()


def threads_of(processes: int) -> dict[str, str]:
    """Environment by which so many processes share the cores."""
    if processes == 1 or "OMP_NUM_THREADS" in os.environ:
        return {}
    return {"OMP_NUM_THREADS": str(max(1, cores() // processes))}


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise ConfigError(
            f"--out: its file system keeps no locks ({error.strerror}), so that two calls could "
            "work on it at once; choose one on another disk"
        ) from error
    return True


def _tied(lock: int) -> dict[str, Any]:
    """Options of a process that ends when this one is killed, and holds the lock until then."""
    return {
        "pass_fds": (lock,),
        "preexec_fn": _end_with_parent if sys.platform == "linux" else None,
    }


def _end_with_parent() -> None:
    """Between fork and exec: a kill -9 of the benchmark ends the training, too."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


@contextmanager
def _followed(
    log: Path, name: str, epochs: int | None, shown: bool
) -> Iterator[Callable[[], None]]:
    """A function that shows on a terminal how many epochs the log holds."""
    if not (shown and sys.stderr.isatty()):
        yield lambda: None
        return
    with tqdm(total=epochs, desc=name, unit=" epochs", leave=False) as bar:

        def look() -> None:
            done = log.read_text(encoding="utf-8").count("\n") if log.exists() else 0
            bar.update(done - bar.n)

        yield look


def _of_training(summary: Mapping[str, Any], log: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    seconds = [entry["train_seconds"] for entry in log[len(log) > 1 :]]  # the first warms up
    best = summary["best"] or {}
    return {
        "epochs": summary["epochs"],
        "manifests": summary["manifests"],
        "trainable": summary["trainable"],
        "total": summary["total"],
        "dev_top1": best.get("dev_top1"),
        "best_epoch": best.get("epoch"),
        "run_epoch_seconds": statistics.median(seconds),
        "run_epoch_spread_percent": spread_percent(seconds),
        "curve": [
            {
                "epoch": entry["epoch"],
                "loss": entry["train_loss"],
                "dev_top1": entry.get("dev_top1"),
            }
            for entry in log
        ],
    }


def _of_evaluation(tested: Mapping[str, Any]) -> dict[str, Any]:
    keys = (*IN_PERCENT, "num_videos", "views")
    return {
        **{key: tested[key] for key in keys},
        "unreadable": len(tested["unreadable"]),
        "evaluation_seconds_per_video": tested["seconds_per_video"],
    }
