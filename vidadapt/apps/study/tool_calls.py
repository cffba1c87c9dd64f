"""The project's own tools, called in processes of their own that end with this one.

A call that is killed takes its tools with it; the next call waits until they have ended.
"""

from __future__ import annotations

import ctypes
import os
import re
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from vidadapt.apps.study.cost import threads_of
from vidadapt.files import Held, held_folder
from vidadapt.launching import FAILURE, kind_named, name_of_status, read_failure
from vidadapt.processes import end_with_parent, start_from_server, start_server

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
        began = file.tell()
    with tqdm(total=epochs, unit=" epochs", leave=False, disable=hidden) as bar:

        def show() -> None:
            if not bar.disable and log.exists():
                bar.update(log.read_text(encoding="utf-8").count("\n") - bar.n)

        status = run_forked(command, output, env, show)
    if status != 0:
        failure = read_failure(made)
        if failure is None:
            said = last_words(output.read_bytes()[began:].decode(errors="replace"))
            failure = {"kind": name_of_status(status), "message": said}
        raise CellFailed(
            f"vidadapt {tool} ended with exit status {status} (see {output}): "
            + failure["message"],
            failure["kind"],
            failure.get("status") or status,
        )


def begin_tools() -> None:
    """Let the process that all tools are forked from begin its imports, which take seconds."""
    start_server("vidadapt.commands.train")


def run_forked(
    command: Sequence[str],
    output: Path,
    env: Mapping[str, str],
    watch: Callable[[], object] = lambda: None,
) -> int:
    """Run a `tool_command` to its end in a fork of the process that has its imports.

    Args:
        output: file that what it prints is added to.
        watch: called five times a second.

    Returns:
        Its exit status.
    """
    child = start_from_server(_be_tool, command[2:], output.absolute(), dict(env), Path.cwd())
    try:
        while child.is_alive():
            child.join(0.2)
            watch()
    except BaseException:
        child.terminate()
        raise
    return child.exitcode or 0


def _be_tool(words: Sequence[str], output: Path, env: Mapping[str, str], folder: Path) -> None:
    """Be `python -m WORDS` in this process of the fork server, whatever that process's state is."""
    end_with_parent(signal.SIGTERM)
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for number in (sys.stdout.fileno(), sys.stderr.fileno()):
        os.dup2(file, number)
    os.close(file)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(env)
    sys.path.insert(0, str(folder))
    sys.argv = list(words)
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


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
