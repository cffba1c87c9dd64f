"""Adapters of the Hugging Face hub as adapter folders: `hub:OWNER/NAME`, `hub:OWNER/NAME@REVISION`.

Only the adapter's own files are fetched, into the hub's cache: no weights that they name, and no
code. Each fetch is of one commit, and the checksums of its `checksums.json` are compared.
"""

from __future__ import annotations

from pathlib import Path

from huggingface_hub.errors import EntryNotFoundError

from vidadapt.console import printable
from vidadapt.hub import PREFIX, download
from vidadapt.runs.checkpoints import CHECKSUMS, DESCRIPTION, TENSORS, damage
from vidadapt.runs.folder import RunError


def is_reference(text: str | Path) -> bool:
    """Check that a text names an adapter of the hub rather than a folder.

    >>> is_reference("hub:owner/name"), is_reference("runs/mine"), is_reference("hub")
    (True, False, False)
    """
    return str(text).startswith(PREFIX)


def parts_of(reference: str | Path) -> tuple[str, str | None]:
    """Split a reference into the repository, and the revision or None: the newest.

    Raises:
        RunError: it is malformed.

    >>> parts_of("hub:owner/name"), parts_of("hub:owner/name@v1.0")
    (('owner/name', None), ('owner/name', 'v1.0'))
    """
    repository, at, revision = str(reference).removeprefix(PREFIX).partition("@")
    if repository.count("/") != 1 or not all(repository.split("/")) or (at and not revision):
        raise RunError(
            f"{printable(str(reference))}: expected hub:OWNER/NAME, or hub:OWNER/NAME@REVISION "
            "with a branch, tag or commit"
        )
    return repository, revision or None


def fetched(reference: str | Path) -> Path:
    """Return the local folder of an adapter of the hub, fetched where the cache lacks it.

    Without a network the cached files of the revision are taken.

    Raises:
        RunError: a malformed reference, a repository that holds no adapter, or files that their
            checksums do not fit.
        HubError: no such repository or revision, or it cannot be reached.
    """
    repository, revision = parts_of(reference)
    shown = f"{PREFIX}{repository}"
    name = DESCRIPTION
    try:
        folder = download(repository, name, revision=revision).parent
        for name in (CHECKSUMS, TENSORS):
            download(repository, name, revision=folder.name)  # the same commit
    except EntryNotFoundError as error:
        raise RunError(
            f"{shown}: has no {name}, so it is no adapter that `vidadapt push` wrote; weights of a "
            f"backbone are given with --model.weights {shown}"
        ) from error
    if problem := damage(folder):
        raise RunError(
            f"{shown}: {problem}; delete {folder.parents[1]} to fetch it again. Where that does "
            "not help, its files were changed one by one: its owner must push it again"
        )
    return folder


def origin(folder: Path) -> str | None:
    """Return the reference, with the commit, that a folder was fetched from; None: from nowhere.

    >>> origin(Path("hub/models--owner--name/snapshots/0a1b"))
    'hub:owner/name@0a1b'
    >>> origin(Path("runs/mine/best"))
    """
    kind, _, repository = folder.parent.parent.name.partition("--")
    if folder.parent.name != "snapshots" or kind != "models":
        return None
    return f"{PREFIX}{repository.replace('--', '/', 1)}@{folder.name}"
