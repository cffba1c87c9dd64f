"""Damage to the packets of a stream, which leaves most of it decodable: lost and doubled packets,
changed references, joined films, edited messages and parameters, odd times.

Each function of `DAMAGES` gets a film and a generator and returns another film, or None where the
film has nothing of the kind.
"""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import av
import numpy as np
from seed_videos import FORMATS, Seed, seeds

UNITS = {"h264", "hevc"}  # codecs whose packets are units with a header each
MOV = ("mp4", "mov", "3gp")
# Endings into which a codec may be written anew.
ENDINGS = {
    "h264": ("mp4", "mov", "mkv", "ts", "flv", "3gp"),
    "hevc": ("mp4", "mov", "mkv", "ts"),
    "vp8": ("webm", "mkv"),
    "vp9": ("webm", "mkv", "mp4"),
    "av1": ("mp4", "mkv", "webm"),
    "mpeg4": ("mp4", "mov", "mkv", "avi", "ts", "3gp"),
    "mpeg2video": ("mpg", "ts", "mkv", "mp4"),
    "mpeg1video": ("mpg", "ts", "mkv"),
    "mjpeg": ("avi", "mov", "mkv", "mp4"),
}


@dataclass(frozen=True)
class Packet:
    data: bytes
    pts: int | None
    dts: int
    duration: int
    is_key: bool


@dataclass(frozen=True)
class Film:
    """The best stream of a video as packets, and how it is written.

    Attributes:
        seed: the whole video.
        ending: of the file to be written.
        extradata: the decoder's parameters in the header.
        matrix: display matrix for the header; None: as it is.
        options: of the muxer.
    """

    seed: Seed
    packets: tuple[Packet, ...]
    ending: str
    extradata: bytes
    matrix: tuple[int, ...] | None = None
    options: dict[str, str] = field(default_factory=dict)


@functools.cache
def _opened(seed: Seed) -> tuple[Any, Any, Film]:
    """The container, which has to live as long as its stream, the stream, and its packets."""
    container = av.open(io.BytesIO(seed.data))
    stream: Any = container.streams.best("video")
    packets: list[Packet] = []
    for packet in container.demux(stream):
        if packet.size:
            step = packet.duration or 1
            dts = packet.dts if packet.dts is not None else packet.pts
            if dts is None:
                dts = packets[-1].dts + step if packets else 0
            packets.append(Packet(bytes(packet), packet.pts, dts, step, packet.is_keyframe))
    extradata = stream.codec_context.extradata or b""
    return container, stream, Film(seed, tuple(packets), seed.ending, extradata)


def film_of(seed: Seed, keep: int | None = None) -> Film:
    """The packets of a whole video; the first `keep` of them."""
    film = _opened(seed)[2]
    return replace(film, packets=film.packets[:keep])


def written(film: Film) -> bytes:
    """The film as a file.

    Decoding times rise, and presentation times are not before them: all are moved by as much as
    that needs.

    Raises:
        av.FFmpegError, ValueError: the container takes no such stream.
    """
    _, template, _ = _opened(film.seed)
    file = io.BytesIO()
    file.name = ""  # type: ignore[misc]  # PyAV asks for it
    options = {"fflags": "bitexact", **film.options}
    with av.open(file, "w", format=FORMATS[film.ending], options=options) as container:
        try:
            stream: Any = container.add_stream_from_template(template)
            if film.extradata:
                stream.codec_context.extradata = film.extradata
        except av.codec.codec.UnknownCodecError:  # there is no encoder of this name
            context = template.codec_context
            stream = container.add_mux_stream(
                *(film.seed.codec, 25), width=context.width, height=context.height
            )
            stream.time_base = template.time_base
        if film.matrix is not None:
            stream.set_display_matrix(film.matrix)
        times, latest = [], None
        for packet in film.packets:
            latest = packet.dts if latest is None else max(packet.dts, latest + 1)
            times.append(latest)
        early = (t - p.pts for t, p in zip(times, film.packets, strict=True) if p.pts is not None)
        late = max(0, max(early, default=0))
        for time, packet in zip(times, film.packets, strict=True):
            out = av.Packet(packet.data)
            out.pts = None if packet.pts is None else packet.pts + late
            out.dts, out.duration, out.is_keyframe = time, packet.duration, packet.is_key
            out.time_base, out.stream = template.time_base, stream
            container.mux_one(out)
    return file.getvalue()


def some(rng: np.random.Generator, count: int, most: int) -> list[int]:
    """From one to `most` different places of `count`, ascending."""
    number = min(count, int(rng.integers(1, most + 1)))
    return sorted(rng.choice(count, number, replace=False).tolist()) if count else []


def flipped(data: bytes, rng: np.random.Generator, first: int, last: int, most: int = 2) -> bytes:
    """From one to `most` bits flipped in the bytes from `first` to before `last`."""
    changed = bytearray(data)
    for _ in range(int(rng.integers(1, most + 1))):
        if first < min(last, len(data)):
            changed[int(rng.integers(first, min(last, len(data))))] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _with(film: Film, packets: Sequence[Packet]) -> Film | None:
    return replace(film, packets=tuple(packets)) if packets else None


def lost(film: Film, rng: np.random.Generator) -> Film | None:
    gone = some(rng, len(film.packets), 3)
    if rng.integers(3) == 0:  # a stretch
        gone = list(range(gone[0], gone[0] + int(rng.integers(2, 6))))
    return _with(film, [p for i, p in enumerate(film.packets) if i not in gone])


def lost_key(film: Film, rng: np.random.Generator) -> Film | None:
    keys = [i for i, packet in enumerate(film.packets) if packet.is_key]
    gone = keys[int(rng.integers(len(keys)))] if keys else 0
    return _with(film, [p for i, p in enumerate(film.packets) if i != gone])


def doubled(film: Film, rng: np.random.Generator) -> Film | None:
    packets = list(film.packets)
    for place in some(rng, len(packets), 2):
        packet = packets[place]
        shift = int(rng.choice([0, 1, packet.duration // 2]))
        pts = None if packet.pts is None else packet.pts + shift
        target = place + int(rng.choice([1, 1, 2, 4]))
        packets.insert(target, replace(packet, pts=pts, dts=packet.dts + shift))
    return _with(film, packets)


def swapped(film: Film, rng: np.random.Generator) -> Film | None:
    """Neighbours change places: their contents alone, or with their times."""
    packets = list(film.packets)
    for place in some(rng, len(packets) - 1, 2):
        a, b = packets[place], packets[place + 1]
        if rng.integers(2):
            a, b = replace(b, data=a.data), replace(a, data=b.data)
        packets[place : place + 2] = replace(b, dts=a.dts), replace(a, dts=b.dts)
    return _with(film, packets)


def regrouped(film: Film, rng: np.random.Generator) -> Film | None:
    """Groups of pictures in another order, twice, or without their beginning."""
    keys = [i for i, packet in enumerate(film.packets) if packet.is_key]
    if len(keys) < 2:
        return None
    groups = [film.packets[a:b] for a, b in zip(keys, [*keys[1:], None], strict=True)]
    order = rng.integers(len(groups), size=int(rng.integers(2, len(groups) + 2))).tolist()
    cut = int(rng.integers(3))
    packets = [p for i, n in enumerate(order) for p in groups[n][cut if i else 0 :]]
    return _retimed(film, packets, rng)


def _retimed(film: Film, packets: Sequence[Packet], rng: np.random.Generator) -> Film | None:
    """Packets one after the other: each keeps the distance from its decoding to its showing."""
    step = film.packets[0].duration
    if rng.integers(4) == 0:
        return _with(film, packets)  # the times of where they came from
    apart = [None if p.pts is None else p.pts - p.dts for p in packets]
    return _with(
        film,
        [
            replace(p, dts=i * step, pts=None if d is None else i * step + d)
            for i, (p, d) in enumerate(zip(packets, apart, strict=True))
        ],
    )


def payload(film: Film, rng: np.random.Generator) -> Film | None:
    """Some bytes in the second half of packets: other pictures, often without an error."""
    packets = list(film.packets)
    for place in some(rng, len(packets), 3):
        data = packets[place].data
        at = int(rng.integers(len(data) // 2, len(data)))
        noise = rng.bytes(int(rng.integers(1, 5)))
        packets[place] = replace(packets[place], data=data[:at] + noise + data[at + len(noise) :])
    return _with(film, packets)


def shortened(film: Film, rng: np.random.Generator) -> Film | None:
    packets = list(film.packets)
    for place in some(rng, len(packets), 2):
        data = packets[place].data
        end = int(rng.integers(max(1, len(data) // 3), len(data) + 1))
        packets[place] = replace(packets[place], data=data[:end])
    return _with(film, packets)


def keys(film: Film, rng: np.random.Generator) -> Film | None:
    """Packets marked as key frames that are none, and the other way round."""
    marked = set(some(rng, len(film.packets), 2))
    if rng.integers(4) == 0:
        marked = {i for i, packet in enumerate(film.packets) if not packet.is_key}
    packets = enumerate(film.packets)
    return _with(film, [replace(p, is_key=p.is_key != (i in marked)) for i, p in packets])


def times(film: Film, rng: np.random.Generator) -> Film | None:
    """Times that are shuffled, doubled, missing, far apart, or in the order of decoding."""
    packets, step = list(film.packets), film.packets[0].duration
    kind = int(rng.integers(6))
    places = some(rng, len(packets), 3)
    if kind == 0:
        places = list(range(places[0], min(places[0] + 4, len(packets))))
        for place, other in zip(places, rng.permutation(places).tolist(), strict=True):
            packets[place] = replace(packets[place], pts=film.packets[other].pts)
    for place in places:
        packet = packets[place]
        if kind == 1:
            packets[place] = replace(packet, pts=packets[place - 1].pts)
        if kind == 2 and film.ending == "avi":
            packets[place] = replace(packet, pts=None)
        if kind == 3:
            far = int(rng.choice([-3, 2, 7, 1000])) * step + int(rng.integers(2))
            packets[place] = replace(packet, pts=None if packet.pts is None else packet.pts + far)
    if kind == 4:
        packets = [replace(packet, pts=packet.dts) for packet in packets]
    if kind == 5:
        far = int(rng.choice([50, 5000])) * step
        later = packets[places[0] :]
        packets[places[0] :] = [
            replace(p, dts=p.dts + far, pts=None if p.pts is None else p.pts + far) for p in later
        ]
    return _with(film, packets)


def units(film: Film, data: bytes) -> list[bytes]:
    """The units of a packet of H.264 or HEVC, without what stands between them."""
    extra = film.extradata
    if extra[:1] != b"\x01":
        return [unit for unit in re.split(b"\x00*\x00\x00\x01", data) if unit]
    size = (extra[4 if film.seed.codec == "h264" else 21] & 3) + 1
    found, at = [], 0
    while at + size < len(data):
        start = at + size
        at = start + int.from_bytes(data[at:start], "big")
        found.append(data[start:at])
    return [unit for unit in found if unit]


def joined_units(film: Film, parts: Sequence[bytes]) -> bytes:
    """The packet of these units, as the film's own are."""
    extra = film.extradata
    if extra[:1] != b"\x01":
        return b"".join(b"\x00\x00\x00\x01" + part for part in parts)
    size = (extra[4 if film.seed.codec == "h264" else 21] & 3) + 1
    return b"".join(len(part).to_bytes(size, "big") + part for part in parts)


def kind_of(film: Film, unit: bytes) -> str:
    """slice, message, parameters or other."""
    if film.seed.codec == "h264":
        number = unit[0] & 31
        names = {1: "slice", 5: "slice", 6: "message", 7: "parameters", 8: "parameters"}
        return names.get(number, "other")
    number = unit[0] >> 1 & 63
    names = {32: "parameters", 33: "parameters", 34: "parameters", 39: "message", 40: "message"}
    return "slice" if number < 22 else names.get(number, "other")


def parameter_units(film: Film) -> list[bytes]:
    """The parameter sets of H.264 and HEVC that the header holds."""
    extra, found = film.extradata, []
    if extra[:1] != b"\x01":
        return units(film, extra)
    if film.seed.codec == "h264":
        at = 5
        for mask in (31, 255):
            count, at = (extra[at] & mask if at < len(extra) else 0), at + 1
            for _ in range(count):
                size = int.from_bytes(extra[at : at + 2], "big")
                found.append(extra[at + 2 : at + 2 + size])
                at += 2 + size
    else:
        at = 23
        for _ in range(extra[22]):
            count, at = int.from_bytes(extra[at + 1 : at + 3], "big"), at + 3
            for _ in range(count):
                size = int.from_bytes(extra[at : at + 2], "big")
                found.append(extra[at + 2 : at + 2 + size])
                at += 2 + size
    return [unit for unit in found if unit]


def headers(film: Film, rng: np.random.Generator) -> Film | None:
    """Bits in the headers of slices or pictures: frame numbers, references, quantisers."""
    packets = list(film.packets)
    for place in some(rng, len(packets), 3):
        data = packets[place].data
        if film.seed.codec in UNITS:
            head = 1 if film.seed.codec == "h264" else 2
            parts = units(film, data)
            slices = [i for i, unit in enumerate(parts) if kind_of(film, unit) == "slice"]
            if slices:
                chosen = slices[int(rng.integers(len(slices)))]
                parts[chosen] = flipped(parts[chosen], rng, head, head + 6)
                data = joined_units(film, parts)
        else:
            start = data.find(b"\x00\x00\x01\xb6") + 4 if film.seed.codec == "mpeg4" else 0
            data = flipped(data, rng, start, start + 10)
        packets[place] = replace(packets[place], data=data)
    return _with(film, packets)


def references(film: Film, rng: np.random.Generator) -> Film | None:
    """Pictures that say that others may refer to them, or that none may."""
    if film.seed.codec not in UNITS:
        return None
    packets = list(film.packets)
    chosen = some(rng, len(packets), 3) if rng.integers(3) else range(len(packets))
    mask = 0x20 << int(rng.integers(2)) if film.seed.codec == "h264" else 2
    for place in chosen:
        parts = [
            bytes([unit[0] ^ mask]) + unit[1:] if kind_of(film, unit) == "slice" else unit
            for unit in units(film, packets[place].data)
        ]
        packets[place] = replace(packets[place], data=joined_units(film, parts))
    return _with(film, packets)


def messages(film: Film, rng: np.random.Generator) -> Film | None:
    """Supplemental messages removed, damaged, or moved to another picture."""
    return _units_changed(film, rng, "message")


def parameters_in_band(film: Film, rng: np.random.Generator) -> Film | None:
    """Parameter sets before a picture: again, with a flipped bit, or gone where they were."""
    if film.seed.codec not in UNITS:
        return None
    held = parameter_units(film)
    if not held or rng.integers(3) == 0:
        return _units_changed(film, rng, "parameters")
    chosen = held[int(rng.integers(len(held)))]
    if rng.integers(3):
        chosen = flipped(chosen, rng, 1, len(chosen), 1)
    packets = list(film.packets)
    place = int(rng.integers(len(packets)))
    parts = [chosen, *units(film, packets[place].data)]
    packets[place] = replace(packets[place], data=joined_units(film, parts))
    return _with(film, packets)


def _units_changed(film: Film, rng: np.random.Generator, kind: str) -> Film | None:
    if film.seed.codec not in UNITS:
        return None
    packets, way, moved = list(film.packets), int(rng.integers(3)), []
    holding = [
        i
        for i, packet in enumerate(packets)
        if any(kind_of(film, unit) == kind for unit in units(film, packet.data))
    ]
    if not holding:
        return None
    for place in holding if way == 0 else [holding[int(rng.integers(len(holding)))]]:
        parts = []
        for unit in units(film, packets[place].data):
            if kind_of(film, unit) != kind:
                parts.append(unit)
            elif way == 1:
                parts.append(flipped(unit, rng, 1, len(unit)))
            else:
                moved.append(unit)
        packets[place] = replace(packets[place], data=joined_units(film, parts))
    if way == 2:
        place = int(rng.integers(len(packets)))
        parts = [*moved, *units(film, packets[place].data)]
        packets[place] = replace(packets[place], data=joined_units(film, parts))
    return _with(film, [packet for packet in packets if packet.data])


def old_encoder(film: Film, rng: np.random.Generator) -> Film | None:
    """The message that names an old x264, whose streams FFmpeg decodes in another way."""
    if film.seed.codec != "h264" or b"x264 - core" not in film.packets[0].data:
        return None
    name = b"x264 - core %d" % rng.choice([142, 150, 152, 164])
    first = re.sub(rb"x264 - core \d+", name, film.packets[0].data, count=1)
    packets = [replace(film.packets[0], data=first), *film.packets[1:]]
    if rng.integers(3) == 0:  # in another place than the first
        packets = packets[1:]
    return _with(film, packets)


def parameters(film: Film, rng: np.random.Generator) -> Film | None:
    """A bit of the header's parameters, of the part that says how pictures are decoded."""
    first = {"h264": 8, "hevc": 23}.get(film.seed.codec, 0) if film.extradata[:1] == b"\x01" else 4
    if len(film.extradata) <= first:
        return None
    return replace(film, extradata=flipped(film.extradata, rng, first, len(film.extradata), 1))


def joined(film: Film, rng: np.random.Generator) -> Film | None:
    """Another film of the codec behind this one: with its parameters before it, or without."""
    others = [s for s in seeds() if s.codec == film.seed.codec and s != film.seed]
    if not others:
        return None
    other = film_of(others[int(rng.integers(len(others)))])
    first = film.packets[: int(rng.integers(1, len(film.packets) + 1))]
    second = list(other.packets[int(rng.choice([0, 0, 0, 1, 3])) :][: int(rng.integers(3, 17))])
    if not second:
        return None
    with_parameters = bool(rng.integers(4))
    if film.seed.codec in UNITS:
        held = parameter_units(other) if with_parameters else []
        for i, packet in enumerate(second):
            parts = [*(held if i == 0 else []), *units(other, packet.data)]
            second[i] = replace(packet, data=joined_units(film, parts))
    elif with_parameters and film.seed.codec in ("mpeg4", "mpeg2video", "mpeg1video"):
        second[0] = replace(second[0], data=other.extradata + second[0].data)
    scale = film.packets[0].duration / max(1, other.packets[0].duration)
    second = [
        replace(p, dts=round(p.dts * scale), pts=None if p.pts is None else round(p.pts * scale))
        for p in second
    ]
    again = list(first) if rng.integers(3) == 0 else []
    return _retimed(film, [*first, *second, *again], rng)


def rewrapped(film: Film, rng: np.random.Generator) -> Film | None:
    """The same packets in another container, or laid out in another way."""
    endings = ENDINGS.get(film.seed.codec, ())
    if not endings:
        return None
    ending = endings[int(rng.integers(len(endings)))]
    layouts = ["frag_keyframe+empty_moov", "negative_cts_offsets", "frag_every_frame", ""]
    layout = layouts[int(rng.integers(len(layouts)))]
    options = {"movflags": layout} if ending in MOV and layout else {}
    return replace(film, ending=ending, options=options)


RIGHT_ANGLES = ((1, 0, 0, 1), (0, 1, -1, 0), (-1, 0, 0, -1), (0, -1, 1, 0))


def turned(film: Film, rng: np.random.Generator) -> Film | None:
    """A display matrix: quarter turns, each mirrored or not; in the header or in a message."""
    quarter, mirrored = int(rng.integers(4)), bool(rng.integers(2))
    if film.seed.codec == "h264" and rng.integers(2):
        # Of display_orientation: no cancel, flip, turns of 65536ths, repeated, no extension, end.
        bits = (mirrored << 21 | int(rng.integers(2)) << 20 | quarter << 18 | 0b0100) << 1 | 1
        message = b"\x06\x2f\x03" + bits.to_bytes(3, "big") + b"\x80"
        first = [message, *units(film, film.packets[0].data)]
        packets = [replace(film.packets[0], data=joined_units(film, first)), *film.packets[1:]]
        return _with(film, packets)
    if film.ending not in (*MOV, "mkv", "webm"):
        return None
    a, b, c, d = RIGHT_ANGLES[quarter]
    if mirrored:
        a, b, c, d = (-a, b, -c, d) if rng.integers(2) else (a, -b, c, -d)
    return replace(film, matrix=(a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30))


DAMAGES: dict[str, Callable[[Film, np.random.Generator], Film | None]] = {
    "lost": lost,
    "lost key": lost_key,
    "doubled": doubled,
    "swapped": swapped,
    "regrouped": regrouped,
    "payload": payload,
    "shortened": shortened,
    "keys": keys,
    "times": times,
    "headers": headers,
    "references": references,
    "messages": messages,
    "old encoder": old_encoder,
    "parameters": parameters,
    "parameters in band": parameters_in_band,
    "joined": joined,
    "rewrapped": rewrapped,
    "turned": turned,
}
