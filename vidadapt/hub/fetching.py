"""Fetch files of the hub: into its cache, or into a folder."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import (
    get_hf_file_metadata,
    hf_hub_download,
    hf_hub_url,
    try_to_load_from_cache,
)
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # of a connection that fails, from whichever library the client uses
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from vidadapt.console import printable

PREFIX = "hub:"  # in front of OWNER/REPOSITORY where a file or folder could be named, too
# Names of a model's file in a repository or a folder, in the order of the search.
FILES = (
    "model.safetensors",
    "open_clip_model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


class HubError(ValueError):
    """The hub refuses something, or cannot be reached; names the repository and the cause."""


@dataclass(frozen=True)
class Stated:
    """Facts that the hub states of a file.

    Attributes:
        commit: revision of the repository, 40 hexadecimal digits.
        size: bytes; None: not stated.
        sha256: of a large file; None: not stated.
    """

    commit: str
    size: int | None
    sha256: str | None


def download(
    repository: str, name: str, *, revision: str | None = None, folder: Path | None = None
) -> Path:
    """Return the local copy of a file: from the cache, or fetched, which shows its progress.

    Args:
        repository: OWNER/NAME.
        name: path in the repository.
        revision: branch, tag or commit; default: the newest.
        folder: where to keep it; default: the hub's cache.

    Raises:
        EntryNotFoundError: the repository has no such file.
        HubError: no such repository or revision, or no network and the file is not in the cache.
    """
    with _refused(repository, revision):
        return Path(hf_hub_download(repository, name, revision=revision, local_dir=folder))


def first_download(repository: str, names: tuple[str, ...]) -> tuple[str, Path]:
    """Return the first of these files that is in the cache, else in the repository.

    Raises:
        HubError: none of them is there; or see `download`.
    """
    with _refused(repository, None):
        for name in names:
            cached = try_to_load_from_cache(repository, name)
            if isinstance(cached, str):
                return name, Path(cached)
    for name in names:
        with contextlib.suppress(EntryNotFoundError):
            return name, download(repository, name)
    raise _none_of(repository, names)


def download_if_there(repository: str, name: str, revision: str) -> None:
    """Fetch a file into the hub's cache, if the repository has it; ask once for each revision.

    Raises:
        HubError: see `download`.
    """
    with _refused(repository, revision):
        known = try_to_load_from_cache(repository, name, revision=revision)
    if known is None:  # neither a path, nor the mark of a file that is not in the repository
        with contextlib.suppress(EntryNotFoundError):
            download(repository, name, revision=revision)


def first_stated(repository: str, names: tuple[str, ...]) -> tuple[str, Stated]:
    """Return the first of these files that the repository has, and what the hub states of it.

    Raises:
        HubError: none of them is there; or see `stated`.
    """
    for name in names:
        with contextlib.suppress(EntryNotFoundError):
            return name, stated(repository, name)
    raise _none_of(repository, names)


def _none_of(repository: str, names: tuple[str, ...]) -> HubError:
    return HubError(f"{repository} on the Hugging Face hub has none of {', '.join(names)}")


def stated(repository: str, name: str) -> Stated:
    """Ask the hub for the commit, size and checksum of a file; fetches nothing.

    Raises:
        EntryNotFoundError, HubError: see `download`.
    """
    with _refused(repository, None):
        found = get_hf_file_metadata(hf_hub_url(repository, name))
        if found.commit_hash is None:
            raise HubError(f"{repository}: the server does not say which revision it has")
        # Of a small file the tag is that of git, of a large one its SHA-256.
        large = re.fullmatch("[0-9a-f]{64}", found.etag or "")
        return Stated(found.commit_hash, found.size, found.etag if large else None)


@contextlib.contextmanager
def _refused(repository: str, revision: str | None) -> Iterator[None]:
    """Raise `HubError` for whatever the client raises, but for a file that is not there."""
    try:
        yield
    except LocalEntryNotFoundError as error:  # also an EntryNotFoundError
        raise unreachable(repository, error.__cause__ or error, revision) from error
    except EntryNotFoundError:
        raise
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError) as error:
        raise unreachable(repository, error, revision) from error


def unreachable(
    repository: str, error: BaseException, revision: str | None = None, verb: str = "fetched from"
) -> HubError:
    """Make the error for what the client raised.

    Args:
        verb: of the sentence "REPOSITORY could not be ... the Hugging Face hub".
    """
    lines = str(error).strip().splitlines() or [type(error).__name__]
    why = lines[0]
    if isinstance(error, GatedRepoError):
        why = f"its terms must be accepted on its page, and then {LOGIN}"
    elif isinstance(error, RepositoryNotFoundError):
        why = f"there is no such repository, or it is private: {LOGIN}"
    elif isinstance(error, RevisionNotFoundError):
        why = f"it has no revision {revision}"
    elif isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403):
        why = f"the login is missing, or may not do this: {LOGIN}"
    elif not isinstance(error, HFValidationError):
        why = f"{why}; it takes a network"
    return HubError(printable(f"{repository} could not be {verb} the Hugging Face hub ({why})"))
