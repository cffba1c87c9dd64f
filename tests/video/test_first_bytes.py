"""Files that are no videos, and videos that end early: the message says which, and no less."""

from pathlib import Path

import pytest
from encoded import numbered, write

from vidadapt.video import open_video
from vidadapt.video.sequential import ReadError, open_container
from vidadapt.video.survey import survey


def error_of(path: Path) -> str:
    with pytest.raises(ReadError) as caught:
        open_container(str(path))
    assert str(caught.value).startswith(f"{path}: ")
    return str(caught.value)


@pytest.fixture(scope="module")
def mp4(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "a.mp4"
    write(path, "libx264", {}, numbered(24))
    return path.read_bytes()


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_phone_video_that_is_still_uploading_says_that_its_end_is_missing(
    mp4: bytes, share: float, tmp_path: Path
) -> None:
    path = tmp_path / "a.mov"
    path.write_bytes(mp4[: int(len(mp4) * share)])
    assert "moov" in error_of(path)


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (b"", "empty"),
        (b"\0" * 9000, "zeros"),
        (b"\0\5\26\7\0\2\0\0Mac OS X        " + bytes(4000), "AppleDouble"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"<html><body>Not found</body></html>", "text"),
    ],
)
def test_what_is_no_video_is_told_by_its_bytes_whatever_it_is_called(
    content: bytes, word: str, tmp_path: Path
) -> None:
    path = tmp_path / "IMG_0001.MOV"
    path.write_bytes(content)
    assert word in error_of(path)


@pytest.mark.parametrize("ending", ["mkv", "webm"])
def test_a_part_of_a_matroska_file_is_truncated_and_a_whole_one_is_not(
    ending: str, tmp_path: Path
) -> None:
    path = tmp_path / f"a.{ending}"
    write(path, {"mkv": "libx264", "webm": "libvpx-vp9"}[ending], {}, numbered(60))
    assert not survey(str(path)).truncated
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    facts = survey(str(path))
    assert 0 < facts.num_frames < 59
    assert f"{len(content):,}" in facts.truncated and str(facts.num_frames) in facts.truncated
    assert len(open_video(str(path)).frames(range(facts.num_frames))) == facts.num_frames
