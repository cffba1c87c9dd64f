"""Lists, label names, quarantine and indices in a store: the runs of local ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from conftest import TinySet, load_tool
from object_store import SECRET
from safetensors.torch import load_file

from benchmarks.store_server import Store
from vidadapt.config import ConfigError, yaml_files
from vidadapt.lists import (
    ListError,
    Prepared,
    counted_videos,
    index_path,
    known_root,
    manifest_hash,
    read_label_names,
    read_list,
    read_prepared,
    write_prepared,
)

pytestmark = pytest.mark.usefixtures("own_cache")
KEYS = [*(f"data.{split}_list" for split in ("train", "dev", "test")), "data.label_names"]


@pytest.fixture
def lists(tiny_set: TinySet, store: Store) -> Path:
    """The lists of the tiny set as a prepared folder in the bucket, `s3://bucket/my lists`."""
    folder = store.folder / "bucket" / "my lists"
    folder.mkdir()
    for name in ("labels.txt", "train.txt", "dev.txt", "test.txt"):
        shutil.copy(tiny_set.root / name, folder / name)
    names = read_label_names(folder / "labels.txt")
    files = {split: f"{split}.txt" for split in ("train", "dev", "test")}
    manifests = {
        split: manifest_hash(read_list(folder / name, tiny_set.root, 3), names)
        for split, name in files.items()
    }
    root = str(tiny_set.root)
    write_prepared(folder, Prepared("custom", root, files, "labels.txt", manifests, {}))
    return folder


def options_of(tiny_set: TinySet, **changes: object) -> list[str]:
    own = dict.fromkeys(("train_list", "dev_list", "test_list", "label_names", "root"))
    return tiny_set.options(**{f"data__{key}": None for key in own}, **changes)


def test_a_run_of_lists_in_a_store_is_that_of_local_ones(
    tiny_set: TinySet, store: Store, lists: Path, tmp_path: Path, run_tool, capsys
) -> None:
    (lists / "bad.txt").write_text("train 0 [x]#.mp4\tcut in two\n")
    found = {}
    for name, folder in (("local", str(lists)), ("stored", "s3://bucket/my lists")):
        run = tmp_path / name
        given = options_of(
            tiny_set, data__lists=folder, data__quarantine=f"{folder}/bad.txt", train__epochs=1
        )
        run_tool("train", "--run_dir", run, *given)
        run_tool("evaluate", "--run_dir", run)
        look = [f"{folder}/test.txt", "--data.root", str(tiny_set.root), "--out", str(run / "look")]
        sizes = ["--data.num_frames", "4", "--data.crop_size", "32", "--data.num_workers", "0"]
        assert load_tool("browse").main([*look, *sizes]) == 0
        capsys.readouterr()
        load_tool("predict").main([f"{folder}/test.txt", "--adapter", str(run / "best"), "--json"])
        said = capsys.readouterr().out.replace(f"{name}/best", "")
        tensors = load_file(run / "last" / "adapter.safetensors")
        summary = json.loads((run / "summary.json").read_text())
        metrics = json.loads(next(run.glob("eval_*/metrics.json")).read_text())
        assert summary["manifests"]["test"] == read_prepared(folder).manifests["test"]
        kept = yaml_files.read_yaml(run / "config.yaml", "run_dir")["data"]
        assert kept["train_list"] == f"{folder}/train.txt" and metrics["list"].startswith(folder)
        texts = [file.read_text() for file in run.rglob("*") if file.suffix in (".json", ".yaml")]
        assert texts and not any(SECRET in text for text in texts)
        found[name] = (
            {key: value.tolist() for key, value in tensors.items()},
            (summary["manifests"], metrics["manifest"], metrics["top1"]),
            said,
        )
    assert found["local"] == found["stored"]
    assert summary["videos"]["train"] == 11  # one is barred


def counted(tiny_set: TinySet, listed: str, **options: object) -> int:
    """Number of files that were decoded to bring the index of a list up to date."""
    samples = read_list(listed, tiny_set.root, 3)
    videos = counted_videos(listed, str(tiny_set.root), samples, "auto", **options)
    assert not [place for place in range(len(videos)) if videos.facts(place).error]
    return videos.decoded


def test_the_index_is_taken_from_beside_the_list_or_made_here(
    tiny_set: TinySet, store: Store, lists: Path, tmp_path: Path, capsys
) -> None:
    url = "s3://bucket/my lists/test.txt"
    place = index_path(url)
    assert counted(tiny_set, url) == 7 and place.is_file()
    assert str(place) in capsys.readouterr().err  # where it is kept
    assert counted(tiny_set, url) == 0
    elsewhere = tmp_path / "elsewhere"
    assert counted(tiny_set, url, index_dir=elsewhere) == 7
    assert (elsewhere / "test.txt.index").is_file()
    shutil.copy(place, lists / "test.txt.index")
    shutil.rmtree(place.parent)
    assert counted(tiny_set, url) == 0  # another machine
    assert place.read_bytes() == (lists / "test.txt.index").read_bytes()
    # An index that has grown in the store adds its rows to the local one, which keeps its own.
    shutil.rmtree(place.parent)
    lines = (lists / "test.txt").read_text().splitlines(keepends=True)
    (lists / "some.txt").write_text("".join(lines[:2]))
    (lists / "rest.txt").write_text("".join(lines[2:5]))
    assert counted(tiny_set, "s3://bucket/my lists/some.txt") == 2
    assert counted(tiny_set, str(lists / "rest.txt")) == 3
    shutil.copy(index_path("s3://bucket/my lists/some.txt"), place)
    shutil.copy(lists / "rest.txt.index", lists / "test.txt.index")
    assert counted(tiny_set, url) == 2
    (lists / "test.txt.index").write_bytes(b"no index")
    with pytest.raises(ValueError, match=r"s3://bucket/my lists/test\.txt\.index"):
        counted(tiny_set, url)


def test_a_changed_or_missing_list_is_noticed(tiny_set: TinySet, store: Store, lists: Path) -> None:
    url = "s3://bucket/my lists/train.txt"
    assert len(read_list(url, ".", 3)) == 12
    (lists / "train.txt").write_text("a.mp4 0\n")
    assert len(read_list(url, ".", 3)) == 1
    (lists / "train.txt").write_text("a.mp4 9\n")
    with pytest.raises(ListError, match=f"{url}:1: label 9"):
        read_list(url, ".", 3)
    (lists / "train.txt").unlink()
    with pytest.raises(ListError, match=url):
        read_list(url, ".", 3)
    with pytest.raises(ValueError, match="s3://bucket/none"):
        read_prepared("s3://bucket/none")
    assert known_root(url) == tiny_set.root


def test_copies_in_a_store_have_their_root_there(store: Store) -> None:
    write_prepared(
        store.folder / "bucket", Prepared("custom", ".", {"train": "t.txt"}, None, {}, {})
    )
    (store.folder / "bucket" / "t.txt").write_text("shards/00000.tar/a 0\n")
    assert known_root("s3://bucket/t.txt") == "s3://bucket"


@pytest.mark.parametrize("key", [*KEYS, "data.quarantine", "data.lists"])
def test_a_url_with_a_password_is_refused_before_anything_is_written(
    tiny_set: TinySet, tmp_path: Path, run_tool, key: str
) -> None:
    given = options_of(tiny_set) if key == "data.lists" else tiny_set.options()
    url = "s3://me:pass1234@bucket/lists"
    with pytest.raises((ValueError, ConfigError), match="s3://") as told:
        run_tool("train", "--run_dir", tmp_path / "run", *given, f"--{key}", url)
    assert "pass1234" not in str(told.value)
    assert not (tmp_path / "run").exists()
