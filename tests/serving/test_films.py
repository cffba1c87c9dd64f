"""Windows of a film show what its timestamps say, and its timeline has the joins where they are."""

from __future__ import annotations

import itertools
import json
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import torch
from conftest import load_tool, write_adapter
from encoded import write
from safetensors.torch import save_file

import vidadapt
from vidadapt import models
from vidadapt.config import Config, ConfigError, DataConfig, ModelConfig, TrainConfig
from vidadapt.data import Framing, crop_corners, cut_views, eval_frames
from vidadapt.serving import film_command
from vidadapt.serving.films import Window, windows_of
from vidadapt.serving.timeline import Run, at_cuts, runs_of, smoothed, write_subtitles
from vidadapt.video import ReadError, frames_at, open_film

HALF = Fraction(1, 2)
FRAMES = {"from_image": "frames"}


@pytest.fixture(scope="module")
def model(tiny_set, tmp_path_factory):
    """A function that returns a model of a kind, which is written once."""
    home = tmp_path_factory.mktemp("films")

    def loaded(method: str = "adaptformer", frames: bool = False, **data):
        weights, backbone = tiny_set.weights, {"backbone": "vit_tiny"}
        if frames:
            weights = home / "image.safetensors"
            backbone = {"backbone": "timm/vit_tiny_patch16_224", **FRAMES}
            if not weights.exists():
                torch.manual_seed(0)
                built, _ = models.build(
                    backbone["backbone"], num_frames=4, crop_size=32, num_classes=3, **FRAMES
                )
                save_file(built.image.state_dict(), weights)
        folder = home / f"{method}_{frames}_{'_'.join(map(str, data.values()))}" / "last"
        if not folder.exists():
            config = Config(
                run_dir=str(folder.parent),
                method={"name": method},
                data=DataConfig(
                    label_names=str(tiny_set.root / "labels.txt"),
                    num_frames=4,
                    crop_size=32,
                    **{"sampling": "uniform8", **data},
                ),
                model=ModelConfig(**backbone, weights=str(weights)),
                train=TrainConfig(precision="fp32"),
            )
            write_adapter(folder, config, seed=1)
        return vidadapt.load(folder)

    return loaded


def write_film(path: Path, frames: np.ndarray, times: list[int], codec: str = "libx264") -> Path:
    """Write frames with timestamps in milliseconds."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"bf": "2", "g": "8"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for frame, time in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    return path


def pictures(count: int) -> np.ndarray:
    """Frames (count, 64, 80, 3) of coarse random patterns, each unlike the one before."""
    small = np.random.default_rng(0).integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)
    return small.repeat(16, axis=1).repeat(16, axis=2)


def steady(count: int) -> list[int]:
    return [40 * number for number in range(count)]


def uneven(count: int) -> list[int]:
    """Frames that last 20 to 100 ms."""
    lengths = np.random.default_rng(0).choice([20, 40, 70, 100], count)
    return [0, *np.cumsum(lengths)[:-1].tolist()]


def by_hand(model, path: Path, length: Fraction, hop: Fraction) -> list[np.ndarray]:
    """Probabilities of all windows, each read alone from all frames of a film."""
    with av.open(str(path)) as container:
        decoded = [*container.decode(video=0)]
        shown = [frame.to_ndarray(format="rgb24") for frame in decoded]
    times = [float(frame.time) - float(decoded[0].time) for frame in decoded]
    end = times[-1] + times[-1] / (len(times) - 1)
    plan, found = model.adapter.plan, []
    count = plan.sampling.num_frames
    middle = 0.5 if plan.sampling.policy == "uniform" else 0.0
    start = 0.0
    while start + float(length) <= end:
        wanted = [start + float(length) * (i + middle) / count + 1e-3 for i in range(count)]
        places = [max(n for n, time in enumerate(times) if time <= at + 1e-9) for at in wanted]
        frames = eval_frames(np.stack([shown[place] for place in places]), plan.crop_size)
        corner = crop_corners(frames.shape[1], frames.shape[2], 1, Framing())
        clip = cut_views(frames, torch.arange(count)[None], torch.tensor(corner))
        found.append(model(clip).softmax(1)[0].numpy())
        start += float(hop)
    return found


@pytest.mark.parametrize(
    ("ending", "times", "chosen"),
    [
        (".mp4", steady, {}),
        (".mp4", uneven, {}),
        (".mkv", uneven, {"frames": True}),
        (".mkv", steady, {"frames": True, "method": "st_adapter"}),  # it mixes frames
        (".mp4", uneven, {"sampling": "adaptformer"}),
        (".mp4", steady, {"method": "losa"}),
    ],
)
@pytest.mark.parametrize(("length", "hop"), [(Fraction(1), Fraction(1, 4)), (Fraction(1), HALF)])
def test_windows_are_those_of_a_decode_by_hand(model, tmp_path, ending, times, chosen, length, hop):
    frames = pictures(75)
    path = write_film(tmp_path / f"film{ending}", frames, times(75))
    used = model(**chosen)
    film = open_film(str(path))
    found = list(windows_of(used, film, length, hop))
    wanted = by_hand(used, path, length, hop)
    assert [window.start for window in found] == [hop * k for k in range(len(wanted))]
    for window, shares in zip(found, wanted, strict=True):
        np.testing.assert_allclose(window.probabilities, shares, atol=1e-5)
    assert np.ptp(np.stack(wanted), axis=0).max() > 1e-3  # windows differ
    assert film.num_frames == 75 and not film.faults and not film.without_time


def test_a_hop_that_no_step_divides_and_one_longer_than_windows(model, tmp_path):
    path = write_film(tmp_path / "film.mp4", pictures(75), steady(75))
    for hop in (Fraction(3, 10), Fraction(13, 10)):
        found = list(windows_of(model(), open_film(str(path)), Fraction(1), hop))
        wanted = by_hand(model(), path, Fraction(1), hop)
        for window, shares in zip(found, wanted, strict=True):
            np.testing.assert_allclose(window.probabilities, shares, atol=1e-5)


def test_a_film_shorter_than_a_window_is_refused(model, tmp_path):
    path = write_film(tmp_path / "film.mp4", pictures(10), steady(10))
    with pytest.raises(ReadError, match=r"0\.40 s"):
        list(windows_of(model(), open_film(str(path)), Fraction(1), HALF))
    assert len(list(windows_of(model(), open_film(str(path)), Fraction(2, 5), HALF))) == 1


def certain(joins: list[float], end: float, length: float, hop: float) -> list[Window]:
    """Windows of a model that sees the share of each of two labels, which change at the joins."""
    found, start = [], Fraction(0)
    while start + Fraction(length) <= end:
        at = np.linspace(float(start), float(start) + length, 1001)
        second = (np.searchsorted(joins, at, side="right") % 2).mean()
        found.append(Window(start, start + Fraction(length), np.array([1 - second, second])))
        start += Fraction(hop)
    return found


def test_joins_are_found_within_half_a_hop():
    joins = [3.1, 6.4, 10.0, 13.7, 17.95, 22.2]
    parts = smoothed(certain(joins, 26, 2, 0.5), HALF)
    runs = list(runs_of(parts))
    assert [run.label for run in runs] == [0, 1, 0, 1, 0, 1, 0]
    starts = [float(run.start) for run in runs[1:]]
    assert np.abs(np.array(starts) - joins).max() <= 0.25
    assert runs[0].start == 0 and runs[-1].end == 26
    assert all(run.end == later.start for run, later in pairwise(runs))


def test_ends_of_runs_move_to_cuts_that_are_near():
    steps = [Fraction(k, 4) for k in range(1, 100)]
    cuts = {Fraction(4): 60.0, Fraction(9): 70.0, Fraction(15): 11.0}  # the last is no cut
    changes = [(time, cuts.get(time, 10.0)) for time in steps]
    ends = [0, Fraction(9, 2), Fraction(17, 2), 9, Fraction(31, 2), 20]
    runs = [Run(Fraction(a), Fraction(b), k % 2, 0.9) for k, (a, b) in enumerate(pairwise(ends))]
    found = list(at_cuts(runs, changes, Fraction(2)))
    # A cut lies between its frame and the one before; the third run was seen across it alone, and
    # its neighbours have one label.
    at = [Fraction(0), Fraction(31, 8), Fraction(31, 2), Fraction(20)]
    assert [(run.start, run.end) for run in found] == list(pairwise(at))
    assert [run.label for run in found] == [0, 1, 0]


def test_cuts_leave_no_gap_no_overlap_and_the_ends_where_they_are():
    rng = np.random.default_rng(0)
    for _ in range(200):
        ends = np.unique(rng.integers(0, 40, 8)) / 2
        labels = np.cumsum(rng.integers(1, 3, len(ends))) % 3  # neighbours differ
        runs = [
            Run(Fraction(start), Fraction(end), int(label), 0.5)
            for (start, end), label in zip(pairwise(ends), labels, strict=False)
        ]
        if not runs:
            continue
        changes = [(Fraction(k, 4), float(rng.choice([1, 9], p=[0.8, 0.2]))) for k in range(1, 80)]
        found = list(at_cuts(runs, changes, Fraction(2)))
        assert found[0].start == runs[0].start and found[-1].end == runs[-1].end
        assert all(one.end == later.start for one, later in pairwise(found))
        assert all(one.label != later.label for one, later in pairwise(found))
        assert all(one.start < one.end for one in found)


def test_several_labels_have_runs_of_their_own():
    parts = [(Fraction(k), Fraction(k + 1), np.array(row)) for k, row in enumerate(
        ([0.9, 0.1, 0.6], [0.8, 0.1, 0.7], [0.1, 0.1, 0.8], [0.9, 0.1, 0.1])
    )]  # fmt: skip
    runs = list(runs_of(parts, [0.5, 0.5, 0.65]))
    shown = {(float(run.start), float(run.end), run.label) for run in runs}
    assert shown == {(0, 2, 0), (1, 3, 2), (3, 4, 0)}


def test_subtitles_hold_names_as_text(tmp_path):
    runs = [Run(Fraction(0), Fraction(7, 2), 0, 0.5), Run(Fraction(7, 2), Fraction(5), 1, 0.9)]
    write_subtitles(tmp_path / "a.vtt", runs, ["<b>up & down</b>\n\n1", "a --> b"])
    with av.open(str(tmp_path / "a.vtt")) as container:
        cues = [packet for packet in container.demux() if packet.size]
    assert [float(cue.pts * cue.time_base) for cue in cues] == [0.0, 3.5]
    assert b"<b>" not in (tmp_path / "a.vtt").read_bytes()


def test_the_command_writes_the_timeline_of_each_film(model, tmp_path, capsys):
    used = model()
    folder = used.adapter.folder
    film = write_film(tmp_path / "film.mp4", pictures(75), steady(75))
    words = [str(film), "--adapter", str(folder), "--window", "1s", "--timeline"]
    assert load_tool("predict").main([*words, str(tmp_path / "out")]) == 0
    lines = (tmp_path / "out" / "film.mp4.jsonl").read_text().splitlines()
    windows = list(windows_of(used, open_film(str(film)), Fraction(1), Fraction(1, 4)))
    assert len(lines) == len(windows) == 9
    top = json.loads(lines[3])["top"]
    assert [each["label"] for each in top] == np.argsort(-windows[3].probabilities).tolist()
    table = pd.read_csv(tmp_path / "out" / "film.mp4.csv")
    assert table.start[0] == 0 and table.end.iloc[-1] == 3
    assert set(table.name) <= {"red", "green", "blue"}
    assert (tmp_path / "out" / "film.mp4.vtt").read_text().count("-->") == len(table)
    page = (tmp_path / "out" / "film.mp4.html").read_text()
    assert "../film.mp4" in page and page.count("<rect") == len(table)
    capsys.readouterr()
    assert load_tool("predict").main([*words[:-1], "--json"]) == 0
    runs = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [run["start"] for run in runs] == table.start.tolist()


def test_a_film_that_ends_early_is_said_and_what_is_there_is_written(model, tmp_path, capsys):
    whole = write_film(tmp_path / "whole.mkv", pictures(150), steady(150))
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    folder = str(model().adapter.folder)
    words = [str(cut), "--adapter", folder, "--window", "1s", "--timeline", str(tmp_path / "out")]
    assert load_tool("predict").main(words) == 1
    assert "cut.mkv" in capsys.readouterr().err
    assert (tmp_path / "out" / "cut.mkv.csv").exists()


def test_a_film_that_cannot_be_read_is_said_and_the_next_is_looked_at(model, tmp_path, capsys):
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "a.mp4").write_bytes(b"nothing")
    write_film(folder / "b.mp4", pictures(10), steady(10))  # shorter than a window
    write_film(folder / "c.mp4", pictures(75), steady(75))
    words = [str(folder), "--adapter", str(model().adapter.folder), "--window", "1s", "--json"]
    assert load_tool("predict").main([*words, "--timeline", str(tmp_path / "out")]) == 1
    found = capsys.readouterr()
    lines = [json.loads(line) for line in found.out.splitlines()]
    assert [Path(line["video"]).name for line in lines[:3]] == ["a.mp4", "b.mp4", "c.mp4"]
    assert "error" in lines[0] and "error" in lines[1] and "start" in lines[2]
    written = {path.name for path in (tmp_path / "out").iterdir()}
    assert written == {f"c.mp4.{ending}" for ending in ("jsonl", "csv", "vtt", "html")}


def test_windows_of_a_film_that_is_interrupted_stay(model, tmp_path, monkeypatch):
    film = write_film(tmp_path / "film.mp4", pictures(75), steady(75))

    def stopped(windows, hop):
        yield from itertools.islice(smoothed(windows, hop), 3)
        raise KeyboardInterrupt

    monkeypatch.setattr(film_command, "smoothed", stopped)
    words = [str(film), "--adapter", str(model().adapter.folder), "--window", "1s", "--timeline"]
    with pytest.raises(KeyboardInterrupt):
        load_tool("predict").main([*words, str(tmp_path / "out")])
    [part] = (tmp_path / "out").iterdir()
    assert [json.loads(line)["start"] for line in part.read_text().splitlines()] == [0, 0.25, 0.5]


def test_films_of_a_list_stay_in_the_folder(model, tmp_path):
    film = write_film(tmp_path / "film.mp4", pictures(75), steady(75))
    (tmp_path / "films.txt").write_text(f"{film} 0\n")
    words = [str(tmp_path / "films.txt"), "--allow_outside_root", "--window", "1s"]
    adapter = ["--adapter", str(model().adapter.folder), "--timeline", str(tmp_path / "out")]
    with pytest.raises(ConfigError, match="--timeline"):
        load_tool("predict").main([*words, *adapter])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["film.mp4", "films.txt"]


def test_frames_of_avi_are_shown_at_a_constant_rate(tmp_path):
    path = tmp_path / "film.avi"
    frames = pictures(50)
    write(path, "mpeg4", {"bf": "2", "g": "12"}, frames)
    film = open_film(str(path))
    times = [Fraction(n, 25) + Fraction(1, 100) for n in range(50)]
    assert [number for _, number, _ in frames_at(film, times)] == [*range(50)]
    assert not film.without_time


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--window", "0s"], "--window"),
        (["--window", "two"], "--window"),
        (["--hop", "1s"], "--hop"),
        (["--timeline", "out"], "--timeline"),
        (["--window", "1s", "--num_clips", "2"], "--num_clips"),
        (["--window", "1s", "--sheet", "a.png"], "--sheet"),
        (["--window", "1s", "--adapter", "other"], "--adapter"),
    ],
)
def test_options_that_do_not_go_together_are_refused(model, tmp_path, capsys, words, named):
    given = [str(tmp_path / "film.mp4"), "--adapter", str(model().adapter.folder), *words]
    with pytest.raises((SystemExit, ValueError)) as error:
        load_tool("predict").main(given)
    assert named in f"{error.value}{capsys.readouterr().err}"


def test_a_model_that_sees_frames_alone_encodes_each_once(model, tmp_path):
    path = write_film(tmp_path / "film.mp4", pictures(100), steady(100))
    used, rows = model(frames=True), []
    hook = used.module.image.patch_embed.register_forward_hook(
        lambda _, given, __: rows.append(len(given[0]))
    )
    windows = list(windows_of(used, open_film(str(path)), Fraction(1), Fraction(1, 4)))
    hook.remove()
    assert len(windows) == 13
    # 16 frames; 8 more to learn that adapters do not mix them.
    assert sum(rows) == 16 + 8
