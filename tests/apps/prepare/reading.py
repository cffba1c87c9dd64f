"""What the tests of the official readers share."""

from __future__ import annotations

from pathlib import Path

import pytest

from vidadapt.apps.prepare.annotations import Annotations

LABELS = Path(__file__).parents[4] / "shared" / "labels"
needs_labels = pytest.mark.skipif(
    not LABELS.is_dir(), reason="needs the official label files of ../shared/labels"
)


def keyed(samples: dict[str, list[tuple[str, int]]]) -> dict[str, list[tuple[str, int]]]:
    """Samples by split, paths without their endings."""
    return {split: [(p.rpartition(".")[0], n) for p, n in side] for split, side in samples.items()}


def read_samples(annotations: Annotations) -> dict[str, list[tuple[str, int]]]:
    return {s: [(e.key, e.label) for e in side] for s, side in annotations.splits.items()}
