"""The report of runs shows what their files hold, as text, without a network."""

from __future__ import annotations

import base64
import io
import json
import shutil
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import ALONE, load_tool
from evaluations import write_evaluation
from PIL import Image

from vidadapt.commands import report
from vidadapt.evaluation import METRICS, confusion_matrix, judge, load_scores

VIEWS = ("--eval.num_clips", "2", "--eval.num_crops", "1")
VOID = {"meta", "img", "input", "source", "br"}


class Page(HTMLParser):
    """What a reader finds: texts by section, tables, pictures, data of the curves and matrices."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.texts: dict[str, str] = {"": ""}
        self.rows: list[list[str]] = []
        self.charts: list[dict[str, Any]] = []
        self.matrices: list[dict[str, Any]] = []
        self.pictures: list[Image.Image] = []
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self._sections = [""]
        self.feed(path.read_text(encoding="utf-8"))
        assert not self._open

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.tags.append(tag)
        if tag not in VOID:
            self._open.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "srcset", "action")]
        if tag == "section":
            self._sections.append(found.get("id", ""))
            self.texts.setdefault(self._sections[-1], "")
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "img":
            content = base64.b64decode(found["src"].removeprefix("data:image/webp;base64,"))
            self.pictures.append(Image.open(io.BytesIO(content)))
        if "data-chart" in found:
            self.charts.append(json.loads(found["data-chart"]))
        if "data-matrix" in found:
            self.matrices.append(json.loads(found["data-matrix"]))

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        assert self._open.pop() == tag
        if tag == "section":
            self._sections.pop()

    def handle_data(self, text):
        if self._open and self._open[-1] in ("script", "style"):
            return
        self.texts[self._sections[-1]] += text
        if "td" in self._open or "th" in self._open:
            self.rows[-1][-1] += text

    @property
    def text(self) -> str:
        return " ".join(self.texts.values())

    def values(self, key: str) -> list[str]:
        """The cells beside a row's heading."""
        return next(row[1:] for row in self.rows if row and row[0] == key)


def call(name: str, *arguments: object) -> None:
    """A tool in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [f"tools/{name}.py", *map(str, arguments)])
        load_tool(name).main(ALONE)


@pytest.fixture(scope="module")
def run(tiny_set, tmp_path_factory) -> Path:
    """Trained for three epochs with a rate that learns little, evaluated on two lists."""
    folder = tmp_path_factory.mktemp("reported") / "first"
    options = tiny_set.options(train__epochs=3, train__base_lr=0.001)
    call("train", *options, "--run_dir", folder)
    for split in ("test", "dev"):
        call("evaluate", "--run_dir", folder, "--split", split, *VIEWS)
    return folder


@pytest.fixture
def copied(run, tmp_path) -> Path:
    """A copy of the run, without its page."""
    folder = tmp_path / "copied"
    shutil.copytree(run, folder)
    (folder / "report.html").unlink()
    return folder


def written(folder: Path, *arguments: object) -> Page:
    """The page that the command writes."""
    out = folder.parent / "page.html"
    assert report.main([str(folder), "--out", str(out), *map(str, arguments)]) == 0
    return Page(out)


def results_of(run: Path) -> dict[str, dict[str, Any]]:
    return {
        path.parent.name: json.loads(path.read_text())
        for path in sorted(run.glob("*/metrics.json"))
    }


def test_training_and_evaluation_write_the_page_of_the_run(run):
    page, results = Page(run / "report.html"), results_of(run)
    assert len(results) == 2
    for name, one in results.items():
        assert name in page.text
        row = next(row for row in page.rows if row and row[0] == Path(one["list"]).name)
        assert [f"{one[key]:.2f}" for key in METRICS] == row[6 : 6 + len(METRICS)]
        assert one["views"] in row[2] and one["fusion"] == row[3]
        assert int(row[4]) == one["num_videos"]
    summary = json.loads((run / "summary.json").read_text())
    [parameters] = page.values("Parameters that train")
    assert f"{summary['trainable']:,}" in parameters and f"{summary['total']:,}" in parameters
    for split, manifest in summary["manifests"].items():
        [listed] = page.values(f"{split} list")
        assert manifest[:12] in listed and f"{summary['videos'][split]:,} videos" in listed
    assert summary["videos"]["train"] == 12
    peak = summary["peak_process_bytes"]
    assert peak > 4 * summary["total"]  # the parameters alone, in fp32
    assert page.values("Peak memory of a process") == [f"{peak / 1e9:.2f} GB"]
    assert page.values("train.epochs") == ["3"]


def test_the_curves_are_the_log(run):
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    charts = Page(run / "report.html").charts
    drawn = [
        [[row[2][place] for row in chart["rows"]] for place in range(len(chart["names"]))]
        for chart in charts
    ]
    of = {key: [line[key] for line in log] for key in log[0]}
    loss = [of["train_loss"], of["dev_loss"]]
    accuracy = [of[key] for key in ("train_top1", "dev_top1") if key in of]
    mean = [of["dev_mean_class_accuracy"]]
    assert drawn == [loss, accuracy, mean, [of["lr"]], [of["clips_per_second"]]]
    assert [row[0] for row in charts[0]["rows"]] == of["epoch"] == [1, 2, 3]


def test_confusions_and_mistakes_are_those_of_the_scores(run, tiny_set):
    page = Page(run / "report.html")
    names = ["red", "green", "blue"]
    for place, folder in enumerate(sorted(results_of(run))):
        scores, _ = load_scores(run / folder / "scores.npz")
        judged = judge(scores, "softmax")
        matrix = np.zeros((3, 3), int)
        for label, other, count in page.matrices[place]["cells"]:
            matrix[label, other] = count
        assert (matrix == confusion_matrix(judged)).all()
        assert page.matrices[place]["names"] == names
        wrong = np.flatnonzero(judged.ranks > 0)
        assert len(wrong), "the run was to make mistakes"
        for video in wrong.tolist():
            assert scores.paths[video] in page.texts[f"e0-{place}"]


def test_thumbnails_show_the_videos(run, tiny_set):
    pictures = Page(run / "report.html").pictures
    wrong = []
    for folder in sorted(results_of(run)):
        scores, _ = load_scores(run / folder / "scores.npz")
        judged = judge(scores, "softmax")
        chosen = np.flatnonzero(judged.ranks > 0)
        order = chosen[np.argsort(-judged.scores[chosen].max(axis=1), kind="stable")]
        wrong += judged.labels[order].tolist()
    assert len(pictures) == len(wrong) > 0
    for picture, label in zip(pictures, wrong, strict=True):
        assert picture.n_frames == 8
        picture.seek(4)
        colours = np.asarray(picture.convert("RGB")).mean(axis=(0, 1))
        assert colours.argmax() == label  # see `make_tiny_set`
    without = written(run, "--no_pictures")
    assert not without.pictures and "img" not in without.tags
    assert len(without.matrices) == 2


def test_videos_that_are_gone_are_listed(copied, tiny_set, tmp_path):
    videos = tmp_path / "videos"
    shutil.copytree(tiny_set.root, videos)
    out = tmp_path / "results"
    call(
        "evaluate", "--run_dir", copied, "--data.root", videos, "--out", out, *VIEWS,
        "--data.test_list", videos / "test.txt",
    )  # fmt: skip
    before = Page(out / "report.html")
    wrong = [path for path in sorted(videos.glob("test*.mp4")) if path.name in before.text]
    assert len(before.pictures) == len(wrong) >= 2
    wrong[0].write_bytes(b"no video")
    for path in wrong[1:]:
        path.unlink()
    after = written(out)
    assert not after.pictures and all(path.name in after.text for path in wrong)
    assert after.text.count("No such file") == len(wrong) - 1
    assert "Invalid data" in after.text


def test_nothing_is_fetched_and_names_are_text(tmp_path):
    names = ["<b>bold</b>", "</script><script>x()</script>", "a'\"&amp;b", "left\u202eright"]
    folder = tmp_path / "hostile"
    scores = write_evaluation(folder, names, num_videos=60, paths="<i>'{}\" & é.mp4")
    page = written(folder)
    assert {tag for tag in page.tags if tag in ("b", "i", "script", "link", "iframe")} == {
        *("b", "script")  # of the template
    }
    assert page.tags.count("script") == 1
    assert all(name in page.text for name in names[:3])
    assert "\u202e" not in page.text and "left\\u202eright" in page.text
    wrong = judge(scores, "softmax").ranks > 0
    assert any(path in page.text for path in np.array(scores.paths)[wrong])
    assert page.matrices[0]["names"][:3] == names[:3]
    outside = [
        one for one in page.addresses if not one.startswith(("data:image/webp;base64,", "#"))
    ]
    assert page.addresses and not outside


def test_every_class_and_every_unreadable_video_is_listed(tmp_path):
    names = [f"class of {number:03d}" for number in range(174)]
    scores = write_evaluation(tmp_path / "many", names, num_videos=900)
    page, ranks = written(tmp_path / "many"), judge(scores, "softmax").ranks
    listed = {row[1]: row for row in page.rows if len(row) == 5 and row[1] in names}
    assert len(listed) == 174
    for label, name in enumerate(names):
        mine = scores.labels == label
        assert int(listed[name][2]) == mine.sum()
        assert float(listed[name][3]) == pytest.approx(100 * (ranks[mine] == 0).mean(), abs=0.06)
    assert all(f"{path}: {why}" in page.text for path, why in scores.errors.items())


def test_runs_side_by_side_and_what_differs(run, copied, tmp_path):
    text = (copied / "config.yaml").read_text()
    changed = text.replace("base_lr: 0.001", "base_lr: 0.5").replace("epochs: 3", "epochs: 90")
    assert changed.count("0.5") > text.count("0.5")
    (copied / "config.yaml").write_text(changed)
    (copied / "summary.json").unlink()
    out = tmp_path / "both.html"
    assert report.main([str(run), str(copied), "--out", str(out)]) == 0
    page = Page(out)
    [different] = [text for section, text in page.texts.items() if section == "differences"]
    assert all(key in different for key in ("train.base_lr", "train.epochs"))
    assert "data.root" not in different and "train.seed" not in different
    assert page.values("train.base_lr")[:2] == ["0.001", "0.5"]
    assert [chart["names"] for chart in page.charts][-1] == ["first", "copied"]
    assert len(page.matrices) == 4
    assert "copied: the run has not ended" in page.text
    with pytest.raises(ValueError, match="--out"):
        report.main([str(run), str(copied)])


def test_a_failed_run_says_why(copied):
    (copied / "summary.json").unlink()
    failure = {"kind": "diverged", "message": "the loss of step 12 is nan"}
    (copied / "failure.json").write_text(json.dumps(failure))
    assert "the loss of step 12 is nan" in written(copied).text


def test_older_runs_without_newer_keys_are_shown(copied):
    lines = [json.loads(line) for line in (copied / "log.jsonl").read_text().splitlines()]
    kept = [{key: line[key] for key in ("epoch", "train_loss", "lr")} for line in lines]
    (copied / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept))
    for path in copied.glob("*/metrics.json"):
        results = json.loads(path.read_text())
        del results["root"], results["loss"]
        path.write_text(json.dumps(results))
    (copied / "environment.json").unlink()
    page = written(copied)
    assert [chart["names"] for chart in page.charts] == [["train"], ["Learning rate"]]
    assert len(page.matrices) == 2 and page.pictures


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("log.jsonl", '{"epoch": 1}\n[]\n{"epoch": 2}\n'),
        ("summary.json", "{"),
        ("config.yaml", "1"),
    ],
)
def test_a_damaged_file_is_named(copied, file, text):
    (copied / file).write_text(text)
    with pytest.raises(ValueError, match=str(copied / file)):
        report.main([str(copied)])
    assert not (copied / "report.html").exists()


def test_a_half_written_last_line_is_no_damage(copied):
    with (copied / "log.jsonl").open("a") as file:
        file.write('{"epoch": 4, "train_lo')
    assert [row[0] for row in written(copied).charts[0]["rows"]] == [1, 2, 3]


def test_damaged_results_are_named_beside_the_others(copied):
    broken = next(iter(copied.glob("*/scores.npz")))
    broken.write_bytes(b"PK")
    page = written(copied)
    assert str(broken.parent / "metrics.json") in page.text
    assert len(page.matrices) == 1


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(ValueError, match=str(tmp_path)):
        report.main([str(tmp_path)])


def test_a_page_that_cannot_be_written_fails_nothing(copied, capsys):
    (copied / "report.html").mkdir()
    call("evaluate", "--run_dir", copied, "--split", "dev", *VIEWS)
    assert str(copied / "report.html") in capsys.readouterr().out
    assert list((copied / "report.html").iterdir()) == []
    assert not list(copied.glob("*/failure.json"))


def test_scores_alone_get_a_page_with_the_fusion_asked_for(run, tmp_path):
    scores = next(iter(run.glob("*test*/scores.npz")))
    out = tmp_path / "again"
    call("evaluate", "--from_scores", scores, "--eval.fusion", "logits", "--out", out)
    page = Page(out / "report.html")
    assert len(page.matrices) == 1
    assert any("logits" in row for row in page.rows)
    assert (out / "predictions.csv").is_file() and (out / "confusion.csv").is_file()
