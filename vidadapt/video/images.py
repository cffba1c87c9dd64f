"""Image files: a JPEG, PNG, WebP, TIFF or BMP is a video of one frame.

The content decides, whatever the file is called. Pillow decodes, JPEGs as in packed frames (`jpeg`,
with Pillow's values). Every image becomes upright RGB of 8 bits as follows, or is refused:

* EXIF's orientation is applied;
* grey values are repeated, palettes looked up, CMYK converted as Pillow does, without its profile;
* a transparent picture is laid on white; an alpha channel that is opaque everywhere is dropped;
* of 16 bits the upper 8 are kept, as Pillow does with 16-bit RGB;
* floats, 32-bit and Lab values, several pages, animations, damaged and too large files are refused.
"""

from __future__ import annotations

import io
import os
import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image, UnidentifiedImageError

from vidadapt.console import printable
from vidadapt.video.bounds import MAX_PIXELS, size_problem
from vidadapt.video.checksums import array_checksum
from vidadapt.video.facts import VideoFacts
from vidadapt.video.first_bytes import image_kind
from vidadapt.video.jpeg import decoded_jpeg, end_of_first, is_motion
from vidadapt.video.sequential import ReadError, TransientReadError, cause_of

READER = "image"
DECODED_WITH = f"Pillow {PIL.__version__}, torchvision {torchvision.__version__}"
MAX_BYTES = 1 << 30  # of a file: twice the values of the largest image with alpha and 16 bits
ORIENTATION = 0x0112  # tag of EXIF and TIFF
# By its value: whether the picture is mirrored left to right, and quarters that it is then turned
# to the left.
UPRIGHT = {2: (True, 0), 3: (False, 2), 4: (True, 2), 5: (True, 1), 6: (False, 3), 7: (True, 3)}
UPRIGHT |= {8: (False, 1)}
CONVERTED = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr")
WHITE_IS_ZERO = 0  # of TIFF's tag `PhotometricInterpretation`


def image_facts(file: str) -> VideoFacts | None:
    """Decode an image once, to count it; None: the file is no image.

    Raises:
        ReadError, TransientReadError: see `decoded`.
    """
    content, kind = _image_in(file)
    if not kind:
        return None
    frame, mode = _checked(file, content, kind)
    return VideoFacts(
        file,
        num_frames=1,
        header_frames=1,
        reader=READER,
        codec=kind,
        container=READER,
        pixel_format=mode,
        width=frame.shape[1],
        height=frame.shape[0],
        counted_with=DECODED_WITH,
        checks=np.array([array_checksum(frame)], np.uint64),
    )


def decoded(file: str) -> np.ndarray:
    """Return an image upright, (H, W, 3) uint8 RGB, contiguous and its own.

    Raises:
        ReadError: it is refused (see above), damaged, or no image.
        TransientReadError: its bytes, or memory, cannot be had now.
    """
    content, kind = _image_in(file)
    if not kind:
        raise ReadError(f"{file}: no JPEG, PNG, WebP, TIFF or BMP image")
    return _checked(file, content, kind)[0]


def _image_in(file: str) -> tuple[bytes, str]:
    """Return the bytes of an image file and its kind; the kind is empty if it is none.

    Many JPEGs one after the other are a video (motion JPEG).

    Raises:
        ReadError: a picture of a kind that is not read, or a file above `MAX_BYTES`.
        TransientReadError: the file cannot be read now.
    """
    try:
        with Path(file).open("rb", buffering=0) as opened:
            head = opened.read(64)
            kind = image_kind(head)
            size = os.fstat(opened.fileno()).st_size
            content = head + opened.read() if kind and size <= MAX_BYTES else b""
    except ValueError as error:
        raise ReadError(f"{file}: {error}") from error
    except (OSError, MemoryError) as error:
        raise TransientReadError(f"{file}: {cause_of(error)}") from error
    if kind and size > MAX_BYTES:
        raise ReadError(f"{file}: above the limit of {MAX_BYTES:,} bytes for an image")
    return content, "" if kind == "jpeg" and is_motion(content) else kind


def _checked(file: str, content: bytes, kind: str) -> tuple[np.ndarray, str]:
    """Return `_decoded`; every failure becomes an error that names the file."""
    try:
        with warnings.catch_warnings():
            # Of Pillow's, those on sizes are errors here, and those on metadata change no pixel.
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _decoded(content, kind)
    except MemoryError as error:
        raise TransientReadError(f"{file}: {cause_of(error)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ReadError(f"{file}: above the limit of {MAX_PIXELS:,} pixels") from error
    except UnidentifiedImageError as error:
        raise ReadError(f"{file}: a damaged {kind.upper()} image, by its header") from error
    except Exception as error:  # on damaged files Pillow raises errors of any kind
        damaged = "" if isinstance(error, ValueError) else f"a damaged {kind.upper()} image: "
        raise ReadError(f"{file}: {damaged}{printable(cause_of(error))}") from error


def _decoded(content: bytes, kind: str) -> tuple[np.ndarray, str]:
    """Return the upright frame (H, W, 3) uint8, and Pillow's mode."""
    if kind == "jpeg":
        content = content[: end_of_first(content)]  # phones add previews and more behind it
    if kind == "png":
        _check_chunks(content)
    with Image.open(io.BytesIO(content), formats=(kind.upper(),)) as image:
        if problem := size_problem(*image.size):
            raise ValueError(problem)
        mode, pages = image.mode, 1 if kind == "jpeg" else getattr(image, "n_frames", 1)
        if pages > 1:
            mend = "save each as a file of its own" if kind == "tiff" else "make a video of them"
            raise ValueError(f"a {kind.upper()} file of {pages:,} pictures: {mend}")
        # Pillow reads other pixels than it writes.
        if image.info.get("compression") == "tiff_raw_16":
            raise ValueError("a TIFF in CCITT's code in 16-bit words; save it with another one")
        if kind == "jpeg":
            frame = decoded_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8))
        else:
            frame = _rgb(image)
        mirrored, turns = UPRIGHT.get(image.getexif().get(ORIENTATION, 1), (False, 0))
    upright = np.rot90(frame[:, ::-1] if mirrored else frame, turns)
    return np.require(upright, requirements=("C", "W")), mode


def _rgb(image: Any) -> np.ndarray:
    """Convert an opened image to RGB of 8 bits, (H, W, 3) uint8.

    Raises:
        ValueError: a kind of values that has no one right conversion.
    """
    image.load()  # which reads what comes behind the pixels, too: transparency, and metadata
    has_alpha = image.has_transparency_data
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        tags = getattr(image, "tag_v2", {})
        if has_alpha or tags.get(258, (16,)) != (16,) or tags.get(262) == WHITE_IS_ZERO:
            raise ValueError("grey values of 16 bits in a form that is not read; save it as RGB")
        grey = (np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8)
        return grey[..., None].repeat(3, axis=-1)
    if image.mode not in CONVERTED:
        raise ValueError(
            f"values of Pillow's mode {image.mode} do not say what is white; save it as RGB"
        )
    if has_alpha:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, image)
    return np.asarray(image.convert("RGB"))


def _check_chunks(content: bytes) -> None:
    """Refuse a PNG whose chunks differ from their checksums: Pillow compares few of them."""
    place, name = 8, b""
    while name != b"IEND":
        if place + 12 > len(content):
            raise ValueError("a PNG that ends early")
        length, name = struct.unpack_from(">I4s", content, place)
        end = place + 8 + length
        if end + 4 > len(content):
            raise ValueError("a PNG that ends early")
        if zlib.crc32(content[place + 4 : end]) != int.from_bytes(content[end : end + 4]):
            raise ValueError("a damaged PNG: a part of it differs from its checksum")
        place = end + 4
