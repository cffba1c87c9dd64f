"""Names in scripts that DejaVu Sans lacks: drawn where a font is installed, else told apart."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import matplotlib
import pytest
from matplotlib.ft2font import FT2Font
from PIL import Image, ImageDraw

from vidadapt.apps.report.figures import fitted, named, new_figure, write_figure
from vidadapt.apps.report.fonts import best_font, drawable

BUNDLED = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
UNKNOWN = [chr(0x10FFFD), chr(0xEFFFD)]  # for private use: in no font

PROGRAM = """
import json, sys
from PIL import Image, ImageDraw
from vidadapt.apps.report.figures import fitted, font
from vidadapt.apps.report.fonts import best_font, drawable
name = sys.argv[1]
draw = ImageDraw.Draw(Image.new("L", (400, 60)))
text = fitted(draw, name, 400, 20)
mask = font(20, text).getmask(text)
print(json.dumps([drawable(name), text, best_font(name), bytes(mask).hex()]))
"""


def drawn(name: str, data_home: Path) -> list[str]:
    """What a new process, which sees the fonts below a folder, draws of a name."""
    env = {**os.environ, "XDG_DATA_HOME": str(data_home)}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, name], env=env, capture_output=True, text=True, check=True
    )
    return json.loads(ran.stdout)


@pytest.fixture(scope="module")
def rare() -> str:
    """Letters that a font which comes with matplotlib has and DejaVu Sans lacks."""
    known = set(FT2Font(str(BUNDLED / "DejaVuSans.ttf")).get_charmap())
    other = FT2Font(str(BUNDLED / "STIXGeneral.ttf")).get_charmap()
    return "".join(map(chr, sorted(set(other) - known)[-3:]))


def test_a_name_is_drawn_in_the_installed_font_that_has_its_letters(
    rare: str, tmp_path: Path
) -> None:
    fonts = tmp_path / "fonts"
    fonts.mkdir()
    (fonts / "added.ttf").write_bytes((BUNDLED / "STIXGeneral.ttf").read_bytes())
    with_font, without = drawn(rare, tmp_path), drawn(rare, tmp_path / "none")
    assert with_font[:3] == [rare, rare, str(fonts / "added.ttf")]
    assert with_font[3] != without[3]


def test_names_that_no_font_has_stay_different_and_it_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    draw = ImageDraw.Draw(Image.new("L", (900, 60)))
    shown = [fitted(draw, f"a{letter}b", 900, 20) for letter in UNKNOWN]
    assert len(set(shown)) == 2 and all(text.isascii() for text in shown)
    assert "font" in capsys.readouterr().err
    assert [drawable(f"a{letter}b") for letter in UNKNOWN] == shown
    assert not capsys.readouterr().err  # once is enough


def test_matplotlib_warns_of_no_letter(tmp_path: Path) -> None:
    figure = new_figure((4, 3))
    texts, style = named([f"class {letter}" for letter in UNKNOWN])
    figure.subplots().set_yticks(range(2), texts, **style)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_figure(figure, tmp_path / "a.png")


@pytest.mark.parametrize("name", ["Übung", "U\u0308bung", "прыжок", "قفز", "a\u200db", "❤\ufe0f"])
def test_names_that_dejavu_writes_are_left_as_they_are(name: str) -> None:
    assert best_font(name) is None
    assert drawable(name) == name
