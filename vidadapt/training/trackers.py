"""Curves for experiment trackers: optional, offline unless asked otherwise, never in the way.

A tracker of your own: a class with `log` and `close`, and one entry of `TRACKERS`.
"""

from __future__ import annotations

import json
import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from vidadapt.config import ConfigError
from vidadapt.console import printable, require_known
from vidadapt.distributed import World
from vidadapt.files import write_json

FILE = "trackers.json"  # in a run's folder: the tracker's name for the run, by which it goes on
PROJECT = "vidadapt"
PARAMS_AT_ONCE = 100  # that MLflow takes
PATIENCE = 20.0  # seconds without an answer after which a tracker is given up at a run's end


class Tracker(Protocol):
    """Receivers of the curves of one run; whatever a call raises is said once and counted."""

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures of an optimiser step, e.g. `train/loss`; steps come in order."""

    def close(self, whole: bool) -> None:
        """End the run; `whole`: it came to its end, else it failed or was stopped."""


@dataclass(frozen=True)
class Opened:
    """A tracker that is ready.

    Attributes:
        key: its name for the run; opened with it again, it goes on with the same one.
        place: for people, where the curves are and what one does with them.
    """

    tracker: Tracker
    key: str
    place: str


class Wandb:
    """Weights & Biases; keeps the curves in the run's folder until `wandb sync` sends them.

    It is online where the user is logged in or WANDB_MODE says so; WANDB_PROJECT names the
    project.
    """

    def __init__(self, run: Any) -> None:
        self._run = run

    @staticmethod
    def open(run_dir: Path, key: str | None, settings: Mapping[str, Any]) -> Opened:
        """Begin a run, or go on with that of `key`."""
        import wandb

        offline = "WANDB_MODE" not in os.environ and not wandb.login(prompt=False)
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=run_dir.name,
            dir=run_dir,
            id=key,
            resume=None if key is None else "allow",
            mode="offline" if offline else None,
            config=dict(settings),
            allow_val_change=True,
            settings=wandb.Settings(
                console="off", silent=True, disable_git=True, disable_code=True
            ),
        )
        folder = Path(run.dir).parent
        address = None if run.offline else run.url
        return Opened(Wandb(run), run.id, address or f"{folder}; `wandb sync {folder}` sends it")

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def close(self, whole: bool) -> None:
        self._run.finish(exit_code=0 if whole else 1)


class MLflow:
    """MLflow; a database in the run's folder, or the server that MLFLOW_TRACKING_URI names."""

    def __init__(self, client: Any, key: str) -> None:
        self._client, self._key = client, key

    @staticmethod
    def open(run_dir: Path, key: str | None, settings: Mapping[str, Any]) -> Opened:
        """Begin a run, or go on with that of `key`."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would ask the network
        from mlflow import MlflowClient
        from mlflow.entities import Param

        database = f"sqlite:///{(run_dir / 'mlflow.db').absolute()}"
        address = os.environ.get("MLFLOW_TRACKING_URI", database)
        client = MlflowClient(address)
        if key is None:
            name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
            known = client.get_experiment_by_name(name)
            experiment = client.create_experiment(name) if known is None else known.experiment_id
            key = client.create_run(experiment, run_name=run_dir.name).info.run_id
            params = [Param(setting, str(value)) for setting, value in settings.items()]
            for first in range(0, len(params), PARAMS_AT_ONCE):
                client.log_batch(key, params=params[first : first + PARAMS_AT_ONCE])
        else:
            client.update_run(key, status="RUNNING")
        place = f"{address}; `mlflow ui --backend-store-uri {address}` shows it"
        return Opened(MLflow(client, key), key, place)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [Metric(name, value, now, step) for name, value in figures.items()]
        self._client.log_batch(self._key, metrics=metrics)

    def close(self, whole: bool) -> None:
        self._client.set_terminated(self._key, "FINISHED" if whole else "FAILED")


TRACKERS: dict[str, Callable[[Path, str | None, Mapping[str, Any]], Opened]] = {
    "wandb": Wandb.open,
    "mlflow": MLflow.open,
}


PACKAGES = ("wandb", "mlflow")  # trackers that need a package of the same name


def require_trackers(names: Sequence[str]) -> None:
    """Check that each of `train.trackers` is known and installed.

    Raises:
        ValueError: one is not one of `TRACKERS`.
        ConfigError: its package is missing.
    """
    for name in names:
        require_known("train.trackers", name, TRACKERS)
        spec = find_spec(name) if name in PACKAGES else None
        # A folder of that name, which wandb leaves behind, is found, too.
        if name in PACKAGES and (spec is None or spec.origin is None):
            raise ConfigError(
                f"train.trackers: the package {name} is not installed; "
                f"`pip install {name}`, or leave it out"
            )


class Sender:
    """Hands figures to a tracker in a thread of its own, so that no step waits for it.

    Attributes:
        place: where the curves are.
        handed: number of calls so far, `log` and `close`.
        failed: those of them that failed, or were never answered.
    """

    def __init__(self, name: str, opened: Opened) -> None:
        self.place, self.handed, self.failed = opened.place, 0, 0
        self._name, self._tracker, self._answered = name, opened.tracker, 0
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Hand over the figures of a step."""
        self.handed += 1
        self._calls.put(lambda: self._tracker.log(step, figures))

    def close(self, whole: bool, patience: float = PATIENCE) -> None:
        """Wait for the calls that are left as long as they are answered, and say what failed."""
        self.handed += 1
        self._calls.put(lambda: self._tracker.close(whole))
        self._calls.put(None)
        before = -1
        while self._thread.is_alive() and self._answered > before:
            before = self._answered
            self._thread.join(patience)
        self.failed += self.handed - self._answered
        if self.failed:
            print(f"warning: {self._name}: {self.failed} of {self.handed} calls failed", flush=True)

    def _work(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception as error:
                if not self.failed:
                    say_failure(self._name, error)
                self.failed += 1
            self._answered += 1


class Trackers:
    """The trackers of a run, by name; None: one that could not be opened."""

    def __init__(self, senders: Mapping[str, Sender | None]) -> None:
        self._senders = dict(senders)

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Hand the figures of a step to each."""
        for sender in filter(None, self._senders.values()):
            sender.log(step, figures)

    def close(self, whole: bool) -> None:
        """End the run in each, see `Tracker.close`."""
        for sender in filter(None, self._senders.values()):
            sender.close(whole)

    def summary(self) -> dict[str, Any]:
        """Return by name the place (None: it was not opened), and how many calls failed."""
        return {
            name: {
                "place": sender and sender.place,
                "calls": sender.handed if sender else 1,
                "failed": sender.failed if sender else 1,
            }
            for name, sender in self._senders.items()
        }


@contextmanager
def open_trackers(
    names: Sequence[str], run_dir: Path, facts: Mapping[str, Any], world: World
) -> Iterator[Trackers]:
    """Open the main process's trackers, and say where each is; they are closed however it ends.

    Args:
        names: keys of `TRACKERS`; of an installed package, see `require_trackers`.
        facts: of the run, of which trackers show the settings.
    """
    shown = {key: facts[key] for key in ("processes", "global_batch", "precision") if key in facts}
    settings = {**facts.get("settings", {}), **shown}
    trackers = Trackers(
        {name: _opened(name, run_dir, settings) for name in names} if world.is_main else {}
    )
    whole = False
    try:
        yield trackers
        whole = True
    finally:
        trackers.close(whole)


def _opened(name: str, run_dir: Path, settings: Mapping[str, Any]) -> Sender | None:
    """Begin or continue a tracker's run; None, with a message, where that fails."""
    file = run_dir / FILE
    try:
        keys = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
        opened = TRACKERS[name](run_dir, keys.get(name), settings)
        write_json(file, {**keys, name: opened.key})
    except Exception as error:
        say_failure(name, error)
        return None
    print(f"{name}: {printable(opened.place)}", flush=True)
    return Sender(name, opened)


def say_failure(name: str, error: Exception) -> None:
    """Print that a tracker has failed; the run goes on, and its own logs are whole."""
    cause = printable(f"{type(error).__name__}: {error}")
    print(f"warning: {name} failed, training goes on: {cause:.500}", flush=True)
