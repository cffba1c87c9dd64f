"""The project's own tools, called in processes of their own that end with this one.

A call that is killed takes its tools with it; the next call waits until they have ended.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vidadapt.apps.study.cost import threads_of
from vidadapt.files import Held, held_folder
from vidadapt.launching import FAILURE, kind_named, name_of_status, read_failure

PATIENCE = 60.0  # seconds that the processes of a killed call have to end
PR_SET_PDEATHSIG = 1  # of Linux's prctl


class CellFailed(RuntimeError):
    """A tool ended with an error; the message says where to read it.

    Attributes:
        kind: of its failure, see `launching.failures`; `unknown` where nothing tells.
        status: its exit status.
    """

    def __init__(self, message: str, kind: str, status: int) -> None:
        super().__init__(message)
        self.kind, self.status = kind, status


def tool_command(tool: str, words: Sequence[object], processes: int = 1) -> list[str]:
    """The command of a tool, under torchrun where it runs in several processes."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone"]
        launcher += ["--nproc-per-node", str(processes)]
    return [*launcher, "-m", "vidadapt", tool, *map(str, words)]


def call_tool(
    tool: str,
    words: Sequence[object],
    processes: int,
    folder: Path,
    made: Path,
    epochs: int | None = None,
) -> None:
    """Run a tool to its end.

    Args:
        processes: more than one run under torchrun and share the cores.
        folder: the command and what it prints are added to output.txt in it.
        made: folder that the tool writes, with its `failure.json` where it fails.
        epochs: of a training run; a terminal shows how many of them are done.

    Raises:
        CellFailed: it ended with an error.
    """
    try:
        with held_folder(made, "--out", wait=PATIENCE):  # until what a killed call left has ended
            pass
    except Held as error:
        raise CellFailed(str(error), "held", kind_named("held").status) from error
    (made / FAILURE).unlink(missing_ok=True)
    command = tool_command(tool, words, processes)
    threads = threads_of(processes)
    env = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    output, log = folder / "output.txt", made / "log.jsonl"
    hidden = None if tool == "train" else True  # None: where there is no terminal
    with output.open("ab") as file:
        file.write(f"$ {' '.join(command)}\n".encode())
        file.flush()
        began = file.tell()
        into: dict[str, Any] = {"stdout": file, "stderr": subprocess.STDOUT, "env": env}
        with (
            subprocess.Popen(command, preexec_fn=END_WITH_PARENT, **into) as child,
            tqdm(total=epochs, unit=" epochs", leave=False, disable=hidden) as bar,
        ):
            try:
                while child.poll() is None:
                    time.sleep(0.2)
                    if not bar.disable and log.exists():
                        bar.update(log.read_text(encoding="utf-8").count("\n") - bar.n)
            except BaseException:
                child.terminate()
                raise
    if child.returncode != 0:
        failure = read_failure(made)
        if failure is None:
            said = last_words(output.read_bytes()[began:].decode(errors="replace"))
            failure = {"kind": name_of_status(child.returncode), "message": said}
        raise CellFailed(
            f"vidadapt {tool} ended with exit status {child.returncode} (see {output}): "
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


def prepare(words: Sequence[str]) -> None:
    """Run vidadapt prepare, which does nothing where it was done; without words there is nothing.

    Raises:
        CellFailed: it ended with an error.
    """
    if not words:
        return
    command = tool_command("prepare", words)
    done = subprocess.run(command, check=False, preexec_fn=END_WITH_PARENT)
    if done.returncode != 0:
        raise CellFailed(
            f"prepare: vidadapt prepare {' '.join(words)} failed; see above",
            name_of_status(done.returncode),
            done.returncode,
        )


def _end_with_parent() -> None:
    """Between fork and exec: a kill -9 of the benchmark ends the tool, too."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


END_WITH_PARENT = _end_with_parent if sys.platform == "linux" else None
