"""The report in a real browser: no script error, no overlapping text, its parts can be used."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from evaluations import write_evaluation
from in_browser import OVERLAPS, opened, parts

from vidadapt.apps.report import write_timeline_page
from vidadapt.apps.report.run_report import write_report
from vidadapt.apps.synthetic import write_video
from vidadapt.config import Config, yaml_files
from vidadapt.evaluation import confusion_matrix, judge
from vidadapt.serving import GivenVideo
from vidadapt.serving.film_command import Seen
from vidadapt.serving.timeline import Run
from vidadapt.video import open_film

pytestmark = [pytest.mark.browser, pytest.mark.slow]

WIDTHS = (380, 1400)
NAMES = [
    f"{verb} something {how}"
    for verb in ("Pushing", "Pulling", "Lifting", "Dropping", "Turning", "Covering", "Showing")
    for how in ("from left to right", "so that it falls over", "behind something else", "slowly")
]


@pytest.fixture(scope="module")
def pages(tmp_path_factory) -> dict[str, Path]:
    """Pages of a run with 28 classes, of three runs side by side, and of 174 classes."""
    folder = tmp_path_factory.mktemp("pages")
    runs = [make_run(folder / name, rate) for name, rate in RATES.items()]
    write_evaluation(folder / "ssv2", [*NAMES, *map(str, range(146))], num_videos=2000)
    return {
        "run": write_report(runs[:1], None),
        "runs": write_report(runs, folder / "runs.html"),
        "many": write_report([folder / "ssv2"], None),
    }


RATES = {"adaptformer_of_a_long_name_for_a_narrow_screen": 0.1, "linear": 0.02, "lora": 0.005}


def make_run(folder: Path, rate: float) -> Path:
    """The files of a run of twelve epochs."""
    cfg = Config(str(folder))
    folder.mkdir()
    text = yaml_files.dump(cfg).replace("base_lr: 0.1", f"base_lr: {rate}")
    (folder / "config.yaml").write_text(text)
    (folder / "environment.json").write_text('{"python": "3.11.2", "device": "cpu"}')
    lines = [
        {
            "epoch": epoch,
            "train_loss": 3.3 * (1 - rate) ** epoch,
            "dev_loss": 3.4 * (1 - rate / 2) ** epoch,
            "dev_top1": 100 * (1 - (1 - rate) ** epoch),
            "lr": rate * (1 - epoch / 13),
            "clips_per_second": 131.0 + epoch,
        }
        for epoch in range(1, 13)
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_evaluation(folder / "eval_test_best_2x1", NAMES, num_videos=400)
    return folder


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["run", "runs", "many"])
def test_no_text_overlaps_and_nothing_is_too_wide(browser, pages, name, width):
    opened(browser, pages[name].as_uri(), width)
    browser.execute_script("for (const e of document.querySelectorAll('details')) e.open = true;")
    number, found = browser.execute_script(OVERLAPS)
    assert number > 200
    assert not found
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    assert browser.get_log("browser") == []


def test_the_check_of_overlaps_finds_one(browser, pages):
    opened(browser, pages["run"].as_uri())
    browser.execute_script("document.querySelector('h2').style.marginBottom = '-22px';")
    assert browser.execute_script(OVERLAPS)[1]


def test_classes_are_filtered_and_sorted(browser, pages):
    opened(browser, pages["many"].as_uri())

    def column(number: int) -> list[str]:
        return browser.execute_script(
            "return [...document.querySelectorAll('.classes tbody tr')]"
            ".filter((row) => row.checkVisibility())"
            ".map((row) => row.cells[arguments[0]].innerText)",
            number,
        )

    [field] = parts(browser, ".classes input")
    field.send_keys("pushing slowly")
    assert column(1) == ["Pushing something slowly"]
    field.send_keys("\ue00c")  # Escape
    assert len(column(1)) == 174
    heads = parts(browser, ".classes thead th button")
    heads[3].click()
    rising = [float(text) for text in column(3)]
    assert rising == sorted(rising) and len(set(rising)) > 5
    heads[3].send_keys("\ue007")  # Enter: by the keyboard, too
    falling = [float(text) for text in column(3)]
    assert falling == sorted(rising, reverse=True)
    heads[1].click()
    names = column(1)
    assert sorted(names) == sorted([*NAMES, *map(str, range(146))])
    assert names.index("Covering something slowly") < names.index("Turning something slowly")


def test_the_matrix_is_read_and_sorted_by_the_keyboard(browser, pages, tmp_path):
    scores = write_evaluation(tmp_path / "again", NAMES, num_videos=400)
    matrix = confusion_matrix(judge(scores, "softmax"))
    opened(browser, pages["run"].as_uri())
    [canvas] = parts(browser, ".confusion canvas")
    [said] = parts(browser, ".confusion .read")

    def count() -> tuple[str, int, int]:
        names, _, numbers = said.text.rpartition(": ")
        found, _, total = numbers.partition(" (")[0].partition(" of ")
        return names, int(found), int(total)

    browser.execute_script("arguments[0].focus()", canvas)
    canvas.send_keys("\ue014")  # the first cell
    assert count() == (f"{NAMES[0]} → {NAMES[0]}", matrix[0, 0], matrix[0].sum())
    canvas.send_keys("\ue014", "\ue015", "\ue015")  # right, down, down
    assert count() == (f"{NAMES[2]} → {NAMES[1]}", matrix[2, 1], matrix[2].sum())

    pixels = "return arguments[0].toDataURL()"
    plain = browser.execute_script(pixels, canvas)
    canvas.send_keys("++")
    zoomed = browser.execute_script(pixels, canvas)
    assert zoomed != plain
    canvas.send_keys("0")
    assert browser.execute_script(pixels, canvas) == plain

    [order] = parts(browser, ".confusion select")
    order.find_element("css selector", "option[value=accuracy]").click()
    browser.execute_script("arguments[0].focus()", canvas)
    canvas.send_keys("\ue014")
    rates = matrix.diagonal() / [(scores.labels == label).sum() for label in range(len(NAMES))]
    worst = int(rates.argmin())
    assert count() == (
        f"{NAMES[worst]} → {NAMES[worst]}",
        matrix[worst, worst],
        matrix[worst].sum(),
    )


@pytest.mark.parametrize("width", WIDTHS)
def test_a_cell_under_the_pointer_is_named(browser, pages, width):
    webdriver = pytest.importorskip("selenium.webdriver")
    opened(browser, pages["many"].as_uri(), width)
    [canvas] = parts(browser, ".confusion canvas")
    [said] = parts(browser, ".confusion .read")
    before = said.text
    browser.execute_script("arguments[0].scrollIntoView()", canvas)
    webdriver.ActionChains(browser).move_to_element(canvas).perform()
    assert said.text != before and " → " in said.text


def test_curves_tell_their_values(browser, pages):
    opened(browser, pages["run"].as_uri())
    chart = parts(browser, ".chart")[0]
    browser.execute_script("arguments[0].focus()", chart.find_element("css selector", "svg"))
    chart.find_element("css selector", "svg").send_keys("\ue014", "\ue014")
    said = chart.find_element("css selector", ".read").text
    assert "epoch 2" in said and "2.673" in said and "3.0685" in said


def luminance(colour: str) -> float:
    """Relative luminance by WCAG of an `rgb(...)`."""
    values = [int(part) / 255 for part in colour.partition("(")[2].rstrip(")").split(",")[:3]]
    linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_stand_out_in_both_schemes(browser, pages, scheme):
    opened(browser, pages["runs"].as_uri(), scheme=scheme)
    behind = luminance(parts(browser, "body")[0].value_of_css_property("background-color"))
    assert (behind < 0.1) == (scheme == "dark")
    for selector in ("h1", "p.grey", "td.name", ".wrong b", ".right b", "nav a"):
        colour = luminance(parts(browser, selector)[0].value_of_css_property("color"))
        lighter, darker = max(colour, behind), min(colour, behind)
        assert (lighter + 0.05) / (darker + 0.05) >= 4.5, selector


def test_nothing_is_fetched(browser, pages):
    opened(browser, pages["runs"].as_uri())
    names = browser.execute_script(
        "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    )
    assert not [name for name in names if not name.startswith("data:")]


@pytest.fixture(scope="module")
def timeline(tmp_path_factory) -> Path:
    """The page of a film of ten seconds, beside it."""
    folder = tmp_path_factory.mktemp("film")
    frames = np.random.default_rng(0).integers(0, 256, (100, 48, 64, 3), dtype=np.uint8)
    write_video(folder / "a film & more.webm", frames, 10)
    film = open_film(str(folder / "a film & more.webm"))
    film.num_frames, film.seconds = 100, Fraction(10)
    runs = [Run(Fraction(k), Fraction(k + 1), k % 4, 0.9) for k in range(10)]
    video = GivenVideo(film.path, name="a film & more.webm")
    page = folder / "pages" / "film.html"
    page.parent.mkdir()
    write_timeline_page(Seen(video, film, runs, NAMES, 40), page)
    return page


@pytest.mark.parametrize("width", WIDTHS)
def test_the_timeline_jumps_to_what_is_clicked(browser, timeline, width):
    opened(browser, timeline.as_uri(), width)
    number, overlaps = browser.execute_script(OVERLAPS)
    assert number > 20 and overlaps == []
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= width
    ui = pytest.importorskip("selenium.webdriver.support.ui")
    wait = ui.WebDriverWait(browser, 20)
    wait.until(lambda page: page.execute_script("return film.readyState > 0"))
    parts(browser, ".runs button")[6].click()
    assert browser.execute_script("return film.currentTime") == 6
    wait.until(lambda page: len(parts(page, ".runs .now")) == 1)
    assert parts(browser, ".runs li")[6].get_attribute("class") == "now"
    browser.find_element("id", "find").send_keys("falls over")
    visible = [run for run in parts(browser, ".runs li") if run.is_displayed()]
    assert len(visible) == 3
    assert browser.get_log("browser") == []
