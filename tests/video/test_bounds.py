"""Lists that lead astray, and files whose headers ask for too much."""

import struct
import tarfile
from io import BytesIO

import numpy as np
import pytest
import torch
from conftest import load_tool
from encoded import decode_with_pyav, numbered, write
from PIL import Image

from vidadapt.lists import ListError, Sample, counted_videos, read_label_names, read_list
from vidadapt.video import (
    ReadError,
    decoded_jpeg,
    make_packed_index,
    open_video,
    packed_index,
    packed_index_path,
)
from vidadapt.video.jpeg import read_header


@pytest.fixture
def root(tmp_path):
    """videos/, with a file inside, and one beside it."""
    (tmp_path / "videos" / "sub").mkdir(parents=True)
    (tmp_path / "videos" / "sub" / "in.mp4").touch()
    (tmp_path / "out.mp4").touch()
    return tmp_path / "videos"


def listed(tmp_path, entry, root, **options):
    (tmp_path / "list.txt").write_text(f"sub/in.mp4 0\n{entry} 1\n")
    return read_list(tmp_path / "list.txt", root, 2, **options)


@pytest.mark.parametrize("entry", ["../out.mp4", "sub/../../out.mp4", "sub/../sub/in.mp4", "ABS"])
def test_an_entry_that_leads_out_of_the_root_is_an_error_unless_allowed(tmp_path, root, entry):
    entry = entry.replace("ABS", str(tmp_path / "out.mp4"))
    with pytest.raises(ListError, match=r"list\.txt:2: .*out of the root(?s:.)*allow_outside_root"):
        listed(tmp_path, entry, root)
    if "sub/in" not in entry:  # which would be there twice
        samples = listed(tmp_path, entry, root, allow_outside_root=True)
        assert samples[1] == Sample(entry, 1)


def test_absolute_paths_and_links_inside_the_root_are_followed(tmp_path, root):
    (root / "also.mp4").touch()
    (root / "link.mp4").symlink_to(tmp_path / "out.mp4")
    (tmp_path / "elsewhere").symlink_to(root)
    for entry in (str(root / "also.mp4"), "link.mp4"):
        assert listed(tmp_path, entry, root)[1] == Sample(entry, 1)
    assert listed(tmp_path, str(root / "also.mp4"), tmp_path / "elsewhere")


def test_prepare_says_how_a_list_that_leads_out_is_allowed(tmp_path, root, capsys):
    (tmp_path / "list.txt").write_text("../out.mp4 0\n")
    prepare = load_tool("prepare").main
    words = ["index", str(tmp_path / "list.txt"), "--root", str(root), "--processes", "1"]
    with pytest.raises(ValueError, match=r"list\.txt:1: .*--allow_outside_root"):
        prepare(words)
    prepare([*words, "--allow-outside-root"])
    assert "1 videos, 0 readable" in capsys.readouterr().out


@pytest.mark.parametrize("character", ["\x1b", "\x07", "\x00", "\x9b", "\u2028"])
def test_names_that_a_terminal_would_obey_are_refused(tmp_path, root, character):
    with pytest.raises(ListError, match=r"list\.txt:2: .*control character") as error:
        listed(tmp_path, f"a{character}[31mb.mp4", root)
    assert character not in str(error.value)
    (tmp_path / "labels.txt").write_text(f"walk\nrun{character}2\n")
    with pytest.raises(ListError, match=r"labels\.txt:2: .*control character"):
        read_label_names(tmp_path / "labels.txt")


def test_numbers_and_names_of_any_length_are_errors_with_their_line(tmp_path, root):
    long = f"{'x' * 5000}.mp4"
    (tmp_path / "list.txt").write_text(f"sub/in.mp4 0\na.mp4 {'9' * 5000}\n{long} 1\n")
    with pytest.raises(ListError, match=r"list\.txt:2: "):
        read_list(tmp_path / "list.txt", root, 2)
    (tmp_path / "list.txt").write_text(f"sub/in.mp4 0\n{long} 1\n")
    samples = read_list(tmp_path / "list.txt", root, 2)
    with pytest.raises(ListError, match=r"list\.txt:2: "):
        counted_videos(tmp_path / "list.txt", root, samples, check_files=True)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    """Of a codec and ending: a small file that can be read."""
    folder = tmp_path_factory.mktemp("videos")

    def made(codec, ending):
        return write(folder / f"{codec}.{ending}", codec, {}, numbered(6)).read_bytes()

    return made


def refused(path, content):
    path.write_bytes(content)
    with pytest.raises(ReadError) as error:
        open_video(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)
    return str(error.value)


def test_a_picture_of_256_million_pixels_is_never_allocated(tmp_path, video):
    content = bytearray(video("libvpx", "webm"))
    place = content.find(b"\x9d\x01\x2a")  # of VP8's key frame, RFC 6386, 9.1
    content[place + 3 : place + 7] = struct.pack("<HH", 16000, 16000)
    assert "frames above 67,108,864 pixels are refused" in refused(tmp_path / "big.webm", content)


def test_a_header_of_too_many_pixels_is_refused(tmp_path, video):
    content = bytearray(video("rawvideo", "mov"))  # whose pictures tell no size
    place = content.find(b"stsd") + 44
    for side in (9000, 65535):
        content[place : place + 4] = struct.pack(">HH", side, side)
        assert "frames above 67,108,864 pixels are refused" in refused(
            tmp_path / "big.mov", content
        )


def test_a_header_of_a_hundred_million_frames_is_refused(tmp_path, video):
    content = bytearray(video("libx264", "mp4"))
    place = content.find(b"stsz")
    content[place + 8 : place + 16] = struct.pack(">II", 1, 100_000_000)
    place = content.find(b"stts")
    content[place + 12 : place + 16] = struct.pack(">I", 100_000_000)
    assert "100,000,000 frames are above" in refused(tmp_path / "long.mp4", content)


@pytest.mark.parametrize("script", ["ffconcat version 1.0\nfile good.mp4\n", "#EXTM3U\ngood.mp4\n"])
def test_a_script_that_names_other_files_is_no_video(tmp_path, video, script):
    (tmp_path / "good.mp4").write_bytes(video("libx264", "mp4"))
    for name in ("script.mp4", "script.txt", "script.m3u8"):
        refused(tmp_path / name, script.encode())


def test_a_stream_that_comes_up_late_is_passed_over(tmp_path, video):
    content = video("libx264", "flv")
    # A tag of sound (8) before the last three pictures (9); Adobe's FLV specification, E.4.1.
    sound = b"\x08" + (5).to_bytes(3, "big") + bytes(7) + b"\x2f\xff\xfb\x90\x64"
    place = 13  # of the first tag
    places = []
    while place < len(content):
        places.append(place)
        place += 11 + int.from_bytes(content[place + 1 : place + 4], "big") + 4
    place = places[-4]
    late = content[:place] + sound + len(sound).to_bytes(4, "big") + content[place:]
    (tmp_path / "late.flv").write_bytes(late)
    expected = np.stack(decode_with_pyav(tmp_path / "late.flv"))
    for reader in ("auto", "pyav_sparse", "pyav"):
        with open_video(tmp_path / "late.flv", reader) as found:
            assert np.array_equal(found.frames(range(len(found))), expected)


def write_tar(path, jpeg):
    with tarfile.open(path, "w") as archive:
        for name in ("a/0.jpg", "a/1.jpg", "b/0.jpg"):
            member = tarfile.TarInfo(name)
            member.size = len(jpeg)
            archive.addfile(member, BytesIO(jpeg))


@pytest.fixture
def jpeg():
    file = BytesIO()
    Image.fromarray(numbered(1)[0]).save(file, "JPEG")
    return file.getvalue()


def test_a_packed_picture_of_four_billion_pixels_is_never_allocated(tmp_path, jpeg):
    place = jpeg.find(b"\xff\xc0")
    big = jpeg[: place + 5] + struct.pack(">HH", 65500, 65500) + jpeg[place + 9 :]
    write_tar(tmp_path / "0.tar", big)
    said = r"0\.tar/a: frame 1: frames of 65500 x 65500 pixels"
    with open_video(tmp_path / "0.tar" / "a") as video, pytest.raises(ReadError, match=said):
        video.frames([1])


def test_the_size_of_any_jpeg_is_found(jpeg):
    assert read_header(jpeg)[1:] == (128, 96)
    for size, options in (
        ((7, 300), {"progressive": True}),
        ((640, 2), {"exif": b"Exif\0\0" * 99}),
    ):
        file = BytesIO()
        Image.new("RGB", size).save(file, "JPEG", **options)
        data = file.getvalue()
        filled = data[:2] + b"\xff\xff" + data[2:]  # bytes that may stand before a marker
        for content in (data, filled):
            assert read_header(content)[1:] == size
    for content in (b"", b"\xff\xd8", b"GIF89a" * 9, data[:20]):
        with pytest.raises(ValueError, match="no JPEG"):
            read_header(content)


def smooth(width, height, **options):
    """A JPEG file of a picture that is nowhere grey."""
    file = BytesIO()
    corners = np.array([[[250, 10, 10], [10, 250, 10]], [[10, 10, 250], [250, 250, 10]]], np.uint8)
    Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC).save(
        file, "JPEG", **options
    )
    return file.getvalue()


def as_tensor(content):
    return torch.frombuffer(bytearray(content), dtype=torch.uint8)


@pytest.mark.filterwarnings("ignore:The image decoding")  # of torchvision 0.29
@pytest.mark.parametrize("side", [8192, 1024, 512, 300])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_header_that_promises_more_pixels_than_its_file_holds_is_damage(side, progressive):
    content = smooth(256, 192, quality=95, progressive=progressive)
    place = content.find(b"\xff\xc2" if progressive else b"\xff\xc0")
    big = content[: place + 5] + struct.pack(">HH", side, side) + content[place + 9 :]
    with pytest.raises(ValueError, match="damaged JPEG"):
        decoded_jpeg(as_tensor(big))


@pytest.mark.filterwarnings("ignore:The image decoding")
@pytest.mark.parametrize("options", [{}, {"subsampling": "4:4:4"}, {"restart_marker_rows": 2}])
def test_a_jpeg_without_a_part_of_its_data_is_damaged_and_a_grey_one_is_not(options):
    content = smooth(256, 192, quality=90, **options)
    start = content.rfind(b"\xff\xda") + 14
    for share in (0, 0.1, 0.5, 0.9):
        cut = content[: start + int((len(content) - start) * share)].rstrip(b"\xff")
        with pytest.raises(ValueError, match="damaged JPEG"):
            decoded_jpeg(as_tensor(cut + b"\xff\xd9"))
    for colour in ((128, 128, 128), (0, 0, 0)):
        for size in ((8, 8), (1, 1), (255, 191)):
            file = BytesIO()
            Image.new("RGB", size, colour).save(file, "JPEG", optimize=True, **options)
            assert (decoded_jpeg(as_tensor(file.getvalue())) == colour).all()


def test_an_impossible_index_of_a_tar_is_made_anew(tmp_path, jpeg):
    """Sound by its checksum: somebody made it so."""
    tar = tmp_path / "0.tar"
    write_tar(tar, jpeg)
    made = make_packed_index(tar, packed_index_path(tar))
    facts = (tar.stat().st_size, tar.stat().st_mtime_ns)
    good = packed_index_path(tar).read_bytes()
    names, first, frames = np.array([b"a", b"b"]), np.array([0, 2, 3], "<u8"), made.frames
    for parts in (
        (names, first, frames[:2]),
        (names, first[:2], frames),
        (names[::-1], first, frames),
        (names, first.astype("<f8"), frames),
        (names, first, frames.astype([(name, "<u8") for name in packed_index.FRAME.names])),
        (np.array([{}, {}], object), first, frames),
    ):
        state = packed_index._state(packed_index.PackedIndex(names, first, frames), *facts)
        if parts[0].dtype != object:
            state = packed_index._state(packed_index.PackedIndex(*parts), *facts)
        with packed_index_path(tar).open("wb") as file:
            for part in (state, *parts):
                np.save(file, part)
        packed_index.index_in_state.cache_clear()
        with open_video(tar / "a") as video:
            assert len(video) == 2
        assert packed_index_path(tar).read_bytes() == good


def test_an_index_of_another_format_or_whose_header_is_no_python_is_made_anew(tmp_path, jpeg):
    tar = tmp_path / "0.tar"
    write_tar(tar, jpeg)
    make_packed_index(tar, packed_index_path(tar))
    good = packed_index_path(tar).read_bytes()
    earlier = BytesIO()  # as it was before it held checksums
    frames = np.zeros(3, [("offset", "<u8"), ("size", "<u4")])
    for part in (np.array([b"a", b"b"]), np.array([0, 2, 3, tar.stat().st_size], "<u8"), frames):
        np.save(earlier, part)
    for other in (good.replace(b"(2,)", b"(2, ", 1), earlier.getvalue()):  # tokenize.TokenError
        packed_index_path(tar).write_bytes(other)
        packed_index.index_in_state.cache_clear()
        with open_video(tar / "b") as video:
            assert len(video) == 1
        assert packed_index_path(tar).read_bytes() == good


def test_an_index_that_points_beyond_its_tar_is_an_error(tmp_path, jpeg):
    tar = tmp_path / "0.tar"
    write_tar(tar, jpeg)
    found = make_packed_index(tar, packed_index_path(tar))
    found.frames["size"] = 4_000_000_000
    facts = tar.stat()
    with packed_index_path(tar).open("wb") as file:
        for part in (packed_index._state(found, facts.st_size, facts.st_mtime_ns), *found):
            np.save(file, part)
    packed_index.index_in_state.cache_clear()
    with pytest.raises(ReadError, match=r"0\.tar\.index is damaged; delete it"):
        open_video(tar / "a")
