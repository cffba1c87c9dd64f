"""Image files become one exact upright RGB frame each, or an error that names the file."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from encoded import numbered, write
from PIL import Image, ImageOps, TiffImagePlugin

from vidadapt.data import read_frames
from vidadapt.lists import Sample, add_to_index, counted_videos, index_path
from vidadapt.video import ReadError, VideoFacts, images, open_counted, open_video

FORMATS = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}, "BMP": {}, "JPEG": {"quality": 90}}


def blocks(height: int = 6, width: int = 8) -> Image.Image:
    """A picture of flat squares, no two sides alike."""
    colours = np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)
    return Image.fromarray(colours.repeat(8, 0).repeat(8, 1))


def frame_of(path: Path) -> np.ndarray:
    with open_video(path) as video:
        assert len(video) == 1 and video.facts.reader == images.READER
        return video.frames([0])[0]


def error_of(path: Path) -> str:
    with pytest.raises(ReadError) as caught:
        open_video(path)
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", FORMATS)
def test_an_image_is_a_video_of_one_frame_whatever_it_is_called(kind, tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(encoded(blocks(), kind, **FORMATS[kind]))
    assert np.array_equal(frame_of(path), np.asarray(Image.open(path).convert("RGB")))
    facts = open_video(path, "decord").facts
    assert (facts.codec, facts.width, facts.height) == (kind.lower(), 64, 48)
    assert (facts.num_frames, facts.header_frames, len(facts.checks)) == (1, 1, 1)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(10))
def test_exif_orientation_is_applied(kind, orientation, tmp_path):
    exif = Image.Exif()
    exif[images.ORIENTATION] = orientation
    path = tmp_path / "a"
    path.write_bytes(encoded(blocks(), kind, exif=exif, **FORMATS[kind]))
    upright = ImageOps.exif_transpose(Image.open(path)).convert("RGB")
    assert np.array_equal(frame_of(path), np.asarray(upright))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
def test_other_kinds_of_pixels_become_rgb(mode, kind, tmp_path):
    if (kind, mode) in {("PNG", "CMYK"), *(("JPEG", mode) for mode in ("LA", "P", "RGBA"))}:
        pytest.skip("there is no such file")
    path = tmp_path / "a"
    path.write_bytes(encoded(blocks().convert(mode), kind))
    assert np.array_equal(frame_of(path), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("compression", sorted(TiffImagePlugin.COMPRESSION_INFO_REV))
@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_a_tiff_has_the_pixels_that_were_written_or_is_refused(compression, mode, tmp_path):
    image = blocks().convert("L" if mode == "1" else "RGB").convert(mode)
    path = tmp_path / "a.tif"
    try:
        path.write_bytes(encoded(image, "TIFF", compression=compression))
    except (OSError, ValueError, RuntimeError, SystemError):
        pytest.skip("Pillow writes no such file")
    if compression == "tiff_raw_16":
        assert "16-bit words" in error_of(path)
    elif "jpeg" not in compression:
        assert np.array_equal(frame_of(path), np.asarray(image.convert("RGB")))


def test_fill_bytes_before_markers_change_nothing(tmp_path):
    for progressive in (False, True):
        content = encoded(blocks(), "JPEG", progressive=progressive)
        (tmp_path / "a.jpg").write_bytes(content)
        for marker in (b"\xff\xda", b"\xff\xc4", b"\xff\xd9"):
            content = content.replace(marker, b"\xff\xff" + marker)
        (tmp_path / "filled.jpg").write_bytes(content)
        assert np.array_equal(frame_of(tmp_path / "filled.jpg"), frame_of(tmp_path / "a.jpg"))


def test_a_frame_is_an_array_of_its_own(tmp_path):
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[images.ORIENTATION] = orientation
        for kind, options in FORMATS.items():
            more = {} if kind == "BMP" else {"exif": exif}
            (tmp_path / "a").write_bytes(encoded(blocks(), kind, **options, **more))
            flags = frame_of(tmp_path / "a").flags
            assert flags.writeable and flags.c_contiguous


def test_transparent_pixels_are_laid_on_white(tmp_path):
    image = blocks().convert("RGBA")
    alpha = np.arange(48 * 64).reshape(48, 64) % 256
    image.putalpha(Image.fromarray(alpha.astype(np.uint8)))
    image.save(tmp_path / "a.png")
    share = alpha[..., None] / 255
    expected = np.asarray(blocks()) * share + 255 * (1 - share)
    assert np.abs(frame_of(tmp_path / "a.png") - expected).max() <= 1
    palette = blocks().convert("P")
    palette.save(tmp_path / "p.png", transparency=int(np.asarray(palette)[0, 0]))
    assert (frame_of(tmp_path / "p.png")[0, 0] == 255).all()


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_colour_behind_the_pixels_of_a_png_is_transparent(mode, tmp_path):
    image = blocks().convert(mode)
    colour = image.getpixel((0, 0))
    content = encoded(image, "PNG", transparency=colour)
    start = content.index(b"tRNS") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4])
    last = content.index(b"IEND") - 4
    moved = content[:start] + content[end:last] + content[start:end] + content[last:]
    for name, data in (("a.png", content), ("moved.png", moved)):
        (tmp_path / name).write_bytes(data)
        assert (frame_of(tmp_path / name)[0, 0] == 255).all()


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bits_are_scaled_and_not_clipped(name, tmp_path):
    values = np.random.default_rng(0).integers(0, 1 << 16, (40, 50)).astype(np.uint16)
    Image.fromarray(values).save(tmp_path / name)
    frame = frame_of(tmp_path / name)
    assert np.abs(frame / 255 - values[..., None] / 65535).max() <= 1 / 255
    assert (frame == frame[..., :1]).all()


def test_16_bit_colours_are_scaled(tmp_path):
    path = tmp_path / "deep.png"
    write(path, "png", {}, numbered(1), "rgb48be")
    with Image.open(path) as image:
        assert np.array_equal(frame_of(path), np.asarray(image.convert("RGB")))


REFUSED = {
    "floats": (lambda: encoded(blocks().convert("F"), "TIFF"), "mode F"),
    "32 bits": (lambda: encoded(blocks().convert("I"), "TIFF"), "mode I"),
    "pages": (
        lambda: encoded(blocks(), "TIFF", save_all=True, append_images=[blocks().rotate(90)]),
        "2 pictures",
    ),
    "animated WebP": (
        lambda: encoded(blocks(), "WEBP", save_all=True, append_images=[blocks().rotate(90)]),
        "2 pictures",
    ),
    "animated PNG": (
        lambda: encoded(blocks(), "PNG", save_all=True, append_images=[blocks().rotate(90)]),
        "2 pictures",
    ),
    "AVIF": (lambda: encoded(blocks(), "AVIF"), "AVIF"),
    "JPEG 2000": (lambda: encoded(blocks(), "JPEG2000"), "J2K"),
    "PPM": (lambda: encoded(blocks(), "PPM"), "PPM"),
    "icon": (lambda: encoded(blocks(), "ICO"), "ICO"),
    "large": (lambda: encoded(Image.new("1", (9000, 9000)), "PNG"), "67,108,864"),
    "bomb": (lambda: encoded(Image.new("1", (15000, 15000)), "PNG"), "67,108,864"),
    "large JPEG": (lambda: encoded(Image.new("L", (9000, 9000)), "JPEG"), "67,108,864"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_one_plain_image_is_refused_with_the_reason(case, tmp_path):
    make, reason = REFUSED[case]
    (tmp_path / "a.bin").write_bytes(make())
    assert reason in error_of(tmp_path / "a.bin")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.999])
def test_a_part_of_a_file_is_refused(kind, share, tmp_path):
    content = encoded(blocks(), kind, **FORMATS[kind])
    (tmp_path / "a.png").write_bytes(content[: int(len(content) * share)])
    error_of(tmp_path / "a.png")


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_changed_byte_of_a_png_is_found(place, tmp_path):
    content = bytearray(encoded(blocks(), "PNG"))
    content[int(len(content) * place)] ^= 1
    (tmp_path / "a.png").write_bytes(content)
    assert "damaged" in error_of(tmp_path / "a.png")


def test_of_a_phone_s_jpeg_with_more_behind_it_the_first_picture_is_read(tmp_path):
    one = encoded(blocks(), "JPEG")
    (tmp_path / "one.jpg").write_bytes(one)
    (tmp_path / "trailer.jpg").write_bytes(one + b"\0\0trailer\xff\xd9")
    both = {"save_all": True, "append_images": [blocks().rotate(90)]}
    (tmp_path / "mpo.jpg").write_bytes(encoded(blocks(), "MPO", **both))
    for name in ("trailer.jpg", "mpo.jpg"):
        assert np.array_equal(frame_of(tmp_path / name), frame_of(tmp_path / "one.jpg"))


def test_moving_pictures_are_videos(tmp_path):
    (tmp_path / "a.mjpeg").write_bytes(encoded(blocks(), "JPEG") * 3)
    more = {"save_all": True, "append_images": [blocks().rotate(90)]}
    (tmp_path / "a.gif").write_bytes(encoded(blocks(), "GIF", **more))
    assert [len(open_video(tmp_path / name)) for name in ("a.mjpeg", "a.gif")] == [3, 2]


def test_a_file_that_changes_after_it_was_counted_is_noticed(tmp_path):
    path = tmp_path / "a.png"
    blocks().save(path)
    state = path.stat()
    counted = open_video(path).facts
    facts = VideoFacts(**{**vars(counted), "size": state.st_size, "mtime_ns": state.st_mtime_ns})
    assert read_frames(str(path), facts, np.zeros(1, int))[1] == ""
    blocks().rotate(180).save(path)
    with open_counted(path, facts) as video:
        video.frames([0])
        assert str(path) in video.changed and "Pillow" in video.changed
    with pytest.raises(ReadError, match="its frames are others"):
        read_frames(str(path), facts, np.zeros(1, int))
    write(path.with_suffix(".mp4"), "libx264", {}, numbered(4))
    os.replace(path.with_suffix(".mp4"), path)  # noqa: PTH105
    with pytest.raises(ReadError, match=r"a\.png.*no JPEG"):
        read_frames(str(path), facts, np.zeros(1, int))


def test_the_index_keeps_images_and_counts_again_what_an_earlier_version_read_as_videos(tmp_path):
    blocks().save(tmp_path / "a.jpg")
    (tmp_path / "b.jpg").write_bytes(b"\xff\xd8\xff damaged")
    samples = [Sample("a.jpg", 0), Sample("b.jpg", 1)]
    listed = tmp_path / "list.txt"
    first = counted_videos(listed, tmp_path, samples, progress=False)
    assert first.facts(0).reader == images.READER and "b.jpg" in first.facts(1).error
    again = counted_videos(listed, tmp_path, samples, progress=False, decode=False)
    assert first.facts(0) == again.facts(0) and again.digest() == first.digest()
    earlier = {**vars(first.facts(0)), "reader": "pyav", "container": "jpeg_pipe"}
    other = tmp_path / "other.txt"
    add_to_index(index_path(other), [VideoFacts(**earlier)])
    third = counted_videos(other, tmp_path, samples[:1], progress=False)
    assert third.facts(0).reader == images.READER and third.decoded == 1
