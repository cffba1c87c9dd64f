"""Put a folder's files into a repository of the hub, in one commit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_token
from huggingface_hub.errors import (
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    RepositoryNotFoundError,
)

from vidadapt.hub.fetching import LOGIN, HubError, unreachable

# What a repository may hold before its first upload: the hub itself writes these.
OF_THE_HUB = {".gitattributes", "README.md"}


def publish(
    folder: Path, names: Sequence[str], mark: str, repository: str, *, private: bool, message: str
) -> tuple[str, str]:
    """Make the repository where needed, and put those files of the folder there that have names.

    Files of these names that the folder lacks are deleted there; others stay as they are.

    Args:
        names: of all files that are put there.
        mark: one of them; a repository with files, but without this one, is somebody's other
            model and is refused.
        repository: OWNER/NAME.
        private: only its owner and whom the owner allows may read it.
        message: of the commit.

    Returns:
        Address of the repository, and the commit.

    Raises:
        HubError: no login, or not the right to write there, no network, a repository that holds
            something else, or is public where `private` is asked for.
    """
    if get_token() is None:
        raise HubError(f"{repository}: there is no login at the Hugging Face hub; {LOGIN}")
    client = HfApi()
    try:
        held = _held(client, repository, mark, private)
        if held is None:
            client.create_repo(repository, private=private or None)
            held = set()
        given = [name for name in names if (folder / name).is_file()]
        gone = sorted(held.intersection(names) - set(given))
        commit = client.create_commit(
            repository,
            [
                *(CommitOperationAdd(name, folder / name) for name in given),
                *(CommitOperationDelete(name) for name in gone),
            ],
            commit_message=message,
        )
    except HubError:
        raise
    # RuntimeError: a large file whose upload failed.
    except (HfHubHTTPError, HFValidationError, HTTPError, OSError, RuntimeError) as error:
        cause = error.__cause__ if isinstance(error, RuntimeError) else None
        raise unreachable(repository, cause or error, verb="written to") from error
    return f"{client.endpoint}/{repository}", commit.oid


def _held(client: HfApi, repository: str, mark: str, private: bool) -> set[str] | None:
    """Return the names of the repository's files; None where there is no such repository."""
    try:
        about = client.model_info(repository)
    except RepositoryNotFoundError:
        return None
    held = {file.rfilename for file in about.siblings or ()}
    if held - OF_THE_HUB and mark not in held:
        raise HubError(
            f"{repository}: holds {sorted(held - OF_THE_HUB)[0]!r} and no {mark}, so it is another "
            "model; choose another name"
        )
    if private and not about.private:
        raise HubError(
            f"{repository}: --private: it is there already and public; make it private on its "
            "page, or choose another name"
        )
    return held
