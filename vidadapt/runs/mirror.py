"""A run folder's copy in a store, from which the run goes on on another machine.

    s3://bucket/runs/a/claim.json     which run this is, and which folder is copied here
    s3://bucket/runs/a/last.json      names the newest whole checkpoint: it is written last
    s3://bucket/runs/a/last-1f0c.../  its files, under a name that no other checkpoint has
    s3://bucket/runs/a/best.json, best-.../
    s3://bucket/runs/a/config.yaml, log.jsonl, ...    as in the run folder

A thread of the main process looks at the folder and uploads what is new: training does not wait for
the store. Of a kill in the middle of an upload only files are left that no `.json` names, so that a
checkpoint is there whole or not at all. An upload that fails, after `files.retrying`, is said; the
next checkpoint is the next try.

Stores keep no two writers apart. Whoever resumes takes the claim over, and the run before it learns
of that at its next upload, and uploads no more. Until then both may write, but checkpoints have
names of their own, and `last.json` is one object: it names a whole checkpoint of one of them.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

import xxhash

from vidadapt.distributed import World, gather_objects, together
from vidadapt.files import (
    check_writable_url,
    download,
    held,
    inside,
    is_there,
    read_text,
    remove,
    upload,
    write_json,
)
from vidadapt.runs.checkpoints import CHECKSUMS, damage
from vidadapt.runs.folder import FAILURE, MIRROR, PROFILE, RunError, check_writable

KEY = "--mirror"
CLAIM, CONFIG = "claim.json", "config.yaml"
# In the run folder, which may be a disk of its own, and whose hidden files are not copied.
FETCHED, STAGED = ".fetched", ".sent"
NAMES = ("best", "last")  # in the order of their upload, which is that of their writing
KEPT = {"best": 1, "last": 2}  # whole checkpoints in the store
LOOK = 1.0  # seconds between two looks at the folder
FAILURES = (OSError, ImportError, ValueError)  # of the store


Kind = TypeVar("Kind")


class TakenOver(OSError):
    """Another run folder is copied to this URL now."""


@dataclass(frozen=True)
class Claim:
    """Which run is at a URL, and which folder is copied there.

    Attributes:
        run: made when the run began; the same after each resume.
        holder: of the folder; another one after a resume elsewhere.
    """

    run: str
    holder: str


@dataclass(frozen=True)
class Pointer:
    """Content of `last.json` and `best.json`.

    Attributes:
        folder: name of the checkpoint's folder below the URL.
        before: names of older ones that are whole, the newest first.
        files: names of the run's other files.

    Raises:
        ValueError: a name that leads out of the folder.
    """

    folder: str
    before: list[str]
    files: list[str]

    def __post_init__(self) -> None:
        for name in (self.folder, *self.before, *self.files):
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"{name!r} leads out of the folder")


@dataclass
class Mirror:
    """A run folder and its URL.

    Attributes:
        sent: size and time of each file that was uploaded, by name.
        pointers: what is in the store, by the checkpoint's name.
        problem: why the latest upload failed; empty: it did not.
        lost: another folder is copied to the URL now, see `TakenOver`.
    """

    run_dir: Path
    url: str
    claim: Claim
    sent: dict[str, tuple[int, int]] = field(default_factory=dict)
    pointers: dict[str, Pointer] = field(default_factory=dict)
    problem: str = ""
    lost: bool = False


@contextmanager
def mirrored(world: World, run_dir: Path, url: str | None, resume: bool) -> Iterator[list[str]]:
    """Copy a run folder to a URL while the block runs, and once more at its end.

    With `resume` the run is fetched before, where it is not in the folder, or went on elsewhere.
    All processes enter together; the main one alone talks to the store.

    Yields:
        A list that is empty until the end, and holds then why the last upload failed, if it did.

    Raises:
        RunError: the URL holds a run, and `resume` is not asked for, or another run than the
            folder; or no checkpoint there is whole.
        OSError, ImportError, ValueError: the store cannot be used.
    """
    failed: list[str] = []
    if url is None:
        yield failed
        return
    with ExitStack() as stack:
        with together(world):
            if world.is_main:
                mirror = _begun(run_dir, url.rstrip("/"), resume, stack)
                stack.enter_context(_followed(mirror, failed))
        yield failed
    failed[:] = gather_objects(world, failed)[0]


@contextmanager
def _followed(mirror: Mirror, failed: list[str]) -> Iterator[None]:
    """Upload what is new while the block runs, and at its end, however it ends."""
    end = threading.Event()
    thread = threading.Thread(target=_follow, args=(mirror, end), name="mirror", daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
        send(mirror, at_end=True)
        failed += [mirror.problem] if mirror.problem else []


def _follow(mirror: Mirror, end: threading.Event) -> None:
    """Upload after each checkpoint, and once the folder has its configuration."""
    seen: list[bytes | None] = []
    while not end.wait(LOOK):
        try:
            now = [_bytes(mirror.run_dir / name / CHECKSUMS) for name in NAMES]
            now.append(_bytes(mirror.run_dir / CONFIG))
        except OSError:  # of a disk that fails for a moment
            continue
        if now != seen and now[-1] is not None:
            seen = now
            send(mirror)


def send(mirror: Mirror, at_end: bool = False) -> None:
    """Upload what is new; say what fails, and note it as `problem`."""
    if mirror.lost:
        return
    try:
        _upload_new(mirror)
        mirror.problem = ""
    except FAILURES as error:
        mirror.lost = isinstance(error, TakenOver)
        mirror.problem = f"{KEY}: {error}"
        goes_on = "; the run goes on, and the next checkpoint is the next try"
        if mirror.lost:
            goes_on = "; the run goes on in its folder alone"
        if at_end:
            goes_on = f"; {mirror.run_dir} is whole, and the same command with --resume uploads it"
        print(f"warning: {mirror.problem}{goes_on}", file=sys.stderr, flush=True)


def _begun(run_dir: Path, url: str, resume: bool, stack: ExitStack) -> Mirror:
    """Claim the URL for a run folder; fetch the run into it where it goes on from there."""
    check_writable_url(KEY, url)
    known, own = _claim(inside(url, CLAIM)), _claim(run_dir / MIRROR)
    there = {name: _pointer(url, name) for name in NAMES}
    is_run = there["last"] is not None or is_there(inside(url, CONFIG))
    if is_run and not resume:
        raise RunError(
            f"{KEY}: {url} holds a run; continue it with --resume, or choose another URL"
        )
    if is_run and known is None:
        raise RunError(f"{KEY}: {url} holds a run, but no {CLAIM}; choose another URL")
    names = {path.name for path in run_dir.iterdir()} if run_dir.is_dir() else set()
    is_empty = not {name for name in names if not name.startswith(".")} - {MIRROR, FAILURE}
    if is_run and not is_empty and (own is None or known is None or own.run != known.run):
        raise RunError(
            f"{KEY}: {run_dir} and {url} hold two runs; give an empty run_dir, to go on with that "
            "of the store, or another URL"
        )
    check_writable("run_dir", run_dir)
    stack.enter_context(held(run_dir / MIRROR, KEY))
    if there["last"] is not None and (own != known or not names & {"last", "last.1"}):
        assert known is not None
        # The store's claim is of another holder: after a kill meanwhile it is fetched anew.
        write_json(run_dir / MIRROR, asdict(Claim(known.run, "fetching")))
        _fetch(run_dir, url, {name: of for name, of in there.items() if of is not None})
    same = known is not None and own == known
    run = known.run if known is not None and is_run else secrets.token_hex(8)
    claim = known if same and known is not None else Claim(run, secrets.token_hex(8))
    write_json(run_dir / MIRROR, asdict(claim))
    upload(run_dir / MIRROR, inside(url, CLAIM))
    remove(inside(url, FAILURE))
    return Mirror(
        run_dir,
        url,
        claim,
        pointers={name: of for name, of in there.items() if of is not None},
    )


def _fetch(run_dir: Path, url: str, there: dict[str, Pointer]) -> None:
    """Put the run of the store in the place of what the folder holds."""
    partial = run_dir / FETCHED
    shutil.rmtree(partial, ignore_errors=True)  # of a fetch that was killed
    try:
        for name, pointer in there.items():
            _fetch_checkpoint(partial / name, url, pointer, name == "last")
        for name in there["last"].files:
            download(inside(url, name), partial / name)
        replaced = [path for path in run_dir.iterdir() if path.name.partition(".")[0] in NAMES]
        for old in (path for path in replaced if path.is_dir()):
            shutil.rmtree(old)
        for path in [path for path in partial.rglob("*") if path.is_file()]:
            target = run_dir / path.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    before = " in the place of an older state, since it went on elsewhere" if replaced else ""
    print(f"{run_dir}: fetched {url}, checkpoint {there['last'].folder}{before}")


def _fetch_checkpoint(target: Path, url: str, pointer: Pointer, to_resume: bool) -> None:
    """Fetch the newest whole checkpoint.

    Raises:
        RunError: all are damaged.
    """
    damaged: list[str] = []
    for folder in (pointer.folder, *pointer.before):
        home = inside(url, folder)
        shutil.rmtree(target, ignore_errors=True)
        try:
            download(inside(home, CHECKSUMS), target / CHECKSUMS)
            for name in json.loads((target / CHECKSUMS).read_text(encoding="utf-8")):
                download(inside(home, Path(name).name), target / Path(name).name)
            problem: str | None = damage(target, to_resume=to_resume)
        except (FileNotFoundError, ValueError, TypeError) as error:
            problem = str(error) or type(error).__name__
        if problem is None:
            for text in damaged:
                print(f"warning: {text}; using {home} in its place", file=sys.stderr)
            return
        damaged.append(f"{home}: {problem}")
    raise RunError(f"no whole checkpoint is left: {'; '.join(damaged)}; choose another {KEY}")


def _upload_new(mirror: Mirror) -> None:
    """Upload what is new: checkpoints' files, all other files, and last what names them."""
    if _claim(inside(mirror.url, CLAIM)) != mirror.claim:
        raise TakenOver(
            f"{mirror.url}: its {CLAIM} is of another run folder now; this one is copied no more"
        )
    stage = mirror.run_dir / STAGED
    try:
        # `last` first, so that `best` is not of before it, and the logs are of after both.
        taken = {name: _taken(mirror, name, stage) for name in reversed(NAMES)}
        for folder in filter(None, taken.values()):
            for file in sorted((stage / folder).iterdir(), key=lambda one: one.name == CHECKSUMS):
                upload(file, inside(inside(mirror.url, folder), file.name))
        files = _upload_files(mirror)
        for name in NAMES:
            known = mirror.pointers.get(name)
            if (new := taken[name]) is not None:
                _name(mirror, name, new, files, stage)
            elif name == "last" and known is not None and known.files != files:
                _name(mirror, name, known.folder, files, stage)
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def _taken(mirror: Mirror, name: str, stage: Path) -> str | None:
    """Take hold of a checkpoint's files, which training may replace; None: it is there already.

    Returns:
        The name of its folder below `stage`, and in the store.
    """
    folder = mirror.run_dir / name
    while (checks := _bytes(folder / CHECKSUMS)) is not None:
        chosen = f"{name}-{xxhash.xxh3_64_hexdigest(checks)}"
        known = mirror.pointers.get(name)
        if known is not None and known.folder == chosen:
            return None
        with suppress(FileNotFoundError):  # replaced meanwhile
            shutil.rmtree(stage / chosen, ignore_errors=True)
            (stage / chosen).mkdir(parents=True)
            for file in folder.iterdir():
                _link(file, stage / chosen / file.name)
            if _bytes(folder / CHECKSUMS) == checks:
                return chosen
    return None


def _name(mirror: Mirror, name: str, folder: str, files: list[str], stage: Path) -> None:
    """Write the object that names a checkpoint, and remove those that it names no more."""
    known = mirror.pointers.get(name)
    older = [] if known is None else [known.folder, *known.before]
    older = [one for one in older if one != folder]
    pointer = Pointer(folder, older[: KEPT[name] - 1], files)
    stage.mkdir(exist_ok=True)
    write_json(stage / "pointer.json", asdict(pointer))
    upload(stage / "pointer.json", inside(mirror.url, f"{name}.json"))
    mirror.pointers[name] = pointer
    for surplus in older[KEPT[name] - 1 :]:
        home = inside(mirror.url, surplus)
        with suppress(FileNotFoundError):
            listed = json.loads(read_text(inside(home, CHECKSUMS)))
            for file in (CHECKSUMS, *listed):
                remove(inside(home, file))


def copy_results(folder: Path, url: str, last: str) -> str:
    """Upload the files of a folder of results; return why it failed, or an empty text.

    Args:
        last: name of the file that is uploaded when all others are there; one of earlier results
            is removed before.
    """
    names = [path.name for path in folder.iterdir() if path.is_file() and path.name[0] != "."]
    try:
        if is_there(inside(url, last)):
            remove(inside(url, last))
        for name in sorted(names, key=lambda one: one == last):
            upload(folder / name, inside(url, name))
    except FAILURES as error:
        return f"{KEY}: {error}; the results are whole in {folder}"
    return ""


def _upload_files(mirror: Mirror) -> list[str]:
    """Upload what has changed of the files beside the checkpoints; return the names of all."""
    names = []
    for path in sorted(_beside_checkpoints(mirror.run_dir)):
        name = path.relative_to(mirror.run_dir).as_posix()
        with suppress(FileNotFoundError):  # of a file that is written under another name first
            facts = path.stat()
            if not path.is_file() or path.name.startswith("."):
                continue
            state = facts.st_size, facts.st_mtime_ns
            if mirror.sent.get(name) != state:
                upload(path, inside(mirror.url, name))
            mirror.sent[name] = state
            names.append(name)
    for gone in sorted({*mirror.sent} - {*names}):
        remove(inside(mirror.url, gone))
        del mirror.sent[gone]
    return [name for name in names if name != FAILURE]


def _beside_checkpoints(run_dir: Path) -> Iterator[Path]:
    """Yield the files of a run that are not part of a checkpoint, hidden or not to be copied.

    No other folder is entered: training replaces checkpoints meanwhile.
    """
    for home, folders, files in os.walk(run_dir):
        if Path(home) == run_dir:
            folders[:] = filter(_is_copied, folders)
            files = [*filter(_is_copied, files)]
        yield from (Path(home) / name for name in files)


def _is_copied(first: str) -> bool:
    """Check the first part of a name in a run folder."""
    hidden = first.startswith(".") or first in (PROFILE, MIRROR)
    return not hidden and not any(first == one or first.startswith(f"{one}.") for one in NAMES)


def _link(file: Path, target: Path) -> None:
    try:
        os.link(file, target)
    except FileNotFoundError:
        raise
    except OSError:  # no hard links on this disk
        shutil.copyfile(file, target)


def _bytes(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def newest(url: str, name: str) -> str:
    """Return the URL of the newest whole checkpoint of a run in a store.

    Of one that was copied there by hand, the folder of that name.

    Args:
        name: `best` or `last`.
    """
    pointer = _pointer(url, name)
    return inside(url, name if pointer is None else pointer.folder)


def _pointer(url: str, name: str) -> Pointer | None:
    return _read(inside(url, f"{name}.json"), Pointer)


def _claim(place: str | Path) -> Claim | None:
    return _read(place, Claim)


def _read(place: str | Path, kind: type[Kind]) -> Kind | None:
    """Read a small file or object; None: there is none.

    Raises:
        RunError: it is not of this kind.
    """
    try:
        return kind(**json.loads(read_text(place)))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise RunError(f"{KEY}: {place} cannot be used: {error}; choose another URL") from None
