"""Fixtures of an object store on this machine, and of the local copies of its objects."""

from __future__ import annotations

import os
from collections.abc import Iterator
from multiprocessing import forkserver
from pathlib import Path

import fsspec
import pytest

from benchmarks.store_server import Store, serving
from vidadapt import files
from vidadapt.video import packed_index

KEY = "AKIAQQQQWWWWEEEERRRR"
SECRET = "verysecret/of/me+1234567890"


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own, hardly any patience, and nothing known that an earlier test asked for.

    The fork server, whose processes have the environment that it began with, begins anew.
    """
    monkeypatch.setenv("VIDADAPT_STORE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(files.stores, "SECONDS", 0.01)
    forget()
    _leave_fork_server()
    yield tmp_path / "cache"
    _leave_fork_server()


def _leave_fork_server() -> None:
    """Let the next process begin a new fork server; this one ends with the last of its processes.

    Its own `_stop` waits for that end: without end where a pool of an earlier test is not yet
    collected.
    """
    server = forkserver._forkserver
    with server._lock:
        if server._forkserver_pid is not None:
            os.close(server._forkserver_alive_fd)
            server._forkserver_alive_fd = server._forkserver_pid = server._forkserver_address = None


@pytest.fixture
def store(tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A server of `s3://bucket`, with credentials that must never be shown."""
    pytest.importorskip("s3fs")
    (tmp_path / "bucket").mkdir(exist_ok=True)
    with serving(tmp_path) as found:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{found.address}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        fsspec.filesystem("s3").clear_instance_cache()
        yield found


def forget() -> None:
    """Know as little of objects as a new process."""
    files.stores._patience.cache_clear()
    files.known_state.cache_clear()
    packed_index.index_in_state.cache_clear()
