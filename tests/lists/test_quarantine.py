"""`data.quarantine`: listed files are never opened, and never disappear without being told."""

import json
import shutil
from pathlib import Path

import pytest
from conftest import TinySet, launch

from vidadapt.config import DataConfig
from vidadapt.evaluation import load_scores
from vidadapt.lists import (
    ListError,
    Sample,
    barred_files,
    counted_videos,
    manifest_hash,
    read_label_names,
    read_list,
    read_quarantine,
    write_quarantine,
)

TRAIN, TEST = "train 3 [x]#.mp4", "test 2 [x]#.mp4"


@pytest.fixture
def root(tiny_set: TinySet, tmp_path: Path) -> Path:
    """A copy of the tiny set, to be broken."""
    shutil.copytree(tiny_set.root, tmp_path / "videos")
    return tmp_path / "videos"


def options(tiny_set: TinySet, root: Path, quarantine: Path, **changes: object) -> list[str]:
    lists = {f"data__{name}_list": root / f"{name}.txt" for name in ("train", "dev", "test")}
    chosen = {"data__root": root, "data__quarantine": quarantine, "train__epochs": 1}
    return tiny_set.options(**lists, **chosen, **changes)


def test_training_leaves_them_out_and_evaluation_counts_them_as_wrong(
    tiny_set: TinySet, root: Path, run_tool, tmp_path: Path
) -> None:
    """The files are gone: whoever opened, counted or looked for them would fail."""
    quarantine = tmp_path / "quarantine.txt"
    causes = {TRAIN: "hung for 300 s", TEST: "died", "in/no/list.mp4": "Invalid data"}
    write_quarantine(quarantine, causes)
    for name in (TRAIN, TEST):
        (root / name).unlink()
    run = tmp_path / "run"
    run_tool("train", *options(tiny_set, root, quarantine), "--run_dir", run)
    summary = json.loads((run / "summary.json").read_text())
    [left_out] = summary["left_out"]
    assert left_out == f"{root / TRAIN}: hung for 300 s (quarantined by {quarantine})"
    assert TEST in summary["warnings"]["test"][0] and summary["warnings"]["train"] == []
    names = read_label_names(root / "labels.txt")
    samples = read_list(root / "train.txt", root, 3)
    kept = [sample for sample in samples if sample.path != TRAIN]
    assert len(kept) == 11 and summary["manifests"]["train"] == manifest_hash(kept, names)
    whole = read_list(root / "test.txt", root, 3)
    assert summary["manifests"]["test"] == manifest_hash(whole, names)

    intact = ["--data.root", tiny_set.root, "--data.quarantine", "null"]
    run_tool("evaluate", "--run_dir", run, *intact, "--out", tmp_path / "before")
    before, _ = load_scores(tmp_path / "before" / "scores.npz")
    run_tool("evaluate", "--run_dir", run, "--out", tmp_path / "eval")
    found = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    scores, _ = load_scores(tmp_path / "eval" / "scores.npz")
    assert (found["num_videos"], len(scores.paths)) == (7, 7)
    [entry] = found["unreadable"]
    assert entry["path"] == TEST and "test 2 [x]#.mp4: died (quarantined by" in entry["error"]
    assert found["warnings"] == [entry["error"]]
    hits = before.logits.mean(1).argmax(1) == before.labels
    assert hits[2], "the test needs a video that is lost"
    hits[2] = False
    assert found["top1"] == pytest.approx(100 * hits.mean())


def test_a_quarantine_given_to_an_evaluation_is_not_the_training_s(
    tiny_set: TinySet, run_tool, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run_tool("train", *tiny_set.options(train__epochs=1), "--run_dir", run)
    quarantine = tmp_path / "quarantine.txt"
    write_quarantine(quarantine, {f"./{TEST}": "flickers"})
    for source in (["--run_dir", run], ["--adapter", run / "last"]):
        where = ["--data.root", tiny_set.root, "--data.test_list", tiny_set.lists["test"]]
        given = [*source, *where, "--data.num_workers", 0, "--data.quarantine", quarantine]
        run_tool("evaluate", *given, "--out", tmp_path / source[0])
        found = json.loads((tmp_path / source[0] / "metrics.json").read_text())
        assert [entry["path"] for entry in found["unreadable"]] == [TEST]
        assert "flickers" in found["unreadable"][0]["error"]


def test_quarantined_videos_do_not_count_as_unreadable_ones(
    tiny_set: TinySet, root: Path, run_tool, tmp_path: Path
) -> None:
    other = "train 5 [x]#.mp4"
    for name in (TRAIN, other):
        (root / name).write_bytes(b"no video")
    quarantine = tmp_path / "quarantine.txt"
    write_quarantine(quarantine, {TRAIN: "no video"})
    given = options(tiny_set, root, quarantine)
    with pytest.raises(Exception, match=r"1 unreadable training video(?s:.*)train 5"):
        run_tool("train", *given, "--run_dir", tmp_path / "run")
    run_tool("train", *given, "--data.max_unreadable", 1, "--run_dir", tmp_path / "run")
    left_out = json.loads((tmp_path / "run" / "summary.json").read_text())["left_out"]
    assert [name in line for name, line in zip((TRAIN, other), left_out, strict=True)] == [True] * 2
    assert "(quarantined by" in left_out[0] and "(quarantined by" not in left_out[1]


def test_a_resumed_run_does_not_change_with_the_quarantine(
    tiny_set: TinySet, run_tool, tmp_path: Path
) -> None:
    """The manifest is that of what is trained on, and a resume demands the same."""
    quarantine = tmp_path / "quarantine.txt"
    write_quarantine(quarantine, {TRAIN: "grey"})
    given = tiny_set.options(data__quarantine=quarantine, train__epochs=1)
    run_tool("train", *given, "--run_dir", tmp_path / "run")
    write_quarantine(quarantine, {})
    with pytest.raises(ValueError, match=r"manifests was .* restore it"):
        run_tool("train", *given, "--run_dir", tmp_path / "run", "--resume")
    write_quarantine(quarantine, {TRAIN: "of another cause", "in/no/list.mp4": "grey"})
    run_tool("train", *given, "--run_dir", tmp_path / "run", "--resume")
    without = tiny_set.options(train__epochs=1)
    with pytest.raises(ValueError, match=r"data\.quarantine: .* -> None"):
        run_tool("train", *without, "--run_dir", tmp_path / "run", "--resume")


def test_an_unusable_quarantine_is_one_error_before_anything_is_written(
    tiny_set: TinySet, tmp_path: Path
) -> None:
    quarantine = tmp_path / "quarantine.txt"
    quarantine.write_text("a.mp4\tgone\nb.mp4 gone\n")
    given = [*tiny_set.options(data__quarantine=quarantine), "--run_dir", tmp_path / "run"]
    done = launch("train", *given, check=False)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert f"{quarantine}:2: 'b.mp4 gone'" in done.stderr
    assert {entry.name for entry in (tmp_path / "run").glob("*")} <= {"failure.json"}


@pytest.mark.parametrize("text", ["a.mp4\n", "a.mp4\t\n", "\tgone\n", "a.mp4 gone\n"])
def test_lines_that_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "q.txt").write_text(f"fine.mp4\tgone\n{text}")
    with pytest.raises(ListError, match=r"q\.txt:2: .*"):
        read_quarantine(tmp_path / "q.txt")


def test_a_missing_quarantine_says_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(ListError, match=r"data\.quarantine: cannot read .*check_videos"):
        read_quarantine(tmp_path / "none.txt")
    with pytest.raises(ListError, match=r"data\.quarantine: cannot read"):
        read_quarantine(tmp_path)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    causes = {"a b #1, [x].mp4": "gone", "tab\tin.mp4": "two\nlines\tand a tab", "é/ü.avi": "x"}
    write_quarantine(tmp_path / "q.txt", causes)
    assert read_quarantine(tmp_path / "q.txt") == causes | {"tab\tin.mp4": "two lines and a tab"}
    (tmp_path / "q.txt").write_bytes(b"")
    assert read_quarantine(tmp_path / "q.txt") == {} == read_quarantine(None)


def test_a_film_bars_its_segments_and_a_segment_itself(tmp_path: Path) -> None:
    """No file is there: what is not barred is said to be missing."""
    paths = ["a.mp4", f"{tmp_path}/a.mp4#t=1,2", "./b.mp4#t=0.5,1", "b.mp4#t=0.5,2", "b.mp4"]
    causes = {"./a.mp4": "hangs", f"{tmp_path}/b.mp4#t=0.50,1.0": "grey"}
    write_quarantine(tmp_path / "q.txt", causes)
    barred = barred_files(DataConfig(root=str(tmp_path), quarantine=str(tmp_path / "q.txt")))
    samples = [Sample(path, 0) for path in paths]
    videos = counted_videos(tmp_path / "l.txt", tmp_path, samples, barred=barred)
    errors = [videos.facts(place).error for place in range(len(videos))]
    found = [next((c for c in ("hangs", "grey") if c in error), "") for error in errors]
    assert found == ["hangs", "hangs", "grey", "", ""] and all(errors)
    (tmp_path / "l.txt").write_text("".join(f"{path} 0\n" for path in paths[:4]))
    listed = read_list(tmp_path / "l.txt", tmp_path, 1)
    with pytest.raises(ListError, match=r"has 1 line\(s\) without a file"):
        counted_videos(tmp_path / "l.txt", tmp_path, listed, barred=barred, check_files=True)


def test_quarantines_may_be_written_one_after_the_other(tmp_path: Path) -> None:
    (tmp_path / "q.txt").write_text("\ufeffa.mp4\tgone\r\n\n./a.mp4\tfirst\nsub//b.mp4\tdied")
    assert read_quarantine(tmp_path / "q.txt") == {"a.mp4": "gone", "sub/b.mp4": "died"}
