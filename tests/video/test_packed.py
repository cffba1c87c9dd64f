"""Packed videos: exact frames out of a tar, whoever made it, and every damage told."""

import io
import os
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from videos import grey_frames, indices_of

from vidadapt.data.clips import TrainClips
from vidadapt.data.sampling import SAMPLINGS, train_indices
from vidadapt.data.transforms import Augmentation
from vidadapt.files.locks import held
from vidadapt.lists import (
    ListError,
    Sample,
    Videos,
    counted_videos,
    frame_counts,
    index_path,
    read_list,
)
from vidadapt.video import (
    ReadError,
    TransientReadError,
    file_of,
    jpeg,
    make_packed_index,
    open_video,
    packed,
    packed_index,
    packed_index_path,
    tar_and_name,
)

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding")  # of torchvision 0.29
LONG = "a folder with a name of more than a hundred letters, " * 3 + "[x] #1 & ü, c"
NAMES = ["videos/1.webm", LONG, "videos/10.webm", "ö.avi"]


def jpegs(count: int, seed: int, height: int = 48, width: int = 65) -> list[bytes]:
    """JPEG files of smooth random pictures, no two alike."""
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        small = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        file = io.BytesIO()
        small.resize((width, height), Image.Resampling.BICUBIC).save(file, "JPEG", quality=85)
        found.append(file.getvalue())
    return found


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


def by_pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


@pytest.fixture(scope="module")
def videos() -> dict[str, list[bytes]]:
    return {name: jpegs(5 + number, number) for number, name in enumerate(NAMES)}


@pytest.fixture
def tar(tmp_path: Path, videos: dict[str, list[bytes]]) -> Path:
    members = [(f"{n}/{i:06d}.jpg", data) for n, v in videos.items() for i, data in enumerate(v)]
    write_tar(tmp_path / "00000.tar", members)
    return tmp_path / "00000.tar"


@pytest.mark.parametrize("with_torchvision", [True, False])
def test_any_frames_in_any_order_are_those_of_the_files(
    tar: Path, videos, monkeypatch, with_torchvision: bool
) -> None:
    if not with_torchvision:
        monkeypatch.setattr(jpeg, "decode_jpeg", None)
    rng = np.random.default_rng(0)
    for name, data in videos.items():
        with open_video(tar / name) as video:
            assert (len(video), video.facts.reader) == (len(data), "packed")
            for _ in range(4):
                wanted = rng.integers(len(data), size=6)
                expected = np.stack([by_pillow(data[i]) for i in wanted])
                assert np.array_equal(video.frames(wanted), expected)
            with pytest.raises(IndexError, match=f"frame {len(data)} of a video of {len(data)}"):
                video.frames([0, len(data)])


def test_tars_made_elsewhere_are_read(tmp_path: Path) -> None:
    """Frames out of order, numbers without zeros, ./ before the names, other files between."""
    a, b = jpegs(12, 1), jpegs(3, 2)
    members = [(f"./set/a/img_{i}.JPG", a[i]) for i in (11, 2, 0, 1, 10, 9, 3, 4, 5, 6, 7, 8)]
    members[3:3] = [(f"./set/b/{i}.jpeg", b[i]) for i in (2, 0, 1)]
    members += [("./set/a/notes.txt", b"no frame"), ("./cover.jpg", b[0]), ("./set/c/0.png", b"-")]
    write_tar(tmp_path / "x.tar", members)
    for name, data in (("set/a", a), ("set/b", b)):
        found = open_video(f"{tmp_path}/x.tar/{name}").frames(range(len(data)))
        assert np.array_equal(found, np.stack([by_pillow(one) for one in data]))
    with pytest.raises(ReadError, match=r"x.tar/set/c: the tar holds no frames of that name"):
        open_video(tmp_path / "x.tar/set/c")


def test_the_index_is_kept_and_made_anew_for_another_tar(tar: Path, videos) -> None:
    index = packed_index_path(tar)
    open_video(tar / NAMES[0])
    assert index.is_file() and index.stat().st_size < 2500 + 20 * sum(map(len, videos.values()))
    written = index.stat().st_mtime_ns
    packed_index.index_in_state.cache_clear()
    assert len(open_video(tar / NAMES[1])) == len(videos[NAMES[1]])
    assert index.stat().st_mtime_ns == written
    write_tar(tar, [("new/0.jpg", videos[NAMES[0]][0])])
    assert len(open_video(tar / "new")) == 1
    with pytest.raises(ReadError, match="holds no frames of that name"):
        open_video(tar / NAMES[0])


@pytest.mark.parametrize("same_places", [True, False])
def test_videos_that_change_places_in_a_tar_of_one_size_are_found(
    tmp_path: Path, same_places: bool
) -> None:
    """Tars are padded to 10,240 bytes: another one often has the same size."""
    tar = tmp_path / "0.tar"
    a, b = (jpegs(3, seed) for seed in (1, 2))
    if same_places:
        longest = max(map(len, [*a, *b]))
        a, b = ([commented(one, longest + 20) for one in video] for video in (a, b))
    write_videos(tar, {"a": a, "b": b}, 1)
    make_packed_index(tar, packed_index_path(tar))
    size = tar.stat().st_size
    for time, videos in enumerate(({"a": b, "b": a}, {"a": a, "c": b}), start=2):
        write_videos(tar, videos, time)
        assert tar.stat().st_size == size
        for name, right in videos.items():
            expected = np.stack([by_pillow(one) for one in right])
            assert np.array_equal(open_video(tar / name).frames(range(3)), expected)
    with pytest.raises(ReadError, match="holds no frames of that name"):
        open_video(tar / "b")


def write_videos(tar: Path, videos: dict[str, list[bytes]], time_ns: int) -> None:
    write_tar(tar, [(f"{n}/{i}.jpg", one) for n, v in videos.items() for i, one in enumerate(v)])
    os.utime(tar, ns=(time_ns, time_ns))


def commented(data: bytes, size: int) -> bytes:
    """A JPEG file made this long by a comment."""
    length = size - len(data) - 2
    return data[:2] + b"\xff\xfe" + length.to_bytes(2, "big") + bytes(length - 2) + data[2:]


def test_damage_that_a_copy_did_is_found_by_the_checksums_of_its_source(tar: Path, videos) -> None:
    where = make_packed_index(tar, packed_index_path(tar)).frames
    data = bytearray(tar.read_bytes())
    for place in (0, -1):  # of two videos, one of them in its first frame
        data[int(where["offset"][place]) + int(where["size"][place]) // 2] ^= 1
    tar.write_bytes(data)
    os.utime(tar, ns=(1, 1))
    found = {}
    for name, known in videos.items():
        with open_video(tar / name) as video:
            for i, right in enumerate(known):
                try:
                    assert np.array_equal(video.frames([i])[0], by_pillow(right))
                except ReadError as error:
                    found[name, i] = str(error)
    assert len(found) == 2
    for (name, i), told in found.items():
        assert f"{tar}/{name}: frame {i}: " in told and packed_index_path(tar).name in told


def test_the_one_frame_of_a_damaged_copy_is_not_taken_for_another(tmp_path: Path) -> None:
    tar, frames = tmp_path / "0.tar", jpegs(3, 1)
    write_videos(tar, {name: [frame] for name, frame in zip("abc", frames, strict=True)}, 1)
    where = make_packed_index(tar, packed_index_path(tar)).frames
    data = bytearray(tar.read_bytes())
    data[int(where["offset"][1]) + int(where["size"][1]) // 2] ^= 1
    tar.write_bytes(data)
    os.utime(tar, ns=(2, 2))
    with pytest.raises(ReadError, match="tar/b: frame 0: "):
        open_video(tar / "b").frames([0])
    assert np.array_equal(open_video(tar / "c").frames([0])[0], by_pillow(frames[2]))


def test_every_flipped_bit_of_a_packed_frame_is_found(tar: Path, videos) -> None:
    right = [by_pillow(one) for one in videos[NAMES[0]]]
    with open_video(tar / NAMES[0]) as video:
        where = packed.frame_places(tar, NAMES[0])
        whole = tar.read_bytes()
        rng = np.random.default_rng(0)
        for _ in range(200):
            frame = int(rng.integers(len(right)))
            offset, size, _ = where[frame].tolist()
            damaged = bytearray(whole)
            damaged[offset + int(rng.integers(size))] ^= 1 << int(rng.integers(8))
            tar.write_bytes(damaged)
            with pytest.raises(ReadError, match=f"frame {frame}: "):
                video.frames([frame])
            others = [i for i in range(len(right)) if i != frame]
            assert np.array_equal(video.frames(others), np.stack([right[i] for i in others]))


def test_a_flipped_bit_of_an_index_changes_no_frame(tar: Path, videos) -> None:
    index = packed_index_path(tar)
    make_packed_index(tar, index)
    whole = index.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] ^= 1 << int(rng.integers(8))
        index.write_bytes(damaged)
        packed_index.index_in_state.cache_clear()
        for name, known in videos.items():
            assert np.array_equal(
                open_video(tar / name).frames([1, len(known) - 1]),
                np.stack([by_pillow(known[1]), by_pillow(known[-1])]),
            )


def test_two_processes_make_one_index(tar: Path, videos) -> None:
    """The second waits for the first, and then has nothing to make."""
    index = packed_index_path(tar)
    with ThreadPoolExecutor() as pool, held(index, "a test"):
        waiting = pool.submit(lambda: len(open_video(tar / NAMES[0])))
        make_packed_index(tar, index)
        made = index.stat()
    assert waiting.result() == len(videos[NAMES[0]])
    assert index.stat().st_ino == made.st_ino


def test_a_folder_that_cannot_be_written_will_do(tar: Path, videos) -> None:
    packed_index_path(tar).mkdir()  # neither can the index be read nor replaced
    assert len(open_video(tar / NAMES[2])) == len(videos[NAMES[2]])


def test_a_damaged_index_is_made_anew(tar: Path, videos) -> None:
    packed_index_path(tar).write_bytes(b"\x93NUMPY")
    assert len(open_video(tar / NAMES[2])) == len(videos[NAMES[2]])
    assert packed_index_path(tar).stat().st_size > 100


def test_damage_is_told(tar: Path, videos, tmp_path: Path) -> None:
    with pytest.raises(TransientReadError, match=r"none.tar: no such file"):
        open_video(tmp_path / "none.tar" / "a")
    data = tar.read_bytes()
    cut = tmp_path / "cut.tar"
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(ReadError, match=r"cut.tar: no whole uncompressed tar"):
        open_video(cut / NAMES[0])
    (tmp_path / "text.tar").write_text("no tar" * 200)
    with pytest.raises(ReadError, match=r"text.tar: no whole uncompressed tar"):
        open_video(tmp_path / "text.tar" / "a")
    flipped = bytearray(data)
    flipped[data.find(NAMES[2].encode())] ^= 1  # a header, behind which tarfile sees the end
    cut.write_bytes(flipped)
    with pytest.raises(ReadError, match=r"cut.tar: no whole uncompressed tar"):
        open_video(cut / NAMES[0])
    whole, other = videos[NAMES[0]], jpegs(1, 9, height=40)
    bad = [whole[0], whole[1][:-300] + bytes(300), whole[2][:50] + whole[2][-20:], *other]
    write_tar(tmp_path / "bad.tar", [(f"v/{i}.jpg", one) for i, one in enumerate(bad)])
    with open_video(tmp_path / "bad.tar" / "v") as video:
        assert np.array_equal(video.frames([0])[0], by_pillow(whole[0]))
        for wanted, message in (([0, 1], "frame 1: a JPEG that ends early"), ([0, 2], "frame 2: ")):
            with pytest.raises(ReadError, match=message):
                video.frames(wanted)
        with pytest.raises(ReadError, match="frame 3: of another size"):
            video.frames([0, 3])


def test_a_folder_may_be_called_like_a_tar(tmp_path: Path) -> None:
    (tmp_path / "UCF101.tar").mkdir()
    assert file_of(tmp_path / "UCF101.tar" / "a.avi") == str(tmp_path / "UCF101.tar" / "a.avi")
    assert tar_and_name(tmp_path / "UCF101.tar" / "b.tar" / "c") == (
        str(tmp_path / "UCF101.tar" / "b.tar"),
        "c",
    )


def test_lists_and_the_frame_index_take_packed_videos(tar: Path, videos) -> None:
    root, list_path = tar.parent, tar.parent / "train.txt"
    paths = [f"{tar.name}/{name}" for name in NAMES]
    list_path.write_text("".join(f"{path} 0\n" for path in paths), encoding="utf-8")
    assert [s.path for s in read_list(list_path, root, 1)] == paths
    counts = frame_counts(list_path, root, paths, progress=False)
    assert [counts[path].num_frames for path in paths] == [len(videos[name]) for name in NAMES]
    assert {(count.reader, count.codec) for count in counts.values()} == {("packed", "mjpeg")}
    assert frame_counts(list_path, root, paths, decode=False) == counts
    assert index_path(list_path).read_bytes().count(b"00000.tar/") == len(NAMES)
    os.utime(tar, ns=(1, 1))
    assert frame_counts(list_path, root, paths, decode=False) == {}
    tar.rename(root / "moved.tar")
    with pytest.raises(ListError, match=r"train.txt:1: .*00000.tar"):
        counted_videos(list_path, root, read_list(list_path, root, 1), check_files=True)


def test_clips_hold_the_frames_that_the_sampling_chose(tmp_path: Path) -> None:
    members = []
    for i, frame in enumerate(grey_frames(50)):
        file = io.BytesIO()
        Image.fromarray(frame).save(file, "JPEG", quality=90)
        members.append((f"v/{i:06d}.jpg", file.getvalue()))
    write_tar(tmp_path / "a.tar", members)
    counts = frame_counts(tmp_path / "list.txt", tmp_path, ["a.tar/v"], progress=False)
    for name in ("uniform8", "adaptformer"):
        clips = TrainClips(
            Videos.of(str(tmp_path), [Sample("a.tar/v", 0)], counts),
            SAMPLINGS[name],
            crop_size=32,
            augmentation=Augmentation(),
            seed=0,
        )
        for epoch in range(3):
            found = indices_of(clips[(epoch, 0, 0)]["clip"].numpy())
            assert found == sorted(found) and len(set(found)) > 5
            if name == "adaptformer":
                steps = set(np.diff(found).tolist())
                assert steps == {SAMPLINGS[name].stride}
    assert len(train_indices(SAMPLINGS["uniform8"], 50, np.random.default_rng(0))) == 8


def test_a_frame_larger_than_an_index_can_say_is_refused(tmp_path: Path) -> None:
    member = tarfile.TarInfo("a/00001.jpg")
    member.size = 5 << 30
    (tmp_path / "big.tar").write_bytes(member.tobuf())
    with pytest.raises(ReadError, match=r"big\.tar: a/00001\.jpg has 5,368,709,120 bytes"):
        make_packed_index(tmp_path / "big.tar", tmp_path / "big.tar.index")
