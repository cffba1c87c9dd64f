"""Benchmarks of loading: an independent loader beside ours, well-formed results, right ratios."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from videos import textured_frames, write_video

from benchmarks import loader, released, views
from benchmarks.footage import FOOTAGE
from vidadapt.data.clips import EvalViews
from vidadapt.data.sampling import SAMPLINGS
from vidadapt.data.transforms import Augmentation, multi_scale_box, train_clip
from vidadapt.lists import Sample, Videos
from vidadapt.video import VideoFacts, open_video

pytestmark = pytest.mark.slow  # whole runs, or files that take long

pytest.importorskip("decord", reason="the released loader reads with decord")
SHARED = Path(__file__).parents[4] / "shared" / "clips"
SAMPLING = SAMPLINGS["adaptformer"]


@pytest.mark.parametrize("height, width, side", [(240, 426, 224), (320, 240, 224), (100, 100, 64)])
def test_crop_boxes_are_those_of_the_released_loader(height, width, side):
    torch.manual_seed(0)
    drawn = {multi_scale_box(height, width, side) for _ in range(4000)}
    assert drawn == set(released.crop_boxes(height, width, side))


@pytest.mark.parametrize("size", [(64, 80), (90, 70)])
def test_training_pixels_are_those_of_the_released_loader_to_a_grey_level(tmp_path: Path, size):
    path = tmp_path / "a.mp4"
    write_video(path, textured_frames(20, 0, *size))
    indices = [0, 4, 8, 12]
    with open_video(path) as video:
        frames = video.frames(indices)
    for seed in range(20):
        torch.manual_seed(seed)
        box = multi_scale_box(*size, 48)
        torch.manual_seed(seed)
        ours = train_clip(
            frames,
            crop_size=48,
            augmentation=Augmentation(),
        )
        theirs = released.train_clip(str(path), indices, box, 48)
        mean, std = (torch.tensor(v).view(3, 1, 1, 1) for v in (released.MEAN, released.STD))
        pixels = ((theirs * std + mean) * 255).round().int()
        # Both resize in integers, torchvision with shorter weights than Pillow.
        assert (pixels - ours).abs().max() <= 1
        assert (pixels == ours).float().mean() > 0.9


def our_views(path: Path, crop_size: int) -> np.ndarray:
    """(V, T, S, S, 3) uint8."""
    with open_video(path, "pyav") as video:
        facts = VideoFacts(str(path), "pyav", num_frames=len(video), reader="pyav")
    chosen = {"num_clips": SAMPLING.num_clips, "num_crops": SAMPLING.num_crops}
    videos = Videos.of("/", [Sample(str(path), 0)], {str(path): facts})
    item = EvalViews(videos, SAMPLING, crop_size=crop_size, **chosen)[0]
    return views.all_views(item)[item["view_of"]].permute(0, 2, 3, 4, 1).numpy()


def released_views(path: Path, crop_size: int) -> np.ndarray:
    places = [(clip, crop) for clip in range(4) for crop in range(3)]
    found = [released.view_pixels(str(path), *place, SAMPLING, crop_size) for place in places]
    return np.stack(found)


@pytest.mark.parametrize("size, count", [((64, 91), 45), ((81, 64), 70), ((64, 64), 10)])
def test_views_lie_where_the_released_loader_cuts_them(tmp_path: Path, size, count):
    """Nothing is resized here, so every pixel tells its place."""
    path = tmp_path / "a.mp4"
    even = tuple(side + side % 2 for side in size)
    noise = np.random.default_rng(0).integers(0, 256, (count, *even, 3), dtype=np.uint8)
    write_video(path, noise)
    np.testing.assert_array_equal(our_views(path, 64), released_views(path, 64))


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the clips of ../shared/clips")
@pytest.mark.parametrize(
    "name, most", [("decord_flipping_a_pancake.mkv", 2), ("tfio_small.mp4", 12)]
)
def test_resized_views_are_near_those_of_the_released_loader(name, most):
    """It resizes without antialiasing: a pixel of 426x240 differs little, one of 560x320 more."""
    pytest.importorskip("cv2", reason="the extra `bench`: OpenCV")
    ours, theirs = (cut(SHARED / name, 224).astype(int) for cut in (our_views, released_views))
    far = abs(ours - theirs)
    assert far.mean() < 1
    assert np.quantile(far, 0.99) <= most


@pytest.fixture
def footage(tmp_path: Path, monkeypatch) -> Path:
    """Folder of eight small videos in place of those that would be generated."""
    monkeypatch.setitem(FOOTAGE, "mp4", replace(FOOTAGE["mp4"], size=(64, 80)))
    for number in range(8):
        frames = textured_frames(36 + number, number)
        write_video(tmp_path / "mp4" / f"{number:05d}.mp4", frames)
    return tmp_path


def test_the_loader_benchmark_compares_readers(footage: Path, capsys):
    raw = footage / "loader.json"
    small = ["--videos", "8", "--rounds", "2", "--workers", "0", "--crop_size", "48"]
    cases = ["--cases", "mp4:dense:8", "mp4:uniform:2", "--readers", "auto"]
    loader.main([*cases, *small, "--folder", str(footage), "--json", str(raw)])
    told, result = capsys.readouterr().out, json.loads(raw.read_text())
    assert result["table"] == "loader" and result["settings"]["videos"] == 8
    assert len(result["rows"]) == 2 * 5
    for start in (0, 5):
        rows = {row["name"]: row for row in result["rows"][start : start + 5]}
        for row in rows.values():
            assert row["exact"] == [8, 8], row["name"]
            for column, other in {
                "times_released": "released",
                "times_decord_loop": "decord loop",
            }.items():
                ratios = np.divide(rows[other]["seconds"], row["seconds"])
                assert row[column] == pytest.approx(np.median(ratios))
            assert row["clips_per_second"] == pytest.approx(1 / np.median(row["seconds"]))
    (target,) = result["targets"]
    first = next(row for row in result["rows"] if row["name"] == "vidadapt auto")
    assert target["measured"] == first["times_released"] and target["goal"] == 2
    cores = str(int(np.ceil(1000 / first["clips_per_second"])))
    line = next(part for part in told.splitlines() if "cores needed" in part)
    lines = told[told.index(line) :].splitlines()
    assert lines[3].split("|")[-2].strip() == cores


def test_the_views_benchmark_compares_decodes(footage: Path, capsys):
    pytest.importorskip("cv2", reason="the extra `bench`: OpenCV")
    raw = footage / "views.json"
    small = ["--kinds", "mp4", "--videos", "3", "--rounds", "3", "--crop_size", "48"]
    views.main([*small, "--folder", str(footage), "--json", str(raw)])
    result = json.loads(raw.read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert result["table"] == "views" and len(rows) == 5
    for row in rows.values():
        ratios = np.divide(rows["released"]["seconds"], row["seconds"])
        assert row["times_released"] == pytest.approx(np.median(ratios))
    levels = rows["vidadapt"]["grey_levels"]
    assert levels["mean"] < 3
    ratio, pixels = result["targets"]
    assert (ratio["measured"], ratio["goal"]) == (rows["vidadapt"]["times_released"], 13)
    assert (pixels["measured"], pixels["goal"]) == (levels["max"], 2)
    assert pixels["met"] == (levels["max"] <= 2)
    assert capsys.readouterr().out.count("| mp4 ") == 5


def test_decoding_once_gives_the_views_of_the_item(tmp_path: Path):
    path = tmp_path / "a.mp4"
    write_video(path, textured_frames(45, 0))
    plain = views.decord_views(str(path), SAMPLING, 48)
    mean, std = (torch.tensor(v).view(3, 1, 1, 1) for v in (released.MEAN, released.STD))
    pixels = ((plain * std + mean) * 255).round().byte().permute(0, 2, 3, 4, 1)
    np.testing.assert_array_equal(pixels.numpy(), our_views(path, 48))


@pytest.mark.parametrize("benchmark", [loader, views])
def test_without_decord_the_released_loader_is_not_measured(benchmark, monkeypatch):
    monkeypatch.setitem(sys.modules, "decord", None)
    with pytest.raises(SystemExit, match="reads with decord, which cannot be loaded"):
        benchmark.main([])


@pytest.mark.parametrize("case", ["mp4", "mp4:dense:0", "mp4:sparse:8", "gif:dense:8"])
def test_an_unknown_case_is_told(case):
    with pytest.raises(SystemExit, match="no KIND:POLICY:FRAMES"):
        loader.main(["--cases", case])
