"""The page and the picture show what a training sees, and leave nothing out in silence."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from conftest import launch, load_tool
from PIL import Image

from vidadapt import data
from vidadapt.apps.synthetic import write_video
from vidadapt.config import Config, ConfigError, DataConfig, EvalConfig, yaml_files
from vidadapt.data.transforms import cut_views
from vidadapt.lists import ListError, Prepared, Sample, read_list, write_list, write_prepared

pytestmark = pytest.mark.slow  # whole commands

COLOURS = {0: (200, 40, 40), 1: (40, 180, 40), 3: (50, 50, 210)}
NAMES = [
    '<b>"Pushing" & pulling</b>',
    "brush_hair's été",
    "never filmed",
    "</script> 走る",
    "spare",
]
NASTY = """videos/it's <i>"odd" & [x]#é.mp4"""
FIRST, STEP = 16, 6  # grey of a frame: FIRST + STEP x its index


@dataclass
class Figure:
    path: str
    kind: str
    key: tuple[str, str]
    frames: np.ndarray = field(default_factory=lambda: np.zeros(0))
    indices: list[int] = field(default_factory=list)


class Page(HTMLParser):
    """What a reader of a page finds, by an independent parser."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.figures: list[Figure] = []
        self.sections: dict[str, str] = {}
        self.addresses: list[str] = []
        self.tags: set[str] = set()
        self._path, self._section, self._item = "", "", False
        self.feed(self.source)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.add(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "srcset", "action")]
        if tag == "section":
            self._section = found["id"]
            self.sections[self._section] = ""
        elif tag == "article":
            self._path = found.get("data-path", "")
        elif tag == "figure":
            key = (found["data-epoch"], found["data-copy"])
            self.figures.append(Figure(self._path, found["data-view"], key))
        elif tag == "img":
            content = base64.b64decode(found["src"].removeprefix("data:image/webp;base64,"))
            strip = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
            side = len(strip)
            frames = strip.reshape(side, -1, side, 3).transpose(1, 0, 2, 3)
            self.figures[-1].frames = frames.astype(float)
        self._item = tag == "li"

    def handle_endtag(self, tag):
        if tag == "section":
            self._section = ""

    def handle_data(self, text):
        if self._section:
            self.sections[self._section] += text
        if self._item and self._path and text.isdigit():
            self.figures[-1].indices.append(int(text))


def browse(capsys, *arguments: object) -> tuple[int, str]:
    status = load_tool("browse").main([*map(str, arguments), "--data.num_workers", "0"])
    return status, capsys.readouterr().out


def scene(label: int, number: int) -> np.ndarray:
    """A square that moves over a shaded ground of the class's colour; (T, 48, 64, 3)."""
    shade = np.linspace(0.6, 1.1, 64)[None, None, :, None]
    frames = np.broadcast_to(np.array(COLOURS[label]) * shade, (20 + number, 48, 64, 3)).copy()
    for index, frame in enumerate(frames):
        frame[8 + number * 4 : 24 + number * 4, 2 * index : 2 * index + 12] = 230
    return frames.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Three videos of classes 0, 1 and 3 each, none of 2 and 4; class 1 has two broken ones."""
    root = tmp_path_factory.mktemp("browse")
    (root / "videos").mkdir()
    (root / "videos" / "text.mp4").write_text("no video")
    samples = [Sample("videos/text.mp4", 1), Sample("videos/gone.mp4", 1)]
    for label in COLOURS:
        for number in range(3):
            path = NASTY if (label, number) == (0, 0) else f"videos/{label}_{number}.mp4"
            write_video(root / path, scene(label, number), 10)
            samples.append(Sample(path, label))
    write_list(root / "train.txt", samples)
    (root / "labels.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8")
    return root


OPTIONS = {
    "num_frames": 4,
    "crop_size": 40,
    "flip": True,
    "rand_augment": True,
    "random_erasing": 0.5,
    "repeated_augmentation": 2,
}


def given() -> list[str]:
    return [word for key, value in OPTIONS.items() for word in (f"--data.{key}", str(value))]


@pytest.fixture(scope="module")
def seen(folder, tmp_path_factory) -> tuple[Path, str]:
    """A look at two epochs by the command, and what it said; its status is 1 for broken videos."""
    out = tmp_path_factory.mktemp("seen")
    done = launch(
        "browse", folder / "train.txt", "--data.root", folder, *given(), "--train.seed", 5,
        "--epochs", 2, "--out", out, "--data.num_workers", 1, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    return out, done.stdout


def test_every_view_is_what_the_loaders_of_a_training_give(folder, seen):
    settings = DataConfig(
        root=str(folder), label_names=str(folder / "labels.txt"), num_workers=0,
        max_unreadable=9, check_files=False, **OPTIONS,
    )  # fmt: skip
    plan = data.resolve(settings, EvalConfig())
    samples = read_list(folder / "train.txt", folder, plan.num_classes)
    videos = data.load_list(settings, plan, folder / "train.txt", samples, training=True)
    loader = data.train_loader(settings, plan, videos, batch_size=2, seed=5)
    reference: dict[str, dict[tuple[str, str], np.ndarray]] = {s.path: {} for s in videos.samples}
    for epoch in range(2):
        loader.batch_sampler.set_epoch(epoch)
        for batch in loader:
            for index, clip in zip(batch["index"], batch["clip"], strict=True):
                mine = reference[videos.samples[int(index)].path]
                copy = sum(key[0] == str(epoch) for key in mine)
                mine[str(epoch), str(copy)] = clip.permute(1, 2, 3, 0).numpy()
    for item in data.eval_loader(settings, plan, videos, num_clips=1, num_crops=1):
        mine = reference[videos.samples[int(item["index"])].path]
        view = cut_views(item["frames"], item["clips"], item["corners"])[0]
        mine["None", "None"] = view.permute(1, 2, 3, 0).numpy()

    figures = Page(seen[0] / "index.html").figures
    assert len(figures) == 9 * 5
    assert {figure.path for figure in figures} == set(reference)
    for figure in figures:
        clips = reference[figure.path]
        away = {key: abs(figure.frames - clip).mean() for key, clip in clips.items()}
        others = [value for key, value in away.items() if key != figure.key]
        # WebP blurs strong colours and the noise of erasing, which covers less than half a frame.
        assert np.median(abs(figure.frames - clips[figure.key])) < 10, (figure.path, figure.key)
        assert away[figure.key] < min(others) / 2, (figure.path, figure.key, away)
        assert (figure.kind == "validation") == (figure.key == ("None", "None"))


@pytest.mark.parametrize("sampling", ["adaptformer", "uniform8", "videomae_ssv2"])
def test_the_indices_shown_are_those_of_the_frames(sampling, tmp_path, capsys):
    for number, length in enumerate((36, 5)):
        levels = FIRST + STEP * np.arange(length)[:, None, None, None]
        frames = np.broadcast_to(levels, (length, 32, 32, 3)).astype(np.uint8)
        write_video(tmp_path / f"{number}.mp4", frames, 5)
    (tmp_path / "list.txt").write_text("0.mp4 0\n1.mp4 0\n")
    status, _ = browse(
        capsys, tmp_path / "list.txt", "--data.root", tmp_path, "--data.sampling", sampling,
        "--data.crop_size", 32, "--epochs", 3, "--out", tmp_path / "out",
    )  # fmt: skip
    figures = Page(tmp_path / "out" / "index.html").figures
    assert status == 0 and len(figures) == 8
    for figure in figures:
        levels = figure.frames.mean(axis=(1, 2, 3))
        assert figure.indices == np.rint((levels - FIRST) / STEP).astype(int).tolist()
    assert len({tuple(figure.indices) for figure in figures}) > 2


def test_every_class_and_every_broken_video_stands_on_the_page(folder, seen):
    page = Page(seen[0] / "index.html")
    assert list(page.sections) == [f"c{label}" for label in range(5)]
    for label, name in enumerate(NAMES):
        assert name in page.sections[f"c{label}"]
    assert "5 videos, 2 broken" in page.sections["c1"]
    assert "3 videos" in page.sections["c3"] and "broken" not in page.sections["c3"]
    for label in (2, 4):
        assert "No video of this class" in page.sections[f"c{label}"]
    assert re.search(r"videos/text\.mp4 \w+", page.sections["c1"])
    assert "videos/gone.mp4 No such file" in page.sections["c1"]
    assert str(folder) not in page.sections["c1"]  # named beside the cause already
    assert "5 classes, 9 videos in 45 views, 2 broken" in seen[1]
    assert str(seen[0] / "index.html") in seen[1] and str(seen[0] / "sheet.png") in seen[1]
    assert "2 of 11 videos are missing or cannot be read" in seen[1]


def test_names_are_text_and_nothing_is_fetched(seen):
    page = Page(seen[0] / "index.html")
    assert NASTY in {figure.path for figure in page.figures}
    assert "i" not in page.tags and page.source.count("</script>") == 1
    assert page.addresses and all(a.startswith(("data:image/", "#")) for a in page.addresses)
    assert not re.search(r"https?://|@import|url\(", page.source)
    assert "default-src 'none'" in page.source


def test_the_picture_shows_the_classes_in_their_order(folder, tmp_path, capsys):
    browse(
        capsys, folder / "train.txt", "--data.root", folder, "--data.crop_size", 40,
        "--out", tmp_path,
    )  # fmt: skip
    picture = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB")).astype(int)
    rows = []
    for colour in COLOURS.values():
        near = abs(picture - np.array(colour) * 0.9).max(axis=2) < 24
        found = np.flatnonzero(near.sum(axis=1) > 150)  # not red text
        assert len(found) > 30
        rows.append((found[0], found[-1]))
    assert rows[0][1] < rows[1][0] and rows[1][1] < rows[2][0]


def test_a_long_list_takes_several_pictures_and_old_ones_go(folder, tmp_path, capsys):
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"action {number}" for number in range(200)))
    (tmp_path / "some.txt").write_text("videos/0_1.mp4 0\nvideos/1_1.mp4 199\nvideos/gone.mp4 7\n")
    common = [tmp_path / "some.txt", "--data.root", folder, "--data.label_names", names]
    common += ["--data.crop_size", 32, "--no-evaluation", "--out", tmp_path / "out"]
    browse(capsys, *common)
    assert (tmp_path / "out" / "sheet-2.png").is_file()
    status, said = browse(capsys, *common, "--classes", 3)
    assert status == 1
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"index.html", "sheet.png"}
    assert "first 3 of 200 classes" in said and "1 of the broken videos are in the classes" in said
    page = Page(tmp_path / "out" / "index.html")
    assert list(page.sections) == ["c0", "c1", "c2"]
    assert [figure.kind for figure in page.figures] == ["training"]


def test_a_list_without_label_names(folder, tmp_path, capsys):
    (tmp_path / "plain.csv").write_text("videos/0_1.mp4,0\nvideos/3_1.mp4,2\n")
    status, said = browse(
        capsys, tmp_path / "plain.csv", "--data.root", folder, "--data.crop_size", 32,
        "--out", tmp_path,
    )  # fmt: skip
    page = Page(tmp_path / "index.html")
    assert status == 0 and "3 classes, 2 videos in 4 views, 0 broken" in said
    assert [text.split()[:2] for text in page.sections.values()] == [
        ["class", "0"], ["class", "1"], ["class", "2"],
    ]  # fmt: skip


def test_a_broken_video_is_replaced_by_another_and_the_rest_of_the_choice_stays(
    folder, tmp_path, capsys
):
    files = [f"{label}_{number}.mp4" for label in (1, 3) for number in range(3)]
    files += [f"text_{number}.mp4" for number in range(4)]
    for file in files:
        source = folder / "videos" / ("text.mp4" if "text" in file else file)
        (tmp_path / file).symlink_to(source)
    write_list(tmp_path / "some.txt", [Sample(file, 0) for file in files])
    common = [tmp_path / "some.txt", "--data.root", tmp_path, "--data.crop_size", 32]
    for attempt in range(2):  # the second time the index knows which are broken
        status, _ = browse(
            capsys, *common, "--clips-per-class", 5, "--out", tmp_path / str(attempt)
        )
        assert status == 1
    first, second = (Page(tmp_path / name / "index.html") for name in "01")
    assert len(first.figures) == 10
    assert [f.path for f in first.figures] == [f.path for f in second.figures]


def test_quarantined_videos_are_never_opened_and_said_to_be(folder, tmp_path, capsys):
    (tmp_path / "some.txt").write_text("videos/0_1.mp4 0\nvideos/0_2.mp4 0\n")
    (tmp_path / "bad.txt").write_text("videos/0_1.mp4\tnothing moves\n")
    status, said = browse(
        capsys, tmp_path / "some.txt", "--data.root", folder, "--data.crop_size", 32,
        "--data.quarantine", tmp_path / "bad.txt", "--out", tmp_path,
    )  # fmt: skip
    page = Page(tmp_path / "index.html")
    assert status == 1 and {figure.path for figure in page.figures} == {"videos/0_2.mp4"}
    assert "nothing moves" in page.sections["c0"] and "quarantined by" in page.sections["c0"]
    assert "1 of 2 videos are quarantined by" in said and "Training stops" not in said


def test_a_prepared_folder_says_where_the_videos_are(folder, tmp_path, capsys):
    (tmp_path / "train.txt").write_text("videos/1_0.mp4 1\n")
    names = "\n".join(f"name {number}" for number in range(174))
    (tmp_path / "labels.txt").write_text(names)
    lists = {"train": "train.txt"}
    write_prepared(tmp_path, Prepared("ssv2", str(folder), lists, "labels.txt", {}, {}))
    status, _ = browse(capsys, tmp_path / "train.txt", "--classes", 2, "--out", tmp_path / "out")
    page = Page(tmp_path / "out" / "index.html")
    assert status == 0 and len(page.figures) == 2
    assert len(page.figures[0].indices) == 8 and "name 1" in page.sections["c1"]  # ssv2's preset
    with pytest.raises(ValueError, match=r"data.flip must not be true for ssv2"):
        browse(capsys, tmp_path / "train.txt", "--data.flip", "true", "--out", tmp_path / "out")


def test_the_configuration_of_a_run_can_be_given(folder, tmp_path, capsys):
    cfg = Config(run_dir="runs/mine", data=DataConfig(root=str(folder), crop_size=32, num_frames=3))
    (tmp_path / "config.yaml").write_text(yaml_files.dump(cfg))
    status, _ = browse(
        capsys, folder / "train.txt", "--config", tmp_path / "config.yaml", "--out", tmp_path,
        "--clips-per-class", 1, "--data.num_frames", 2,
    )  # fmt: skip
    figures = Page(tmp_path / "index.html").figures
    assert status == 1 and len(figures) == 6
    assert all(figure.frames.shape == (2, 32, 32, 3) for figure in figures)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (["--clips-per-class", "0"], ConfigError, "--clips_per_class: expected 1 or more"),
        (["--train.seed", "-1"], ConfigError, "train.seed: expected 0 or more"),
        (["--data.crop_sise", "3"], ConfigError, "crop_size"),
        (["--data.sampling", "uniform9"], ValueError, "uniform8"),
    ],
)
def test_what_cannot_be_meant_is_refused(folder, tmp_path, capsys, arguments, error, message):
    with pytest.raises(error, match=message):
        browse(
            capsys, folder / "train.txt", "--data.root", folder, "--out", tmp_path / "out",
            *arguments,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()


def test_lines_that_cannot_be_used_and_a_wrong_root_are_said(folder, tmp_path, capsys):
    (tmp_path / "slip.txt").write_text("videos/0_1.mp4 0\nvideos/1_1.mp4 one\n")
    with pytest.raises(ListError, match=r"slip.txt:2"):
        browse(capsys, tmp_path / "slip.txt", "--data.root", folder, "--out", tmp_path)
    status, said = browse(
        capsys, folder / "train.txt", "--data.root", tmp_path, "--out", tmp_path / "out"
    )
    assert status == 1 and "is data.root" in said
    page = Page(tmp_path / "out" / "index.html")
    assert not page.figures and "5 videos, 5 broken" in page.sections["c1"]
