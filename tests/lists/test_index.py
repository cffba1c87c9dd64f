"""The video index: what is written is read back, or what is lost is said; never something else."""

from __future__ import annotations

import multiprocessing
import pickle
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vidadapt.lists import (
    Index,
    Sample,
    Samples,
    Videos,
    add_to_index,
    index_file,
    read_index,
    tidy_index,
)
from vidadapt.lists.index_file import COLUMNS, HEADER, Table
from vidadapt.video import VideoFacts

NAMES = ["a b #1, [x].mp4", "é/ü.avi", b"not\xffunicode.mp4".decode("utf-8", "surrogateescape")]


def facts(path: str, number: int, **changes: object) -> VideoFacts:
    checks = np.random.default_rng(number).integers(0, 2**63, number).astype("<u8")
    known = VideoFacts(
        path,
        "auto",
        size=1000 + number,
        mtime_ns=10**18 + number,
        num_frames=number,
        header_frames=None if number % 2 else number,
        reader="pyav_sparse",
        codec="h264",
        container="mov",
        pixel_format="yuv420p",
        width=320,
        height=240,
        rotation=-90,
        frame_rate=None if number % 3 else 29.97,
        duration=0.1 * number,
        counted_with="PyAV 0",
        checks=checks,
    )
    return replace(known, **changes)  # type: ignore[arg-type]


def known(index: Index | None) -> dict[tuple[str, str], VideoFacts]:
    assert index is not None
    return {(f.path, f.requested): f for f in map(index.__getitem__, index.newest().tolist())}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An index of two segments, the second of which replaces a row of the first."""
    path = tmp_path / "list.txt.index"
    add_to_index(path, [facts(name, number) for number, name in enumerate(NAMES, start=3)])
    broken = VideoFacts("broken.mp4", "auto", size=1, mtime_ns=2, error="no video")
    add_to_index(path, [broken, facts(NAMES[0], 9), facts(NAMES[0], 8, requested="pyav")])
    return path


def expected() -> dict[tuple[str, str], VideoFacts]:
    rows = [facts(name, number) for number, name in enumerate(NAMES, start=3)]
    rows += [facts(NAMES[0], 9), facts(NAMES[0], 8, requested="pyav")]
    rows += [VideoFacts("broken.mp4", "auto", size=1, mtime_ns=2, error="no video")]
    return {(row.path, row.requested): row for row in rows}


def test_what_is_written_is_read_back_and_the_newest_row_counts(path: Path) -> None:
    found = known(read_index(path))
    assert found == expected()
    for key, row in expected().items():
        assert np.array_equal(found[key].checks, row.checks)
    index = read_index(path)
    assert index is not None
    rows = index.find([*NAMES, "gone.mp4", "broken.mp4"], "auto")
    assert [-1 if row < 0 else index[row].num_frames for row in rows] == [9, 4, 5, -1, 0]
    assert index.find(NAMES, "decord").tolist() == [-1, -1, -1]
    assert index.take("num_frames", rows[:3]).tolist() == [9, 4, 5]


def test_what_does_not_hold_is_not_kept_and_no_file_no_index(tmp_path: Path) -> None:
    assert read_index(tmp_path / "none.index") is None
    add_to_index(tmp_path / "some.index", [facts("a", 3, holds=False)])
    assert known(read_index(tmp_path / "some.index")) == {}


def test_a_writer_killed_at_any_byte_costs_its_own_rows_alone(
    path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its header is written last: before, there are zeros and a part of the rest."""
    data = path.read_bytes()
    file = tmp_path / "killed.index"
    add_to_index(file, [facts(NAMES[1], 4)])
    more = file.read_bytes()
    for kept in [*range(0, HEADER.size + 9), *range(HEADER.size + 9, len(more) + 1, 29)]:
        torn = (bytes(HEADER.size) + more[HEADER.size :])[:kept]
        file.write_bytes(data + torn)
        assert known(read_index(file)) == expected()
        add_to_index(file, [facts("new.mp4", 7)])
        assert known(read_index(file)) == expected() | {("new.mp4", "auto"): facts("new.mp4", 7)}
    assert capsys.readouterr().err == ""


def test_a_file_that_was_cut_loses_what_was_cut_and_says_so(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_bytes(path.read_bytes()[:-8])
    first = {(row.path, row.requested): row for row in map(facts, NAMES, (3, 4, 5))}
    assert known(read_index(path)) == first
    assert str(path) in capsys.readouterr().err
    add_to_index(path, [facts("new.mp4", 7)])
    assert known(read_index(path)) == first | {("new.mp4", "auto"): facts("new.mp4", 7)}


def test_a_changed_bit_is_found_wherever_it_is(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = path.read_bytes()
    rows = [*expected().values(), facts(NAMES[0], 3)]
    rng = np.random.default_rng(0)
    places = {*range(2 * HEADER.size), *rng.integers(0, len(data), 300).tolist()}
    for place in sorted(places):
        changed = bytearray(data)
        changed[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(changed)
        try:
            found = known(read_index(path))
        except ValueError as error:
            assert str(path) in str(error) and "delete it" in str(error)
            assert place < 16  # what tells an index from any other file
            continue
        assert str(path) in capsys.readouterr().err
        assert len(found) < len(expected())
        for one in found.values():
            assert one in rows
            same = next(row for row in rows if row == one)
            assert np.array_equal(one.checks, same.checks)
        tidy_index(path)  # what is left is whole again
        assert known(read_index(path)) == found and capsys.readouterr().err == ""


@pytest.mark.parametrize(
    "text", [b"a.mp4 3\n", b"path,size\n" * 50, b"PK\x03\x04", b"vidadapt index 2" + bytes(99)]
)
def test_a_file_that_is_no_index_is_neither_read_nor_changed(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "x.index").write_bytes(text)
    for use in (
        lambda: read_index(tmp_path / "x.index"),
        lambda: add_to_index(tmp_path / "x.index", [facts("a", 3)]),
        lambda: tidy_index(tmp_path / "x.index"),
    ):
        with pytest.raises(ValueError, match=r"x\.index: .*delete it"):
            use()
    assert (tmp_path / "x.index").read_bytes() == text


@pytest.mark.parametrize("name", ["text_end", "checks_end"])
@pytest.mark.parametrize("first", [10**6, 2**63])
def test_an_index_whose_parts_do_not_add_up_is_refused(
    tmp_path: Path, name: str, first: int
) -> None:
    path = tmp_path / "x.index"
    add_to_index(path, [facts("a", 3), facts("b", 4)])
    index = read_index(path)
    assert index is not None
    table = index.table(index.newest())
    total = int(table.columns[name][-1])
    table.columns[name] = np.array([first, total], "<u8")
    path.unlink()
    index_file.append(path, table)
    with pytest.raises(ValueError, match=r"x\.index"):
        read_index(path)


@pytest.mark.parametrize("number", [0, -3, 10**12, -(2**63)])
def test_an_impossible_number_of_frames_is_no_row(tmp_path: Path, number: int) -> None:
    path = tmp_path / "x.index"
    add_to_index(path, [facts("a", 3), facts("b", 4)])
    index = read_index(path)
    assert index is not None
    table = index.table(index.newest())
    table.columns["num_frames"] = np.array([number, number])
    path.unlink()
    index_file.append(path, table)
    index = read_index(path)
    assert index is not None
    assert index.find(["a", "b"], "auto").tolist() == [-1, -1]


@pytest.mark.parametrize("changes", [{"reader": "system"}, {"error": "x"}, {"reader": ""}])
def test_a_row_that_cannot_be_is_no_row(tmp_path: Path, changes: dict[str, str]) -> None:
    add_to_index(tmp_path / "x.index", [facts("a", 3, **changes)])
    index = read_index(tmp_path / "x.index")
    assert index is not None and index.find(["a"], "auto").tolist() == [-1]


def add_some(path: Path, writer: int) -> None:
    for number in range(12):
        add_to_index(path, [facts(f"{writer} {number}", 3 + number)])


def test_writers_at_once_keep_each_other_s_rows(path: Path) -> None:
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=add_some, args=(path, writer)) for writer in range(4)]
    for process in processes:
        process.start()
    for _ in range(5):
        tidy_index(path)
    for process in processes:
        process.join()
        assert process.exitcode == 0
    added = {f"{writer} {number}" for writer in range(4) for number in range(12)}
    assert {name for name, _ in known(read_index(path))} == {n for n, _ in expected()} | added


def test_many_segments_and_replaced_rows_are_put_together(path: Path) -> None:
    for number in range(20):
        add_to_index(path, [facts("again.mp4", 3 + number)])
    before, size = read_index(path), path.stat().st_size
    rows = expected() | {("again.mp4", "auto"): facts("again.mp4", 22)}
    assert before is not None and known(before) == rows
    tidy_index(path)
    after = read_index(path)
    assert after is not None and known(after) == rows
    assert len(after) == len(rows) and path.stat().st_size < size
    assert known(before) == rows, "whoever mapped the old file goes on with it"
    assert not list(path.parent.glob(".*")), "nothing is left beside it"


CHILD = """
import pickle, sys
videos = pickle.loads(bytes.fromhex(sys.stdin.read()))
print([(s.path, s.label, videos.facts(i).num_frames) for i, s in enumerate(videos)])
"""


def many(path: Path, number: int) -> Videos:
    names = [f"videos/of a class/{place:08d}.webm" for place in range(number)]
    add_to_index(path, [facts(name, 1 + place % 3) for place, name in enumerate(names)])
    index = read_index(path)
    assert index is not None
    rows = index.find(names, "auto")
    samples = Samples.of(Sample(name, place % 174) for place, name in enumerate(names))
    return Videos("/data", samples.labels, rows, {}, index)


@pytest.mark.slow
def test_a_pickle_holds_no_rows_and_finds_the_file_when_it_was_replaced(tmp_path: Path) -> None:
    videos = many(tmp_path / "x.index", 5000)
    assert len(pickle.dumps(videos)) < 5000 * 8 + 5000
    few = videos.at(np.array([4999, 7]))
    pickled = pickle.dumps(few)
    expected = [("videos/of a class/00004999.webm", 4999 % 174, 2)]
    expected += [("videos/of a class/00000007.webm", 7, 2)]
    for change in (lambda: None, lambda: index_file.replace(tmp_path / "x.index", _nothing())):
        change()
        done = subprocess.run(
            [sys.executable, "-c", CHILD],
            input=pickled.hex(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == str(expected)


def _nothing() -> Table:
    return Table({name: np.empty(0, kind) for name, kind in COLUMNS.items()}, [], [])


def test_another_machine_needs_the_same_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.index"
    pickled = pickle.dumps(many(path, 10))
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert pickle.loads(pickled)[3].path == "videos/of a class/00000003.webm"
    add_to_index(path, [facts("more", 3)])
    assert len(pickle.loads(pickled)) == 10
    other = tmp_path / "other.index"
    many(other, 11)
    other.replace(path)
    with pytest.raises(ValueError, match=r"x\.index: .*different video indexes"):
        pickle.loads(pickled)
    path.unlink()
    with pytest.raises(ValueError, match=r"x\.index: .*different video indexes"):
        pickle.loads(pickled)
