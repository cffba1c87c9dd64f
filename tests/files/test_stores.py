"""Objects of stores: their states, byte ranges, local copies, and every failure told."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import fsspec
import numpy as np
import pytest
from object_store import KEY, SECRET, forget

from benchmarks.store_server import Store
from vidadapt.files import (
    fetched,
    read_ranges,
    state_of,
    states_of,
    store_cache,
    stores,
)

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def content() -> bytes:
    return np.random.default_rng(0).bytes(3_000_000)


def urls_of(store: Store, name: str) -> list[str]:
    return [f"s3://bucket/{name}", f"http://{store.address}/bucket/{name}"]


@pytest.mark.parametrize("name", ["a.bin", "in/a b #1 ü 100%.bin", "%41?.bin"])
def test_parts_and_copies_of_objects(store: Store, content: bytes, name: str) -> None:
    file = store.folder / "bucket" / name
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    places = [(1_000_000, 7), (0, 100), (2_999_990, 10), (150, 50), (5, 0)]
    for url in [*urls_of(store, name), f"file://{file}"]:
        parts = [bytes(part) for part in read_ranges(url, places)]
        assert parts == [content[start : start + size] for start, size in places]
        assert state_of(url).size == len(content)
        copy = fetched(url)
        assert Path(copy.path).read_bytes() == content and Path(copy.path).suffix == ".bin"


def test_what_lies_side_by_side_is_one_request(store: Store, content: bytes) -> None:
    (store.folder / "bucket" / "a.bin").write_bytes(content)
    read_ranges("s3://bucket/a.bin", [(start, 1000) for start in range(0, 200_000, 10_000)])
    assert len(store.gets()) == 1
    read_ranges("s3://bucket/a.bin", [(0, 1000), (2_000_000, 1000), (2_001_000, 1000)])
    assert len(store.gets()) == 3


def test_a_state_tells_each_write(tmp_path: Path) -> None:
    memory = fsspec.filesystem("memory")
    file = tmp_path / "a.bin"
    for url in ("memory://bucket/a.bin", f"file://{file}"):
        seen = set()
        for number in range(3):
            memory.pipe_file("/bucket/a.bin", bytes([number] * 10))
            file.write_bytes(bytes([number] * 10))
            os.utime(file, ns=(number, number * 10**9))
            assert state_of(url) == state_of(url)
            seen.add(state_of(url))
        assert len(seen) == 3


def test_many_states_are_those_of_single_looks(tmp_path: Path) -> None:
    for folder in ("one", "many"):
        (tmp_path / folder).mkdir()
        for number in range(9 if folder == "many" else 1):
            (tmp_path / folder / f"{number} #.bin").write_bytes(bytes(number))
    urls = [f"file://{tmp_path}/many/{number} #.bin" for number in range(9)]
    urls += [f"file://{tmp_path}/one/0 #.bin"]
    gone = [f"file://{tmp_path}/many/gone", f"file://{tmp_path}/nowhere/gone"]
    found = states_of([*urls, *gone])
    assert {url: found[url] for url in urls} == {url: state_of(url) for url in urls}
    assert all(isinstance(found[url], FileNotFoundError) for url in gone)


def test_a_copy_is_fetched_once_and_again_when_the_object_changes(
    store: Store, content: bytes
) -> None:
    file = store.folder / "bucket" / "a.bin"
    file.write_bytes(content)
    first = fetched("s3://bucket/a.bin")
    assert fetched("s3://bucket/a.bin").path == first.path and len(store.gets()) == 1
    file.write_bytes(content[::-1])
    forget()
    assert Path(fetched("s3://bucket/a.bin").path).read_bytes() == content[::-1]
    assert Path(first.path).read_bytes() == content


def test_a_damaged_copy_is_fetched_again(store: Store, content: bytes) -> None:
    (store.folder / "bucket" / "a.bin").write_bytes(content)
    place = Path(fetched("s3://bucket/a.bin").path)
    for damaged in (content[:-1], content[:1000] + b"x" + content[1001:], b""):
        place.write_bytes(damaged)
        assert Path(fetched("s3://bucket/a.bin").path).read_bytes() == content


def test_the_cache_keeps_its_bound_and_what_is_in_use(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDADAPT_STORE_CACHE_GB", "0.00001")  # 10 kB
    for number in range(12):
        (tmp_path / f"{number}.bin").write_bytes(bytes([number]) * 2000)
    held = fetched(f"file://{tmp_path}/0.bin")
    for number in range(1, 12):
        copy = fetched(f"file://{tmp_path}/{number}.bin")
        os.utime(copy.path, ns=(number, number))  # in this order, however fast
        copy.file.close()
        kept = list(own_cache.glob("??/*.bin"))
        assert sum(file.stat().st_size for file in kept) <= 10_000
    assert Path(held.path).read_bytes() == bytes(2000)
    assert Path(copy.path) in kept
    (tmp_path / "large.bin").write_bytes(bytes(10_001))
    with pytest.raises(OSError, match="VIDADAPT_STORE_CACHE_GB"):
        fetched(f"file://{tmp_path}/large.bin")
    monkeypatch.setenv("VIDADAPT_STORE_CACHE_GB", "much")
    with pytest.raises(ValueError, match="VIDADAPT_STORE_CACHE_GB"):
        store_cache()


def test_what_a_killed_process_left_half_written_goes_first(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDADAPT_STORE_CACHE_GB", "0.00001")
    for number in range(2):
        (tmp_path / f"{number}.bin").write_bytes(bytes(4000))
    first = fetched(f"file://{tmp_path}/0.bin")
    first.file.close()
    left = Path(first.path).with_name("left.bin.0.partial")
    left.write_bytes(bytes(5000))
    (own_cache / "total").unlink()
    fetched(f"file://{tmp_path}/1.bin").file.close()
    assert not left.exists() and Path(first.path).exists()


def _read_all(folder: str, names: list[str], order: int) -> None:
    for name in np.random.default_rng(order).permutation(names * 3):
        copy = fetched(f"file://{folder}/{name}")
        assert Path(copy.path).read_bytes() == Path(folder, name).read_bytes()
        copy.file.close()


def test_many_processes_share_a_cache_that_is_too_small(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIDADAPT_STORE_CACHE_GB", "0.0002")
    names = [f"{number}.bin" for number in range(20)]
    for number, name in enumerate(names):
        (tmp_path / name).write_bytes(np.random.default_rng(number).bytes(20_000))
    fork = multiprocessing.get_context("fork")
    running = [fork.Process(target=_read_all, args=(str(tmp_path), names, n)) for n in range(4)]
    for process in running:
        process.start()
    for process in running:
        process.join()
    assert [process.exitcode for process in running] == [0] * 4
    files = [*own_cache.glob("??/*.bin")]
    assert sum(file.stat().st_size for file in files) <= 200_000
    assert not [*own_cache.glob("??/*.partial")]


def test_momentary_failures_are_tried_again(store: Store, content: bytes) -> None:
    (store.folder / "bucket" / "a.bin").write_bytes(content)
    for url in urls_of(store, "a.bin"):
        store.fail = 2
        assert bytes(read_ranges(url, [(0, 10)])[0]) == content[:10]


def test_failures_name_the_url_and_show_no_credential(
    store: Store, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    (store.folder / "bucket" / "a.bin").write_bytes(content)

    def error_of(url: str, kind: type[OSError]) -> str:
        with pytest.raises(kind) as told:
            fetched(url).file.close()
        assert told.value.__cause__ is None and told.value.__suppress_context__
        assert told.value.filename == url and told.value.strerror
        return str(told.value)

    said = [error_of(url, FileNotFoundError) for url in urls_of(store, "gone.bin")]
    store.refuse = True
    said += [error_of(url, PermissionError) for url in urls_of(store, "a.bin")]
    store.refuse, store.fail = False, 10**6
    said += [error_of(url, OSError) for url in urls_of(store, "a.bin")]
    assert not any(KEY in text or SECRET in text for text in said)


@pytest.mark.parametrize(
    "url",
    [
        "https://me:pass1234@host/a.mp4",
        "https://host/a.mp4?X-Amz-Signature=pass1234&X-Amz-Credential=x",
        "s3://key:pass1234@bucket/a.mp4",
    ],
)
def test_urls_with_credentials_are_refused_and_not_shown(url: str) -> None:
    for ask in (state_of, fetched, lambda one: states_of([one])):
        with pytest.raises(ValueError) as told:
            ask(url)
        assert "pass1234" not in str(told.value) and "host" in str(told.value).replace(
            "bucket", "host"
        )


@pytest.mark.parametrize(
    "text",
    [
        f"Access Key Id {KEY} is not known",
        f"signed with {SECRET}",
        "GET https://bucket.host/a?X-Amz-Credential=AKIA1&X-Amz-Signature=verysecret",
        "Authorization: Bearer verysecret",
        '{"secretAccessKey": "verysecret"}',
        "token hf_verysecretverysecret",
    ],
)
def test_what_libraries_say_is_shown_without_credentials(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    shown = stores.without_credentials(text)
    assert "verysecret" not in shown and KEY not in shown


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    if pytest.importorskip("fsspec") and __import__("importlib").util.find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    with pytest.raises(ImportError, match=r"pip install 'vidadapt\[gs\]'"):
        state_of("gs://bucket/a.bin")


def test_states_of_a_listed_bucket_are_those_of_single_objects(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a whole S3: listings, its errors, and objects that are replaced."""
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        fsspec.filesystem("s3").clear_instance_cache()
        s3 = fsspec.filesystem("s3")
        s3.mkdir("bucket")
        urls = [f"s3://bucket/in/{number} #ü.bin" for number in range(7)]
        for number, url in enumerate(urls):
            s3.pipe_file(url, bytes([number]) * (10 + number))
        before = states_of([*urls, "s3://bucket/in/gone", "s3://nowhere/a.bin"])
        assert {url: before[url] for url in urls} == {url: state_of(url) for url in urls}
        assert isinstance(before["s3://bucket/in/gone"], FileNotFoundError)
        assert isinstance(before["s3://nowhere/a.bin"], FileNotFoundError)
        s3.pipe_file(urls[3], b"another one!!")  # of the same size
        after = states_of(urls)
        assert [url for url in urls if after[url] != before[url]] == [urls[3]]
        assert bytes(read_ranges(urls[3], [(0, 7)])[0]) == b"another"
    finally:
        server.stop()
