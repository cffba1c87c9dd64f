"""Reading only what is needed, against frames that spell their index and a sequential decode."""

from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from encoded import X264, decode_with_pyav, facts_with, numbered, spelled, write

from vidadapt.lists import frame_counts
from vidadapt.video import ReadError, open_counted, open_video, read_sequentially, sparse
from vidadapt.video.survey import counted

VOP, USER_DATA = b"\x00\x00\x01\xb6", b"\x00\x00\x01\xb2"
KINDS = {
    "pyramid.mp4": ("libx264", {"x264-params": "keyint=40:bframes=7:b-adapt=0:b-pyramid=normal"}),
    "short.mp4": ("libx264", {"x264-params": "keyint=4:min-keyint=4:bframes=2:b-adapt=0"}),
    "open.mkv": ("libx264", {"x264-params": f"{X264}:open-gop=1"}),
    "fields.mkv": ("libx264", {"x264-params": f"{X264}:tff=1:interlaced=1"}),
    "plain.avi": ("mpeg4", {"bf": "0", "g": "12"}),
    "b_frames.avi": ("mpeg4", {"bf": "3", "g": "20"}),
    "packed.avi": ("mpeg4", {"bf": "1", "g": "20"}),
    "vp9.webm": ("libvpx-vp9", {"g": "9", "deadline": "realtime", "cpu-used": "8"}),
}


def pack(source: Path, target: Path) -> None:
    """Put each B-frame into the packet before, and an empty picture in its place, as Xvid does."""
    with av.open(str(source)) as plain, av.open(str(target), "w") as container:
        stream = plain.streams.video[0]
        copy = container.add_stream_from_template(stream)
        packets = [packet for packet in plain.demux(stream) if packet.size]
        keys = [packet.is_keyframe for packet in packets]
        data = [bytes(packet) for packet in packets]
        for i in range(1, len(data)):
            if data[i][data[i].index(VOP) + 4] >> 6 == 2:
                data[i - 1 : i + 1] = [data[i - 1] + data[i], VOP + b"\x50\x00\x00\x00"]
        data[0] = USER_DATA + b"DivX503b1393p" + data[0]
        for i, (content, is_key) in enumerate(zip(data, keys, strict=True)):
            packet = av.Packet(content)
            packet.stream, packet.time_base, packet.is_keyframe = copy, stream.time_base, is_key
            packet.pts = packet.dts = i
            container.mux(packet)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sparse")
    paths = {}
    for name, (codec, options) in KINDS.items():
        if codec in av.codecs_available:
            paths[name] = write(folder / name, codec, options, numbered(60))
    if "packed.avi" in paths:
        pack(write(folder / "to_pack.avi", *KINDS["packed.avi"], numbered(60)), paths["packed.avi"])
    return paths


@pytest.mark.parametrize("name", KINDS)
def test_any_frames_are_those_of_a_sequential_decode(made: dict[str, Path], name: str) -> None:
    if name not in made:
        pytest.skip(f"this PyAV has no {KINDS[name][0]} encoder")
    truth = decode_with_pyav(made[name])
    assert spelled(np.stack(truth)) == list(range(60))
    with open_video(made[name]) as video:
        assert video.facts.reader == "pyav_sparse"
        facts = video.facts
    rng = np.random.default_rng(0)
    wanted = [rng.choice(60, rng.integers(1, 12), replace=False) for _ in range(30)]
    for indices in [*wanted, *np.arange(60)[:, None]]:
        with open_counted(made[name], facts) as video:
            frames = video.frames(indices)
            assert video.changed == ""
        assert all(np.array_equal(f, truth[i]) for i, f in zip(indices, frames, strict=True))


@pytest.mark.parametrize(
    ("name", "wanted", "most"),
    [
        ("pyramid.mp4", [39], 12),  # a P or reference B of every 8, and itself
        ("short.mp4", [0, 30, 59], 12),
        ("b_frames.avi", [58], 20),
        ("packed.avi", [58], 33),
        ("vp9.webm", [2, 59], 9),
    ],
)
def test_little_else_is_decoded(
    made: dict[str, Path], name: str, wanted: list[int], most: int
) -> None:
    if name not in made:
        pytest.skip(f"this PyAV has no {KINDS[name][0]} encoder")
    places = [place for place, _ in sparse._decoded(str(made[name]), wanted)]
    assert set(wanted) <= set(places) and len(places) <= most


def remuxed(source: Path, target: Path, change: Callable[[int, bytes], bytes]) -> Path:
    """A copy whose packets hold what `change` makes of their number and content."""
    with av.open(str(source)) as plain, av.open(str(target), "w") as container:
        copy = container.add_stream_from_template(plain.streams.video[0])
        for i, old in enumerate(p for p in plain.demux(video=0) if p.size):
            packet = av.Packet(change(i, bytes(old)))
            packet.pts, packet.dts, packet.duration = old.pts, old.dts, old.duration
            packet.stream, packet.time_base, packet.is_keyframe = (
                copy,
                old.time_base,
                old.is_keyframe,
            )
            container.mux(packet)
    return target


def assert_left_to_pyav(path: Path, why: str) -> None:
    assert sparse.flaw(counted(str(path))) == why
    for asked in ("auto", "pyav_sparse"):
        counts = frame_counts(
            path.with_suffix(".txt"), path.parent, [path.name], asked, progress=False
        )
        assert counts[path.name].reader == "pyav"


def test_a_file_whose_packets_mislead_is_read_sequentially(
    made: dict[str, Path], tmp_path: Path
) -> None:
    false = VOP + b"\x80" + bytes(40)  # behind a picture: looks like a packed one, but is not read
    path = remuxed(
        made["b_frames.avi"], tmp_path / "false.avi", lambda i, p: p + false if i == 20 else p
    )
    assert spelled(np.stack(decode_with_pyav(path))) == list(range(60))
    assert_left_to_pyav(path, "frames are shown in another order than their packets tell")


def test_a_file_with_a_reference_that_claims_to_be_none_is_read_sequentially(
    made: dict[str, Path], tmp_path: Path
) -> None:
    def unmark(number: int, packet: bytes) -> bytes:
        """Set nal_ref_idc of a P picture's slices to 0, so that decoders may leave it out."""
        data, at = bytearray(packet), 0
        while number == 9 and at + 4 < len(data):
            data[at + 4] &= 0x1F
            at += 4 + int.from_bytes(data[at : at + 4], "big")
        return bytes(data)

    path = remuxed(made["pyramid.mp4"], tmp_path / "unmarked.mp4", unmark)
    assert_left_to_pyav(path, "corrupt frames")


def parameter_sets(avcc: bytes) -> bytes:
    """The sequence and the picture parameter set of a header, as they stand in packets."""
    end = 8 + int.from_bytes(avcc[6:8], "big")
    last = end + 3 + int.from_bytes(avcc[end + 1 : end + 3], "big")
    sets = avcc[8:end], avcc[end + 3 : last]
    return b"".join(len(one).to_bytes(4, "big") + one for one in sets)


def joined(parts: list[Path], target: Path) -> Path:
    """One file after the other; later ones bring their parameters in their first packet only."""
    copy, offset = None, 0
    with av.open(str(target), "w") as container:
        for path in parts:
            with av.open(str(path)) as plain:
                source = plain.streams.video[0]
                copy = copy or container.add_stream_from_template(source)
                start = parameter_sets(source.codec_context.extradata) if offset else b""
                for old in (p for p in plain.demux(source) if p.size):
                    packet = av.Packet(start + bytes(old))
                    packet.pts, packet.dts = old.pts + offset, old.dts + offset
                    packet.duration, packet.time_base = old.duration, old.time_base
                    packet.stream, packet.is_keyframe = copy, old.is_keyframe
                    container.mux(packet)
                    start = b""
                offset = packet.pts + packet.duration
    return target


def test_a_file_whose_packets_bring_parameters_is_read_sequentially(tmp_path: Path) -> None:
    """Without those that the second part begins with, its pictures decode, to other pixels."""
    frames, x264 = numbered(72), "keyint=12:min-keyint=12:scenecut=0:bframes=0:cabac=0"
    parts = []
    for i, (qp, piece) in enumerate(((20, frames[:24]), (30, frames[24:60]), (10, frames[60:]))):
        options = {"qp": str(qp), "x264-params": x264}
        parts.append(write(tmp_path / f"{i}.mp4", "libx264", options, piece))
        assert sparse.flaw(counted(str(parts[-1]))) == ""
    path = joined(parts, tmp_path / "joined.mp4")
    truth = decode_with_pyav(path)
    assert spelled(np.stack(truth)) == list(range(72))
    assert_left_to_pyav(path, "packets change the decoder's parameters")
    for asked in ("auto", "decord"):
        with open_video(path, asked) as video:
            assert all(np.array_equal(video.frames([i])[0], truth[i]) for i in (40, 50, 71, 5))


def test_a_file_of_which_all_would_be_held_in_memory_is_read_sequentially(
    made: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    name, size = "b_frames.avi", made["b_frames.avi"].stat().st_size
    monkeypatch.setattr(sparse, "LARGEST_GROUP", size // 3)  # the rest is of the container
    facts = counted(str(made[name]))
    assert sparse.flaw(facts).startswith("a group of pictures of more than")
    with open_video(made[name]) as video:
        assert video.facts.reader == "pyav"


def test_a_file_with_some_interlaced_frames_is_read_sequentially(tmp_path: Path) -> None:
    frames, x264 = numbered(24), "keyint=12:bframes=0"
    parts = [
        write(tmp_path / f"{i}.mp4", "libx264", {"x264-params": f"{x264}{more}"}, piece)
        for i, (more, piece) in enumerate((("", frames[:12]), (":tff=1", frames[12:])))
    ]
    assert [counted(str(part)).uneven for part in parts] == ["", ""]
    assert_left_to_pyav(joined(parts, tmp_path / "joined.mp4"), "only some frames are interlaced")


@pytest.mark.parametrize("name", ["plain.avi", "pyramid.mp4"])
def test_each_frame_is_held_against_its_checksum(made: dict[str, Path], name: str) -> None:
    """Of an index in which one is damaged: the frames are exact nevertheless, and it is said."""
    path, truth = made[name], decode_with_pyav(made[name])
    checks = counted(str(path)).checks
    assert checks is not None
    for place in (0, 12, 59):
        damaged = checks.copy()
        damaged[place] ^= np.uint64(1)
        for reader in ("pyav", "pyav_sparse"):
            with open_counted(path, facts_with(reader, 60, damaged)) as video:
                others = [i for i in (0, 11, 12, 58, 59) if i != place]
                assert np.array_equal(video.frames(others), np.stack([truth[i] for i in others]))
                assert video.changed == ""
                wanted = sorted({5, place, 59})
                assert np.array_equal(video.frames(wanted), np.stack([truth[i] for i in wanted]))
                assert f"{name}: frame {place} " in video.changed
                video.frames(others)
                assert f"{name}: frame {place} " in video.changed, "it is not forgotten"


@pytest.mark.parametrize("reader", ["pyav", "pyav_sparse", "decord"])
def test_a_file_that_has_changed_since_it_was_counted_is_noticed(
    tmp_path: Path, reader: str
) -> None:
    path, frames = tmp_path / "a.mp4", numbered(30)
    options = {"x264-params": X264}
    with open_video(write(path, "libx264", options, frames), reader) as video:
        facts = video.facts
    frames[20:, 40:48, 40:48] ^= 255
    write(path, "libx264", options, frames)
    truth = decode_with_pyav(path)
    with open_counted(path, facts) as video:
        found = video.frames([3, 25])
        assert np.array_equal(found, np.stack([truth[3], truth[25]]))
        assert "a.mp4: frame " in video.changed


def test_without_checksums_files_are_read_sequentially(made: dict[str, Path]) -> None:
    for reader in ("pyav_sparse", "decord"):
        with open_counted(made["pyramid.mp4"], facts_with(reader, 60)) as video:
            assert spelled(video.frames([7, 3])) == [7, 3]
            assert (video.facts.reader, video.changed) == ("pyav", "")
    with pytest.raises(ValueError, match="3 checksums of 60 frames"):
        open_counted(made["pyramid.mp4"], facts_with("pyav_sparse", 60, np.zeros(3, np.uint64)))


def test_a_file_that_was_cut_since_it_was_counted_is_an_error(
    made: dict[str, Path], tmp_path: Path
) -> None:
    path = tmp_path / "cut.avi"
    whole = made["b_frames.avi"].read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    left = len(read_sequentially(str(path), range(60)))
    assert 3 < left < 50
    checks = counted(str(made["b_frames.avi"])).checks
    with open_counted(path, facts_with("pyav_sparse", 60, checks)) as video:
        assert spelled(video.frames([2])) == [2]
        with pytest.raises(ReadError, match=rf"cut\.avi: frame {left} does not decode although"):
            video.frames([2, left])
