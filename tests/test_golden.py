"""Recorded numbers: a refactoring changes no digit; a change that should says so in CHANGELOG.md.

Weights and clips are arithmetic, not random, so that nothing depends on a generator. To record
anew: `python tests/test_golden.py`.
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


@pytest.mark.parametrize(("backbone", "method"), CASES)
def test_logits_are_the_recorded_ones(backbone, method):
    recorded = torch.tensor(json.loads(RECORD.read_text())[f"{backbone} {method}"]).double()
    torch.testing.assert_close(logits(backbone, method), recorded, rtol=1e-5, atol=1e-6)


if __name__ == "__main__":
    found = {f"{b} {m}": logits(b, m).tolist() for b, m in CASES}
    RECORD.write_text(json.dumps(found, indent=1) + "\n")
