"""Runs and adapters in a store as local folders: `s3://bucket/runs/a`, `s3://bucket/runs/a/best`.

What evaluating needs is fetched, and no more: of an adapter its adapter.json, adapter.safetensors
and checksums.json; of a run its config.yaml and environment.json, too, and one checkpoint, without
the state for resuming. They lie in `runs` of the cache of `files.store_cache`, outside its bound,
in a folder for each state of these objects.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import xxhash

from vidadapt.files import (
    State,
    inside,
    read_text,
    refuse_credentials,
    states_of,
    store_cache,
    write_json,
)
from vidadapt.files import (
    fetched as object_fetched,
)
from vidadapt.runs.checkpoints import CHECKSUMS, DESCRIPTION, TENSORS, TRAINER, damage
from vidadapt.runs.folder import ENVIRONMENT, RunError
from vidadapt.runs.mirror import newest

KEPT, ORIGIN = "runs", "origin"
CONFIG = "config.yaml"
CHECKPOINT = (DESCRIPTION, TENSORS, CHECKSUMS)


def fetched(url: str, checkpoint: str | None = None) -> Path:
    """Return the local folder of an adapter, or of a run with one checkpoint.

    Args:
        checkpoint: of a run, `best` or `last`; default: `best` if it has one, else `last`.

    Raises:
        RunError: neither a run nor an adapter, or files that their checksums do not fit.
        OSError, ImportError, ValueError: see `files.read_ranges`.
    """
    refuse_credentials(url)
    url = url.rstrip("/")
    found = _there({name: inside(url, name) for name in (*CHECKPOINT, CONFIG, ENVIRONMENT)})
    if DESCRIPTION in found:
        found = {name: found[name] for name in CHECKPOINT if name in found}
        checkpoint = ""
    elif CONFIG not in found:
        raise RunError(
            f"{url}: holds neither {DESCRIPTION} nor {CONFIG}; give the folder of an adapter or "
            "of a run"
        )
    else:
        for name in (checkpoint,) if checkpoint else ("best", "last"):
            home = newest(url, name)
            own = _there({f"{name}/{file}": inside(home, file) for file in CHECKPOINT})
            if f"{name}/{DESCRIPTION}" in own:
                found, checkpoint = {**found, **own}, name
                break
        else:
            raise RunError(
                f"{url}: the run holds no {checkpoint or 'best or last'} checkpoint; it writes one "
                "at the end of each epoch (best only with data.dev_list)"
            )
    folder = _placed(url, found)
    if problem := damage(folder / checkpoint):
        raise RunError(
            f"{url}: {problem}; delete {folder.parent} to fetch it again. Where that does not "
            "help, the objects are damaged: upload them again"
        )
    return folder


def origin(folder: str | Path) -> str | None:
    """Return the URL that a folder was fetched from; None: from nowhere."""
    with suppress(OSError):
        return (Path(folder).parent / ORIGIN).read_text(encoding="utf-8")
    return None


def _there(urls: Mapping[str, str]) -> dict[str, tuple[str, State]]:
    """URL and state of each object that there is, by its name here.

    Raises:
        OSError: one cannot be asked for.
    """
    found: dict[str, tuple[str, State]] = {}
    states = states_of(urls.values())
    for name, url in urls.items():
        state = states[url]
        if isinstance(state, State):
            found[name] = url, state
        elif not isinstance(state, FileNotFoundError | IsADirectoryError):
            raise state
    return found


def _placed(url: str, objects: Mapping[str, tuple[str, State]]) -> Path:
    """Return the folder of the copies of objects, by their names; made whole or not at all."""
    said = json.dumps([url, *sorted((name, *of) for name, of in objects.items())])
    home = store_cache().folder / KEPT / xxhash.xxh3_128_hexdigest(said.encode())
    folder = home / url.rpartition("/")[2]
    if folder.is_dir():
        return folder
    partial = home.with_name(f"{home.name}.{secrets.token_hex(4)}.partial")
    try:
        for name, (place, state) in objects.items():
            target = partial / folder.name / name
            target.parent.mkdir(parents=True, exist_ok=True)
            copy = object_fetched(place, state)
            with copy.file:
                os.link(copy.path, target)
        (partial / ORIGIN).write_text(url, encoding="utf-8")
        for file in (partial / folder.name).rglob(CHECKSUMS):
            _leave_out(file, [TRAINER])
        with suppress(OSError):  # another process was first
            partial.rename(home)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _leave_out(checksums: Path, names: Iterable[str]) -> None:
    """Take the files that were not fetched out of a folder's checksums."""
    try:
        known = json.loads(read_text(checksums))
        kept = {name: check for name, check in known.items() if name not in names}
    except (ValueError, AttributeError):
        return  # `damage` says so
    write_json(checksums, kept)
