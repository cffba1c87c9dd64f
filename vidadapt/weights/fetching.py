"""Fetch a published file from the hub to a path, whole and checked, or not at all."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from vidadapt.files import checksum, writing
from vidadapt.hub import FILES, download, first_stated
from vidadapt.weights.published import Published


@dataclass(frozen=True)
class Fetched:
    """A published file that was fetched.

    Attributes:
        name: of the file in its repository.
        commit: revision of the repository.
        size: bytes.
        sha256: of the file.
        checked: whether the hub or the table states that SHA-256.
    """

    name: str
    commit: str
    size: int
    sha256: str
    checked: bool


def fetch(name: str, entry: Published, out: Path) -> Fetched:
    """Fetch a published file; an interrupted call continues where it was.

    What has come stays beside `out`, in the folder `.NAME.fetching`, until the file is whole.

    Args:
        name: of the entry, for messages.
        out: path of the file to write.

    Raises:
        ValueError: it must be fetched by hand, the file does not fit what is stated of it, or
            `out` is there or has no folder.
        HubError: see `hub.download`.
        WriteError: the disk refused the file.
    """
    if entry.hub is None:
        raise ValueError(
            f"{name} is not on the Hugging Face hub: open {entry.place}, save the file, and give "
            "its path with --model.weights"
        )
    if out.exists():
        raise ValueError(f"--out: {out} exists; delete it, or give another path")
    if not out.absolute().parent.is_dir():
        raise ValueError(f"--out: the folder of {out} does not exist; make it first")
    found, about = first_stated(entry.hub, (entry.file,) if entry.file else FILES)
    if found.endswith(".json"):
        raise ValueError(f"{name} is in several files; give --model.weights hub:{entry.hub}")
    if about.sha256 is not None and not about.sha256.startswith(entry.sha256):
        raise ValueError(
            f"{name}: {entry.hub} holds another {found} than the table of weights knows (SHA-256 "
            f"{about.sha256[:12]}, expected {entry.sha256[:12]}): it was replaced. To use it all "
            f"the same, give --model.weights {entry.weights}"
        )
    partial = out.with_name(f".{out.name}.fetching")
    with writing(partial):
        partial.mkdir(exist_ok=True)
    file = download(entry.hub, found, revision=about.commit, folder=partial)
    size, digest = file.stat().st_size, checksum(file)
    if (about.size not in (None, size)) or (
        not digest.startswith(entry.sha256) or about.sha256 not in (None, digest)
    ):
        shutil.rmtree(partial, ignore_errors=True)
        raise ValueError(
            f"{name}: {found} came damaged: {size:,} bytes with SHA-256 {digest[:12]}, stated are "
            f"{about.size} bytes and {(about.sha256 or entry.sha256)[:12]}; it is deleted. Try "
            "again"
        )
    with writing(out):
        file.replace(out)
    shutil.rmtree(partial, ignore_errors=True)
    return Fetched(found, about.commit, size, digest, bool(about.sha256 or len(entry.sha256) == 64))
