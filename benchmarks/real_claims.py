"""Claims of the papers beside what cross-validation on real actions found of them.

    python -m benchmarks.real_claims docs/real_actions

reads results.jsonl of docs/real_actions/weizmann and docs/real_actions/ut_interaction and writes
docs/real_actions/claims.md. The rules, written before any of these results:

- A difference is that of the pooled top-1 on the same test videos and the same seeds: those that
  both sides have. Its 95 % interval is a bootstrap over groups (people, sequences), and p is over
  all ways to swap the two sides within groups; see `vidadapt.evaluation.difference`.
- "a > b" comes out on a set where the whole interval lies above 0, and is reversed where it lies
  below; in between it is within noise. "a >= b" comes out where the interval is not wholly below 0.
  "a > b by 10" comes out where the difference is 10 points or more and the interval above 0.
- A claim comes out where it does on both sets, in every part.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vidadapt.apps.report import markdown_table
from vidadapt.apps.study.folds import counts_of, paired
from vidadapt.apps.study.results import read_results
from vidadapt.evaluation import Difference
from vidadapt.files import write_text

SETS = ("weizmann", "ut_interaction")
OUT, NOISE, REVERSED, NOT, TIE, UNKNOWN = (
    *("came out", "within noise", "reversed", "did not", "came out, a tie", "not run"),
)  # fmt: skip
Side = tuple[str, int]  # variant, frames


@dataclass(frozen=True)
class Part:
    """One comparison: `first` against `second`."""

    first: Side
    sign: Literal[">", ">="]
    second: Side
    by: float = 0.0  # points

    def verdict(self, found: Difference | None) -> str:
        """What becomes of it on one set."""
        if found is None:
            return UNKNOWN
        if self.sign == ">=":
            return NOT if found.high < 0 else OUT if found.low > 0 else TIE
        if found.high < 0:
            return REVERSED
        return OUT if found.low > 0 and found.points >= self.by else NOISE


@dataclass(frozen=True)
class Claim:
    """What a paper says, where, and the comparisons that stand for it here."""

    text: str
    source: str
    parts: tuple[Part, ...]


CLAIMS = (
    Claim(
        "AdaptFormer-64 beats the linear probe by 10 points or more",
        "AdaptFormer, Table 1: +29.8 on SSv2, +5.9 on HMDB51; Table 4, from image weights",
        (Part(("adaptformer", 8), ">", ("linear", 8), by=10.0),),
    ),
    Claim(
        "AdaptFormer > VPT > linear",
        "AdaptFormer, Table 1",
        (
            Part(("adaptformer", 8), ">", ("vpt", 8)),
            Part(("vpt", 8), ">", ("linear", 8)),
        ),
    ),
    Claim(
        "AdaptFormer >= full fine-tuning, each with the better of the same rates",
        "AdaptFormer, Table 1, where full fine-tuning has the probe's recipe",
        (Part(("adaptformer", 8), ">=", ("full", 8)),),
    ),
    Claim(
        "More frames help",
        "AdaptFormer, Figure 7: 2 to 8 frames",
        tuple(Part((name, 8), ">", (name, 2)) for name in ("linear", "vpt", "adaptformer")),
    ),
    Claim(
        "ARC >= AdaptFormer with fewer parameters",
        "ARC, Table 1 (images)",
        (Part(("arc", 8), ">=", ("adaptformer", 8)),),
    ),
    Claim(
        "ST-Adapter >= AdaptFormer from image weights, as it mixes frames itself",
        "ST-Adapter's motive; not a table of either paper",
        (Part(("st_adapter", 8), ">=", ("adaptformer", 8)),),
    ),
    Claim(
        "LoSA lies above the probes, which leave the backbone as it is, too",
        "LoSA, Section 1",
        (
            Part(("losa", 8), ">", ("linear", 8)),
            Part(("losa", 8), ">", ("attentive", 8)),
        ),
    ),
    Claim(
        "Attention over time helps: inflated > each frame alone, averaged",
        "none; what inflation is for",
        (
            Part(("linear", 8), ">", ("linear_frames", 8)),
            Part(("adaptformer", 8), ">", ("adaptformer_frames", 8)),
        ),
    ),
    Claim(
        "The pre-trained weights are what is adapted: > random weights",
        "none; a check",
        (
            Part(("linear", 8), ">", ("linear_random", 8)),
            Part(("adaptformer", 8), ">", ("adaptformer_random", 8)),
        ),
    ),
)


def compared(lines: Sequence[Mapping[str, Any]], part: Part) -> Difference | None:
    """The difference of a part on one set; None: a side was not run, or no seed is of both."""
    known = counts_of(lines)
    first, second = (known.get((frames, name), {}) for name, frames in (part.first, part.second))
    return paired(first, second)


def report(lines: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """The table of verdicts, then each comparison with its figures."""
    rows, details = [], []
    for number, claim in enumerate(CLAIMS, start=1):
        verdicts, said = [], []
        for part in claim.parts:
            for name in SETS:
                found = compared(lines[name], part)
                verdicts.append(part.verdict(found))
                sides = [f"{variant} at {frames}" for variant, frames in (part.first, part.second)]
                figures = (
                    ""
                    if found is None
                    else (
                        f": {found.points:+.1f} points, {found.low:+.1f} to {found.high:+.1f}, "
                        f"p {found.p:.2g}"
                    )
                )
                said.append(f"- {name}, {f' {part.sign} '.join(sides)}{figures}: {verdicts[-1]}")
        well = all(verdict in (OUT, TIE) for verdict in verdicts)
        whole = UNKNOWN if UNKNOWN in verdicts else OUT if well else NOT
        rows.append((str(number), claim.text, claim.source, whole))
        details.append("\n".join([f"## {number}. {claim.text}: {whole}", "", *said]))
    table = markdown_table(["", "claim", "source", "here"], rows)
    intro = (
        "# The papers' claims on real actions\n\nWritten by `python -m benchmarks.real_claims "
        "docs/real_actions`; the rules stand in that file, and were written before the results."
    )
    return "\n\n".join([intro, table, *details]) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Write claims.md of a folder."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args(argv).folder
    found = {}
    for name in SETS:
        file = folder / name / "results.jsonl"
        found[name] = read_results(file) if file.exists() else []
    write_text(folder / "claims.md", report(found))


if __name__ == "__main__":
    main()
