"""Walk through the packets of a file: what one full decode finds, and what the header says."""

from __future__ import annotations

import itertools
from array import array
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from av.video.reformatter import VideoReformatter

from vidadapt.console import printable
from vidadapt.files import fetched, is_url
from vidadapt.video.checksums import frame_checksum
from vidadapt.video.facts import COUNTED_WITH, ENDS_EARLY, NO_TIMES, VideoFacts
from vidadapt.video.first_bytes import missing_end
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
    promised = _without_hidden(facts, len(stamps) - num_hidden)
    if facts.container == "matroska" and promised is None:
        promised, early = _by_its_bytes(path, len(checks))
        cause = early or cause
    shown = [stamps[number] if number >= 0 else None for number in packets]
    return replace(
        _with_times(facts, shown, rate, tick),
        num_frames=len(checks),
        header_frames=promised,
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
    """Add frame rate, duration and times, from the frames' timestamps in units of `tick` seconds.

    Frames without timestamps, or with some that go back, have the times of the mean rate.

    Args:
        rate: mean frames a second by the header.
    """
    stamps = [stamp for stamp in shown if stamp is not None]
    span = max(stamps) - min(stamps) if stamps and len(stamps) == len(shown) else 0
    duration = len(shown) / rate if rate else None
    if span and tick:
        duration = span * tick * Fraction(len(shown), len(shown) - 1)
        rate = rate or len(shown) / duration
    times, remark = NO_TIMES, ""
    ordered = len(stamps) == len(shown) and all(a <= b for a, b in itertools.pairwise(stamps))
    if ordered and stamps and tick:
        # A product below 2^53 divided once: each time is the nearest float to its fraction.
        times = (np.array(stamps) - stamps[0]) * tick.numerator / tick.denominator
    elif rate:
        times = np.arange(len(shown)) * rate.denominator / rate.numerator
        remark = f"its timestamps do not say when each frame is shown: {float(rate):.7g} a second"
    return replace(
        facts,
        frame_rate=float(rate) if rate else None,
        duration=None if duration is None else float(duration),
        times=times,
        remark=remark,
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


def _by_its_bytes(path: str, num_frames: int) -> tuple[int | None, str]:
    """About how many frames a Matroska file that ends early had, and how much of it is here.

    It has no number of frames, but that of its bytes, and FFmpeg takes a part of one for a whole.
    """
    found = missing_end(path)
    if found is None:
        return None, ""
    here, whole = found
    promised = num_frames * whole // here if num_frames else None
    return promised, f"{ENDS_EARLY}: {here:,} of {whole:,} bytes are here"


def promised_frames(path: str, num_frames: int) -> int | None:
    """Number of frames that a file's header or its number of bytes promises; None: neither does.

    Args:
        num_frames: frames that decode.
    """
    with open_container(path) as container:
        promised = best_stream(container, path).frames or None
        matroska = container.format.name.startswith("matroska")
    return _by_its_bytes(path, num_frames)[0] if matroska and promised is None else promised


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


def times_at(path: str, facts: VideoFacts, indices: Sequence[int]) -> list[float] | None:
    """Seconds from the first frame of a file to those at `indices` of a video in it.

    They are those that the facts keep, as of every segment, or else those of `frame_times`.

    Args:
        path: of the file, or the URL of its object, whose local copy is looked into.
    """
    if len(facts.times):
        return facts.times[list(indices)].tolist()
    if facts.reader in ("image", "packed"):
        return None  # and a stored tar is not fetched for that
    if not is_url(path):
        return frame_times(path, indices, facts.num_frames)
    try:
        copy = fetched(path)
    except OSError:
        return None
    with copy.file:
        return frame_times(copy.path, indices, facts.num_frames)
