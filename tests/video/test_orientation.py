"""Turned and mirrored videos, against the geometry of their display matrix."""

import struct
from pathlib import Path

import numpy as np
import pytest
from encoded import X264, decode_with_pyav, numbered, shown, write
from test_readers import available_readers

from vidadapt.video import open_counted, open_video
from vidadapt.video.survey import survey

FAULTS = Path(__file__).parents[3] / "shared" / "faults"
ONE = 1 << 16
MATRICES = {  # a, b, c, d of x' = a x + c y, y' = b x + d y
    "upright": (ONE, 0, 0, ONE),
    "mirrored": (-ONE, 0, 0, ONE),
    "upside down and mirrored": (ONE, 0, 0, -ONE),
    "upside down": (-ONE, 0, 0, -ONE),
    "right": (0, ONE, -ONE, 0),
    "left": (0, -ONE, ONE, 0),
    "transposed": (0, ONE, ONE, 0),
    "transposed upside down": (0, -ONE, -ONE, 0),
}
FLIPS = {
    "upright": lambda base: base,
    "mirrored": np.fliplr,
    "upside down and mirrored": np.flipud,
    "upside down": lambda base: np.rot90(base, 2),
    "right": lambda base: np.rot90(base, -1),
    "left": np.rot90,
    "transposed": lambda base: base.swapaxes(0, 1),
    "transposed upside down": lambda base: np.rot90(base.swapaxes(0, 1), 2),
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("base") / "base.mp4"
    return write(path, "libx264", {"x264-params": X264}, numbered(14))


def with_matrix(base: Path, target: Path, abcd: tuple[int, int, int, int]) -> Path:
    """A copy of an mp4 whose track header holds another display matrix."""
    data, (a, b, c, d) = bytearray(base.read_bytes()), abcd
    at = data.index(b"tkhd") + 44
    data[at : at + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("name", MATRICES)
def test_all_orientations_are_applied_by_every_reader(
    base: Path, tmp_path: Path, name: str
) -> None:
    path = with_matrix(base, tmp_path / "turned.mp4", MATRICES[name])
    expected = [FLIPS[name](frame) for frame in decode_with_pyav(base)]
    a, b, c, d = MATRICES[name]
    geometry = [shown(frame, (a, b, 0, c, d)) for frame in decode_with_pyav(base)]
    assert all(np.array_equal(*pair) for pair in zip(expected, geometry, strict=True))
    look = survey(str(path))
    assert (look.height, look.width) == expected[0].shape[:2]
    for reader in available_readers():
        with open_video(path, reader) as video:
            assert np.array_equal(video.frames(range(14)), np.stack(expected)), reader
            facts = video.facts
        with open_counted(path, facts) as video:
            assert np.array_equal(video.frames([13, 5]), np.stack([expected[13], expected[5]]))
            assert video.changed == ""


@pytest.mark.parametrize(
    "matrix",
    [
        (0, 0, 0, 0),  # shows nothing
        (46341, 46341, -46341, 46341),  # by 45 degrees
        (65526, 1144, -1144, 65526),  # by 1 degree
    ],
)
def test_other_matrices_change_nothing(
    base: Path, tmp_path: Path, matrix: tuple[int, int, int, int]
) -> None:
    path = with_matrix(base, tmp_path / "odd.mp4", matrix)
    with open_video(path) as video:
        assert np.array_equal(video.frames(range(14)), np.stack(decode_with_pyav(base)))


def test_scaled_and_slightly_turned_matrices_are_those_of_the_next_quarter(
    base: Path, tmp_path: Path
) -> None:
    matrix = (200, 2 * ONE, -ONE, 100)  # less than half a degree from a quarter to the right
    path = with_matrix(base, tmp_path / "nearly.mp4", matrix)
    expected = [np.rot90(frame, -1) for frame in decode_with_pyav(base)]
    with open_video(path) as video:
        assert np.array_equal(video.frames(range(14)), np.stack(expected))


@pytest.mark.skipif(not FAULTS.is_dir(), reason="needs the files of ../shared/faults")
@pytest.mark.parametrize("reader", available_readers())
def test_mirrored_films_show_left_and_right_as_meant(reader: str) -> None:
    upright = decode_with_pyav(FAULTS / "mirrored_base.mp4")
    for name, flip in (("hflip", FLIPS["mirrored"]), ("transpose", FLIPS["transposed"])):
        with open_video(FAULTS / f"mirrored_{name}.mp4", reader) as video:
            found = video.frames(range(len(upright)))
        assert np.array_equal(found, np.stack([flip(frame) for frame in upright]))
