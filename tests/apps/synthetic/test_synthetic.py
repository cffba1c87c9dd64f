"""The synthetic videos are what they claim: deterministic, disjoint, legible, resumable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from conftest import load_tool

from vidadapt.apps.synthetic import FAMILIES, labels, make_set, render, write_video
from vidadapt.apps.synthetic.actions import COMPOSED_ACTIONS, SOURCE_ACTIONS, TARGET_ACTIONS
from vidadapt.apps.synthetic.drawing import BACKGROUNDS, PATTERNS, SHAPES
from vidadapt.apps.synthetic.rendering import FRAME_RATES, SHORT_SIDES
from vidadapt.lists import read_list

pytestmark = pytest.mark.slow  # whole commands

REPO = Path(__file__).resolve().parents[3]


def decode(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        return np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])


def centres(action: str, family: str, seed: int) -> np.ndarray:
    """(T, 2) centre of what differs from the per-pixel median, in units of half the short side."""
    frames = render(action, family, seed, 0.0)[0].astype(np.float32)
    weight = np.abs(frames - np.median(frames, axis=0)).sum(-1)
    weight = np.where(weight > 60, weight, 0)
    height, width = weight.shape[1:]
    total = weight.sum((1, 2)) + 1e-6
    y = (weight.sum(2) @ (np.arange(height) - height / 2 + 0.5)) / total
    x = (weight.sum(1) @ (np.arange(width) - width / 2 + 0.5)) / total
    return np.stack([x, y], 1) / (min(height, width) / 2)


def test_source_and_target_share_nothing() -> None:
    source, target = FAMILIES["source"], FAMILIES["target"]
    assert not set(SOURCE_ACTIONS) & set(TARGET_ACTIONS | COMPOSED_ACTIONS)
    assert not set(source.shapes) & set(target.shapes)
    assert not set(source.patterns) & set(target.patterns)
    assert not set(source.backgrounds) & set(target.backgrounds)
    for low, high in source.hues:
        for other_low, other_high in target.hues:
            turns = np.arange(-1, 2)
            assert not ((low + turns <= other_high) & (other_low <= high + turns)).any()


def test_the_demo_backbone_was_trained_on_no_target_action() -> None:
    """What its run recorded, against what the demo adapts it to."""
    trained_on = json.loads((REPO / "docs" / "demo_backbone" / "adapter.json").read_text())
    assert trained_on["label_names"] == labels("source")
    assert not set(trained_on["label_names"]) & set(labels("target"))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_action_renders_within_the_promised_ranges(family: str) -> None:
    look = FAMILIES[family]
    assert set(look.shapes) <= set(SHAPES) and set(look.patterns) <= set(PATTERNS)
    assert set(look.backgrounds) <= set(BACKGROUNDS)
    names = list(look.actions)
    for i in range(len(names)):
        action = [names[(i + n) % len(names)] for n in range(look.at_once)]
        frames, fps = render(action, family, i, difficulty=(i % 3) / 2)
        assert frames.dtype == np.uint8 and frames.shape[3] == 3
        assert 24 <= frames.shape[0] <= 80 and fps in FRAME_RATES
        assert min(frames.shape[1:3]) in SHORT_SIDES
        assert frames.shape[1] % 2 == 0 and frames.shape[2] % 2 == 0
        assert frames.std(axis=(1, 2)).max() > 5  # something is to be seen


def test_frames_depend_on_the_seed_alone() -> None:
    action = labels("target")[3]
    first, fps = render(action, "target", 5, 0.7)
    again, fps_again = render(action, "target", 5, 0.7)
    other, _ = render(action, "target", 6, 0.7)
    assert np.array_equal(first, again) and fps == fps_again
    assert first.shape != other.shape or not np.array_equal(first, other)


def test_num_frames_paints_a_subset_of_the_same_video() -> None:
    whole, _ = render("moving something up", "source", 3, 0.8)
    few, _ = render("moving something up", "source", 3, 0.8, num_frames=8)
    index = np.linspace(0, len(whole) - 1, 8).round().astype(int)
    # patches depend on the frames painted together, so equal up to rounding
    assert np.abs(whole[index].astype(int) - few).max() <= 1


@pytest.mark.parametrize(
    ("action", "axis", "sign"),
    [
        ("moving something right", 0, 1),
        ("moving something left", 0, -1),
        ("moving something down", 1, 1),
        ("moving something up", 1, -1),
    ],
)
def test_moves_go_where_their_name_says(action: str, axis: int, sign: int) -> None:
    for seed in range(6):
        path = centres(action, "source", seed)
        step = path[-1] - path[0]
        assert sign * step[axis] > 0.4
        assert abs(step[1 - axis]) < 0.4 * abs(step[axis])


def test_there_and_back_ends_where_it_began() -> None:
    for seed in range(6):
        path = centres("moving something right and back", "composed", seed)
        middle = len(path) // 2
        assert path[middle, 0] - path[0, 0] > 0.4
        assert abs(path[-1, 0] - path[0, 0]) < 0.2


def test_a_frame_of_unknown_time_does_not_tell_mirrored_moves_apart() -> None:
    """Positions over all frames of left and right moves have the same spread and mean.

    Those of the first frames alone do not, nor should they.
    """
    right, left = (
        np.concatenate(
            [centres(f"moving something {way}", "source", seed)[:, 0] for seed in range(80)]
        )
        for way in ("right", "left")
    )
    assert abs(right.mean() - left.mean()) < 0.12
    assert abs(right.std() - left.std()) < 0.08


@pytest.mark.parametrize(
    ("suffix", "codec"), [(".mp4", "h264"), (".webm", "vp9"), (".avi", "mpeg4")]
)
def test_files_hold_the_frames(tmp_path: Path, suffix: str, codec: str) -> None:
    frames, fps = render(labels("source")[0], "source", 1, 0.3)
    path = tmp_path / f"a{suffix}"
    write_video(path, frames, fps)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name.startswith(codec)
        assert container.streams.video[0].average_rate == fps
    decoded = decode(path)
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames).mean() < 8
    assert list(tmp_path.iterdir()) == [path]


def test_write_video_names_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"choose one of .mp4"):
        write_video(tmp_path / "a.mov", np.zeros((2, 8, 8, 3), np.uint8), 25)
    with pytest.raises(ValueError, match="even"):
        write_video(tmp_path / "a.mp4", np.zeros((2, 9, 8, 3), np.uint8), 25)


def test_set_is_listed_resumed_and_repeated_exactly(tmp_path: Path) -> None:
    counts = {"train": 6, "test": 3}
    one = make_set(tmp_path / "one", "appearance", counts, seed=4, num_processes=1)
    names = (one / "labels.txt").read_text().splitlines()
    assert names == labels("appearance")
    train = [line.rsplit(" ", 1) for line in (one / "train.txt").read_text().splitlines()]
    assert [int(label) for _, label in train] == list(range(6))
    assert len((one / "test.txt").read_text().splitlines()) == 3
    assert len(list((one / "videos").iterdir())) == 9

    victim, kept = one / train[2][0], one / train[1][0]
    content, stamp = victim.read_bytes(), kept.stat().st_mtime_ns
    victim.unlink()
    make_set(one, "appearance", counts, seed=4, num_processes=2)
    assert victim.read_bytes() == content
    assert kept.stat().st_mtime_ns == stamp

    with pytest.raises(FileExistsError, match=r"other settings .*seed"):
        make_set(one, "appearance", counts, seed=5)


def test_counts_in_another_order_are_other_settings(tmp_path: Path) -> None:
    counts = {"train": 1, "test": 1}
    make_set(tmp_path / "set", "appearance", counts, num_processes=1)
    with pytest.raises(FileExistsError, match=r"other settings \(counts\)"):
        make_set(tmp_path / "set", "appearance", {"test": 1, "train": 1}, num_processes=1)
    make_set(tmp_path / "set", "appearance", counts, num_processes=1)


def test_class_folders(tmp_path: Path) -> None:
    out = make_set(
        tmp_path / "set",
        "composed",
        {"train": 3},
        layout="class_folders",
        suffix=".avi",
        num_processes=1,
    )
    first = (out / "train.txt").read_text().splitlines()[0]
    assert first == "videos/moving_something_right_and_back/train_00000.avi 0"
    assert (out / first.rsplit(" ", 1)[0]).is_file()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"family": "nothing"}, "known: source, target, composed, together, appearance"),
        ({"difficulty": (0.5, 0.1)}, "rising range"),
        ({"layout": "deep"}, "class_folders"),
        ({"suffix": ".mov"}, "choose one of"),
        ({"counts": {"train": -1}}, "must not be negative"),
    ],
)
def test_bad_settings_are_named(tmp_path: Path, change: dict, message: str) -> None:
    settings = {"family": "source", "counts": {"train": 1}, **change}
    with pytest.raises(ValueError, match=message):
        make_set(tmp_path / "set", **settings)
    assert not (tmp_path / "set").exists(), "nothing is claimed for settings that cannot be"


@pytest.mark.parametrize("counts", ["train=-1", "train=1,train=2", "=3", "../x=1", "train", ""])
def test_bad_counts_are_refused(counts: str, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as end:
        load_tool("prepare").main(["synthetic", str(tmp_path / "set"), f"--counts={counts}"])
    assert end.value.code == 2
    assert "expected splits, each once, with numbers such as" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_render_names_unknown_actions() -> None:
    with pytest.raises(ValueError, match="has no action 'fly'; it has: moving something right"):
        render("fly", "source", 0)


def test_command_line(tmp_path: Path) -> None:
    def prepare(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(REPO / "tools" / "prepare.py"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=REPO, timeout=120)

    out = tmp_path / "set"
    done = prepare(
        "synthetic",
        str(out),
        "--family",
        "target",
        "--counts",
        "train=2,test=1",
        "--difficulty",
        "0.2",
    )
    assert done.returncode == 0, done.stderr
    assert "3 videos of 12 classes; train.txt (2), test.txt (1)" in done.stdout
    assert len((out / "train.txt").read_text().splitlines()) == 2

    refused = prepare("synthetic", str(out), "--family", "source")
    assert refused.returncode == 2 and "other settings" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi"])
def test_the_same_frames_give_the_same_bytes_whatever_memory_held(tmp_path, suffix):
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 255, (6, 8, 3), np.uint8).repeat(20, 0).repeat(16, 1)
    frames = np.stack([np.roll(picture, shift, axis=1)[:112, :90] for shift in range(30)])
    frames += rng.integers(0, 20, frames.shape, np.uint8)
    kept, found = [], set()
    for number in range(12):
        kept.append(rng.integers(0, 255, (50 + 37 * number, 301, 7), np.uint8))
        write_video(tmp_path / f"{number}{suffix}", frames, 12)
        found.add((tmp_path / f"{number}{suffix}").read_bytes())
    assert len(found) == 1


@pytest.mark.slow  # renders 69 videos
def test_two_actions_at_once_are_two_labels_and_every_class_comes_as_often(tmp_path: Path) -> None:
    out = make_set(tmp_path / "set", "together", {"train": 66, "dev": 3}, difficulty=0.0)
    samples = read_list(out / "train.txt", out, 12, multi_label=True)
    assert len({sample.label for sample in samples}) == 66
    assert samples.labels.sum(0).tolist() == [11] * 12
    with pytest.raises(ValueError, match="shows 2 actions"):
        render(labels("together")[0], "together", 0)
