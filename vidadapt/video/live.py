"""Frames of a live stream: a camera of this machine, or an address; opened anew when it is lost."""

from __future__ import annotations

import contextlib
import errno
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from vidadapt.console import printable
from vidadapt.files import without_credentials
from vidadapt.video.sequential import (
    DECODE_ERRORS,
    ReadError,
    TransientReadError,
    best_stream,
    cause_of,
    decode,
    refuse_picture,
    safe_options,
)

# By the scheme of an address, the protocols that FFmpeg needs for it. Of a device: none, and no
# protocol has this name.
PROTOCOLS = {"rtsp": "tcp", "http": "http,tcp", "https": "https,tls,tcp", "udp": "udp"}
NO_PROTOCOL = "none"
DEVICE = "video4linux2,v4l2"  # FFmpeg's name of the format
# Formats without times of their own: FFmpeg gives frames those of a constant rate that it guesses.
TIMELESS = {"mpjpeg", "mjpeg", "mjpeg_2000", "h264", "hevc", "m4v", "mpegvideo"}
PROBED = 1_000_000  # microseconds; by default FFmpeg looks at 5 s of a stream before it begins
JUMP = Fraction(2)  # seconds; a longer step between two timestamps begins a new part
BACK = Fraction(1, 10)  # seconds; so does a longer step back
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds before a stream is opened again
SHORTEST = 1.0  # seconds that opening may take, also where the stream is about to be given up
POLL = 0.005  # seconds between two looks at a camera that has no whole frame yet
# What no second attempt mends: a wrong address, or a right one without a right to it.
HOPELESS = (
    *(av.ArgumentError, av.InvalidDataError, av.PermissionError),
    *(av.ProtocolNotFoundError, av.DemuxerNotFoundError),
    *(av.HTTPBadRequestError, av.HTTPUnauthorizedError, av.HTTPForbiddenError),
    *(av.HTTPNotFoundError, av.HTTPOtherClientError),
)
NO_CAMERA = {errno.ENOENT, errno.ENODEV, errno.ENOTTY}  # answers of a device


@dataclass
class LiveStream:
    """A live stream, and what is known of it while it is read.

    Attributes:
        source: from `live_source`.
        stall: seconds without a frame after which the stream is opened anew.
        give_up: seconds without a frame after which it is given up.
        stop: set it to end the reading.
        name: `source` without a password.
        part: number of the part that is read; a part has no gap.
        heard: monotonic time of the last frame; before the first, of the beginning.
        arrived: monotonic time at which the packet of the frame that is shown was there.
        seconds: of all parts together.
        num_frames: that were decoded.
        connections: times that the stream was opened.
        jumps: steps of the timestamps that began a new part.
        without_time: frames without a timestamp, or with one that does not ascend; each is shown
            for the mean duration of a frame.
        num_damaged: frames that the decoder marks as damaged; it does not mark all that are.
        num_faults: decoding errors.
        first_fault: the first of them, in words; empty: there is none.
    """

    source: str = field(repr=False)
    stall: float = 10.0
    give_up: float = 60.0
    stop: threading.Event = field(default_factory=threading.Event)
    name: str = field(init=False)
    part: int = 0
    heard: float = field(default_factory=time.monotonic)
    arrived: float = 0.0
    seconds: Fraction = Fraction(0)
    num_frames: int = 0
    connections: int = 0
    jumps: int = 0
    without_time: int = 0
    num_damaged: int = 0
    num_faults: int = 0
    first_fault: str = ""

    def __post_init__(self) -> None:
        self.name = without_credentials(self.source)


def live_source(word: str) -> str:
    """Return the device or the address of a live stream.

    Raises:
        ValueError: it is none; the message holds no password.

    >>> live_source("0")
    '/dev/video0'
    >>> live_source("rtsp://camera/1")
    'rtsp://camera/1'
    """
    scheme, mark, rest = word.partition("://")
    if mark and scheme.lower() in PROTOCOLS and rest:
        return f"{scheme.lower()}://{rest}"
    device = f"/dev/video{word}" if re.fullmatch(r"[0-9]+", word) else word
    if not device.startswith("/dev/"):
        raise ValueError(
            f"{without_credentials(word)}: no live stream; give a camera (0 or /dev/video0) or an "
            f"address ({', '.join(f'{name}://' for name in PROTOCOLS)}), or for a file leave out "
            "--live"
        )
    return device


def require_camera(source: str) -> None:
    """Check that a source from `live_source` is there, if it is a device.

    Raises:
        ValueError: it is not; the message names those that are.
    """
    if "://" not in source and not Path(source).is_char_device():
        there = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none"
        raise ValueError(f"{source}: no such camera; cameras of this machine: {there}")


def live_frames(stream: LiveStream) -> Iterator[tuple[int, int, Any, Fraction]]:
    """Yield frames as they come, until `stream.stop` is set.

    A stream that ends, fails or stalls is opened again, with growing pauses; each time is said on
    stderr. Where it is opened again, and where its timestamps jump, a new part begins.

    Args:
        stream: it is filled while it is read.

    Yields:
        The number of the part, that of the frame in it, the decoded frame, and the time until which
        it is shown, in seconds from the part's first frame. The last frame of a part is left out,
        for nobody knows how long it is shown.

    Raises:
        ReadError: the stream is given up, or what the address shows is none.
    """
    pause, stream.heard = FIRST_PAUSE, time.monotonic()
    while not stream.stop.is_set():
        before = stream.num_frames
        try:
            remaining = stream.heard + stream.give_up - time.monotonic()
            with _opened(stream, min(stream.stall, max(SHORTEST, remaining))) as container:
                stream.connections += 1
                yield from _connected(stream, container)
            return  # it was stopped
        except TransientReadError as error:
            cause = str(error)
        except ReadError as error:
            if not stream.num_frames:
                raise
            cause = str(error)
        if stream.stop.is_set():
            return
        cause = cause.removeprefix(f"{stream.name}: ")
        if stream.num_frames > before:
            pause = FIRST_PAUSE
        waited = time.monotonic() - stream.heard
        if waited >= stream.give_up:
            raise ReadError(
                f"{stream.name}: no frame for {waited:.1f} s, given up ({cause}); --give_up, now "
                f"{stream.give_up:g} s, may wait longer"
            )
        wait = min(pause, stream.give_up - waited)
        print(
            printable(f"{stream.name}: {cause}; opened again in {wait:.1f} s"),
            file=sys.stderr,
            flush=True,
        )
        stream.stop.wait(wait)
        pause = min(2 * pause, LONGEST_PAUSE)
        stream.part += stream.num_frames > before


@contextlib.contextmanager
def _opened(stream: LiveStream, patience: float) -> Iterator[Any]:
    """Open a stream as FFmpeg's container, which reads no file and nothing by other protocols.

    Args:
        patience: seconds that it may take.

    Raises:
        ReadError: it is hopeless to try again.
        TransientReadError: it cannot be opened now.
    """
    scheme, mark, _ = stream.source.partition("://")
    kind, options = None, {"analyzeduration": str(PROBED)}
    if not mark:
        kind = "v4l2"
        options |= safe_options(NO_PROTOCOL, DEVICE)
    elif scheme == "rtsp":  # by TCP no part of a frame is lost, and no other port is opened
        kind = "rtsp"
        options |= {**safe_options(PROTOCOLS[scheme], "rtsp"), "rtsp_transport": "tcp"}
    else:
        options |= safe_options(PROTOCOLS[scheme])
    try:
        container = av.open(
            stream.source, format=kind, options=options, timeout=(patience, stream.stall)
        )
    except HOPELESS as error:
        cause = str(error.strerror)
        if mark and isinstance(error, av.ArgumentError | av.InvalidDataError):
            cause = (
                f"no stream ({cause}); a page, a playlist (HLS, DASH) or a redirect to another "
                "scheme? give the address of the stream itself"
            )
        raise ReadError(f"{stream.name}: {cause}") from None
    except DECODE_ERRORS as error:
        if not mark and getattr(error, "errno", None) in NO_CAMERA:
            raise ReadError(f"{stream.name}: no camera ({cause_of(error)})") from None
        raise TransientReadError(f"{stream.name}: {_why(error, patience)}") from None
    with container:
        refuse_picture(container, stream.name)
        if scheme in ("http", "https") and container.duration:
            raise ReadError(
                f"{stream.name}: a file of {container.duration / 1e6:.1f} s, no live stream; leave "
                "out --live"
            )
        yield container


def _why(error: BaseException, patience: float) -> str:
    """Say why FFmpeg opens or reads no more."""
    if isinstance(error, av.ExitError):
        return f"nothing came for {patience:.1f} s"
    if isinstance(error, OSError) and error.errno == errno.EIO:
        return f"{cause_of(error)}: the other side ended, or no such host"
    return cause_of(error)


def _connected(stream: LiveStream, container: Any) -> Iterator[tuple[int, int, Any, Fraction]]:
    """Yield what `live_frames` does, of one connection.

    Raises:
        ReadError: it has no video.
        TransientReadError: it stalls or fails.
    """
    video = best_stream(container, stream.name)
    rate = video.average_rate or video.guessed_rate or Fraction(25)
    by_arrival = container.format.name in TIMELESS or video.time_base is None
    first, last, number = Fraction(0), Fraction(0), 0
    waiting: tuple[Any, float] | None = None
    faults: list[Exception] = []
    for packet, arrived in _packets(stream, container, video):
        for frame in decode(video.codec_context, packet, faults):
            stream.num_frames += 1
            stream.num_damaged += frame.is_corrupt
            stream.heard = time.monotonic()
            stamp = None if frame.pts is None else frame.pts * video.time_base
            if by_arrival:
                stamp = Fraction(arrived)
            at = None if stamp is None else stamp - first
            if waiting is not None and at is not None and not last - BACK <= at <= last + JUMP:
                stream.jumps += 1
                stream.part += 1
                waiting = None
            if waiting is None:
                first, last, number = stamp or Fraction(0), Fraction(0), 0
            else:
                if at is None or at <= last:
                    stream.without_time += 1
                    at = last + 1 / rate
                stream.seconds += at - last
                shown, stream.arrived = waiting
                yield stream.part, number, shown, at
                last, number = at, number + 1
            waiting = frame, arrived
        if faults:
            stream.first_fault = stream.first_fault or cause_of(faults[0])
            stream.num_faults += len(faults)
            faults.clear()


def _packets(stream: LiveStream, container: Any, video: Any) -> Iterator[tuple[Any, float]]:
    """Yield packets of the video and the monotonic time at which each was there.

    The last is None where the stream ends or fails, for frames that the decoder still holds.

    Raises:
        TransientReadError: it fails, or gives no frame for `stream.stall` seconds.
    """
    began, ended = time.monotonic(), ""
    while not ended and not stream.stop.is_set():
        try:
            # Packets of sound, too: they must not hide that the picture stalls.
            for packet in container.demux():
                if packet.stream.index == video.index and packet.size:
                    yield packet, time.monotonic()
                _refuse_stall(stream, began)
                if stream.stop.is_set():
                    return
            ended = "it ended"
        except IndexError:  # PyAV's, for a stream that appears after the first packets: not ours
            continue
        except av.BlockingIOError:  # of a camera: no whole frame is there yet
            _refuse_stall(stream, began)
            stream.stop.wait(POLL)
        except av.ExitError as error:  # a stall; what the decoder holds is too late
            raise TransientReadError(f"{stream.name}: {_why(error, stream.stall)}") from None
        except DECODE_ERRORS as error:
            ended = _why(error, stream.stall)
    if ended:
        yield None, time.monotonic()
        raise TransientReadError(f"{stream.name}: {ended}")


def _refuse_stall(stream: LiveStream, began: float) -> None:
    """Raise TransientReadError where no frame came for too long, in the connection that began."""
    silent = time.monotonic() - max(began, stream.heard)
    if silent > stream.stall:
        raise TransientReadError(f"{stream.name}: no frame for {silent:.1f} s")
