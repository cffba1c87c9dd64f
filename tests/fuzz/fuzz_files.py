"""Adapter folders, score files, metrics, frame-count indices and packed frames, damaged."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import shutil
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from conftest import write_adapter
from fuzz_attempts import RIGHT, Defect, Job, Tally, judged, same
from mutations import mutated
from PIL import Image

from vidadapt import methods
from vidadapt.config import Config, ConfigError, DataConfig, ModelConfig
from vidadapt.evaluation import Scores, load_scores, measure, save_scores
from vidadapt.lists import add_to_index, read_index
from vidadapt.runs import RunError, adapters, checkpoints
from vidadapt.serving.evaluate_command import check_same_list
from vidadapt.video import (
    ReadError,
    TransientReadError,
    VideoFacts,
    decoded_jpeg,
    make_packed_index,
    open_video,
    packed_index_path,
)

PER_JOB = 25
# What a person, or a program, may put in the place of a value.
ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**40, 10**30, 1.5, float("nan"), "", "x", "../..", "\x1b[31m", [], {}),
    *([[]], {"a": 1}, [1, "2"]),
)


def check_adapter(job: Job, scratch: Path, tally: Tally) -> None:
    rng = job.rng()
    for number in range(PER_JOB):
        folder = scratch / str(number)
        shutil.copytree(_adapter(), folder)
        with_sums = bool(rng.integers(2))
        if not with_sums:
            (folder / checkpoints.CHECKSUMS).unlink()
        files = sorted(path.name for path in folder.iterdir())
        name = files[int(rng.integers(len(files)))]
        before = (folder / name).read_bytes()
        if name == checkpoints.TENSORS and rng.integers(3) == 0:
            after = _other_header(before, rng)
        elif name != checkpoints.TENSORS and rng.integers(3):
            after = json.dumps(_changed(json.loads(before), rng)).encode()
        else:
            after = mutated(before, rng)
        (folder / name).write_bytes(after)
        told = io.StringIO()
        with contextlib.redirect_stderr(told):
            outcome, found = judged(
                lambda folder=folder: adapters.read_adapter(folder), (RunError,), str(folder)
            )
        tally.outcomes[outcome] += 1
        if found is None:
            continue
        # A description may be edited by hand.
        warned = name == checkpoints.DESCRIPTION and "was changed" in told.getvalue()
        if with_sums and name != checkpoints.CHECKSUMS and after != before and not warned:
            raise Defect(f"{name} is damaged, and that is not noticed")
        expected = _slow_tensors((folder / checkpoints.TENSORS).read_bytes())
        same(sorted(found.tensors), sorted(expected), "names of tensors")
        for key, tensor in found.tensors.items():
            same(
                tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes(), expected[key], key
            )
        judged(
            lambda found=found: adapters.load_adapted_model(found.config, found.plan, found.folder),
            (RunError, ConfigError, ValueError),
        )


@functools.cache
def _adapter() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="fuzz_adapter"))
    (folder / "labels.txt").write_text("walk\nrun\n")
    config = Config(
        run_dir=str(folder),
        data=DataConfig(label_names=str(folder / "labels.txt"), num_frames=2, crop_size=16),
        model=ModelConfig(backbone="vit_tiny"),
        method={"name": "adaptformer", **methods.default_options("adaptformer"), "bottleneck": 4},
    )
    write_adapter(folder / "adapter", config, seed=0)
    return folder / "adapter"


def _slow_tensors(data: bytes) -> dict[str, bytes]:
    """The bytes of each tensor by the format's description: length, JSON header, data."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    body = data[8 + length :]
    header.pop("__metadata__", None)
    return {name: body[slice(*about["data_offsets"])] for name, about in header.items()}


def _other_header(data: bytes, rng: np.random.Generator) -> bytes:
    """A safetensors file whose header is sound JSON that says something else."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    names = sorted(header)
    if rng.integers(2):
        header[f"{names[0]}_"] = header.pop(names[int(rng.integers(len(names)))])
    else:
        header = _changed(header, rng)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _changed(value: Any, rng: np.random.Generator) -> Any:
    """JSON with one value replaced, or one key left out, somewhere."""
    if isinstance(value, dict) and value and rng.integers(6):
        key = sorted(value)[int(rng.integers(len(value)))]
        if rng.integers(4) == 0:
            return {k: v for k, v in value.items() if k != key}
        return {**value, key: _changed(value[key], rng)}
    if isinstance(value, list) and value and rng.integers(3):
        place = int(rng.integers(len(value)))
        return [*value[:place], _changed(value[place], rng), *value[place + 1 :]]
    return ODD[int(rng.integers(len(ODD)))]


def check_scores(job: Job, scratch: Path, tally: Tally) -> None:
    """Damaged bytes, and sound files of other arrays: the same accuracies, or an error."""
    rng = job.rng()
    data, right = _scores()
    file = scratch / "scores.npz"
    for _ in range(PER_JOB):
        by_array = bool(rng.integers(2))
        file.write_bytes(_other_arrays(data, rng) if by_array else mutated(data, rng))
        outcome, found = judged(lambda: load_scores(file), (ValueError,), str(file))
        tally.outcomes[outcome] += 1
        if found is not None:
            accuracies = _accuracies(found[0])
            if not by_array:
                same(accuracies, right, "accuracies")


@functools.cache
def _scores() -> tuple[bytes, dict[str, Any]]:
    rng = np.random.default_rng(0)
    paths = [f"{name} {i}.mp4" for i, name in enumerate("abcdefgé")]
    logits = rng.normal(size=(8, 4, 3)).astype(np.float32)
    logits[5] = np.nan
    views = np.divmod(np.arange(4), 2)
    scores = Scores(paths, rng.integers(3, size=8), *views, logits, {paths[5]: "damaged"})
    with tempfile.TemporaryDirectory() as folder:
        save_scores(Path(folder) / "scores.npz", scores, {"list": "a.txt"})
        return (Path(folder) / "scores.npz").read_bytes(), _accuracies(scores)


def _accuracies(scores: Scores) -> dict[str, Any]:
    """Counted video by video; `metrics` must find the same."""
    hits = 0
    for path, label, views in zip(scores.paths, scores.labels, scores.logits, strict=True):
        if path not in scores.errors:
            shares = [np.exp(np.float64(view) - np.float64(view).max()) for view in views]
            mean = sum(share / share.sum() for share in shares)
            hits += sum(mean[label] <= other for other in mean) == 1
    found = measure(scores, "softmax")
    if abs(found["top1"] - 100 * hits / len(scores.paths)) > 1e-9:
        raise Defect(f"top-1 {found['top1']}, where {hits} of {len(scores.paths)} are right")
    return {key: found[key] for key in ("top1", "mean_class_accuracy", "num_videos", "views")}


def _other_arrays(data: bytes, rng: np.random.Generator) -> bytes:
    """A whole file that lacks an array, or holds another in its place."""
    with np.load(io.BytesIO(data)) as file:
        arrays = {name: file[name] for name in file.files}
    name = sorted(arrays)[int(rng.integers(len(arrays)))]
    array = arrays[name]
    changes: list[Callable[[], Any]] = [
        lambda: None,
        lambda: array.astype(object),
        lambda: array[..., None],
        lambda: array[:-1] if array.ndim else np.array(7),
        lambda: array[::-1] if array.ndim else np.array("[]"),
        lambda: np.zeros(0),
        lambda: np.full(array.shape, -1),
        lambda: np.full(array.shape, 2**62),
        lambda: np.full(array.shape, np.nan),
        lambda: np.array("[" * 100_000),
        lambda: np.array('{"a": 1}'),
        lambda: array.repeat(2, 0) if array.ndim else np.array("null"),
    ]
    number = int(rng.integers(len(changes) + 1))
    if number < len(changes):
        arrays[name] = changes[number]()
        if name == "about" and isinstance(arrays[name], np.ndarray):
            arrays[name] = np.array("[]")  # any mapping would do
    out = io.BytesIO()
    np.savez(out, **{k: v for k, v in arrays.items() if v is not None})
    if number < len(changes):
        return out.getvalue()
    forged = io.BytesIO()  # a header that promises a million million numbers
    with zipfile.ZipFile(out) as old, zipfile.ZipFile(forged, "w") as new:
        for member in old.namelist():
            content = old.read(member)
            if member == f"{name}.npy":
                head = io.BytesIO()
                shape = {"descr": array.dtype.str, "fortran_order": False, "shape": (10**12,)}
                np.lib.format.write_array_header_1_0(head, shape)
                content = head.getvalue()
            new.writestr(member, content)
    return forged.getvalue()


def check_metrics(job: Job, scratch: Path, tally: Tally) -> None:
    """The results that an evaluation finds in its folder: of the same list, or not overwritten."""
    rng = job.rng()
    sound = {"manifest": "5" * 64, "top1": 50.0, "per_class": [{"label": 0}], "unreadable": []}
    for _ in range(PER_JOB):
        in_text = bool(rng.integers(2))
        data = json.dumps(sound if in_text else _changed(sound, rng)).encode()
        data = mutated(data, rng) if in_text else data
        (scratch / "metrics.json").write_bytes(data)
        outcome, _ = judged(
            lambda: check_same_list(scratch, "5" * 64), (ConfigError,), "metrics.json"
        )
        if outcome == RIGHT:
            same(json.loads(data)["manifest"], "5" * 64, "manifest")
        tally.outcomes[outcome] += 1


def check_index(job: Job, scratch: Path, tally: Tally) -> None:
    """The video index: rows as they were written, or none, or an error that names the file."""
    rng = job.rng()
    index = scratch / "train.txt.index"
    known = [
        VideoFacts(
            f'a {i},"é".mp4',
            "auto",
            size=1000 + i,
            mtime_ns=10**18 + i,
            num_frames=i,
            reader="decord" if i else "",
            error="" if i else "broken",
            checks=np.arange(i, dtype="<u8"),
        )
        for i in range(6)
    ]
    for first in (0, 3):
        add_to_index(index, known[first : first + 3])
    data = index.read_bytes()
    for _ in range(PER_JOB):
        index.write_bytes(mutated(data, rng))
        outcome, found = judged(lambda: read_index(index), (ValueError,), str(index))
        for row in range(len(found or ())):
            if (found[row], found[row].digest) not in [(one, one.digest) for one in known]:
                raise Defect(f"{found[row]} was never written")
        tally.outcomes[outcome] += 1


def check_packed(job: Job, scratch: Path, tally: Tally) -> None:
    """Tars of frames and their indices: the frames that lie there by tarfile, or an error."""
    rng = job.rng()
    data = _tar()
    for number in range(PER_JOB):
        tar = scratch / f"{number}.tar"
        tar.write_bytes(data)
        make_packed_index(tar, packed_index_path(tar))
        in_index = bool(rng.integers(2))
        damaged = packed_index_path(tar) if in_index else tar
        damaged.write_bytes(mutated(damaged.read_bytes(), rng))
        if not in_index and rng.integers(2):
            packed_index_path(tar).unlink()
        for name in ("a", "b"):
            outcome, found = judged(
                lambda tar=tar, name=name: _packed_frames(tar, name),
                (ReadError, TransientReadError),
                str(tar),
            )
            if found is not None and in_index:
                for frame in found:
                    if not any(np.array_equal(frame, known) for known in _pictures()):
                        raise Defect(f"{tar}/{name}: a frame that was never packed")
        tally.outcomes[outcome] += 1


def _packed_frames(tar: Path, name: str) -> np.ndarray:
    with open_video(tar / name) as video:
        return video.frames(range(min(len(video), 8)))


@functools.cache
def _jpegs() -> tuple[bytes, ...]:
    rng = np.random.default_rng(0)
    files = []
    for _ in range(5):
        file = io.BytesIO()
        colours = rng.integers(0, 255, (3, 4, 3), dtype=np.uint8)
        Image.fromarray(colours.repeat(8, 0).repeat(8, 1)).save(file, "JPEG")
        files.append(file.getvalue())
    return tuple(files)


@functools.cache
def _pictures() -> tuple[np.ndarray, ...]:
    return tuple(
        decoded_jpeg(torch.frombuffer(bytearray(data), dtype=torch.uint8)) for data in _jpegs()
    )


@functools.cache
def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        for name, data in zip(("a/0", "a/1", "a/2", "b/0", "b/1"), _jpegs(), strict=True):
            member = tarfile.TarInfo(f"{name}.jpg")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()
