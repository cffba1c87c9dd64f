"""Segments of films, against a plain sequential decode whose timestamps this file reads itself."""

import struct
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from encoded import X264, decode_with_pyav, numbered, spelled, write

from vidadapt.lists import frame_counts
from vidadapt.video import ReadError, deep, film_and_span, open_counted, open_video, same_name

FRAMES = 200
KINDS = {
    "b_frames.mp4": ("libx264", {"x264-params": X264}),
    "hidden.mp4": ("libx264", {"x264-params": X264}),  # an edit list hides its beginning
    "variable.mkv": ("libx264", {"x264-params": X264}),
    "open.mkv": ("libx264", {"x264-params": f"{X264}:open-gop=1"}),
    "late.mkv": ("libx264", {"x264-params": X264}),  # its first frame is not at 0
    "vp9.webm": ("libvpx-vp9", {"g": "24", "deadline": "realtime", "cpu-used": "8"}),
    "stamps.ts": ("libx264", {"x264-params": X264}),
    "plain.avi": ("mpeg4", {"bf": "2", "g": "20"}),
    "no_times.avi": ("libx264", {"x264-params": X264}),
}


def ticks(name: str) -> list[int]:
    """Time of each frame in units of 1/1000 s."""
    if name.startswith(("variable", "open", "vp9")):
        steps = np.random.default_rng(1).integers(5, 90, FRAMES)
        return [0, *np.cumsum(steps)[:-1].tolist()]
    return [40 * i + 3000 * name.startswith("late") for i in range(FRAMES)]


def hide(path: Path, first: int) -> None:
    """Let the edit list of an mp4 of 25 frames a second begin at some frame."""
    data = bytearray(path.read_bytes())
    at = data.index(b"elst")
    scale = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)[0]
    _, media = struct.unpack_from(">Ii", data, at + 12)
    struct.pack_into(">i", data, at + 16, media + first * scale // 25)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("films")
    for name, (codec, options) in KINDS.items():
        with av.open(str(folder / name), "w") as container:
            rate = 25 if name.endswith(("avi", "ts", "mp4")) else 1000
            stream = container.add_stream(codec, rate=rate, options=options)
            stream.height, stream.width = numbered(1).shape[1:3]
            stream.pix_fmt = "yuv420p"
            stream.codec_context.time_base = Fraction(1, rate)
            for array, tick in zip(numbered(FRAMES), ticks(name), strict=True):
                frame = av.VideoFrame.from_ndarray(array, format="rgb24")
                frame.pts, frame.time_base = tick * rate // 1000, Fraction(1, rate)
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    hide(folder / "hidden.mp4", 30)
    return folder


def read_slowly(path: Path) -> tuple[list[np.ndarray], list[Fraction]]:
    """Frames of a sequential decode, and the times of their timestamps from the first one on."""
    stamps = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        for frame in container.decode(stream):
            stamps.append(None if frame.pts is None else frame.pts * stream.time_base)
    frames = decode_with_pyav(path)
    if path.suffix == ".avi":
        return frames, [Fraction(i, 25) for i in range(len(frames))]
    return frames, [stamp - stamps[0] for stamp in stamps]


def fragments(times: list[Fraction]) -> Iterator[tuple[str, Fraction, Fraction | None]]:
    """Segments that begin and end on frames, a little before and after them, and anywhere."""
    rng = np.random.default_rng(0)
    some = [times[i] for i in (0, 1, 13, 100, 101, 150)]
    exact = [t for t in some if (10**6 * t).denominator == 1]
    micro = Fraction(1, 10**6)
    for start in exact:
        for moved in (start - micro, start, start + micro):
            if moved >= 0:
                yield f"#t={float(moved):.6f}", moved, None
                end = moved + Fraction(int(rng.integers(10**5, 10**6)), 10**6)
                yield f"#t={float(moved):.6f},{float(end):.6f}", moved, end
    yield "#t=,1.5", Fraction(0), Fraction(3, 2)


@pytest.mark.parametrize("name", KINDS)
def test_frames_of_a_segment_are_those_whose_timestamps_lie_in_it(films: Path, name: str) -> None:
    truth, times = read_slowly(films / name)
    wanted = list(fragments(times))
    facts = frame_counts(films / "list", films, [name + f for f, _, _ in wanted], progress=False)
    assert len(truth) == (FRAMES - 30 if name.startswith("hidden") else FRAMES)
    for fragment, start, end in wanted:
        inside = [i for i, t in enumerate(times) if t >= start and (end is None or t < end)]
        one = facts[name + fragment]
        assert not one.error and one.num_frames == len(inside), fragment
        assert one.first_frame == inside[0]
        with open_counted(films / (name + fragment), one) as video:
            chosen = np.unique(np.linspace(0, len(inside) - 1, 5).astype(int))
            found = video.frames(chosen)
            assert video.changed == ""
        for place, frame in zip(chosen, found, strict=True):
            assert np.array_equal(frame, truth[inside[place]])
        assert np.allclose(one.times, [float(times[i]) for i in inside], rtol=0, atol=1e-9)
    assert bool(facts[name + "#t=,1.5"].remark) == (name == "no_times.avi")


@pytest.mark.parametrize("reader", ["pyav", "pyav_sparse", "decord"])
@pytest.mark.parametrize("fragment", ["#frames=150,190", "#frames=3,180", "#frames=199"])
@pytest.mark.parametrize("name", ["b_frames.mp4", "open.mkv", "vp9.webm"])
def test_each_reader_gives_the_frames_of_a_slice(
    films: Path, name: str, fragment: str, reader: str
) -> None:
    first, _, stop = fragment.partition("=")[2].partition(",")
    truth = list(range(FRAMES))[int(first) : int(stop or FRAMES)]
    with open_video(films / (name + fragment), reader) as video:
        assert spelled(video.frames(range(len(video)))) == truth
        with pytest.raises(IndexError):
            video.frames([len(video)])
        facts = video.facts
    for index in (0, len(truth) // 2, len(truth) - 1):
        with open_counted(films / (name + fragment), facts) as video:
            assert spelled(video.frames([index])) == [truth[index]]
            assert video.changed == ""


def test_what_lies_before_a_deep_segment_is_not_decoded(films: Path, monkeypatch) -> None:
    name = "vp9.webm#frames=190,199"
    with open_video(films / name) as video:
        frames, facts = video.frames(range(9)), video.facts
    decoded = []
    plain = deep._decoded_from

    def counting(*arguments: object) -> Iterator[object]:
        for frame in plain(*arguments):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(deep, "_decoded_from", counting)
    with open_counted(films / name, facts) as video:
        assert np.array_equal(video.frames(range(9)), frames)
    assert 9 <= len(decoded) < 60


def test_a_frame_that_differs_behind_a_seek_is_read_from_the_beginning(films: Path) -> None:
    """Checksums tell; here those of another frame, so that the film counts as changed."""
    name = "vp9.webm#frames=190,199"
    with open_video(films / name) as video:
        truth, facts = video.frames(range(9)), video.facts
    with open_counted(films / name, replace(facts, checks=facts.checks[::-1].copy())) as video:
        assert np.array_equal(video.frames(range(9)), truth)
        assert "frame 0" in video.changed
    late = replace(facts, times=facts.times + 0.5)  # a seek to a wrong place finds other frames
    with open_counted(films / name, late) as video:
        assert np.array_equal(video.frames(range(9)), truth)
        assert video.changed == ""


@pytest.mark.parametrize(
    ("fragment", "count", "says"),
    [
        ("#t=1,1", 0, "ends where it begins"),
        ("#frames=9,3", 0, "ends where it begins"),
        ("#t=1.001,1.039", 0, "no frame"),
        ("#t=8", 0, "behind the end"),
        ("#frames=200,210", 0, "behind the end"),
        ("#t=7.9,8.03", 2, ""),  # one frame longer than the film: a rounded end
        ("#t=7.9,12", 2, "ends at 12"),
        ("#frames=190,201", 10, ""),
        ("#frames=190,250", 10, "ends at 250"),
    ],
)
def test_what_a_segment_lacks_is_said(films: Path, fragment: str, count: int, says: str) -> None:
    path = f"b_frames.mp4{fragment}"
    [facts] = frame_counts(films / "lacks", films, [path], progress=False).values()
    assert facts.num_frames == count
    assert says in (facts.remark if count else facts.error)
    assert bool(facts.remark) == bool(says and count)
    if not count:
        with pytest.raises(ReadError, match=says):
            open_video(films / path)


@pytest.mark.parametrize(
    "path",
    ["a.mp4", "a #1.mp4", "a.mp4#t=", "a.mp4#t=,", "a.mp4#t=1,2,3", "a.mp4#t=-1,2", "#t=1,2",
     "a.mp4#t=1,2.mp4", "a.mp4#T=1,2", "a/#t=1,2", "a.mp4#frames=1.5,3", "a.mp4#t=1e3",
     "a.mp4#t=1,2#t=0,1", "a.mp4#t=1,2#frames=3"],
)  # fmt: skip
def test_other_names_are_names_of_files(path: str) -> None:
    assert film_and_span(path) == (path, None)


def test_one_segment_has_one_name() -> None:
    assert same_name("./a.mp4#t=0,2.50") == same_name("a.mp4#t=,2.5")
    assert same_name("a.mp4#t=1,2") != same_name("a.mp4#frames=1,2")


def test_frames_of_another_size_than_the_film_s_first_are_scaled_as_in_the_film(
    tmp_path: Path,
) -> None:
    """And its timestamps go back, where the second part begins: times are by the mean rate."""
    frames = numbered(110)
    for name, some in (("a", frames), ("b", frames[:, ::2, ::2])):
        write(tmp_path / f"{name}.ts", *KINDS["stamps.ts"], some)
    film = tmp_path / "film.ts"
    film.write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    with open_video(film) as video:
        count = len(video)
        truth = video.frames(range(105, count))
    facts = frame_counts(
        tmp_path / "list", tmp_path, ["film.ts#frames=105", "film.ts#t=4.2"], progress=False
    )
    for path, one in facts.items():
        with open_counted(tmp_path / path, one) as video:
            assert np.array_equal(video.frames(range(len(video))), truth)
            assert video.changed == "" and len(video) == count - 105
    assert facts["film.ts#t=4.2"].remark
