"""Programs give the model's logits, in any batch, where this package is not installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, load_tool, write_adapter
from safetensors.torch import save_file

import vidadapt
from vidadapt import models
from vidadapt.config import Config, ConfigError, DataConfig, ModelConfig, TrainConfig
from vidadapt.lists import read_list
from vidadapt.models.weights import backbone_state
from vidadapt.runs import checkpoints
from vidadapt.serving import FORMATS, export_program
from vidadapt.video import ReadError

# Method and backbone of each program that is looked at.
KINDS = {
    "adaptformer": ("adaptformer", "vit_tiny"),
    "lora": ("lora", "vit_tiny"),
    "vpt": ("vpt", "vit_tiny"),
    "losa": ("losa", "vit_tiny"),
    "vjepa": ("adaptformer", "vjepa2_tiny"),
}
# Runs every program of a folder on clips of 1, 3 and 8, and finds no vidadapt to import.
ALONE = """
import sys
sys.modules["vidadapt"] = None
from pathlib import Path
import numpy as np
folder, ending = Path(sys.argv[1]), sys.argv[2]
clips = np.load(folder / "clips.npy")
for path in folder.glob(f"*{ending}"):
    if ending == ".onnx":
        import onnxruntime
        session = onnxruntime.InferenceSession(path)
        run = lambda some: session.run(None, {"clips": some})[0]
    else:
        import torch
        program = torch.export.load(path).module() if ending == ".pt2" else torch.jit.load(path)
        run = lambda some: program(torch.from_numpy(some)).numpy()
    with __import__("contextlib").suppress(ImportError):
        import torch
        torch.set_grad_enabled(False)
    np.savez(path.with_suffix(".npz"), **{str(n): run(clips[:n]) for n in (1, 3, 8)})
"""


@pytest.fixture(scope="module")
def adapter(tiny_set, tmp_path_factory):
    """A function that writes the adapter of a kind once, and returns its folder."""
    home = tmp_path_factory.mktemp("adapters")

    def written(kind: str) -> Path:
        method, backbone = KINDS[kind]
        folder = home / kind / "last"
        if not folder.exists():
            weights = tiny_set.weights
            if backbone != "vit_tiny":
                weights = home / f"{backbone}.safetensors"
                torch.manual_seed(0)
                model, _ = models.build(backbone, num_frames=4, crop_size=32, num_classes=3)
                save_file(backbone_state(model), weights)
            config = Config(
                run_dir=str(folder.parent),
                method={"name": method},
                data=DataConfig(
                    root=str(tiny_set.root),
                    train_list=str(tiny_set.lists["train"]),
                    dev_list=str(tiny_set.lists["dev"]),
                    label_names=str(tiny_set.root / "labels.txt"),
                    sampling="uniform8",
                    num_frames=4,
                    crop_size=32,
                ),
                model=ModelConfig(backbone=backbone, weights=str(weights)),
                train=TrainConfig(precision="fp32"),
            )
            write_adapter(folder, config, seed=1)
        return folder

    return written


def random_clips(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (count, 3, 4, 32, 32), np.uint8)


def needs(format: str) -> None:
    for package in FORMATS[format].needs:
        pytest.importorskip(package, reason="extra: export")


@pytest.mark.parametrize(
    "format",
    [
        "torchscript",
        *(pytest.param(each, marks=pytest.mark.slow) for each in ("torch_export", "onnx")),
    ],
)
def test_programs_give_the_logits_of_the_models_without_the_package(adapter, tmp_path, format):
    needs(format)
    ending = FORMATS[format].ending
    for kind in KINDS:
        about = export_program(adapter(kind), tmp_path / f"{kind}{ending}", format)
        assert about["compared"]["of"] == "videos of the run's list"
        assert about["compared"]["clips"] == 5
    clips = random_clips(8)
    np.save(tmp_path / "clips.npy", clips)
    subprocess.run([sys.executable, "-c", ALONE, tmp_path, ending], check=True)
    for kind in KINDS:
        wanted = vidadapt.load(adapter(kind))(torch.from_numpy(clips)).numpy()
        assert np.ptp(wanted, axis=0).max() > 1e-3  # the clips are told apart
        found = np.load(tmp_path / f"{kind}.npz")
        for count in (1, 3, 8):
            np.testing.assert_allclose(found[str(count)], wanted[:count], atol=1e-4)


def weights_of(folder: Path) -> str:
    return json.loads((folder / "adapter.json").read_text())["model"]["weights"]


def test_nothing_tells_where_it_was_written(adapter, tmp_path):
    for format in ("torch_export", "torchscript"):
        out = tmp_path / f"a{FORMATS[format].ending}"
        export_program(adapter("adaptformer"), out, format)
        with zipfile.ZipFile(out) as file:
            content = b"".join(map(file.read, file.namelist()))
        for path in (str(ROOT), str(Path(torch.__file__).parent), str(tmp_path)):
            assert path.encode() not in content


def test_the_description_says_what_goes_in_and_out(adapter, tmp_path):
    out = tmp_path / "a.pt"
    load_tool("export").main([str(adapter("lora")), str(out), "--format", "torchscript"])
    about = json.loads((tmp_path / "a.pt.json").read_text())
    assert about["labels"] == ["red", "green", "blue"]
    assert about["input"]["shape"] == ["batch", 3, 4, 32, 32]
    assert about["method"] == {"name": "lora", "merged": True}
    assert about["preprocessing"]["resize"]["to"] == {"short_side": 32}
    assert about["program"]["bytes"] == out.stat().st_size


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["a.pt", "--format", "torchscript", "--dtype", "int8"], "--dtype"),
        (["a.pt", "--format", "onnx"], ".onnx"),
        (["a.pt", "--format", "torchscript", "--layout", "videomae"], "--layout"),
        (["a.safetensors", "--dtype", "int8"], "--dtype"),
        (["a.safetensors", "--videos", "v.mp4"], "--videos"),
        (["a.onnx"], "--format onnx"),
        (["a.pt", "--format", "torchscript", "--videos", "nothing.mp4"], "nothing.mp4"),
    ],
)
def test_what_does_not_go_together_is_refused(adapter, tmp_path, capsys, words, named):
    if "onnx" in words:
        needs("onnx")
    out, *options = words
    with pytest.raises((ConfigError, SystemExit, ReadError)) as error:
        load_tool("export").main([str(adapter("adaptformer")), str(tmp_path / out), *options])
    assert named in f"{error.value}{capsys.readouterr().err}"
    assert not list(tmp_path.iterdir())


def test_clips_of_the_run_that_cannot_be_read_are_counted_and_one_clip_fills_every_batch(
    adapter, tiny_set, tmp_path
):
    folder = tmp_path / "run" / "last"
    shutil.copytree(adapter("adaptformer").parent, folder.parent)
    files = [sample.path for sample in read_list(tiny_set.lists["dev"], tiny_set.root, 3)]
    for number, name in enumerate(files):
        content = (tiny_set.root / name).read_bytes() if number == 2 else b"nothing"
        (tmp_path / name).write_bytes(content)
    config = (folder.parent / "config.yaml").read_text()
    (folder.parent / "config.yaml").write_text(config.replace(str(tiny_set.root), str(tmp_path)))
    shutil.copy(tiny_set.lists["dev"], tmp_path)
    shutil.copy(tiny_set.lists["train"], tmp_path)
    shutil.copy(tiny_set.root / "labels.txt", tmp_path)
    about = export_program(folder, tmp_path / "a.pt", "torchscript", weights=tiny_set.weights)
    assert about["compared"]["clips"] == about["compared"]["same_top1"] == 1
    assert "4 others cannot be read" in about["compared"]["of"]
    program = torch.jit.load(str(tmp_path / "a.pt"))
    assert program(torch.from_numpy(random_clips(8))).shape == (8, 3)


def test_numbers_that_half_precision_cannot_hold_leave_no_file(adapter, tmp_path):
    tensors, about = checkpoints.load_checkpoint(adapter("adaptformer"))
    # One column: large numbers in all would cancel each other, and rounding be all that is left.
    large = torch.zeros_like(tensors["head.1.weight"])
    large[:, 0] = 1e6
    tensors["head.1.weight"] = tensors["head.1.weight"] + large
    folder = tmp_path / "run" / "last"
    checkpoints.save_checkpoint(folder, tensors, about)
    out = tmp_path / "a.pt"
    with pytest.raises(ValueError, match="nothing was written"):
        export_program(folder, out, "torchscript", "fp16", weights=weights_of(folder))
    assert not out.exists()
    about = export_program(folder, out, "torchscript", weights=weights_of(folder))
    assert about["compared"]["of"].startswith(
        "random values"
    )  # no config.yaml is beside this folder


@pytest.mark.slow
def test_smaller_programs_are_smaller_and_near(adapter, tmp_path):
    needs("onnx")
    sizes, changes = [], []
    for kind in ("fp32", "fp16", "int8"):
        about = export_program(adapter("adaptformer"), tmp_path / f"{kind}.onnx", "onnx", kind)
        sizes.append(about["program"]["bytes"])
        changes.append(about["compared"]["largest_difference"])
    assert all(size < 0.6 * sizes[0] for size in sizes[1:])
    assert all(changes[0] < change < 0.5 for change in changes[1:])


@pytest.mark.slow
def test_the_example_of_the_docs_sees_what_the_model_sees(adapter, tiny_set, tmp_path):
    """It imports nothing of this package."""
    needs("onnx")
    out = tmp_path / "mine.onnx"
    export_program(adapter("adaptformer"), out, "onnx")
    page = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
    [example] = re.findall(r"```python\n(import json.*?)```", page, re.DOTALL)
    assert "vidadapt" not in example
    script = tmp_path / "example.py"
    script.write_text(f'import sys\nsys.modules["vidadapt"] = None\n{example}', encoding="utf-8")
    model = vidadapt.load(adapter("adaptformer"))
    for video in sorted(tiny_set.root.glob("test*.mp4"))[:3]:
        done = subprocess.run(
            [sys.executable, script, out, video], capture_output=True, text=True, check=True
        )
        first, share = model.predict(video, num_clips=1, num_crops=1)[0], done.stdout.split()
        assert share[1] == first.label
        assert abs(float(share[0].rstrip("%")) - 100 * first.probability) < 2
