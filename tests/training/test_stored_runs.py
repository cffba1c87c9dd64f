"""Training and evaluation on videos in a store, with loader processes: the bits of local files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import TinySet, load_tool
from object_store import SECRET
from safetensors.torch import load_file

from benchmarks.store_server import Store
from vidadapt.config import ConfigError

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_on_a_store_is_that_on_local_files(
    tiny_set: TinySet, store: Store, tmp_path: Path, run_tool, capsys, workers: int
) -> None:
    (tmp_path / "bucket").rmdir()
    (tmp_path / "bucket").symlink_to(tiny_set.root)
    found = {}
    for name, root in (("local", tiny_set.root), ("stored", "s3://bucket")):
        run = tmp_path / name
        options = tiny_set.options(
            data__root=root, data__index_dir=run.with_suffix(".index"), data__num_workers=workers
        )
        run_tool("train", "--run_dir", run, *options)
        run_tool("evaluate", "--run_dir", run)
        capsys.readouterr()
        video = f"{root}/test 1 [x]#.mp4"
        load_tool("predict").main([video, "--adapter", str(run / "last"), "--json"])
        said = capsys.readouterr().out.replace(str(root), "").replace(f"{name}/last", "")
        assert "green" in said, said
        tensors = load_file(run / "last" / "adapter.safetensors")
        metrics = json.loads(next(run.glob("eval_*/metrics.json")).read_text())
        found[name] = {key: value.tolist() for key, value in tensors.items()}, metrics["top1"], said
        texts = [file.read_text() for file in run.rglob("*") if file.suffix in (".json", ".yaml")]
        assert texts and not any(SECRET in text for text in texts)
    assert found["local"] == found["stored"]


@pytest.mark.parametrize("key", ["run_dir", "data.index_dir", "cache.dir"])
def test_what_must_be_local_is_refused_as_a_url(
    tiny_set: TinySet, tmp_path: Path, run_tool, key: str
) -> None:
    given = ["--run_dir", tmp_path / "run", *tiny_set.options(), f"--{key}", "s3://a:pass1234@b/c"]
    with pytest.raises(ConfigError, match=key) as told:
        run_tool("train", *given)
    assert "pass1234" not in str(told.value)


def test_a_root_with_a_password_is_refused_before_anything_is_written(
    tiny_set: TinySet, tmp_path: Path, run_tool
) -> None:
    options = tiny_set.options(data__root="https://me:pass1234@host/videos")
    with pytest.raises(ValueError, match="https://") as told:
        run_tool("train", "--run_dir", tmp_path / "run", *options)
    assert "pass1234" not in str(told.value)
    files = [file for file in (tmp_path / "run").rglob("*") if file.is_file()]
    assert not any(b"pass1234" in file.read_bytes() for file in files)
