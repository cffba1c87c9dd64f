"""Walk through the packets of a file: what one full decode finds, and what the header says."""

from __future__ import annotations

import itertools
import re
from array import array
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from vidadapt.console import printable
from vidadapt.video.checksums import frame_checksum
from vidadapt.video.facts import COUNTED_WITH, VideoFacts
from vidadapt.video.orientation import shown_size
from vidadapt.video.packets import stream_doubt
from vidadapt.video.sequential import (
    DECODE_ERRORS,
    TRANSIENT,
    ReadError,
    TransientReadError,
    best_stream,
    cause_of,
    data_packets,
    decode,
    open_container,
    refuse_count,
    unreadable_bytes,
    upright_rgb,
)

_CLOCK = re.compile(r"(\d+):(\d+):(\d+(?:\.\d*)?)")


def survey(path: str) -> VideoFacts:
    """Decode all packets of the best video stream.

    The video ends before the first frame that cannot be converted to RGB, which is its `cause`.

    Raises:
        ReadError: the file cannot be opened, or holds no video stream or too many frames.
        TransientReadError: its bytes cannot be read.
    """
    faults: list[Exception] = []
    stamps: list[int | None] = []  # of each packet
    checks, packets, keys = array("Q"), array("q"), array("q")
    flags: set[tuple[bool, bool]] = set()
    ways: set[tuple[Any, ...]] = set()  # size and format first: what decides a conversion
    convert, num_hidden, ended = VideoReformatter(), 0, False
    with open_container(path) as container:
        stream = best_stream(container, path)
        rate, tick, context = stream.average_rate, stream.time_base, stream.codec_context
        facts = _header_facts(path, container, stream)
        promised_end = _promised_end(container, stream)
        for packet in itertools.chain(data_packets(container, stream, faults), [None]):
            if packet is not None:
                stamps.append(packet.pts)
                packet.pts = len(stamps) - 1  # the frame decoded from it has it, too
                num_hidden += packet.is_discard
            if ended:
                continue  # the packets that are left are counted
            for frame in decode(context, packet, faults):
                if not checks:
                    facts = _with_look(facts, frame)
                way = *shown_size(frame), frame.format.name, frame.colorspace, frame.color_range
                if way not in ways:
                    if fault := _conversion_fault(convert, frame, facts, len(checks)):
                        faults.append(fault)
                        ended = True
                        break
                    ways.add(way)
                flags.add((frame.is_corrupt, frame.interlaced_frame))
                if frame.key_frame:
                    keys.append(len(checks))
                packets.append(frame.pts if frame.pts in range(len(stamps)) else -1)
                checks.append(frame_checksum(frame))
            refuse_count(path, max(len(checks), len(stamps)))
    holds = not any(isinstance(fault, TRANSIENT) for fault in faults)
    if not holds and (why := unreadable_bytes(path)):
        raise TransientReadError(f"{path}: {why}")
    cause = printable(cause_of(faults[0])) if faults else ""
    shown = [stamps[number] if number >= 0 else None for number in packets]
    facts = _with_times(facts, shown, rate, tick)
    if facts.header_frames is None and promised_end is not None and tick:
        lacking = _frames_lacking(shown, tick, facts.frame_rate, promised_end)
        header_frames = len(checks) + lacking if lacking else None
    else:
        header_frames = _without_hidden(facts, len(stamps) - num_hidden)
    return replace(
        facts,
        num_frames=len(checks),
        header_frames=header_frames,
        doubt=cause or stream_doubt(facts.container, facts.codec, (facts.width, facts.height)),
        cause=cause,
        checks=np.array(checks),
        holds=holds,
        uneven=_unevenness({way[:3] for way in ways}, flags),
        packets=packets.tolist(),
        keys=keys.tolist(),
    )


def counted(path: str) -> VideoFacts:
    """Return `survey`, or raise ReadError if no frame decodes."""
    facts = survey(path)
    if not facts.num_frames:
        kind = ReadError if facts.holds else TransientReadError
        raise kind(f"{path}: no frame decodes ({facts.cause or 'the stream is empty'})")
    return facts


def _header_facts(path: str, container: Any, stream: Any) -> VideoFacts:
    """Facts that are known before anything is decoded."""
    return VideoFacts(
        path,
        header_frames=stream.frames or None,
        codec=stream.codec_context.codec.canonical_name,
        container=container.format.name.split(",")[0],
        counted_with=COUNTED_WITH,
    )


def _promised_end(container: Any, stream: Any) -> float | None:
    """Second at which the header of a Matroska file (webm, too) lets the stream end; None: unknown.

    Such a file gives no number of frames. The duration of the whole file may be that of its sound.
    """
    if not container.format.name.startswith("matroska"):
        return None
    if found := _CLOCK.fullmatch(stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = map(float, found.groups())
        return 3600 * hours + 60 * minutes + seconds
    if len(container.streams) == 1 and container.duration:
        return float(container.duration / av.time_base)
    return None


def _frames_lacking(
    shown: Sequence[int | None], tick: Fraction, rate: float | None, promised_end: float
) -> int:
    """Number of frames that fit between the last one and the promised end; 0: fewer than two.

    0, too, where a gap between two frames is as long: the last frame may be shown for so long.
    """
    stamps = sorted(float(stamp * tick) for stamp in shown if stamp is not None)
    if rate is None or len(stamps) < 2 or len(stamps) != len(shown):
        return 0
    missing = promised_end - (stamps[-1] + 1 / rate)
    longest = max(after - before for before, after in itertools.pairwise(stamps))
    lacking = round(missing * rate)
    return lacking if lacking >= 2 and missing > longest else 0


def _with_look(facts: VideoFacts, frame: Any) -> VideoFacts:
    """Add what the first frame shows."""
    width, height = shown_size(frame)
    return replace(
        facts,
        pixel_format=frame.format.name,
        width=width,
        height=height,
        rotation=frame.rotation,
    )


def _conversion_fault(
    convert: VideoReformatter, frame: Any, facts: VideoFacts, position: int
) -> Exception | None:
    """Fault of a frame that decodes and cannot be converted, e.g. one in YCgCo."""
    try:
        upright_rgb(convert, frame, (facts.width, facts.height))
    except MemoryError as error:
        return error
    except DECODE_ERRORS as error:
        return ReadError(
            f"frame {position} cannot be converted to RGB: {cause_of(error)}; {frame.format.name}, "
            f"colour space {int(frame.colorspace)}"
        )
    return None


def _unevenness(kinds: set[tuple[int, int, str]], flags: set[tuple[bool, bool]]) -> str:
    """Return `VideoFacts.uneven`; `flags` say of frames whether they are corrupt, interlaced."""
    if any(is_corrupt for is_corrupt, _ in flags):
        return "corrupt frames"
    if len(kinds) > 1:
        return "frames change size or format"
    return "only some frames are interlaced" if len(flags) > 1 else ""


def _with_times(
    facts: VideoFacts,
    shown: Sequence[int | None],
    rate: Fraction | None,
    tick: Fraction | None,
) -> VideoFacts:
    """Add frame rate and duration, from the frames' timestamps in units of `tick` seconds.

    Args:
        rate: mean frames a second by the header.
    """
    stamps = [stamp for stamp in shown if stamp is not None]
    span = max(stamps) - min(stamps) if stamps and len(stamps) == len(shown) else 0
    duration = len(shown) / rate if rate else None
    if span and tick:
        duration = span * tick * Fraction(len(shown), len(shown) - 1)
        rate = rate or len(shown) / duration
    return replace(
        facts,
        frame_rate=float(rate) if rate else None,
        duration=None if duration is None else float(duration),
    )


def _without_hidden(facts: VideoFacts, num_visible: int) -> int | None:
    """Frames that the header promises, without those that the edit list of an mp4 hides.

    FFmpeg flags their packets from the key frame before the edit on, and drops the earlier ones.

    Args:
        num_visible: packets that were read and not flagged.
    """
    promised = facts.header_frames
    if facts.container != "mov" or promised is None or promised <= num_visible:
        return promised
    with open_container(facts.path, {"ignore_editlist": "1"}) as container:
        stream = best_stream(container, facts.path)
        all_packets = sum(1 for _ in data_packets(container, stream, []))
    return promised - max(0, all_packets - num_visible)


def promised_frames(path: str, num_frames: int) -> int | None:
    """Number of frames that a file's header promises, see `VideoFacts.header_frames`.

    Args:
        num_frames: frames that decode.
    """
    with open_container(path) as container:
        stream = best_stream(container, path)
        rate, tick, end = stream.average_rate, stream.time_base, _promised_end(container, stream)
        if stream.frames or end is None or not tick:
            return stream.frames or None
        stamps = [packet.pts for packet in data_packets(container, stream, [])]
    lacking = _frames_lacking(stamps, tick, float(rate) if rate else None, end)
    return num_frames + lacking if lacking else None


def frame_times(path: str, indices: Sequence[int], num_frames: int) -> list[float] | None:
    """Seconds from the first frame to those at `indices`; None if the file does not say.

    They follow from the packets' timestamps, and nothing is decoded; if not every frame has one,
    from the average rate.

    Args:
        num_frames: frames that decode.
    """
    try:
        with open_container(path) as container:
            stream = best_stream(container, path)
            stamps = [p.pts for p in container.demux(stream) if p.size and not p.is_discard]
            known = sorted(stamp for stamp in stamps if stamp is not None)
            base, rate = stream.time_base, stream.average_rate
    except (*DECODE_ERRORS, ReadError):
        return None
    if base and len(known) == len(stamps) == num_frames:
        return [float((known[index] - known[0]) * base) for index in indices]
    return [float(index / rate) for index in indices] if rate else None
