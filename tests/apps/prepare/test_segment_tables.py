"""Tables with the starts and ends of segments become lists of them."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import lines_of, prepare
from videos import grey_frames, write_video

from vidadapt.lists import read_list
from vidadapt.video import film_of


@pytest.fixture
def films(tmp_path: Path) -> Path:
    for number in range(6):
        write_video(tmp_path / "films" / f"P0{number}.mp4", grey_frames(48 + number))
    return tmp_path / "films"


def made(films: Path, header: str, rows: list[str], *options: object, index: bool = False):
    table = films.parent / "table.csv"
    table.write_text("\n".join([header, *rows]))
    out = films.parent / "out"
    plain = () if options and options[0] == "--test_fraction" else ("--test_fraction", 0)
    command = ["csv", table, "--videos", films, out, *plain, "--dev_fraction", 0, *options]
    return prepare(*command, index=index), out


@pytest.mark.parametrize(
    ("columns", "cells", "fragment"),
    [
        ("start,end", "0.50,1.25", "#t=0.5,1.25"),
        ("Start,end_time", "1,2.0", "#t=1,2"),
        ("t_start,t_end", "0,", "#t=0"),
        ("start_timestamp,stop_timestamp", "00:00:00.14,00:00:01.37", "#t=0.14,1.37"),
        ("start_frame,end_frame", "0,12", "#frames=0,12"),
        ("start_frame,stop_frame", "1,12", "#frames=0,12"),  # EPIC-Kitchens counts so
    ],
)
def test_a_row_is_a_segment(films, columns, cells, fragment) -> None:
    rows = [f"P00.mp4,a,{cells}", "P00,b,,", f"P01,b,{cells}"]  # the second: all of the film
    done, out = made(films, f"video_id,label,{columns}", rows)
    assert done.status == 0, done.told
    paths = [f"P00.mp4{fragment}", "P00.mp4", f"P01.mp4{fragment}"]
    assert [path for path, _ in lines_of(out / "train.txt")] == paths
    assert len(done.listed("note: segments of films")) == 1


def test_times_of_epic_kitchens_come_before_its_frames(films) -> None:
    header = "video_id,verb,start_timestamp,stop_timestamp,start_frame,stop_frame"
    rows = [f"P0{n},{'ab'[n % 2]},00:00:00.1{n},00:00:01.{n}0,7,60" for n in (0, 1, 1)]
    rows[2] = rows[2].replace("0.11", "0.31")
    done, out = made(films, header, rows, "--label_column", "verb")
    assert done.status == 0, done.told
    assert lines_of(out / "train.txt")[0] == ("P00.mp4#t=0.1,1", 0)


def test_columns_may_be_named_where_each_file_comes_once(films) -> None:
    rows = ["P00,a,0.5,1", "P01,b,0.25,1"]
    done, out = made(films, "path,label,i,o", rows, "--start_column", "i", "--end_column", "o")
    assert [p for p, _ in lines_of(out / "train.txt")] == ["P00.mp4#t=0.5,1", "P01.mp4#t=0.25,1"]
    assert done.status == 0


def test_segments_of_a_film_stay_on_one_side_of_a_split(films) -> None:
    rows = [f"P0{n},{'ab'[i % 2]},{i / 10},{i / 10 + 0.4}" for n in range(6) for i in range(8)]
    done, out = made(films, "path,label,start,end", rows, "--test_fraction", 0.3, index=True)
    assert done.status == 0, done.told
    films_of = [{film_of(p) for p, _ in lines_of(out / f"{s}.txt")} for s in ("train", "test")]
    assert not films_of[0] & films_of[1] and len(films_of[0] | films_of[1]) == 6
    assert (out / "train.txt.index").is_file()


@pytest.mark.parametrize(
    ("header", "row", "status", "says"),
    [
        ("path,label,start,end", "P00,b,abc,2", 1, "'abc' is no time"),
        ("path,label,start,end", "P00,b,2,1", 1, "no frame"),
        ("path,label,start,end", "P00,b,-1,1", 1, "'-1' is no time"),
        ("path,label,start_frame,stop_frame", "P00,b,0,9", 1, "no frame"),  # it counts from 1
        ("path,label,start_frame,end", "P00,b,0,9", 2, "counts frames by its name"),
        ("path,label,start,end", "P00,b,0.1,1", 1, "one video twice"),
        ("path,label,split,start,end", "P00,b,test,0.5,1.5", 1, "training refuses them"),
        ("path,label,split,start,end", "P00,b,test,,", 1, "training refuses them"),
        ("path,label,start,end", f"P00,b,{'9' * 40},", 1, "is no time"),
        ("path,label,start,end", "P00,b,,0.0", 1, "unusable rows"),
        ("path,label,start_frame,end_frame", f"P00,b,1,{'9' * 5000}", 1, "is no frame"),
    ],
)
def test_bad_rows_are_named(films, header, row, status, says) -> None:
    first = "P00,a,train,0.1,1" if "split" in header else "P00,a,1,2" if "fra" in header else ""
    second = "P01,b,train,0.1,1" if "split" in header else "P01,b,1,2"
    done, _ = made(films, header, [first or "P00,a,0.1,1", row, second])
    assert done.status == status and says in done.told + done.report
    named = "table.csv" if "P00,b,test" not in row else "P00.mp4"
    assert named in done.told + done.report


def test_one_named_column_alone_is_refused(films) -> None:
    done, _ = made(films, "path,label,i", ["P00,a,1", "P01,b,1"], "--start_column", "i")
    assert done.status == 2 and "--start_column alone" in done.told


def test_fast_copies_refuse_segments_in_one_line(films) -> None:
    listed = films.parent / "list.txt"
    listed.write_text("P00.mp4#t=0.5,1 0\nP01.mp4 1\n")
    for command in ("transcode", "frames"):
        words = [command, listed, "--root", films, "--out", films.parent / "copies"]
        done = prepare(*words, index=True)
        assert done.status == 2 and "P00.mp4#t=0.5,1 is a segment" in done.told
    assert len(read_list(listed, films, 2)) == 2
