"""Fixtures of an object store on this machine, and of the local copies of its objects."""

from __future__ import annotations

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
    forkserver._forkserver._stop()
    yield tmp_path / "cache"
    forkserver._forkserver._stop()


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
