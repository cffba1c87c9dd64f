"""Whole images of every kind that is read, and of kinds that are not, of which damaged ones are
made."""

from __future__ import annotations

import functools
import io
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

SIZE = (44, 35)  # width and height: whole blocks of no codec
ORIENTATION = 0x0112
READ = "read"  # or what becomes of it: "refused", or "video", one of FFmpeg's
TIFF_MODES = {  # by compression
    **{"raw": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16", "I;16B")},
    **dict.fromkeys(("group3", "group4", "tiff_ccitt", "tiff_raw_16"), ("1",)),
    **{"jpeg": ("L", "RGB", "CMYK", "YCbCr"), "tiff_jpeg": ("RGB",), "tiff_deflate": ("RGB",)},
    **{"tiff_lzw": ("L", "P", "RGB", "RGBA", "I;16"), "packbits": ("1", "P", "RGB", "CMYK")},
    **{"tiff_adobe_deflate": ("L", "LA", "RGB", "RGBA", "I;16")},
    **{"lzma": ("L", "RGB"), "zstd": ("P", "RGB")},
}


class SeedImage(NamedTuple):
    """A whole image: its kind, what is special in it, its bytes, and what must become of it."""

    kind: str
    name: str
    data: bytes
    end: str = READ


@functools.cache
def seed_images() -> Sequence[SeedImage]:
    """All of them; the same bytes at each call and in each process."""
    made = [*_jpegs(), *_pngs(), *_webps(), *_tiffs(), *_bmps(), *_others()]
    return tuple(made)


def picture(mode: str = "RGB", number: int = 0) -> Image.Image:
    """Slopes and noise, no two sides or corners alike."""
    rng = np.random.default_rng(number)
    across, down = np.meshgrid(np.linspace(0, 160, SIZE[0]), np.linspace(0, 90, SIZE[1]))
    pixels = np.stack([across, down, across[::-1] * 0.5 + down], -1)
    pixels = (pixels + rng.integers(0, 60, pixels.shape)).astype(np.uint8)
    colour = Image.fromarray(pixels)
    if mode.startswith("I;16"):
        deep = np.asarray(colour.convert("L")).astype(np.uint16) * 257 ^ 5
        return Image.frombytes(mode, SIZE, deep.astype(">u2" if mode == "I;16B" else "<u2"))
    if mode in ("LA", "RGBA"):
        colour = colour.convert(mode)
        colour.putalpha(Image.fromarray(pixels[::-1, :, 0]))
        return colour
    return colour.convert(mode)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def _jpegs() -> Iterator[SeedImage]:
    for orientation in range(1, 9):
        exif, progressive = turned(orientation), orientation % 2 == 0
        data = encoded(picture(), "JPEG", exif=exif, progressive=progressive)
        yield SeedImage("jpeg", f"orientation {orientation}", data)
    for sampling in ("4:4:4", "4:2:2", "4:2:0"):
        yield SeedImage("jpeg", sampling, encoded(picture(), "JPEG", subsampling=sampling))
    for mode in ("L", "CMYK"):
        for progressive in (False, True):
            name = f"{mode}, progressive" if progressive else mode
            data = encoded(picture(mode), "JPEG", progressive=progressive)
            yield SeedImage("jpeg", name, data)
    data = encoded(picture(), "JPEG", restart_marker_rows=1, quality=60, comment=b"a remark")
    yield SeedImage("jpeg", "restarts", data)
    yield SeedImage("jpeg", "RGB kept", encoded(picture(), "JPEG", keep_rgb=True))
    data = encoded(picture(), "JPEG", progressive=True, quality=95, subsampling="4:4:4")
    yield SeedImage("jpeg", "progressive", data)
    yield SeedImage("jpeg", "a profile and data behind", _with_profile(data) + b"trailer\xff\xd9")
    yield SeedImage("jpeg", "MPO", _pages("MPO"))
    yield SeedImage("jpeg", "motion", encoded(picture(), "JPEG") * 2, "video")


def _with_profile(data: bytes) -> bytes:
    """A JPEG with a segment of a colour profile, which is none."""
    content = b"ICC_PROFILE\0\1\1" + bytes(range(200))
    return data[:2] + b"\xff\xe2" + struct.pack(">H", 2 + len(content)) + content + data[2:]


def _pngs() -> Iterator[SeedImage]:
    for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"):
        yield SeedImage("png", mode, encoded(picture(mode), "PNG"))
    few = picture("L").quantize(4)
    for bits in (1, 2, 4):
        yield SeedImage("png", f"P of {bits} bits", encoded(few, "PNG", bits=bits))
    yield SeedImage("png", "P, transparent", encoded(picture("P"), "PNG", transparency=3))
    alphas = bytes(range(256))
    yield SeedImage("png", "P of alphas", encoded(picture("P"), "PNG", transparency=alphas))
    yield SeedImage("png", "L, transparent", encoded(picture("L"), "PNG", transparency=90))
    exif = turned(6)
    yield SeedImage("png", "RGB, turned", encoded(picture(), "PNG", exif=exif, dpi=(90, 90)))
    for pixels in ("rgb48be", "rgba64be", "gray16be", "ya16be"):
        yield SeedImage("png", pixels, _by_ffmpeg({}, pixels))
    for pixels in ("rgb24", "rgba", "gray", "rgb48be", "monob"):
        interlaced = {"flags": "+ildct"}
        yield SeedImage("png", f"interlaced {pixels}", _by_ffmpeg(interlaced, pixels))
    yield SeedImage("png", "animated", _pages("PNG"), "refused")


def _by_ffmpeg(options: dict[str, str], pixels: str) -> bytes:
    """A PNG of a kind that Pillow does not write."""
    from encoded import numbered, write  # whose folder `fuzz_attempts` makes known

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "a.png", "png", options, numbered(1)[:, :35, :44], pixels)
        return (Path(folder) / "a.png").read_bytes()


def _webps() -> Iterator[SeedImage]:
    for mode in ("RGB", "RGBA"):
        for lossless in (True, False):
            name = f"{mode}, lossless" if lossless else mode
            data = encoded(picture(mode), "WEBP", lossless=lossless, quality=70)
            yield SeedImage("webp", name, data)
    for orientation in (3, 8):
        data = encoded(picture(), "WEBP", exif=turned(orientation))
        yield SeedImage("webp", f"orientation {orientation}", data)
    data = encoded(picture(), "WEBP", icc_profile=bytes(range(99)), xmp=b"<x/>")
    yield SeedImage("webp", "with a profile", data)
    yield SeedImage("webp", "animated", _pages("WEBP"), "refused")


def _tiffs() -> Iterator[SeedImage]:
    for compression, modes in TIFF_MODES.items():
        for mode in modes:
            data = encoded(picture(mode), "TIFF", compression=compression)
            end = "refused" if compression == "tiff_raw_16" else READ
            yield SeedImage("tiff", f"{compression} {mode}", data, end)
    for orientation in (2, 5, 7):
        data = encoded(picture(), "TIFF", exif=turned(orientation), compression="tiff_lzw")
        yield SeedImage("tiff", f"orientation {orientation}", data)
    yield SeedImage("tiff", "BigTIFF", encoded(picture(), "TIFF", big_tiff=True))
    for compression in (1, 8):
        yield SeedImage("tiff", f"big-endian {compression}", _big_endian(picture(), compression))
    for mode in ("F", "I"):
        image = picture("L").convert(mode)
        yield SeedImage("tiff", mode, encoded(image, "TIFF"), "refused")
    yield SeedImage("tiff", "pages", _pages("TIFF"), "refused")


def _big_endian(image: Image.Image, compression: int) -> bytes:
    """A TIFF of two strips whose numbers begin with the high byte, which Pillow does not write."""
    (width, height), rows, pixels = image.size, 20, image.tobytes()
    strips = [pixels[: rows * width * 3], pixels[rows * width * 3 :]]
    if compression == 8:
        strips = [zlib.compress(strip) for strip in strips]
    sizes = [len(strip) for strip in strips]
    about = ImageFileDirectory_v2(prefix=b"MM")
    about[256], about[257], about[258], about[277], about[278] = width, height, (8, 8, 8), 3, rows
    about[259], about[262], about[279] = compression, 2, tuple(sizes)
    about[273] = (0, sizes[0])  # from the end of the table, which Pillow adds
    return b"MM\0*" + struct.pack(">I", 8) + about.tobytes(8) + b"".join(strips)


def _bmps() -> Iterator[SeedImage]:
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield SeedImage("bmp", mode, encoded(picture(mode), "BMP"))


def _others() -> Iterator[SeedImage]:
    yield SeedImage("gif", "one frame", encoded(picture("P"), "GIF"), "video")
    yield SeedImage("avif", "RGB", encoded(picture(), "AVIF"), "refused")
    data = encoded(picture(), "AVIF")
    yield SeedImage("heif", "by its header", data.replace(b"ftypavif", b"ftypheic"), "refused")
    for kind in ("JPEG2000", "PPM", "ICO", "TGA", "PCX", "SGI"):
        yield SeedImage(kind.lower(), "RGB", encoded(picture(), kind), "refused")


def _pages(kind: str) -> bytes:
    return encoded(picture(), kind, save_all=True, append_images=[picture(number=1)])
