"""Damaged videos: every frame, in any pattern, is that of a sequential decode, or an error.

A case is a whole video and a few damages, each with a number that settles it. A case that fails is
made small: fewer damages, fewer packets, fewer frames in the pattern that came out wrong.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import av
import container_damage
import numpy as np
import stream_damage
from av.sidedata.sidedata import SideDataContainer
from av.video.reformatter import VideoReformatter
from fuzz_attempts import RIGHT, Defect, Job, Tally, judged
from seed_videos import RECIPES, seeds

from vidadapt.video import ReadError, TransientReadError, open_counted, open_video

READERS = ("auto", "auto", "pyav_sparse", "decord", "pyav")
PATTERNS = 60  # for each file that decodes, but for
MOST_PIXELS = 16_000_000  # in all frames of a file, above which it has few patterns
FEW = 6
MAX_PIXELS, MAX_FRAMES = 1 << 26, 1 << 21  # above which a file is refused, as `bounds` says
SAVE = "VIDADAPT_FUZZ_SAVE"  # environment: the folder in which files that fail are kept
# How often each damage is drawn.
SHARES = dict.fromkeys(stream_damage.DAMAGES, 2) | {
    **{"bytes": 6, "tables": 4, "edit list": 3, "transport": 3, "appended": 1},
    **{"payload": 4, "headers": 4, "old encoder": 3, "joined": 3, "lost": 3},
}


@dataclass(frozen=True)
class Case:
    """A damaged video and how it is read.

    Attributes:
        seed: place of the whole video in `seeds`.
        damages: name and number of each, in their order.
        reader: the one that is asked for.
        number: settles the patterns.
        keep: packets of the whole video that are used; None: all.
        pattern: the only pattern that is read; None: all.
    """

    seed: int
    damages: tuple[tuple[str, int], ...]
    reader: str
    number: int
    keep: int | None = None
    pattern: tuple[int, ...] | None = None


class WrongFrame(Defect):
    """A frame that is not that of a sequential decode; `pattern` is the one that was read."""

    def __init__(self, said: str, pattern: Sequence[int]) -> None:
        super().__init__(said)
        self.pattern = tuple(pattern)


def check_video(job: Job, scratch: Path, tally: Tally) -> None:
    case = drawn(job.rng())
    try:
        outcome, facts = judge(case, scratch)
    except Exception as error:
        small, last = shrunk(case, scratch, error)
        error.add_note(described(small, last, scratch, job))
        raise
    seed = seeds()[case.seed]
    tally.outcomes[outcome] += 1
    for name in {name for name, _ in case.damages} or {"none"}:
        tally.parts["damage", name, outcome] += 1
    for kind, name in (("codec", seed.codec), ("ending", seed.ending), *facts):
        tally.parts[kind, name, outcome] += 1


def drawn(rng: np.random.Generator) -> Case:
    """A case: one damage or a few; none once in 16 times."""
    # Other people's clips, which are larger, once in eight times.
    number = int(rng.integers(len(seeds()) if rng.integers(8) == 0 else len(RECIPES)))
    names, shares = list(SHARES), np.array(list(SHARES.values()))
    count = int(rng.choice([0, *[1] * 7, *[2] * 6, *[3] * 2]))
    chosen = rng.choice(len(names), count, p=shares / shares.sum()).tolist()
    # What is done to packets comes before what is done to the bytes of the file.
    chosen.sort(key=lambda i: names[i] in container_damage.DAMAGES)
    damages = tuple((names[i], int(rng.integers(1 << 30))) for i in chosen)
    reader = READERS[int(rng.integers(len(READERS)))]
    return Case(number, damages, reader, int(rng.integers(1 << 30)))


def made(case: Case) -> tuple[str, bytes]:
    """Ending and bytes of the damaged video.

    A damage for which the video has nothing is left out, and one after which no container takes
    the packets.
    """
    seed = seeds()[case.seed]
    ending, data = seed.ending, seed.data
    packets = [(n, s) for n, s in case.damages if n in stream_damage.DAMAGES]
    if packets or case.keep:
        film = stream_damage.film_of(seed, case.keep)
        data = _written(film) or data
        for name, number in packets:
            changed = stream_damage.DAMAGES[name](film, np.random.default_rng(number))
            if changed and changed.packets and (found := _written(changed)):
                film, ending, data = changed, changed.ending, found
    for name, number in case.damages:
        if name in container_damage.DAMAGES:
            rng = np.random.default_rng(number)
            data = container_damage.DAMAGES[name](ending, data, rng) or data
    return ending, data


def _written(film: stream_damage.Film) -> bytes | None:
    try:
        return stream_damage.written(film)
    except (av.FFmpegError, ValueError, OverflowError):
        return None


def judge(case: Case, scratch: Path) -> tuple[str, list[tuple[str, str]]]:
    """What became of a case, and by which reader it was served.

    Raises:
        Defect: another frame or count than a sequential decode yields, or an undue error.
    """
    ending, data = made(case)
    file = scratch / f"video.{ending}"
    file.write_bytes(data)
    return read_in_patterns(file, case.reader, case.number, case.pattern)


def read_in_patterns(
    file: Path,
    reader: str,
    number: int,
    pattern: Sequence[int] | None = None,
    most_pixels: int = MOST_PIXELS,
) -> tuple[str, list[tuple[str, str]]]:
    """Count a file and read it as training does: each pattern by a reader that is opened for it.

    Args:
        number: settles the patterns.
        pattern: the only one, of the frames that there are.
        most_pixels: in all frames of the file, above which it has few patterns.

    Raises:
        Defect: see `judge`.
    """
    expected = slow_decode(file)
    errors = (ReadError, TransientReadError)
    rng = np.random.default_rng(number)
    outcome, video = judged(lambda: open_video(file, reader), errors, str(file))
    if video is not None:
        with video:
            outcome, count = judged(lambda: len(video), errors, str(file))
            if pattern is None and count == len(expected):
                some = rng.integers(count, size=3).tolist()
                compare(f"{reader} ({video.facts.reader})", expected, some, video.frames(some))
    if outcome != RIGHT:
        if expected:
            raise Defect(f"{reader}: an error, where {len(expected)} frames decode")
        return outcome, []
    if count != len(expected):
        raise Defect(
            f"{reader} ({video.facts.reader}): {count} frames, where {len(expected)} decode"
        )
    pixels = sum(frame.size // 3 for frame in expected)
    drawn = patterns(rng, count, PATTERNS if pixels <= most_pixels else FEW)
    for wanted in [[p for p in pattern if p < count] or [0]] if pattern is not None else drawn:
        with open_counted(file, video.facts) as again:
            frames = again.frames(wanted)
        compare(f"{reader} ({again.facts.reader}), counted", expected, wanted, frames)
        if again.changed:
            raise WrongFrame(f"a file that nobody has changed: {again.changed}", wanted)
    return outcome, [("reader", f"{reader} ({video.facts.reader})")]


def patterns(rng: np.random.Generator, count: int, number: int) -> Iterator[list[int]]:
    """What is read of `count` frames: all of them, both ways, the ends, and what is sampled."""
    last = count - 1
    yield list(range(count))
    yield list(range(count))[::-1]
    yield [last]
    for way in rng.integers(7, size=number - 3).tolist():
        size, step, start = (int(rng.integers(most)) for most in (7, 4, count))
        size, step = size + 2, step + 1
        if way == 0:
            yield [start]
        elif way == 1:
            yield [start, int(rng.integers(count))]
        elif way == 2:  # dense
            yield [min(start + i * step, last) for i in range(size)]
        elif way == 3:  # segments
            yield [i * count // size for i in range(size)]
        elif way == 4:
            yield np.sort(rng.integers(count, size=size)).tolist()
        elif way == 5:  # any order, repeats
            yield [start, *rng.integers(count, size=size).tolist(), start]
        else:  # from the end
            yield [max(0, last - i * step) for i in range(size)]


def compare(
    who: str, expected: list[np.ndarray], wanted: Sequence[int], frames: np.ndarray
) -> None:
    for index, frame in zip(wanted, frames, strict=True):
        if not np.array_equal(frame, expected[index]):
            said = f"{who}: frame {index} of {len(expected)} is not that of a sequential decode"
            raise WrongFrame(said, wanted)


def slow_decode(path: Path) -> list[np.ndarray]:
    """All frames of the best stream, packet by packet, as plainly as can be; none for no video."""
    frames: list[np.ndarray] = []
    size = None
    options = {"max_pixels": str(MAX_PIXELS)}
    convert = VideoReformatter()
    try:
        with av.open(str(path), options=options) as container:
            stream = container.streams.best("video")
            if stream is None or stream.codec_context is None or stream.frames > MAX_FRAMES:
                return []
            if stream.disposition & av.stream.Disposition.attached_pic:
                return []  # a cover of what has no film
            stream.codec_context.thread_count = 1
            stream.codec_context.options = options
            packets = container.demux(stream)
            over = False
            while not over:
                try:
                    packet = next(packets)
                    if packet.size == 0:
                        continue
                except IndexError:  # PyAV, at a stream that comes up late: another one's packet
                    packets = container.demux(stream)
                    continue
                except (StopIteration, av.FFmpegError):
                    packet, over = None, True
                try:
                    decoded = stream.codec_context.decode(packet)
                except av.FFmpegError:
                    continue
                for frame in decoded:
                    matrix = matrix_of(frame)
                    sideways = upright(np.zeros((1, 2)), matrix).shape == (2, 1)
                    if size is None:  # as shown: what follows is scaled to it
                        size = (frame.width, frame.height)[:: -1 if sideways else 1]
                    before = size[::-1] if sideways else size
                    whole = convert.reformat(frame, *before, format="rgb24", threads=1)
                    frames.append(upright(whole.to_ndarray(), matrix))
                # What a decoder finds in the memory of older frames shows in damaged ones: as in
                # PyAV's own loop, only the last frame is alive while the next packet is decoded.
                decoded = []
    except (av.FFmpegError, OSError, ValueError):
        pass
    return frames


def matrix_of(frame: av.VideoFrame) -> list[int]:
    # Not `frame.side_data`, which keeps the frame alive: what is left of it in the decoder's memory
    # shows where a later picture is damaged.
    try:
        found = [data for data in SideDataContainer(frame) if data.type.name == "DISPLAYMATRIX"]
    except ValueError:  # PyAV knows no name of other data there
        a, b = ((1, 0), (0, 1), (-1, 0), (0, -1))[frame.rotation // 90 % 4]
        return [a, -b, 0, b, a, 0, 0, 0, 1] if frame.rotation % 90 == 0 else []
    return np.frombuffer(bytes(found[0]), np.int32).tolist() if found else []


def upright(picture: np.ndarray, matrix: list[int]) -> np.ndarray:
    """As the `ffmpeg` program shows it, filter by filter; as it is at angles in between."""
    if not matrix:
        return picture
    a, b, c, d = matrix[0], matrix[1], matrix[3], matrix[4]
    if not math.hypot(a, c) or not math.hypot(b, d):
        return picture
    angle = math.atan2(b / math.hypot(b, d), a / math.hypot(a, c))
    theta = round(math.degrees(angle)) % 360
    if theta == 90:  # cclock_flip, else clock
        return picture.swapaxes(0, 1) if c > 0 else picture.swapaxes(0, 1)[:, ::-1]
    if theta == 270:  # clock_flip, else cclock
        picture = picture.swapaxes(0, 1)
        return picture[::-1, ::-1] if c < 0 else picture[::-1]
    if theta == 180 and a < 0:
        picture = picture[:, ::-1]
    return picture[::-1] if theta in (0, 180) and d < 0 else picture


def shrunk(case: Case, scratch: Path, error: Exception) -> tuple[Case, Exception]:
    """A smaller case that fails, too, and its error: of any smaller ones that were found."""
    small, last = case, error
    tries = 0

    def still_fails(smaller: Case) -> bool:
        nonlocal small, last, tries
        tries += 1
        if tries > 200:
            return False
        try:
            judge(smaller, scratch)
        except Exception as found:
            small, last = smaller, found
            return True
        return False

    for damage in case.damages:
        still_fails(replace(small, damages=tuple(d for d in small.damages if d != damage)))
    length = len(stream_damage.film_of(seeds()[case.seed]).packets)
    while length > 1 and still_fails(replace(small, keep=max(1, length * 3 // 4))):
        length = max(1, length * 3 // 4)
    while length > 1 and still_fails(replace(small, keep=length - 1)):
        length -= 1
    if isinstance(last, WrongFrame):
        still_fails(replace(small, pattern=last.pattern))
        for index in small.pattern or ():
            fewer = tuple(i for i in small.pattern or () if i != index)
            if fewer:
                still_fails(replace(small, pattern=fewer))
    return small, last


def described(case: Case, error: Exception, scratch: Path, job: Job) -> str:
    """What a person does with a case that fails; its file is kept where `SAVE` names a folder."""
    seed = seeds()[case.seed]
    ending, data = made(case)
    lines = [
        f"smallest: {seed.codec} {seed.name}.{seed.ending} -> {ending}, {len(data)} bytes, "
        f"packets {case.keep or 'all'}",
        f"damages {case.damages}, reader {case.reader}, pattern {case.pattern}: {error}",
        "again: python tests/fuzz/fuzz_run.py --only video "
        f"--seed {job.seed} --number {job.number} --save FOLDER",
    ]
    if folder := os.environ.get(SAVE):
        Path(folder).mkdir(parents=True, exist_ok=True)
        file = Path(folder) / f"video_{job.seed}_{job.number}.{ending}"
        file.write_bytes(data)
        lines.append(f"kept: {file}")
    return "\n".join(lines)
