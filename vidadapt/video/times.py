"""Times at which frames are shown."""

from __future__ import annotations

from collections.abc import Sequence

from vidadapt.video.sequential import DECODE_ERRORS, ReadError, best_stream, open_container


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
