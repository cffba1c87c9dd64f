"""Whole videos of many codecs, containers and kinds of streams, of which damaged ones are made."""

from __future__ import annotations

import functools
import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.stream import Disposition

SHARED = Path(__file__).parents[3] / "shared"
SMALL, WIDE = (64, 48), (96, 80)  # width and height; decord is asked for frames of 80 and wider
# Of a shared clip so many pixels are kept, which is a few milliseconds of decoding.
MOST_PIXELS = 500_000
X265 = "log-level=none:pools=none:frame-threads=1"


class Recipe(NamedTuple):
    """How a video is encoded: `options` are the encoder's, x264's and x265's own in one string."""

    name: str
    encoder: str
    ending: str
    options: dict[str, str] | str | None = None
    pixels: str = "yuv420p"
    size: tuple[int, int] = SMALL
    frames: int = 16
    muxing: dict[str, str] | None = None
    beside: str = ""  # what the file holds, too: "sound", "cover" or "film", a larger one


class Seed(NamedTuple):
    """A whole video: what is special in it, its codec by FFmpeg's name, its ending, its bytes."""

    name: str
    codec: str
    ending: str
    data: bytes


def x264(name: str, ending: str, params: str, *rest: Any, encoder: str = "libx264") -> Recipe:
    return Recipe(name, encoder, ending, f"threads=1:no-mbtree=1:{params}", *rest)


def x265(name: str, ending: str, params: str, *rest: Any) -> Recipe:
    return Recipe(name, "libx265", ending, f"{X265}:{params}", *rest)


SHORT = "keyint=6:min-keyint=1:bframes=3:b-adapt=0"
PYRAMID = "keyint=16:bframes=7:b-adapt=0:ref=4:b-pyramid"
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
RECIPES = (
    x264("short groups", "mp4", SHORT),
    x264("short groups", "mov", SHORT, "yuv420p", WIDE),
    x264("short groups", "mkv", SHORT, "yuv420p", WIDE),
    x264("short groups", "flv", SHORT),
    x264("short groups", "3gp", SHORT),
    x264("short groups", "ts", SHORT),
    x264("short groups", "avi", SHORT),
    x264("header first", "mp4", SHORT, "yuv420p", WIDE, 20, {"movflags": "faststart"}),
    x264("fragments", "mp4", SHORT, "yuv420p", SMALL, 20, FRAGMENTS),
    x264("B-pyramid", "mp4", f"{PYRAMID}=normal", "yuv420p", WIDE, 24),
    x264("B-pyramid", "mkv", f"{PYRAMID}=strict", "yuv420p", SMALL, 32),
    x264("B-pyramid", "ts", f"{PYRAMID}=normal", "yuv420p", SMALL, 24),
    x264("open groups", "mp4", f"{SHORT}:open-gop=1", "yuv420p", WIDE, 20),
    x264("open groups", "mkv", f"{SHORT}:open-gop=1:b-pyramid=normal", "yuv420p", SMALL, 24),
    x264("open groups", "flv", f"{SHORT}:open-gop=1"),
    x264("intra refresh", "mp4", "keyint=8:intra-refresh=1:bframes=0", "yuv420p", WIDE, 24),
    x264("intra refresh", "ts", "keyint=6:intra-refresh=1:bframes=2", "yuv420p", SMALL, 24),
    x264("one group", "mp4", "keyint=infinite:bframes=2", "yuv420p", SMALL, 24),
    x264("interlaced", "mp4", f"{SHORT}:tff=1", "yuv420p", (64, 64), 16),
    x264("interlaced", "ts", "keyint=8:bff=1:bframes=0", "yuv420p", WIDE, 14),
    x264("slices, CAVLC", "ts", "keyint=8:cabac=0:slices=3:aud=1", "yuv420p", SMALL, 18),
    x264("slices, weights", "mkv", f"{SHORT}:slices=2:weightp=2:ref=5", "yuv420p", WIDE, 18),
    x264("odd size", "mp4", f"{SHORT}:8x8dct=0", "yuv420p", (66, 50)),
    x264("full range", "mp4", SHORT, "yuvj420p", WIDE),
    x264("grey", "mp4", SHORT, "gray", SMALL),
    x264("4:4:4", "mp4", SHORT, "yuv444p", WIDE, 18),
    x264("4:4:4", "mkv", "keyint=6:bframes=0", "yuv444p", (65, 49), 18),
    x264("4:4:4", "ts", SHORT, "yuv444p", SMALL),
    x264("lossless 4:4:4", "mp4", f"{SHORT}:qp=0", "yuv444p", SMALL, 12),
    x264("RGB", "mp4", SHORT, "rgb24", SMALL, 14, encoder="libx264rgb"),
    x264("4:2:2", "mkv", SHORT, "yuv422p", WIDE),
    x264("4:2:2, 10 bit", "mp4", SHORT, "yuv422p10le", SMALL),
    x264("10 bit", "mp4", f"{SHORT}:b-pyramid=normal", "yuv420p10le", WIDE),
    x264("intra only", "mov", "keyint=1", "yuv420p", SMALL, 12),
    x264("with sound", "mp4", SHORT, "yuv420p", WIDE, 20, {}, "sound"),
    x264("with sound", "mkv", f"{SHORT}:b-pyramid=normal", "yuv420p", SMALL, 20, {}, "sound"),
    x264("with sound", "ts", f"{SHORT}:b-pyramid=normal", "yuv420p", SMALL, 20, {}, "sound"),
    x264("with a cover", "mp4", SHORT, "yuv420p", SMALL, 14, {}, "cover"),
    x264("with a larger film", "mkv", SHORT, "yuv420p", SMALL, 14, {}, "film"),
    x265("open groups", "mp4", "keyint=6:min-keyint=1", "yuv420p", SMALL),
    x265("closed groups", "mkv", "keyint=6:min-keyint=1:open-gop=0", "yuv420p", WIDE),
    x265("closed groups", "ts", "keyint=8:open-gop=0:b-pyramid=1"),
    x265("10 bit", "mp4", "keyint=6:open-gop=0", "yuv420p10le"),
    x265("4:4:4", "mov", "keyint=6:open-gop=0", "yuv444p"),
    Recipe("short groups", "libvpx", "webm", {"g": "6", "cpu-used": "8"}, "yuv420p", SMALL, 20),
    Recipe(
        *("hidden frames", "libvpx", "mkv"),
        *({"g": "10", "lag-in-frames": "8", "auto-alt-ref": "1"}, "yuv420p", WIDE, 24),
    ),
    Recipe("alpha", "libvpx", "webm", {"g": "6", "auto-alt-ref": "0"}, "yuva420p"),
    Recipe("short groups", "libvpx-vp9", "webm", {"g": "6", "cpu-used": "8"}, "yuv420p", SMALL, 20),
    Recipe(
        *("hidden frames", "libvpx-vp9", "webm"),
        *({"g": "12", "lag-in-frames": "12", "auto-alt-ref": "1"}, "yuv420p", WIDE, 26),
    ),
    Recipe("short groups", "libvpx-vp9", "mp4", {"g": "5", "cpu-used": "8"}, "yuv420p", WIDE),
    Recipe("one group", "libvpx-vp9", "mkv", {"g": "99", "cpu-used": "8"}, "yuv420p", (66, 50)),
    Recipe("4:4:4", "libvpx-vp9", "webm", {"g": "6", "cpu-used": "8"}, "yuv444p"),
    Recipe("alpha", "libvpx-vp9", "webm", {"g": "6", "auto-alt-ref": "0"}, "yuva420p"),
    Recipe("short groups", "libsvtav1", "mp4", {"g": "6", "preset": "12"}, "yuv420p", (64, 64), 14),
    Recipe("10 bit", "libsvtav1", "mkv", {"g": "8", "preset": "12"}, "yuv420p10le", (64, 64), 14),
    Recipe("B-frames", "mpeg4", "avi", {"bf": "2", "g": "8"}, "yuv420p", SMALL, 20),
    Recipe("B-frames", "mpeg4", "mp4", {"bf": "2", "g": "8"}, "yuv420p", WIDE, 20),
    Recipe("B-frames", "mpeg4", "mkv", {"bf": "3", "g": "12"}, "yuv420p", SMALL, 24),
    Recipe("quarter pels", "mpeg4", "avi", {"bf": "2", "g": "6", "flags": "+qpel"}),
    Recipe("interlaced", "mpeg4", "mov", {"bf": "1", "g": "6", "flags": "+ildct+ilme"}),
    Recipe("partitions", "mpeg4", "3gp", {"g": "9", "data_partitioning": "1"}),
    Recipe("B-frames", "mpeg4", "ts", {"bf": "2", "g": "6"}),
    Recipe("B-frames", "mpeg2video", "mpg", {"bf": "2", "g": "6"}, "yuv420p", SMALL, 20),
    Recipe("B-frames", "mpeg2video", "ts", {"bf": "2", "g": "6"}, "yuv420p", WIDE, 20),
    Recipe(
        *("interlaced 4:2:2", "mpeg2video", "mpg"),
        *({"bf": "2", "g": "6", "flags": "+ildct+ilme"}, "yuv422p"),
    ),
    Recipe("B-frames", "mpeg1video", "mpg", {"bf": "2", "g": "6"}),
    Recipe("all", "mjpeg", "avi", {}, "yuvj420p", SMALL, 12),
    Recipe("4:4:4", "mjpeg", "mov", {}, "yuvj444p", (65, 49), 12),
    Recipe("all", "h263", "3gp", {"g": "6"}, "yuv420p", (128, 96)),
    Recipe("all", "flv", "flv", {"g": "6"}),
    Recipe("all", "msmpeg4", "avi", {"g": "6"}),
    Recipe("all", "wmv2", "asf", {"g": "6"}),
    Recipe("4:4:4 and alpha", "prores_ks", "mov", {"profile": "4"}, "yuva444p10le", SMALL, 8),
    Recipe("alpha", "ffv1", "mkv", {"g": "4"}, "yuva420p", SMALL, 10),
    Recipe("alpha", "qtrle", "mov", {}, "argb", SMALL, 12),
    Recipe("all", "png", "mov", {}, "rgba", SMALL, 8),
    Recipe("all", "gif", "gif", {}, "rgb8", SMALL, 12),
)


def encoded(recipe: Recipe) -> bytes:
    """Numbered frames, encoded; the same bytes at each call."""
    os.environ.setdefault("SVT_LOG", "1")  # the AV1 encoder: errors alone
    own = {"libx264": "x264-params", "libx264rgb": "x264-params", "libx265": "x265-params"}
    options = recipe.options or {}
    if isinstance(options, str):
        options = {own[recipe.encoder]: options}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / f"v.{recipe.ending}"  # "faststart" reads what it has written
        muxing = {"fflags": "bitexact", **(recipe.muxing or {})}
        with av.open(str(file), "w", format=FORMATS[recipe.ending], options=muxing) as container:
            made = [_stream(container, recipe.encoder, recipe.pixels, recipe.size, options)]
            if recipe.beside == "film":
                made.append(_stream(container, "mpeg4", "yuv420p", WIDE, {"g": "5"}))
            elif recipe.beside == "cover":
                made.append(_stream(container, "mjpeg", "yuvj420p", WIDE, {}))
                made[1].disposition = Disposition.attached_pic
            elif recipe.beside == "sound":
                made.append(container.add_stream("aac", rate=8000))
            for number in range(recipe.frames):
                for stream in made[: 1 if recipe.beside == "cover" and number else 2]:
                    container.mux(stream.encode(_picture(stream, number)))
            for stream in made:
                container.mux(stream.encode(None))
        return file.read_bytes()


def _stream(
    container: Any, encoder: str, pixels: str, size: tuple[int, int], options: dict[str, str]
) -> Any:
    stream = container.add_stream(encoder, rate=25, options={"flags": "+bitexact", **options})
    (stream.width, stream.height), stream.pix_fmt = size, pixels
    stream.codec_context.thread_count = 1
    return stream


def _picture(stream: Any, number: int) -> Any:
    if stream.type == "audio":
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 320), np.float32), "fltp", "mono")
        sound.sample_rate, sound.pts = 8000, 320 * number
        return sound
    frame = np.ascontiguousarray(_frames()[number, : stream.height, : stream.width])
    picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
    return picture.reformat(format=stream.pix_fmt)


@functools.cache
def _frames() -> np.ndarray:
    from encoded import numbered  # whose folder `fuzz_attempts` makes known

    return numbered(40)


# FFmpeg's name of the container that a file's ending tells.
FORMATS = {
    **{name: name for name in ("mp4", "mov", "webm", "flv", "avi", "3gp", "asf", "gif", "ogg")},
    **{"mkv": "matroska", "ts": "mpegts", "mpg": "mpeg", "oggtheora": "ogg"},
}


def shared_files() -> list[Path]:
    """Clips and known faults that lie beside the repository; none where they do not."""
    folders = (SHARED / "clips", SHARED / "faults")
    return sorted(p for folder in folders for p in folder.rglob("*") if p.suffix not in ("", ".md"))


def _shortened(path: Path) -> tuple[str, bytes] | None:
    """Codec and bytes of the first frames of a clip; None where it cannot be written anew."""
    ending = {".m2ts": "ts", ".MTS": "ts"}.get(path.suffix, path.suffix[1:])
    if ending not in FORMATS or "broken" in path.parts:
        return None
    file = io.BytesIO()
    try:
        with av.open(str(path)) as source, av.open(file, "w", format=FORMATS[ending]) as copy:
            stream: Any = source.streams.best("video")
            context = stream.codec_context
            most = MOST_PIXELS // (context.width * context.height)
            if most < 2:
                return None
            written = copy.add_stream_from_template(stream)
            for number, packet in enumerate(source.demux(stream)):
                if number < min(most, 40) and packet.size:
                    packet.stream = written
                    copy.mux_one(packet)
            codec = context.codec.canonical_name
    except (av.FFmpegError, ValueError, AttributeError, ZeroDivisionError):
        return None
    return codec, file.getvalue()


def _made() -> Iterator[Seed]:
    for recipe in RECIPES:
        data = encoded(recipe)
        with av.open(io.BytesIO(data)) as container:
            codec = container.streams.video[0].codec_context.codec.canonical_name
        yield Seed(recipe.name, codec, recipe.ending, data)
    for path in shared_files():
        if found := _shortened(path):
            ending = {".m2ts": "ts", ".MTS": "ts"}.get(path.suffix, path.suffix[1:])
            yield Seed(path.name, found[0], ending, found[1])


@functools.cache
def seeds() -> Sequence[Seed]:
    """All whole videos, encoded once a machine and version of this file, else read."""
    here = Path(__file__).read_bytes() + av.__version__.encode()
    about = here + "".join(path.name for path in shared_files()).encode()
    name = f"vidadapt_fuzz_{os.getuid()}_{hashlib.sha256(about).hexdigest()[:16]}"
    folder = Path(tempfile.gettempdir()) / name
    if not folder.is_dir():
        scratch = Path(tempfile.mkdtemp(prefix=name))
        for number, seed in enumerate(_made()):
            place = scratch / f"{number:03d}"
            place.mkdir()
            for part in ("name", "codec", "ending"):
                (place / part).write_text(getattr(seed, part))
            (place / "data").write_bytes(seed.data)
        try:
            scratch.rename(folder)
        except OSError:  # another process was first
            shutil.rmtree(scratch)
    return tuple(
        Seed(*((place / part).read_text() for part in ("name", "codec", "ending")), data)
        for place in sorted(folder.iterdir())
        for data in [(place / "data").read_bytes()]
    )
