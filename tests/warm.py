"""Start scripts in processes of their own without the seconds that imports take.

A process that has imported everything, and has computed nothing, forks for each start. What it
starts is a script's process in all else: arguments, environment, folder, output, exit status,
signals, and nothing of another one's state. Other numbers of threads need a fresh interpreter.
"""

from __future__ import annotations

import atexit
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
THREADS = "1"
FIXED = {"OMP_NUM_THREADS": THREADS, "CUDA_VISIBLE_DEVICES": ""}  # read when torch is imported


class Started:
    """A started script; like `subprocess.Popen`, as far as tests need it."""

    def __init__(self, server: Server, pid: int, output: Any, errors: Any) -> None:
        self.pid, self.returncode = pid, None
        self._server, self._output, self._errors = server, output, errors

    def poll(self) -> int | None:
        if self.returncode is None:
            self.returncode = self._server.status(self.pid)
        return self.returncode

    def wait(self, timeout: float = 300.0) -> int:
        deadline = time.monotonic() + timeout
        while (status := self.poll()) is None:
            if time.monotonic() > deadline:
                self.send_signal(signal.SIGKILL)
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(0.01)
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def communicate(self, timeout: float = 300.0) -> tuple[str, str]:
        """Wait, and return what it printed: output and errors, together in the first if joined."""
        self.wait(timeout)
        texts = []
        for file in (self._output, self._errors):
            if file is None:
                texts.append("")
                continue
            file.seek(0)
            texts.append(file.read().decode(errors="replace"))
            file.close()
        return texts[0], texts[1]


class Server:
    """The process that forks."""

    def __init__(self) -> None:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket, self._ended = here, dict[int, int]()
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(there.fileno())],
            pass_fds=[there.fileno()],
            env={**os.environ, **FIXED, "PYTHONPATH": os.pathsep.join(map(str, sys.path))},
            cwd=ROOT,
        )
        there.close()
        atexit.register(here.close)

    def start(self, words: Sequence[str], env: Mapping[str, str], joined: bool) -> Started:
        output = tempfile.TemporaryFile()  # noqa: SIM115 (`communicate` closes it)
        errors = None if joined else tempfile.TemporaryFile()  # noqa: SIM115
        asked = {"words": list(words), "env": dict(env), "cwd": str(Path.cwd())}
        fds = [output.fileno(), (errors or output).fileno()]
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:  # a packet has a limit
            json.dump(asked, file)
            file.flush()
            socket.send_fds(self._socket, [file.name.encode()], fds)
            while True:
                kind, pid, status = json.loads(self._socket.recv(1000))
                if kind == "begun":
                    return Started(self, pid, output, errors)
                self._ended[pid] = status

    def status(self, pid: int) -> int | None:
        while pid not in self._ended and select.select([self._socket], [], [], 0)[0]:
            _, other, status = json.loads(self._socket.recv(1000))
            self._ended[other] = status
        return self._ended.get(pid)


@cache
def server() -> Server:
    return Server()


def tool(name: str) -> Path:
    return ROOT / "tools" / f"{name}.py"


def start(
    script: str | Path, *words: object, env: Mapping[str, str] | None = None, joined: bool = False
) -> Started:
    """Start a script.

    Args:
        env: of the process; default: this one's.
        joined: errors go where output goes.
    """
    own = {**(os.environ if env is None else env), **FIXED}
    return server().start([str(script), *map(str, words)], own, joined)


def start_all(script: str | Path, *words: object, processes: int) -> list[Started]:
    """Start a script in several processes, with the variables that torchrun sets."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_PORT": port}
    shared |= {"MASTER_ADDR": "127.0.0.1"}
    return [
        start(script, *words, env={**os.environ, **_texts({**shared, **own})})
        for own in ({"RANK": rank, "LOCAL_RANK": rank} for rank in range(processes))
    ]


def run(script: str | Path, *words: object, processes: int = 1) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, in one process or as `start_all` does.

    The exit status is the first that is not 0, and what they print is joined.
    """
    if processes == 1:
        started = [start(script, *words)]
    else:
        started = start_all(script, *words, processes=processes)
    said = [one.communicate() for one in started]
    output, errors = ("".join(texts) for texts in zip(*said, strict=True))
    status = next((one.returncode for one in started if one.returncode), 0)
    return subprocess.CompletedProcess([str(script), *map(str, words)], status, output, errors)


def _texts(values: Mapping[str, object]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}


def _serve(fd: int) -> None:
    """Fork for each request until the other side is closed; then end what still runs."""
    import_everything()
    assert len(os.listdir("/proc/self/task")) == 1, "a process with threads must not fork"  # noqa: PTH208
    asking = socket.socket(fileno=fd)
    running = set[int]()
    while True:
        if select.select([asking], [], [], 0.01)[0]:
            name, fds, _, _ = socket.recv_fds(asking, 4096, 2)
            if not name:
                break
            asked = json.loads(Path(name.decode()).read_text())
            pid = os.fork()
            if pid == 0:
                asking.close()
                _become(asked, fds)
            for one in fds:
                os.close(one)
            running.add(pid)
            asking.send(json.dumps(["begun", pid, 0]).encode())
        for pid in list(running):
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                running.remove(pid)
                code = os.waitstatus_to_exitcode(status)
                asking.send(json.dumps(["ended", pid, code]).encode())
    for pid in running:
        os.kill(pid, signal.SIGKILL)


def import_everything() -> None:
    from vidadapt import cli
    from vidadapt.commands import evaluate, features, predict, prepare, temporal, train  # noqa: F401  # noqa: F401

    assert cli.NAMES


def _become(asked: Mapping[str, Any], fds: Sequence[int]) -> None:
    """Be the tool's process, to its end."""
    status: Any = 1
    try:
        null = os.open(os.devnull, os.O_RDONLY)
        for number, one in enumerate((null, *fds)):
            os.dup2(one, number)
        for one in (null, *fds):
            os.close(one)
        os.environ.clear()
        os.environ.update(asked["env"])
        os.chdir(asked["cwd"])
        sys.argv = list(asked["words"])
        named = filter(None, asked["env"].get("PYTHONPATH", "").split(os.pathsep))
        sys.path[:0] = [str(Path(sys.argv[0]).absolute().parent), *named]
        status = exit_status(lambda: runpy.run_path(sys.argv[0], run_name="__main__"))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def exit_status(work: Callable[[], object]) -> int:
    """Do as the interpreter does at its end: exit handlers, and a traceback where there is one."""
    try:
        work()
    except SystemExit as error:
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    else:
        code = 0
    threading._shutdown()
    atexit._run_exitfuncs()
    return code


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
