"""One lock for whatever must have a single writer: a folder or a file, on any disk.

    with held(folder, "run_dir"):
        ...

A lock is a small file, `<folder>/.lock` or `.<name>.lock` beside a file, that says who holds it:
JSON with machine, process, since when, and command. It appears whole (on a disk with hard links),
its holder removes it, and child processes do not inherit it. Locks of the operating system are not
used: depending on the disk they are missing, or reach only one machine, and forks keep them. A
holder that is gone is found

  * on its own machine at once, from /proc: there is no such process, or its number belongs to one
    that began at another time. A stopped process still holds its lock;
  * from another machine by watching: a holder renews the time of its file every few seconds, and a
    lock that does not change during `Pace.looks` looks is taken over. Looks are counted, not
    seconds, so that no lock ends while a file server is away; and the clocks of two machines are
    never compared.

If many want to take over, one does: it replaces the file while it holds another lock, for that
alone (`.takeover`). A holder that was stopped or cut off from its disk for longer learns of it from
`Lock.check`: call that before writing what others rely on.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from vidadapt.files.holders import Holder, alive, parsed, shown, this_process
from vidadapt.files.writing import writing

LOCK, TAKEOVER = ".lock", ".takeover"
PATIENCE = 10.0  # seconds for another process to take over, which needs milliseconds
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES, errno.EINVAL)


class Held(OSError):
    """Another process holds the lock; the message says which, since when, and its command."""


@dataclass(frozen=True)
class Pace:
    """Times after which a lock is renewed, and watched from other machines.

    Attributes:
        renewal: seconds between two renewals, and between two looks.
        looks: number of looks without a change after which a lock is taken over.
    """

    renewal: float = 5.0
    looks: int = 12


@dataclass(frozen=True)
class _Found:
    """A lock file at one moment; `holder` is None if its content is not valid."""

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
        """Check that this process still holds the lock.

        Errors of the disk are ignored: they do not show who holds it.

        Raises:
            Held: another process took over while this one was stopped or cut off from its disk.
        """
        found: _Found | None = None
        with self._turn, contextlib.suppress(OSError):
            found = _read(self.file)
            if found is None and not self._over.is_set():
                # Deleted by hand: take it back, unless another process was faster.
                if _create(self.file, self.holder):
                    return
                found = _read(self.file)
        if found is not None and found.token != self.holder.token:
            raise Held(
                f"{self.what}: {_subject(self.file)} was taken over by {shown(found.holder)}, "
                "while this process was stopped or cut off from its disk; it writes nothing more"
            )

    def release(self) -> None:
        """Release the lock; do nothing in a forked child, which does not hold it."""
        if os.getpid() != self._process:
            return
        with self._turn, contextlib.suppress(OSError):  # if it stays, it names an ended process
            self._over.set()
            _remove(self.file, self.holder.token)

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, *error: object) -> None:
        self.release()

    def _renew(self) -> None:
        while not self._over.wait(self.pace.renewal):
            with contextlib.suppress(OSError):  # tried again; the caller's `check` raises it
                self.check()
                os.utime(self.file)


def held(
    path: Path,
    what: str,
    *,
    wait: float = 0.0,
    pace: Pace | None = None,
    here: Holder | None = None,
) -> Lock:
    """Take the lock of a folder that exists, or of a file that may not; `with` releases it.

    A lock whose holder is gone is taken over: at once on the holder's own machine; from another one
    after watching it for a minute, with a line that says so. The same process cannot hold a lock
    twice.

    Args:
        what: the key or option that names the path, for messages.
        wait: seconds (or `math.inf`) to wait for a holder that is alive, with a line that says so.
        pace: for tests.
        here: this process, see `this_process`; for tests.

    Raises:
        Held: another process holds it; nothing was written.
        OSError: the lock file cannot be written.
    """
    lock = Lock(lock_file(Path(path)), here or this_process(), what, pace or Pace())
    _take(lock.file, lock.holder, what, wait, lock.pace)
    threading.Thread(target=lock._renew, name="lock", daemon=True).start()
    return lock


@contextlib.contextmanager
def held_folder(folder: Path, what: str, *, wait: float = 0.0) -> Iterator[Lock]:
    """Hold the lock of a folder that is made if missing, and then removed if it stays empty.

    Raises:
        Held: another process holds it; nothing was written.
        OSError: it cannot be made or written.
    """
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = held(folder, what, wait=wait)
            break
        except FileNotFoundError:  # another process has removed it, as it stayed empty
            continue
    try:
        yield lock
    finally:
        lock.release()
        with contextlib.suppress(OSError):
            for path in made:
                path.rmdir()


def lock_file(path: Path) -> Path:
    """Find the file that locks a folder or a file.

    >>> str(lock_file(Path("lists/train.index")))
    'lists/.train.index.lock'
    """
    return path / LOCK if path.is_dir() else path.with_name(f".{path.name}{LOCK}")


def refuse_held(path: Path, what: str) -> None:
    """Raise `Held` if a living process of this machine holds the lock; do not take it."""
    file = lock_file(path)
    found = _read(file)
    if found is not None and alive(found.holder, found.inode, this_process()):
        raise _held(file, found, what)


def _take(file: Path, here: Holder, what: str, wait: float, pace: Pace) -> None:
    """Take a lock, or raise `Held`."""
    deadline = time.monotonic() + wait
    looks, looked = 0, -math.inf  # at a lock of another machine that did not change, since when
    said = of_takeover = TAKEOVER in file.name
    found = None
    while True:
        before, found = found, _read(file)
        if found is None:
            if _create(file, here):
                return
            continue
        runs = alive(found.holder, found.inode, here)
        if runs is None and found != before:
            looks, looked = 0, time.monotonic()
            runs = True if before is not None and before.token == found.token else None
        elif runs is None and time.monotonic() - looked >= 0.9 * pace.renewal:
            looks, looked = looks + 1, time.monotonic()
            runs = False if looks >= pace.looks else None
        if runs is False:
            if _take_over(file, found, here, what, pace):
                return
            continue
        if runs and time.monotonic() >= deadline:
            raise _held(file, found, what)
        if not said and (found.holder is not None or looks > 0):
            until = (
                "waiting for its end"
                if runs
                else f"watching for up to {pace.looks * pace.renewal:g} s whether it is alive"
            )
            print(
                f"{what}: {_subject(file)} is in use by {shown(found.holder)}: {until}", flush=True
            )
            said = True
        if found.holder is None or of_takeover:  # half-written, on a disk without links; or brief
            time.sleep(0.02)
        else:
            time.sleep(pace.renewal if runs is None else 0.5)


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


def _read(file: Path) -> _Found | None:
    """Read a lock file; None: there is none."""
    try:
        # Opened anew, since a network file system looks for changes when a file is opened.
        with file.open("rb") as opened:
            content, facts = opened.read(2**16), os.fstat(opened.fileno())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:  # replaced between being found and being read
            return None
        raise
    holder = parsed(content)
    token = hashlib.sha256(content).hexdigest() if holder is None else holder.token
    return _Found(holder, token, facts.st_ino, facts.st_mtime_ns)


def _create(file: Path, holder: Holder) -> bool:
    """Make a lock file, whole at once on a disk with hard links; False: there is one."""
    new = file.with_name(f"{file.name}.{holder.token}.{threading.get_ident()}")
    try:
        _write(new, holder)
        try:
            os.link(new, file)
        except FileExistsError:
            # A network file system may have made the link although its answer was lost.
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
    with file.open("xb", buffering=0) as opened:
        inode = os.fstat(opened.fileno()).st_ino
        content = json.dumps(asdict(replace(holder, inode=inode))).encode()
        with writing(file):
            while content:
                content = content[opened.write(content) :]


def _remove(file: Path, token: str) -> None:
    found = _read(file)
    if found is not None and found.token == token:
        file.unlink(missing_ok=True)


def _held(file: Path, found: _Found, what: str) -> Held:
    return Held(
        f"{what}: {_subject(file)} is in use by {shown(found.holder)}; wait for its end, stop it, "
        f"or choose another{_alone_in_a_step()}"
    )


def _alone_in_a_step() -> str:
    """Say that SLURM started this command several times, each alone; empty: it did not."""
    tasks = os.environ.get("SLURM_STEP_NUM_TASKS", "")
    if "WORLD_SIZE" in os.environ or not tasks.isdecimal() or int(tasks) < 2:
        return ""
    return (
        f". This is one of {tasks} tasks of srun, which know nothing of each other: to work "
        "together, let srun start torchrun once a machine, see docs/cluster.md"
    )


def _subject(file: Path) -> str:
    """Find the folder or file that a lock file locks."""
    name = file.name.partition(TAKEOVER)[0]
    return str(file.parent if name == LOCK else file.with_name(name[1:].removesuffix(LOCK)))
