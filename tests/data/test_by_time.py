"""Frames by time (`data.sampling_fps`): the same seconds, whatever a file's rate."""

from __future__ import annotations

import io
import tarfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from videos import grey_frames, indices_of

from vidadapt import data
from vidadapt.config import Config, DataConfig, EvalConfig
from vidadapt.data import SAMPLINGS, by_time
from vidadapt.lists import Sample, Videos, counted_videos, frame_counts, read_list, write_list
from vidadapt.runs import adapter_json
from vidadapt.video import ReadError, VideoFacts

STAMPS = {  # in units of 1/1000 s; of 2 s each
    "slow.mkv": [100 * i for i in range(20)],
    "fast.mkv": [round(1000 * i / 24) for i in range(48)],
    "variable.mkv": [*range(0, 500, 20), *range(500, 2000, 125)],
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("by_time")
    for name, stamps in STAMPS.items():
        with av.open(str(made / name), "w") as container:
            stream = container.add_stream("libx264", rate=1000, options={"bf": "2"})
            stream.height, stream.width, stream.pix_fmt = 64, 80, "yuv420p"
            stream.codec_context.time_base = Fraction(1, 1000)
            for array, stamp in zip(grey_frames(len(stamps)), stamps, strict=True):
                frame = av.VideoFrame.from_ndarray(array, format="rgb24")
                frame.pts, frame.time_base = stamp, Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    paths = [*STAMPS, "fast.mkv#t=0.5,1.5", "variable.mkv#t=0.5,1.5"]
    write_list(made / "test.txt", [Sample(path, 0) for path in paths])
    (made / "labels.txt").write_text("a\nb\n")
    return made


def slowly(times: list[float], fps: float) -> list[int]:
    """The last frame up to each moment, looked for one by one."""
    found: list[int] = []
    length = (times[-1] - times[0]) * len(times) / max(1, len(times) - 1)
    while not found or len(found) / fps < length - 0.001:
        moment = len(found) / fps + 0.001
        found.append(max(i for i, time in enumerate(times) if time - times[0] <= moment))
    return found


@pytest.mark.parametrize("fps", [0.7, 4, 8, 25, 30, 59.94])
@pytest.mark.parametrize("name", [*STAMPS, "random", "one"])
def test_each_moment_shows_the_last_frame_up_to_it(name: str, fps: float) -> None:
    rng = np.random.default_rng(0)
    times = [stamp / 1000 for stamp in STAMPS.get(name, [5])]
    if name == "random":
        times = np.sort(rng.uniform(0, 3, 50)).tolist()
    assert by_time.shown_frames(np.array(times), fps).tolist() == slowly(times, fps)


@pytest.mark.parametrize("rate", [24, 25, Fraction(30000, 1001), 60])
def test_a_rate_of_a_video_s_own_is_its_frames(rate: Fraction) -> None:
    for rounded in (False, True):
        times = [float(i / Fraction(rate)) for i in range(100)]
        times = [round(time, 3) for time in times] if rounded else times  # as Matroska does
        assert by_time.shown_frames(np.array(times), float(rate)).tolist() == list(range(100))


def settings(folder: Path, **changes: object) -> DataConfig:
    chosen = {"root": str(folder), "test_list": str(folder / "test.txt"), "crop_size": 32,
              "label_names": str(folder / "labels.txt"), "sampling": "uniform8", "num_frames": 4,
              "num_workers": 0, "clip_timeout": None, "sampling_fps": 8.0}  # fmt: skip
    return DataConfig(**{**chosen, **changes})  # type: ignore[arg-type]


def test_clips_show_the_same_seconds_at_any_rate(folder: Path) -> None:
    cfg = settings(folder)
    plan = data.resolve(cfg, EvalConfig(num_clips=1, num_crops=1))
    samples = read_list(folder / "test.txt", folder, 2)
    loaded = data.load_list(cfg, plan, folder / "test.txt", samples, training=False, progress=False)
    for place, item in enumerate(data.eval_loader(cfg, plan, loaded)):
        facts = loaded.samples.facts(place)
        clip = next(data.view_chunks(item, 1, "cpu"))[0]
        virtual = slowly(facts.times.tolist(), 8)
        chosen = data.eval_indices(plan.sampling, len(virtual), 1)[0]
        first = facts.first_frame
        assert indices_of(clip) == [first + virtual[i] for i in chosen]
        assert len(virtual) == (16 if place < 3 else 8)
        moments = facts.times[[virtual[i] for i in chosen]] - facts.times[0]
        assert (chosen / 8 - moments < 0.13).all() and (chosen / 8 + 0.001 >= moments).all()
    rng = [np.random.default_rng(5), np.random.default_rng(5)]
    facts = loaded.samples.facts(1)
    drawn = data.train_frames(plan.sampling, facts, rng[0])
    virtual = slowly(facts.times.tolist(), 8)
    assert drawn.tolist() == [
        virtual[i] for i in data.train_indices(plan.sampling, len(virtual), rng[1])
    ]


def test_times_are_looked_for_once_and_serve_runs_without_them(folder: Path, tmp_path) -> None:
    paths = list(STAMPS)[:2]

    def count(**options: object) -> dict[str, VideoFacts]:
        return frame_counts(tmp_path / "list.txt", folder, paths, progress=False, **options)

    assert not len(count()["slow.mkv"].times)
    assert count(timed=True, decode=False) == {}
    timed = count(timed=True)
    assert timed["slow.mkv"].times.tolist() == [stamp / 1000 for stamp in STAMPS["slow.mkv"]]
    assert count(timed=True, decode=False).keys() == timed.keys()
    again = count(decode=False)
    assert again.keys() == timed.keys()
    assert (again["fast.mkv"].checks == timed["fast.mkv"].checks).all()


def test_frames_without_times_are_refused_by_name(folder: Path, tmp_path: Path) -> None:
    strange = VideoFacts("b.mp4", reader="pyav", num_frames=2, times=np.array([0, 1e12]))
    untimed = {"a.mp4": VideoFacts("a.mp4", reader="packed", num_frames=8), "b.mp4": strange}
    videos = Videos.of(str(tmp_path), [Sample("a.mp4", 0), Sample("b.mp4", 0)], untimed)
    by_time.refuse_untimed(videos, SAMPLINGS["uniform8"])
    cfg = settings(folder)
    with pytest.raises(ReadError, match=r"data\.sampling_fps: (.|\n)*a\.mp4(.|\n)*b\.mp4"):
        by_time.refuse_untimed(videos, data.resolve(cfg, EvalConfig()).sampling)


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(folder: Path, fps: float) -> None:
    with pytest.raises(ValueError, match="sampling_fps"):
        data.resolve(settings(folder, sampling_fps=fps), EvalConfig())


def test_an_adapter_keeps_its_rate(folder: Path) -> None:
    for fps in (None, 8.0):
        cfg = Config(run_dir="x", data=settings(folder, sampling_fps=fps))
        plan = data.resolve(cfg.data, cfg.eval)
        about = adapter_json.describe_adapter(cfg, plan, "0" * 64, "0" * 64)
        assert adapter_json.plan_of(about).sampling == plan.sampling
        assert adapter_json.config_of(about, "x").data.sampling_fps == fps
        assert ("sampling_fps" in about["clip"]) == (fps is not None)


def test_counting_by_time_knows_segments(folder: Path, tmp_path: Path) -> None:
    samples = [Sample("fast.mkv#t=0.5,1.5", 0), Sample("fast.mkv#frames=3,9", 0)]
    videos = counted_videos(tmp_path / "l.txt", folder, samples, timed=True, progress=False)
    assert [len(videos.facts(place).times) for place in (0, 1)] == [24, 6]
    assert videos.facts(0).times[0] == 0.5


def test_packed_frames_have_no_times_and_no_segments(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number, frame in enumerate(grey_frames(8)):
            file = io.BytesIO()
            Image.fromarray(frame).save(file, "JPEG")
            about = tarfile.TarInfo(f"v/{number:06d}.jpg")
            about.size = file.tell()
            tar.addfile(about, io.BytesIO(file.getvalue()))
    write_list(tmp_path / "test.txt", [Sample("a.tar/v", 0)])
    (tmp_path / "labels.txt").write_text("a\nb\n")
    cfg = settings(tmp_path)
    plan = data.resolve(cfg, EvalConfig())
    for _ in range(2):  # the second finds them counted
        with pytest.raises(ReadError, match=r"data\.sampling_fps: (.|\n)*a\.tar/v"):
            samples = read_list(tmp_path / "test.txt", tmp_path, 2)
            data.load_list(cfg, plan, tmp_path / "test.txt", samples, training=False)
    paths = ["a.tar/v#t=0,1", "a.tar/v#frames=2,4", "a.tar/v"]
    facts = frame_counts(tmp_path / "other.txt", tmp_path, paths, progress=False)
    assert [facts[path].num_frames for path in paths] == [0, 0, 8]
    assert all("has no segments" in facts[path].error for path in paths[:2])
