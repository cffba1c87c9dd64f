"""The bounded part of fuzz_run.py: a few hundred inputs of a fixed seed."""

import io
from fractions import Fraction

import av
import container_damage
import fuzz_images
import fuzz_videos
import image_damage
import numpy as np
import pytest
import stream_damage
from fuzz_attempts import RIGHT, Defect, Job, Tally, attempt, campaign, judged
from fuzz_kinds import KINDS
from fuzz_videos import Case, judge, made, patterns, read_in_patterns, slow_decode
from PIL import Image
from seed_images import seed_images
from seed_videos import RECIPES, seeds

from vidadapt.video import images, open_video

JOBS = {"list": 4, "names": 2, "video": 80, "flips": 12}  # of the others one each


@pytest.mark.slow
def test_no_input_does_worse_than_a_documented_error():
    jobs = [Job(name, 0, number) for name in KINDS for number in range(JOBS.get(name, 1))]
    found = {name: Tally() for name in KINDS}
    for job, tally in campaign(jobs, 1):
        found[job.kind].add(tally)
        assert not tally.defects, tally.defects[0]
    for name, tally in found.items():
        assert tally.outcomes.total() == KINDS[name].per_job * JOBS.get(name, 1)
        assert len(tally.outcomes) > 1, f"{name}: every input is {tally.outcomes}"
    videos = found["video"].outcomes
    assert videos[RIGHT] >= 0.6 * videos.total(), f"the damage is too much: {videos}"


@pytest.mark.parametrize("name", fuzz_videos.SHARES)
def test_each_damage_changes_videos_most_of_which_still_decode(tmp_path, name):
    changed = decodable = 0
    for place, seed in enumerate(seeds()[: len(RECIPES)]):
        ending, data = made(Case(place, ((name, place),), "auto", 0))
        if data != seed.data:
            (tmp_path / f"v.{ending}").write_bytes(data)
            changed, decodable = (
                changed + 1,
                decodable + bool(slow_decode(tmp_path / f"v.{ending}")),
            )
    assert changed >= 3 and decodable > changed / 2


def test_images_are_refused_or_exact_in_this_process_and_in_another():
    tally = attempt(Job("image", 0, 0))
    assert not tally.defects, tally.defects[0]
    assert tally.outcomes[RIGHT] >= 5 and tally.outcomes["ReadError"] >= 5


def test_whole_images_of_every_kind_are_what_pillow_reads_or_refused(tmp_path):
    endings = {"gif": "gif", "jpeg": "mjpeg"}  # of those that are videos
    for place, seed in enumerate(seed_images()):
        file = tmp_path / f"{place}.{endings.get(seed.kind, 'bin')}"
        file.write_bytes(seed.data)
        outcome = fuzz_images.judge(fuzz_images.Case(place, place, (), ""), file)
        assert (outcome == "video") == (seed.end == "video"), f"{seed.kind}, {seed.name}"


@pytest.mark.parametrize("name", image_damage.DAMAGES)
def test_each_damage_changes_images(name):
    case = fuzz_images.Case
    changed = [
        fuzz_images.made(case(place, 0, ((name, place),), "")) != seed.data
        for place, seed in enumerate(seed_images())
    ]
    assert sum(changed) > len(changed) / 2


@pytest.mark.parametrize("wrong", ["pixels", "turn", "a part missing"])
def test_a_wrong_image_is_found(tmp_path, monkeypatch, wrong):
    names = [seed.name for seed in seed_images()]
    place = names.index("orientation 6")
    damages, file = (), tmp_path / "a.jpg"
    content = seed_images()[place].data
    if wrong == "pixels":
        honest = images.decoded_jpeg
        monkeypatch.setattr(images, "decoded_jpeg", lambda data: honest(data) ^ 1)
    elif wrong == "turn":
        monkeypatch.setitem(images.UPRIGHT, 6, (False, 1))
    else:  # of the picture that was whole
        damages = (("truncated", 0),)
        content = seed_images()[names.index("4:4:4")].data
    file.write_bytes(content)
    with pytest.raises(Defect):
        fuzz_images.judge(fuzz_images.Case(place, place, damages, "jpg"), file)


def test_every_damage_is_drawn():
    assert {*stream_damage.DAMAGES, *container_damage.DAMAGES} == set(fuzz_videos.SHARES)


def test_a_file_is_read_in_many_patterns_that_meet_every_frame():
    drawn = list(patterns(np.random.default_rng(0), 9, 60))
    assert len(drawn) == 60 and {index for wanted in drawn for index in wanted} == set(range(9))


@pytest.mark.parametrize(
    ("name", "codec", "ending", "damage", "number"),
    [
        # What earlier frames leave in the decoder's memory shows in damaged ones.
        *[
            ("all", "mjpeg", "avi", "payload", 829787472),
            ("alpha", "ffv1", "mkv", "lost", 470160091),
        ],
        # A message turns frames on their side in the middle of a film.
        *[("short groups", "h264", "mov", "turned", number) for number in range(8)],
        *[("4:4:4", "h264", "mp4", "old encoder", number) for number in range(4)],
    ],
)
def test_cases_that_were_hard(tmp_path, name, codec, ending, damage, number):
    (place,) = (
        i for i, s in enumerate(seeds()) if (s.name, s.codec, s.ending) == (name, codec, ending)
    )
    for reader in ("auto", "pyav", "pyav_sparse", "decord"):
        judge(Case(place, ((damage, number),), reader, 0), tmp_path)


def test_a_turn_in_the_data_of_photographs_is_applied(tmp_path):
    about, data = Image.Exif(), io.BytesIO()
    about[0x112] = 6  # orientation: a quarter to the right
    bright_top = np.repeat(np.uint8([255] * 24 + [0] * 24), 64 * 3).reshape(48, 64, 3)
    Image.fromarray(bright_top).save(data, "JPEG", exif=about)
    with av.open(str(tmp_path / "v.avi"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuvj420p"
        for number in range(3):
            packet = av.Packet(data.getvalue())
            packet.pts = packet.dts = number
            packet.time_base, packet.stream = Fraction(1, 25), stream
            container.mux_one(packet)
    read_in_patterns(tmp_path / "v.avi", "auto", 0)
    with open_video(tmp_path / "v.avi") as video:
        (frame,) = video.frames([0])
    assert frame.shape == (64, 48, 3) and frame[:, 36:].mean() > 200 > 50 > frame[:, :12].mean()


def test_a_wrong_frame_is_found_and_its_case_made_small(monkeypatch):
    right = fuzz_videos.slow_decode

    def exchanged(path):
        frames = right(path)
        if len(frames) > 4:
            frames[3], frames[4] = frames[4], frames[3]
        return frames

    monkeypatch.setattr(fuzz_videos, "slow_decode", exchanged)
    jobs = (Job("video", 1, number) for number in range(99))
    damaged = (job for job in jobs if len(fuzz_videos.drawn(job.rng()).damages) > 1)
    defects = next(defects for job in damaged if (defects := attempt(job).defects))
    assert "WrongFrame" in defects[0]
    assert "packets 5\n" in defects[0] and "damages ()" in defects[0]
    assert "pattern (3,)" in defects[0] or "pattern (4,)" in defects[0]


def test_the_same_job_has_the_same_outcome():
    job = Job("scores", 3, 0)
    assert attempt(job).outcomes == attempt(job).outcomes != attempt(Job("scores", 4, 0)).outcomes
    video = fuzz_videos.drawn(Job("video", 3, 5).rng())
    assert made(video) == made(fuzz_videos.drawn(Job("video", 3, 5).rng()))


def test_what_is_not_documented_is_a_defect():
    def fails(error):
        raise error

    assert judged(lambda: 5, (ValueError,)) == ("right", 5)
    assert (
        judged(lambda: fails(ValueError("a.txt: bad")), (ValueError,), "a.txt")[0] == "ValueError"
    )
    for error in (
        ValueError(""),
        ValueError("b.txt"),
        ValueError("a.txt \x1b"),
        UnicodeError("a.txt"),
    ):
        with pytest.raises(Defect):
            judged(lambda error=error: fails(error), (ValueError,), "a.txt")
    with pytest.raises(KeyError):
        judged(lambda: fails(KeyError("a.txt")), (ValueError,), "a.txt")
    assert attempt(Job("no such kind", 0, 0)).defects
