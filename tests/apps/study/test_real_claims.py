"""The claims on real actions: what the rules make of results, and what the study has of them."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import ROOT
from result_lines import cell

from benchmarks import real_claims
from vidadapt.apps.study.matrix import read_matrix

RIGHT = {"linear": 5, "vpt": 6, "adaptformer": 9, "full": 8, "arc": 9}


def line(variant: str, frames: int, correct: list[int]) -> dict:
    found = {"by_group": {str(number): [right, 10] for number, right in enumerate(correct)}}
    top1 = 100 * sum(correct) / (10 * len(correct))
    return cell(variant, frames, 0, top1=top1, cross_validation=found)


def lines_of(right: dict[str, int]) -> list[dict]:
    rng = np.random.default_rng(0)
    return [
        line(name, frames, [int(n - (frames == 2) - rng.integers(2)) for n in [number] * 9])
        for name, number in right.items()
        for frames in (2, 8)
    ]


def test_verdicts_follow_the_rules():
    report = real_claims.report({name: lines_of(RIGHT) for name in real_claims.SETS})
    verdicts = {
        text.partition(". ")[2].rpartition(": ")[0]: text.rpartition(": ")[2]
        for text in report.split("\n")
        if text.startswith("## ")
    }
    assert len(verdicts) == len(real_claims.CLAIMS)
    first = real_claims.CLAIMS[0].text
    assert verdicts[first] == "came out"
    assert verdicts["AdaptFormer > VPT > linear"] == "came out"
    assert verdicts["Attention over time helps: inflated > each frame alone, averaged"] == "not run"
    turned = {**RIGHT, "adaptformer": 5, "linear": 9}
    report = real_claims.report({name: lines_of(turned) for name in real_claims.SETS})
    assert f"1. {first}: did not" in report and "reversed" in report


@pytest.mark.parametrize(
    ("sign", "by", "low", "points", "high", "verdict"),
    [
        (">", 0, 0.1, 5, 9, "came out"),
        (">", 10, 0.1, 5, 9, "within noise"),
        (">", 0, -1, 5, 9, "within noise"),
        (">", 0, -9, -5, -1, "reversed"),
        (">=", 0, 0.1, 5, 9, "came out"),
        (">=", 0, -7, -3, 1, "came out, a tie"),
        (">=", 0, -9, -5, -1, "did not"),
    ],
)
def test_a_verdict_looks_at_the_whole_interval(sign, by, low, points, high, verdict):
    part = real_claims.Part(("a", 8), sign, ("b", 8), by=by)
    assert part.verdict(real_claims.Difference(points, low, high, 0.5)) == verdict
    assert part.verdict(None) == "not run"


@pytest.mark.parametrize("name", real_claims.SETS)
def test_the_study_has_every_variant_of_the_claims(name):
    matrix = read_matrix(ROOT / "docs" / "real_actions" / f"{name}.yaml", None)
    wanted = {s[0] for c in real_claims.CLAIMS for p in c.parts for s in (p.first, p.second)}
    assert wanted <= matrix.variants.keys()
