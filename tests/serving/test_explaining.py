"""Explanations are what the model says of clips with parts hidden, and name the frames it needs."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import load_tool, write_adapter
from safetensors.torch import save_file

import vidadapt
from vidadapt import models
from vidadapt.apps.synthetic import write_video
from vidadapt.config import Config, DataConfig, ModelConfig, TrainConfig
from vidadapt.serving import explain

FRAMES = {"from_image": "frames"}
T = 4


@pytest.fixture(scope="module")
def model(tiny_set, tmp_path_factory):
    """A function that returns a model of a kind, which is written once."""
    home = tmp_path_factory.mktemp("explained")

    def loaded(method: str, backbone: str, **options):
        weights = home / f"{backbone.replace('/', '_')}_{len(options)}.safetensors"
        folder = home / f"{method}_{weights.stem}" / "last"
        if not folder.exists():
            torch.manual_seed(0)
            built, _ = models.build(backbone, num_frames=T, crop_size=32, num_classes=3, **options)
            of = getattr(built, "image", built)
            state = {k: v for k, v in of.state_dict().items() if not k.startswith("head")}
            save_file(state, weights)
            config = Config(
                run_dir=str(folder.parent),
                method={"name": method},
                data=DataConfig(
                    label_names=str(tiny_set.root / "labels.txt"),
                    sampling="uniform8",
                    num_frames=T,
                    crop_size=32,
                ),
                model=ModelConfig(backbone=backbone, weights=str(weights), **options),
                train=TrainConfig(precision="fp32"),
            )
            write_adapter(folder, config, seed=1)
        return vidadapt.load(folder)

    return loaded


KINDS = {
    "adaptformer": ("adaptformer", "vit_tiny", {}),
    "losa": ("losa", "vit_tiny", {}),
    "vpt": ("vpt", "vjepa2_tiny", {}),
    "frames": ("adaptformer", "timm/vit_tiny_patch16_224", FRAMES),
}


def clip_of(seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (3, T, 4, 4), dtype=np.uint8)
    return torch.from_numpy(small.repeat(8, axis=2).repeat(8, axis=3))


def log_odds(logits: torch.Tensor, label: int) -> float:
    share = float(logits.double().softmax(0)[label])
    return float(np.log(share / (1 - share)))


@pytest.mark.parametrize("kind", KINDS)
def test_cells_say_how_the_answer_changes_where_they_are_hidden(model, kind):
    method, backbone, options = KINDS[kind]
    used, clip = model(method, backbone, **options), clip_of()
    found = explain(used, clip, grid=2)
    logits = used(clip[None])[0]
    assert found.label == int(logits.argmax())
    assert found.probability == pytest.approx(float(logits.softmax(0)[found.label]), abs=1e-5)
    assert found.cells.shape == (T, 2, 2) and float(found.cells.abs().max()) > 1e-4
    blurred = [gaussian(frame, 16.0) for frame in clip.permute(1, 2, 3, 0).numpy()]
    for frame, row, column in itertools.product(range(T), range(2), range(2)):
        other = clip.clone()
        for at in range(max(0, frame - 1), min(T, frame + 2)):
            part = np.s_[16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
            other[(slice(None), at, *part)] = torch.from_numpy(blurred[at][part]).permute(2, 0, 1)
        fall = log_odds(logits, found.label) - log_odds(used(other[None])[0], found.label)
        assert float(found.cells[frame, row, column]) == pytest.approx(fall, abs=1e-3)


def gaussian(frame: np.ndarray, sigma: float) -> np.ndarray:
    """Blur (H, W, 3) uint8 by the definition, mirrored at the border, as far as 2 * sigma + 1."""
    reach = round(sigma)
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights /= weights.sum()
    values = frame.astype(np.float64)
    for axis in (0, 1):
        width = [(0, 0)] * 3
        width[axis] = (reach, reach)
        padded = np.pad(values, width, mode="reflect")
        values = sum(
            weight * np.take(padded, range(at, at + frame.shape[axis]), axis)
            for at, weight in enumerate(weights)
        )
    return values.round().astype(np.uint8)


def test_evidence_is_where_the_difference_is(model):
    """A model that sees one cell of one frame has its evidence there, and beside it in time."""
    used = model(*KINDS["adaptformer"][:2])

    class Peeping(torch.nn.Module):
        clip_shape = used.module.clip_shape

        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            seen = clips[:, :, 1, 8:16, 24:].float().mean((1, 2, 3)) / 100
            return torch.stack([seen, -seen, 0 * seen], 1)

    clip = torch.full((3, T, 32, 32), 60, dtype=torch.uint8)
    clip[:, 1, 8:16, 24:] = 250
    found = explain(replace(used, module=Peeping()), clip, grid=4)
    there = found.cells > 1e-3
    assert there.nonzero().tolist() == [[0, 1, 3], [1, 1, 3], [2, 1, 3]]
    assert float(found.cells[~there].abs().max()) == 0
    assert int(found.drops.argmax()) == 1


def without(clip: torch.Tensor, left_out: tuple[int, ...]) -> torch.Tensor:
    """The slow way: each frame by itself."""
    frames = []
    for place in range(T):
        around = [(abs(place - other), other) for other in range(T) if other not in left_out]
        frames.append(clip[:, min(around)[1]])
    return torch.stack(frames, dim=1)


@pytest.mark.parametrize("kind", KINDS)
def test_frames_are_left_out_one_by_one(model, kind):
    method, backbone, options = KINDS[kind]
    used, clip = model(method, backbone, **options), clip_of(1)
    found = explain(used, clip, grid=1)

    @torch.no_grad()
    def logits(left_out: tuple[int, ...]) -> torch.Tensor:
        return used(without(clip, left_out)[None])[0]

    for frame in range(T):
        of = logits((frame,))
        drop = found.probability - float(of.softmax(0)[found.label])
        assert float(found.drops[frame]) == pytest.approx(drop, abs=1e-5)
        assert found.answers[frame] == int(of.argmax())
    assert found.best == found.label
    if any(answer != found.best for answer in found.answers):
        assert len(found.needed) == 1
    if found.needed:
        assert int(logits(found.needed).argmax()) != found.label
        for fewer in itertools.combinations(found.needed, len(found.needed) - 1):
            assert not fewer or int(logits(fewer).argmax()) == found.label


def test_a_label_is_explained_that_is_not_the_best(model):
    used, clip = model(*KINDS["adaptformer"][:2]), clip_of()
    found = [explain(used, clip, label, grid=1) for label in range(3)]
    assert [one.label for one in found] == [0, 1, 2]
    assert sum(one.probability for one in found) == pytest.approx(1, abs=1e-5)
    with pytest.raises(ValueError, match="below 3"):
        explain(used, clip, 3)


def test_one_frame_that_changes_the_answer_is_named_whatever_others_cost(model):
    """Frame 0 costs the best label most and changes nothing; frame 2 alone makes another best."""
    used = model(*KINDS["adaptformer"][:2])

    class Odd(torch.nn.Module):
        clip_shape = used.module.clip_shape

        def forward(self, clips: torch.Tensor) -> torch.Tensor:
            first, other = (clips[:, :, at].float().mean((1, 2, 3)) > 90 for at in (0, 2))
            red = torch.where(first, 6.0, torch.where(other, 2.0, 4.0))
            green = torch.where(other, 0.0, torch.where(first, 7.0, 0.0))
            return torch.stack([red, green, 0 * red], 1)

    clip = torch.full((3, T, 32, 32), 60, dtype=torch.uint8)
    clip[:, [0, 2]] = 250
    odd = replace(used, module=Odd())
    for label in (None, 1, 2):
        found = explain(odd, clip, label, grid=1)
        assert found.best == 0 and found.answers == (0, 0, 1, 0) and found.needed == (2,)


def test_lists_of_several_labels_and_urls_are_explained(tiny_set, tmp_path, capsys):
    config = Config(
        run_dir=str(tmp_path / "run"),
        method={"name": "linear"},
        data=DataConfig(
            label_names=str(tiny_set.root / "labels.txt"),
            sampling="uniform8",
            num_frames=T,
            crop_size=32,
            multi_label=True,
        ),
        model=ModelConfig(backbone="vit_tiny", weights=str(tiny_set.weights)),
        train=TrainConfig(precision="fp32"),
    )
    write_adapter(tmp_path / "run" / "last", config, seed=1)
    [first, second] = sorted(tiny_set.root.glob("test *.mp4"))[:2]
    (tmp_path / "list.txt").write_text(f"{first.name} 0,2\n")
    listed = [str(tmp_path / "list.txt"), f"file://{second}", "--root", str(tiny_set.root)]
    words = ["--adapter", str(tmp_path / "run"), "--out", str(tmp_path / "out"), "--grid", "1"]
    assert load_tool("explain").main([*listed, *words]) == 0, capsys.readouterr().err
    assert {file.name for file in (tmp_path / "out").glob("*.json")} == {
        f"{one.name}.json" for one in (first, second)
    }


def test_the_page_of_another_label_marks_no_frame_that_changes_nothing(model, tmp_path):
    used = model(*KINDS["adaptformer"][:2])
    frames = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "a.mp4", frames, 12)
    for label in used.labels:
        words = ["--adapter", str(used.adapter.folder), "--out", str(tmp_path / "out")]
        words += ["--grid", "1", "--label", label]
        assert load_tool("explain").main([str(tmp_path / "a.mp4"), *words]) == 0
        about = json.loads((tmp_path / "out" / "a.mp4.json").read_text())
        page = (tmp_path / "out" / "a.mp4.html").read_text()
        others = [one for one in about["answer_without_frame"] if one != about["best_in_clip"]]
        assert sum(page.count(f"%: {name}</small>") for name in used.labels) == len(others)


def test_the_command_writes_a_page_and_its_numbers_and_lists_what_it_cannot_read(
    model, tmp_path, capsys
):
    used = model(*KINDS["adaptformer"][:2])
    frames = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "a b.mp4", frames, 12)
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    words = ["--adapter", str(used.adapter.folder), "--out", str(tmp_path / "out"), "--grid", "2"]
    files = [str(tmp_path / name) for name in ("a b.mp4", "broken.mp4")]
    assert load_tool("explain").main([*files, *words, "--label", "green"]) == 1
    assert "broken.mp4" in capsys.readouterr().err
    about = json.loads((tmp_path / "out" / "a b.mp4.json").read_text())
    assert about["name"] == "green" and np.shape(about["log_odds_that_fall"]) == (T, 2, 2)
    page = (tmp_path / "out" / "a b.mp4.html").read_text()
    assert page.count("data-cells=") == T and "http" not in page.replace("http-equiv", "")
    with pytest.raises(ValueError, match="--label"):
        load_tool("explain").main([files[0], *words, "--label", "gren"])
    with pytest.raises(ValueError, match="--grid"):
        load_tool("explain").main([files[0], *words, "--grid", "33"])
