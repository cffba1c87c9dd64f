"""One lock for whatever must have a single writer: a folder or a file, on any disk.

    with held(folder, "run_dir"):
        ...

A lock is a small file, `<folder>/.lock` or `.<name>.lock` beside a file, that says who holds it:
JSON with machine, process, since when, and command. It appears whole or not at all, its holder
removes it, and child processes inherit nothing of it. Locks of the operating system are not used:
depending on the disk they are missing, or reach one machine alone, and forks keep them. That the
holder is gone is found

  * on its own machine at once, from /proc: there is no such process, or its number belongs to one
    that began at another time. A stopped process still holds its lock;
  * from another machine by watching: a holder renews the time of its file every few seconds, and a
    lock that was looked at `Pace.looks` times without a change is taken over. Looks count and
    not seconds, so that no lock ends while a file server is away; and the clocks of two machines
    are never compared.

Of many that want to take over, one does: it replaces the file under a lock on that alone
(`.takeover`). A holder that was stopped or cut off from its disk for longer finds out by
`Lock.check`, to be called before what others rely on is written.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path

LOCK, TAKEOVER = ".lock", ".takeover"
PATIENCE = 10.0  # seconds for what takes milliseconds: taking over, or the end of a killed process
LONGEST = 200  # characters of a command
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EINVAL)


class Held(OSError):
    """Another process holds the lock; the message says which, since when, and its command."""


@dataclass(frozen=True)
class Pace:
    """How a lock is renewed, and watched from other machines.

    Attributes:
        renewal: seconds between two renewals, and between two looks.
        looks: without a change, after which a lock is taken over.
    """

    renewal: float = 5.0
    looks: int = 12


@dataclass(frozen=True)
class Holder:
    """A process, as a lock file names it.

    Attributes:
        host: name of its machine, for people.
        machine: boot and namespace of process numbers, within which /proc tells who is alive;
            empty where that is not known.
        process: its number.
        started: when it began, in the kernel's ticks since the boot.
        since: local time at which it took the lock.
        command: its command line.
        token: differs between any two locks.
        inode: of the lock file, so that the file in a copy of a folder is known for one.
    """

    host: str
    machine: str
    process: int
    started: int
    since: str
    command: str
    token: str
    inode: int = 0


@dataclass(frozen=True)
class _Found:
    """A lock file at one moment; `holder` is None where its content says nothing."""

    holder: Holder | None
    token: str
    inode: int
    changed: int


@dataclass
class Lock:
    """A lock of this process, see `held`."""

    file: Path
    holder: Holder
    what: str
    pace: Pace
    _process: int = field(default_factory=os.getpid)
    _over: threading.Event = field(default_factory=threading.Event)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def check(self) -> None:
        """Make sure that the lock is still this process's.

        Raises:
            Held: another process has taken over, as this one was stopped or cut off from its disk.
        """
        with self._turn:
            found = _read(self.file)
            if found is None and not self._over.is_set():
                # Deleted by hand: taken back, unless another process was faster.
                if _create(self.file, self.holder):
                    return
                found = _read(self.file)
        if found is not None and found.token != self.holder.token:
            raise Held(
                f"{self.what}: {_subject(self.file)} was taken over by {_shown(found)}, while this "
                "process was stopped or cut off from its disk; it writes nothing more"
            )

    def release(self) -> None:
        """Give the lock back. A forked child, which does not have it, gives nothing back."""
        if os.getpid() != self._process:
            return
        with self._turn:
            self._over.set()
            _remove(self.file, self.holder.token)

    def _renew(self) -> None:
        while not self._over.wait(self.pace.renewal):
            with contextlib.suppress(OSError):  # tried again; `check` tells what it means
                self.check()
                os.utime(self.file)


@contextlib.contextmanager
def held(
    path: Path,
    what: str,
    *,
    wait: float = 0.0,
    pace: Pace | None = None,
    here: Holder | None = None,
) -> Iterator[Lock]:
    """Hold the lock of a folder that exists, or of a file that may not.

    A lock left by a process that is gone is taken over: at once on its own machine; from another
    one after a minute, in which it is watched, with a line that says so. The same process cannot
    hold a lock twice.

    Args:
        what: the key or option that names the path, for messages.
        wait: seconds (or `math.inf`) to wait for a holder that is alive, with a line that says so.
        pace: for tests.
        here: this process, see `this_process`; for tests.

    Raises:
        Held: another process holds it; nothing was written.
        OSError: the lock file cannot be written.
    """
    lock = acquire(path, what, wait=wait, pace=pace, here=here)
    try:
        yield lock
    finally:
        lock.release()


def acquire(
    path: Path,
    what: str,
    *,
    wait: float = 0.0,
    pace: Pace | None = None,
    here: Holder | None = None,
) -> Lock:
    """As `held`, for a lock that is released elsewhere, or by the end of the process."""
    lock = Lock(lock_file(Path(path)), here or this_process(), what, pace or Pace())
    _take(lock.file, lock.holder, what, wait, lock.pace)
    threading.Thread(target=lock._renew, name="lock", daemon=True).start()
    return lock


def lock_file(path: Path) -> Path:
    """The file that locks a folder or a file.

    >>> str(lock_file(Path("lists/train.index")))
    'lists/.train.index.lock'
    """
    return path / LOCK if path.is_dir() else path.with_name(f".{path.name}{LOCK}")


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


def _take(file: Path, here: Holder, what: str, wait: float, pace: Pace) -> None:
    """Come to hold a lock, or raise `Held`."""
    deadline, watched = time.monotonic() + wait, _Watched(pace)
    said = of_takeover = TAKEOVER in file.name
    while True:
        found = _read(file)
        if found is None:
            if _create(file, here):
                return
            continue
        alive = _alive(found, here)
        if alive is None:
            alive = watched.look(found)
        if alive is False:
            if _take_over(file, found, here, what, pace):
                return
            continue
        if alive and time.monotonic() >= deadline:
            raise Held(
                f"{what}: {_subject(file)} is in use by {_shown(found)}; wait for its end, "
                "stop it, or choose another"
            )
        if not said and (found.holder is not None or watched.looks > 0):
            until = (
                "waiting for its end"
                if alive
                else f"watching for up to {pace.looks * pace.renewal:g} s whether it is alive"
            )
            print(f"{what}: {_subject(file)} is in use by {_shown(found)}: {until}", flush=True)
            said = True
        if found.holder is None or of_takeover:  # half-written, on a disk without links; or short
            time.sleep(0.02)
        else:
            time.sleep(pace.renewal if alive is None else 0.5)


def _take_over(file: Path, gone: _Found, here: Holder, what: str, pace: Pace) -> bool:
    """Replace the lock of a process that is gone; False: another process was faster."""
    guard, own = file.with_name(file.name + TAKEOVER), replace(here, token=uuid.uuid4().hex)
    _take(guard, own, what, PATIENCE, pace)
    try:
        if _read(file) != gone:
            return False
        new = file.with_name(f"{file.name}.{here.token}")
        _write(new, here)
        new.replace(file)
        now = _read(file)
        return now is not None and now.token == here.token
    finally:
        _remove(guard, own.token)


class _Watched:
    """What was seen of a lock of another machine."""

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        self._last: _Found | None = None
        self.looks, self._looked = 0, -math.inf

    def look(self, found: _Found) -> bool | None:
        """Whether its holder is alive; None: look again after `Pace.renewal` seconds."""
        last, self._last = self._last, found
        if last != found:
            self.looks, self._looked = 0, time.monotonic()
            return True if last is not None and last.token == found.token else None
        if time.monotonic() - self._looked >= 0.9 * self._pace.renewal:
            self.looks, self._looked = self.looks + 1, time.monotonic()
        return False if self.looks >= self._pace.looks else None


def _alive(found: _Found, here: Holder) -> bool | None:
    """Whether the holder runs, by /proc; None: that cannot be told from this machine."""
    holder = found.holder
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
        return None  # another user's, of whom /proc may show nothing
    if started != holder.started:
        return False
    if state in "ZX" and _ended(holder.process):
        return False
    # The lock in a copy of a folder names a living process, which does not know of it.
    return True if found.inode == holder.inode else None


def _stat(process: int) -> tuple[str, int]:
    """State and start of a process."""
    text = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace")
    fields = text.rpartition(")")[2].split()
    return fields[0], int(fields[19])


def _ended(process: int) -> bool:
    """Whether a killed process has no thread left that writes; such a one ends soon."""
    deadline = time.monotonic() + PATIENCE
    while True:
        states = set()
        for file in Path(f"/proc/{process}/task").glob("*/stat"):
            with contextlib.suppress(OSError):
                states.add(file.read_text(errors="replace").rpartition(")")[2].split()[0])
        if states <= {"Z", "X"} or time.monotonic() > deadline:
            return states <= {"Z", "X"}
        time.sleep(0.01)


def _read(file: Path) -> _Found | None:
    """A lock file; None: there is none."""
    try:
        # Opened anew, since a network file system looks for changes when a file is opened.
        with file.open("rb") as opened:
            content, facts = opened.read(2**16), os.fstat(opened.fileno())
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:  # replaced between being found and being read
            return None
        raise
    holder = _parsed(content)
    token = hashlib.sha256(content).hexdigest() if holder is None else holder.token
    return _Found(holder, token, facts.st_ino, facts.st_mtime_ns)


def _parsed(content: bytes) -> Holder | None:
    try:
        holder = Holder(**json.loads(content))
    except (ValueError, TypeError, RecursionError):
        return None
    numbers = holder.process, holder.started, holder.inode
    texts = holder.host, holder.machine, holder.since, holder.command, holder.token
    if not all(type(number) is int for number in numbers) or not 0 < holder.process < 2**31:
        return None
    return holder if all(type(text) is str for text in texts) else None


def _create(file: Path, holder: Holder) -> bool:
    """Make a lock file that is whole as soon as it is there; False: there is one."""
    new = file.with_name(f"{file.name}.{holder.token}.{threading.get_ident()}")
    try:
        _write(new, holder)
        try:
            os.link(new, file)
        except FileExistsError:
            # A network file system may have made it, and its answer was lost.
            return new.stat().st_nlink == 2
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            try:
                _write(file, holder)
            except FileExistsError:
                return False
        return True
    finally:
        new.unlink(missing_ok=True)


def _write(file: Path, holder: Holder) -> None:
    with file.open("x", encoding="utf-8") as opened:
        inode = os.fstat(opened.fileno()).st_ino
        json.dump(asdict(replace(holder, inode=inode)), opened)


def _remove(file: Path, token: str) -> None:
    found = _read(file)
    if found is not None and found.token == token:
        file.unlink(missing_ok=True)


def _subject(file: Path) -> str:
    """What a lock file locks."""
    name = file.name.partition(TAKEOVER)[0]
    return str(file.parent if name == LOCK else file.with_name(name[1:].removesuffix(LOCK)))


def _shown(found: _Found) -> str:
    """The holder, in words that a terminal can show."""
    holder = found.holder
    if holder is None:
        return "somebody whom its lock file does not name"
    command = holder.command[:LONGEST]
    told = f"process {holder.process} on {holder.host} since {holder.since} ({command})"
    return "".join(letter if letter.isprintable() else "?" for letter in told)
