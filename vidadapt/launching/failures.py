"""Report of a tool's failure: a kind by the error's type, an exit status, `failure.json`.

docs/failures.md has the table. torchrun ends with 1 whatever its processes ended with: there
only the file tells the kind.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from vidadapt.console import printable_lines
from vidadapt.distributed import PeerError, Stopped, World, is_broken_exchange, together
from vidadapt.files import GO_ON, NO_ROOM, Held, WriteError
from vidadapt.models import NonFinite
from vidadapt.processes import LostProcess
from vidadapt.runs import FAILURE
from vidadapt.video import ReadError

LISTED = 1  # exit status of a tool that did its work and lists problems


@dataclass(frozen=True)
class Kind:
    """A kind of failure.

    Attributes:
        name: in `failure.json`.
        status: exit status.
        types: of the errors.
    """

    name: str
    status: int
    types: tuple[type[BaseException], ...]


KINDS = (  # the first that fits
    Kind("data", 3, (ReadError,)),
    Kind("diverged", 4, (NonFinite,)),
    Kind("lost_process", 5, (LostProcess, PeerError)),
    Kind("held", 7, (Held,)),
    Kind("disk", 6, (WriteError,)),
    Kind("memory", 8, (MemoryError, torch.OutOfMemoryError)),
    Kind("interrupted", 130, (KeyboardInterrupt,)),
    # All other errors that are raised on purpose: what was asked for cannot be done.
    Kind("usage", 2, (ValueError, OSError, ImportError)),
    Kind("bug", 70, (BaseException,)),
)


def kind_of(error: BaseException) -> Kind:
    """Find the kind of an error."""
    if isinstance(error, Stopped):
        return Kind("stopped", 128 + error.number, (Stopped,))
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return kind_named("disk")
    if isinstance(error, ModuleNotFoundError):  # of a broken installation
        return kind_named("bug")
    found = next(kind for kind in KINDS if isinstance(error, kind.types))
    if found.name == "bug" and isinstance(error, Exception) and is_broken_exchange(error):
        return kind_named("lost_process")
    return found


def name_of_status(status: int) -> str:
    """Name the kind of an exit status; `unknown` where it has none, as torchrun's.

    >>> name_of_status(4), name_of_status(-15), name_of_status(143), name_of_status(1)
    ('diverged', 'stopped', 'stopped', 'unknown')
    """
    found = next((kind.name for kind in KINDS if kind.status == status), "unknown")
    return "stopped" if found == "unknown" and (status < 0 or status > 128) else found


def kind_named(name: str) -> Kind:
    """Find a kind by its name."""
    return next(kind for kind in KINDS if kind.name == name)


def message_of(error: BaseException) -> str:
    """Return the error's message; that of a loader's worker is taken out of its traceback."""
    text = str(error).strip() or type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        text += f"; {GO_ON}"
    if isinstance(error, Exception) and is_broken_exchange(error):
        text = f"lost another process: {text}"
    own = text.splitlines()[-1].partition(": ")[2] if text.startswith("Caught ") else text
    return printable_lines(own)  # libraries quote what a file holds


@contextmanager
def located(place: Callable[[], tuple[int, int]]) -> Iterator[None]:
    """Run a part of training; its errors get the epoch (from 1) and the step of `place`."""
    try:
        yield
    except BaseException as error:
        error.__dict__["place"] = dict(zip(("epoch", "step"), place(), strict=True))
        raise


@contextmanager
def recorded(world: World, folder: Path) -> Iterator[None]:
    """Run a block; the first process that fails writes `failure.json` into the run's folder.

    The file of an earlier run is removed. All processes enter together.
    """
    with together(world):
        if world.is_main:
            (folder / FAILURE).unlink(missing_ok=True)
    try:
        yield
    except (SystemExit, PeerError):
        raise
    except BaseException as error:
        record(world, folder, error)
        raise


def record(world: World, folder: Path, error: BaseException) -> None:
    """Write `failure.json` into a run's folder, unless another process was faster."""
    with suppress(OSError):  # on a full disk the exit status still tells the kind
        _write_first(folder / FAILURE, _facts(world, error))


def read_failure(folder: Path) -> dict[str, Any] | None:
    """Read a folder's `failure.json`; None: there is none."""
    try:
        return json.loads((folder / FAILURE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def _facts(world: World, error: BaseException) -> dict[str, Any]:
    kind = kind_of(error)
    return {
        "kind": kind.name,
        "status": kind.status,
        "type": f"{type(error).__module__}.{type(error).__qualname__}",
        "message": message_of(error),
        "rank": world.rank,
        "host": socket.gethostname(),
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        **{key: error.__dict__.get("place", {}).get(key) for key in ("epoch", "step")},
        "traceback": "".join(traceback.format_exception(error)),
    }


def _write_first(path: Path, facts: dict[str, Any]) -> None:
    """Write a file whole, unless another process was faster."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        partial.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        try:
            os.link(partial, path)
        except FileExistsError:
            return
        except OSError:  # no hard links on this disk
            if not path.exists():
                partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
