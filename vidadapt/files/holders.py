"""Holder of a lock: the process that a lock file names, and whether it still runs."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
import uuid
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

LONGEST = 200  # characters of a command
ENDING = 10.0  # seconds for the last system calls of a killed process


@dataclass(frozen=True)
class Holder:
    """A process, as a lock file names it.

    Attributes:
        host: name of its machine, for people.
        machine: boot and namespace of process numbers, within which /proc shows who is alive;
            empty if that is not known.
        process: its number.
        started: when it began, in the kernel's ticks since the boot.
        since: local time at which it took the lock.
        command: its command line.
        token: differs between any two locks.
        inode: of the lock file, to recognise the lock file in a copy of a folder.
    """

    host: str
    machine: str
    process: int
    started: int
    since: str
    command: str
    token: str
    inode: int = 0


def this_process() -> Holder:
    """This process, with a new token."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        machine = f"{boot} {Path('/proc/self/ns/pid').readlink()}"
        started = _stat(os.getpid())[1]
    except OSError:
        machine, started = "", 0
    return Holder(
        host=socket.gethostname(),
        machine=machine,
        process=os.getpid(),
        started=started,
        since=datetime.now().astimezone().isoformat(" ", "seconds"),
        command=" ".join(sys.argv)[:LONGEST],
        token=uuid.uuid4().hex,
    )


def parsed(content: bytes) -> Holder | None:
    """Find the holder that a lock file names; None if its content is not valid."""
    try:
        holder = Holder(**json.loads(content))
    except (ValueError, TypeError, RecursionError):
        return None
    numbers = holder.process, holder.started, holder.inode
    texts = holder.host, holder.machine, holder.since, holder.command, holder.token
    if not all(type(number) is int for number in numbers) or not 0 < holder.process < 2**31:
        return None
    return holder if all(type(text) is str for text in texts) else None


def alive(holder: Holder | None, inode: int, here: Holder) -> bool | None:
    """Check that a holder runs, by /proc; None: this process cannot know.

    Args:
        inode: of the file that names it.
        here: this process.
    """
    if holder is None or not holder.machine or holder.machine != here.machine:
        return None
    try:
        state, started = _stat(holder.process)
    except OSError:
        try:
            os.kill(holder.process, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass
        return None  # another user's, which /proc may hide
    if started != holder.started:
        return False
    if state in "ZX" and _ended(holder.process):
        return False
    # The lock file in a copy of a folder names a living process that does not hold it.
    return True if inode == holder.inode else None


def shown(holder: Holder | None) -> str:
    """Describe a holder in printable characters."""
    if holder is None:
        return "somebody whom its lock file does not name"
    command = holder.command[:LONGEST]
    told = f"process {holder.process} on {holder.host} since {holder.since} ({command})"
    return "".join(letter if letter.isprintable() else "?" for letter in told)


def _stat(process: int) -> tuple[str, int]:
    """State and start of a process."""
    text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def _ended(process: int) -> bool:
    """Wait up to `ENDING` seconds for a killed process; return whether all its threads ended."""
    deadline = time.monotonic() + ENDING
    while True:
        states = set()
        for file in Path(f"/proc/{process}/task").glob("*/stat"):
            with contextlib.suppress(OSError):
                states.add(file.read_text(errors="replace").rpartition(")")[2].split()[0])
        if states <= {"Z", "X"} or time.monotonic() > deadline:
            return states <= {"Z", "X"}
        time.sleep(0.01)
