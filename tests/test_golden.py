"""Recorded numbers: a refactoring changes no digit; a change that should says so in CHANGELOG.md.

Weights and clips are arithmetic, not random, so that nothing depends on a generator. To record
what is missing: `python tests/test_golden.py`; a number that is to change is deleted first.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from vidadapt import methods, models

RECORD = Path(__file__).parent / "golden" / "logits.json"
CASES = [(backbone, method) for backbone in ("vit_tiny", "vit_small") for method in methods.METHODS]


def saw_tooth(shape: torch.Size, offset: int) -> torch.Tensor:
    """Values in [-1, 1) that repeat in no simple pattern."""
    count = shape.numel()
    return (((torch.arange(count) + offset) * 7919 % 2003).double() / 1001.5 - 1).view(shape)


def logits(backbone: str, method: str) -> torch.Tensor:
    model, _ = models.build(backbone, num_frames=4, crop_size=32, num_classes=5)
    methods.apply(model, {"name": method})
    with torch.no_grad():
        for number, parameter in enumerate(model.parameters()):
            centre = 1.0 if parameter.ndim == 1 and number % 2 == 0 else 0.0
            parameter.copy_(centre + 0.05 * saw_tooth(parameter.shape, number))
    clip = saw_tooth(torch.Size((2, 3, 4, 32, 32)), 0)
    return model.double().eval()(clip)


def missing(record: Path) -> list[tuple[str, str]]:
    known = json.loads(record.read_text())
    return [(backbone, method) for backbone, method in CASES if f"{backbone} {method}" not in known]


def add_missing(record: Path) -> None:
    """Record what the file lacks; the lines that it has stay as they are."""
    known = json.loads(record.read_text())
    added = {f"{b} {m}": logits(b, m).tolist() for b, m in missing(record)}
    record.write_text(json.dumps(known | added, indent=1) + "\n")


def test_no_case_is_unrecorded():
    assert missing(RECORD) == [], f"run `python tests/test_golden.py`, which adds them to {RECORD}"


@pytest.mark.parametrize(("backbone", "method"), CASES)
def test_logits_are_the_recorded_ones(backbone, method):
    if (backbone, method) in missing(RECORD):
        pytest.skip("not recorded, see test_no_case_is_unrecorded")
    recorded = torch.tensor(json.loads(RECORD.read_text())[f"{backbone} {method}"]).double()
    torch.testing.assert_close(logits(backbone, method), recorded, rtol=1e-5, atol=1e-6)


def test_recording_adds_what_is_missing_and_changes_no_other_line(tmp_path):
    whole, record = RECORD.read_text(), tmp_path / "logits.json"
    known = json.loads(whole)
    gone = known.pop(f"{CASES[0][0]} {CASES[0][1]}")
    record.write_text(json.dumps(known, indent=1) + "\n")
    before = record.read_text().rstrip("}\n").rstrip()
    assert missing(record) == [CASES[0]]
    add_missing(record)
    assert record.read_text().startswith(before) and missing(record) == []
    again = torch.tensor(json.loads(record.read_text())[f"{CASES[0][0]} {CASES[0][1]}"])
    torch.testing.assert_close(again, torch.tensor(gone), rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    add_missing(RECORD)
