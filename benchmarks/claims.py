"""AdaptFormer's claims beside what the frames benchmark found of them on the demo's task.

    python -m benchmarks.claims docs/frames

reads results.jsonl of docs/frames/study, docs/frames/baselines, docs/frames/probe_recipe and
docs/frames/sweeps/* and writes docs/frames/claims.md. The rules:

- s, the noise of seeds: the root of the mean sample variance of top-1 over all (variant, frames)
  with several seeds. A difference of means over n1 and n2 seeds has the margin
  m = 2 s sqrt(1 / n1 + 1 / n2).
- "a > b" comes out where a - b > m, "a >= b" where a - b >= -m. A claim of several parts comes out
  where every part does.
"""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vidadapt.apps.study.results import read_results
from vidadapt.apps.study.rows import rows_of
from vidadapt.files import write_text

Lines = Sequence[Mapping[str, Any]]
CAME_OUT, WITHIN, REVERSED, NOT = (
    *("came out", "did not (within noise)", "did not (reversed)", "did not"),
)  # fmt: skip


@dataclass(frozen=True)
class Mean:
    """Top-1 of a variant at a number of frames, per cent, over its seeds."""

    name: str
    value: float
    seeds: int

    def __str__(self) -> str:
        return f"{self.name} {self.value:.2f}" + (f" ({self.seeds} seeds)" * (self.seeds > 1))


@dataclass(frozen=True)
class Difference:
    """Of two means, in points.

    Attributes:
        margin: m of the module's rules.
    """

    first: Mean
    second: Mean
    margin: float

    @property
    def value(self) -> float:
        return self.first.value - self.second.value

    @property
    def greater(self) -> str:
        """What becomes of "first > second"."""
        if self.value > self.margin:
            return CAME_OUT
        return REVERSED if self.value < -self.margin else WITHIN

    @property
    def not_less(self) -> str:
        """What becomes of "first >= second"."""
        if self.value < -self.margin:
            return NOT
        return CAME_OUT + (", a tie" if self.value <= self.margin else "")

    def __str__(self) -> str:
        return f"{self.first}, {self.second}: {self.value:+.2f} (m {self.margin:.2f})"


@dataclass(frozen=True)
class Claim:
    """One of the paper's, its figures (arXiv 2205.13535), what became of it here, and why."""

    name: str
    paper: str
    verdict: str
    lines: tuple[str, ...]


class Evidence:
    """What the published results say.

    Args:
        folder: with study/, baselines/, probe_recipe/ and sweeps/.

    Raises:
        ResultsError: a results.jsonl that cannot be used, naming its line.
    """

    def __init__(self, folder: Path) -> None:
        self.study = [
            line
            for name in ("study", "baselines")
            for line in read_results(folder / name / "results.jsonl")
        ]
        # Apart: seeds of trainings that fail alike would make the noise look smaller.
        self.probe_recipe = read_results(folder / "probe_recipe" / "results.jsonl")
        self.sweeps = {
            path.parent.name: read_results(path)
            for path in sorted((folder / "sweeps").glob("*/results.jsonl"))
        }
        # One setting stands in several sweeps, e.g. bottleneck_64, parallel and scale_1.
        groups = {
            tuple(values)
            for lines in (self.study, *self.sweeps.values())
            for values in top1s(lines).values()
            if len(values) > 1
        }
        self.degrees = sum(len(values) - 1 for values in groups)
        self.noise = math.sqrt(statistics.fmean(map(statistics.variance, sorted(groups))))

    def mean(self, lines: Lines, variant: str, frames: int = 8) -> Mean:
        values = top1s(lines)[variant, frames]
        return Mean(f"{variant} at {frames} frames", statistics.fmean(values), len(values))

    def compare(self, first: Mean, second: Mean) -> Difference:
        return Difference(
            first, second, 2 * self.noise * math.sqrt(1 / first.seeds + 1 / second.seeds)
        )

    def between(self, lines: Lines, first: str, second: str, frames: int = 8) -> Difference:
        """Two variants at one number of frames."""
        return self.compare(self.mean(lines, first, frames), self.mean(lines, second, frames))


def top1s(lines: Lines) -> dict[tuple[str, int], list[float]]:
    """Top-1 of every seed by variant and frames."""
    rows = rows_of(lines)["top1"]
    found = {(name, frames): values.dropna().tolist() for (frames, name), values in rows}
    return {place: values for place, values in found.items() if values}


def every(verdicts: Sequence[str]) -> str:
    """Of a claim's parts.

    >>> every(["came out", "came out, a tie"]), every(["came out", "did not"])
    ('came out', 'did not: 1 of 2 parts')
    """
    kept = sum(verdict.startswith(CAME_OUT) for verdict in verdicts)
    return CAME_OUT if kept == len(verdicts) else f"{NOT}: {kept} of {len(verdicts)} parts"


def more_frames(evidence: Evidence) -> Claim:
    verdicts, lines = [], []
    for variant in ("linear", "vpt", "adaptformer"):
        two, four, eight = (evidence.mean(evidence.study, variant, t) for t in (2, 4, 8))
        whole = evidence.compare(eight, two)
        steps = [evidence.compare(four, two), evidence.compare(eight, four)]
        kept = whole.greater == CAME_OUT and all(step.not_less != NOT for step in steps)
        verdicts.append(CAME_OUT if kept else NOT)
        values = " / ".join(f"{mean.value:.2f}" for mean in (two, four, eight))
        lines.append(f"{variant}: {values} at 2 / 4 / 8 frames, {whole.value:+.2f} "
                     f"(m {whole.margin:.2f}): {verdicts[-1]}")  # fmt: skip
    gaps = [evidence.between(evidence.study, "adaptformer", "linear", t) for t in (2, 8)]
    lines.append(
        f"adaptformer - linear: {gaps[0].value:+.2f} at 2 frames, {gaps[1].value:+.2f} at 8, a "
        f"change of {gaps[1].value - gaps[0].value:+.2f} (m {math.sqrt(2) * gaps[0].margin:.2f}); "
        "not a claim of the paper's words, but of its figure"
    )
    paper = "Figure 7, curves alone: all three rise from 2 to 8 frames"
    return Claim("More frames help", paper, every(verdicts), tuple(lines))


def adapter_prompt_linear(evidence: Evidence) -> Claim:
    lines, at_8 = [], []
    for frames in (8, 4, 2):
        for first, second in (("adaptformer", "vpt"), ("vpt", "linear")):
            found = evidence.between(evidence.study, first, second, frames)
            lines.append(f"{found}: {found.greater}")
            at_8 += [found.greater] * (frames == 8)
    paper = "Table 1: SSv2 59.02 > 43.73 > 29.23, HMDB51 55.69 > 52.67 > 49.84"
    return Claim("AdaptFormer > VPT > linear, at 8 frames", paper, every(at_8), tuple(lines))


def against_the_probes_recipe(evidence: Evidence) -> Claim:
    """The paper's own comparison: full fine-tuning with all that suits the linear probe."""
    baseline = evidence.mean(evidence.probe_recipe, "full_probe")
    rate = _first(evidence.probe_recipe, "full_probe")["base_lr"]
    best = _first(evidence.study, "linear")["base_lr"]
    assert rate == best, f"full_probe has rate {rate}, the linear probe {best}"
    found = [
        evidence.compare(evidence.mean(evidence.study, name), baseline)
        for name in ("adaptformer_16", "adaptformer")
    ]
    return Claim(
        "AdaptFormer >= full fine-tuning by the linear probe's recipe, with < 2 % of its "
        "parameters",
        "Table 1: SSv2 59.02 against 53.97, HMDB51 55.69 against 46.41, with 1.46 %",
        found[0].not_less,
        (
            *(f"{difference}: {difference.not_less}" for difference in found),
            f"rate {rate:g} for both; chance is {100 / evidence.study[0]['num_classes']:.2f}",
        ),
    )


def against_full(evidence: Evidence, baseline: str, name: str) -> Claim:
    lines = []
    small = evidence.between(evidence.study, "adaptformer_16", baseline)
    full = _first(evidence.study, baseline)
    share = 100 * _first(evidence.study, "adaptformer_16")["trainable"] / full["trainable"]
    lines.append(f"{small}, with {share:.2f} % of the parameters: {small.not_less}")
    large = evidence.between(evidence.study, "adaptformer", baseline)
    share = 100 * _first(evidence.study, "adaptformer")["trainable"] / full["trainable"]
    lines.append(f"{large}, with {share:.2f} %: {large.not_less}")
    grid = ", ".join(f"{rate}: {top1:.2f}" for rate, top1 in full["grid"].items())
    lines.append(
        f"{baseline}'s top-1 on the development list by learning rate, 4 frames: {grid}; "
        f"{full['base_lr']:g} was taken"
    )
    return Claim(name, "not in the paper", small.not_less, tuple(lines))


def upper_layers(evidence: Evidence) -> Claim:
    halves = evidence.between(evidence.sweeps["layers"], "upper_half", "lower_half")
    whole = evidence.between(evidence.sweeps["layers"], "parallel", "upper_half")
    lines = (str(halves), f"all layers against the upper half (paper: +1.03): {whole}")
    paper = "Table 3b, 6 of 12 layers: 57.99 > 50.48"
    return Claim("The upper layers' adapters > the lower ones'", paper, halves.greater, lines)


def parallel(evidence: Evidence) -> Claim:
    found = evidence.between(evidence.sweeps["layers"], "parallel", "sequential")
    paper = "Table 3b: 59.02 against 58.17, single runs"
    return Claim("Parallel >= sequential", paper, found.not_less, (str(found),))


def scale(evidence: Evidence, sweep: str, rates: str) -> Claim:
    lines = evidence.sweeps[sweep]
    names = ("scale_0.01", "scale_0.05", "scale_0.1", "scale_0.2")
    means = [evidence.mean(lines, name) for name in names]
    of = evidence.mean(lines, "scale_0.1")
    others = [evidence.compare(of, mean) for mean in means if mean != of]
    sharp = all(found.greater == CAME_OUT for found in others)
    broad = all(found.not_less != NOT for found in others) and others[0].greater == CAME_OUT
    values = ", ".join(
        f"{mean.name.removesuffix(' at 8 frames')} {mean.value:.2f}"
        for mean in (*means, evidence.mean(lines, "scale_1"))
    )
    chosen = ", ".join(f"{_first(lines, name)['base_lr']:g}" for name in (*names, "scale_1"))
    return Claim(
        f"s = 0.1 is best, {rates}",
        "Table 3c, .01 / .05 / .1 / .2: 53.44 / 58.85 / 59.02 / 58.89",
        CAME_OUT if sharp else "came out, in the weaker reading" if broad else NOT,
        (
            f"{values} (m {others[0].margin:.2f}); learning rates {chosen}",
            f"ahead of each of the paper's others by more than m: {'yes' if sharp else 'no'}",
            f"within m of the best of them, and ahead of 0.01: {'yes' if broad else 'no'}",
            *_at_an_end(lines, (*names, "scale_1")),
        ),
    )


def _at_an_end(lines: Lines, names: Sequence[str]) -> list[str]:
    """Whose rate is an end of those tried, so that a better one may lie beyond; if any is."""
    found = []
    for line in (_first(lines, name) for name in names):
        rates = [float(rate) for rate in line["grid"] or ()]
        if len(rates) > 1 and line["base_lr"] in (min(rates), max(rates)):
            found.append(line["variant"])
    return [f"the rate taken is an end of those tried: {', '.join(found)}"] if found else []


def bottleneck(evidence: Evidence) -> Claim:
    lines = evidence.sweeps["bottleneck"]
    means = {size: evidence.mean(lines, f"bottleneck_{size}") for size in (1, 4, 16, 32, 64, 256)}
    best = max(means.values(), key=lambda mean: mean.value)
    rise = evidence.compare(best, means[1])
    last = evidence.compare(means[256], means[64])
    near = [size for size, mean in means.items() if evidence.compare(mean, best).not_less != NOT]
    enough = next(size for size in means if all(s in near for s in means if s >= size))
    kept = rise.greater == CAME_OUT and last.greater != CAME_OUT
    values = " / ".join(f"{mean.value:.2f}" for mean in means.values())
    return Claim(
        "The bottleneck's accuracy rises, then saturates",
        "Tables 1 and 3a, 1 / 4 / 16 / 32 / 64 / 256: "
        "50.03 / 54.70 / 57.62 / 58.27 / 59.02 / 58.87",
        CAME_OUT if kept else NOT,
        (
            f"1 / 4 / 16 / 32 / 64 / 256: {values}",
            f"rises: {rise}: {rise.greater}",
            f"saturates: {last}",
            f"from {enough} on, all are within m of the best",
        ),
    )


def prompts(evidence: Evidence) -> Claim:
    lines, unstable = [], {True: False, False: False}
    for sweep in ("vpt_prompts_0.024", "vpt_prompts_0.08"):
        found = evidence.sweeps[sweep]
        values = []
        for count in (1, 2, 4, 8, 16, 32):
            line = _first(found, f"prompts_{count}")
            why = instability(line)
            unstable[count >= 8] |= why is not None
            top1 = "none" if line["top1"] is None else f"{line['top1']:.2f}"
            values.append(top1 + (f" ({why})" if why else ""))
        rate = _first(found, "prompts_1")["base_lr"]
        lines.append(f"rate {rate:g}, 1 / 2 / 4 / 8 / 16 / 32 prompts: {' / '.join(values)}")
        few, many = (
            max((evidence.mean(found, f"prompts_{n}") for n in counts), key=lambda m: m.value)
            for counts in ((1, 2, 4), (8, 16, 32))
        )
        milder = evidence.compare(few, many)
        lines.append(
            f"milder reading, the best of few against that of many: {milder}: {milder.greater}"
        )
    kept = unstable[True] and not unstable[False]
    return Claim(
        "Many prompts of VPT are unstable",
        "Figure 5: from 8 on, training on HMDB51 collapses near epoch 10",
        CAME_OUT if kept else NOT,
        (
            *lines,
            "unstable: the loss is not finite, an epoch's training loss is 20 % above its lowest "
            "before (after warm-up), or top-1 on the development list ends 10 points below its "
            "best",
        ),
    )


def instability(line: Mapping[str, Any]) -> str | None:
    """Why a training counts as unstable, or None.

    >>> curve = [{"epoch": e, "loss": x, "dev_top1": 9.0} for e, x in enumerate((3, 2, 2.5), 1)]
    >>> instability({"problem": None, "curve": curve})
    'loss +25 %'
    """
    if line["problem"] is not None:
        return str(line["problem"])
    curve = [entry for entry in line["curve"] if entry["epoch"] > 1]
    for place, entry in enumerate(curve[1:], start=1):
        rise = entry["loss"] / min(before["loss"] for before in curve[:place]) - 1
        if rise > 0.2:
            return f"loss {rise:+.0%}".replace("%", " %")
    fall = max(entry["dev_top1"] for entry in curve) - curve[-1]["dev_top1"]
    return f"fell by {fall:.0f} points" if fall > 10 else None


def claims(evidence: Evidence) -> list[Claim]:
    """All, in the paper's order."""
    return [
        more_frames(evidence),
        adapter_prompt_linear(evidence),
        against_the_probes_recipe(evidence),
        against_full(
            evidence, "full", "The same against full fine-tuning with a learning rate of its own"
        ),
        against_full(evidence, "full_tuned", "The same with layer decay and weight decay besides"),
        upper_layers(evidence),
        parallel(evidence),
        scale(evidence, "scale", "one learning rate for all"),
        scale(evidence, "scale_rates", "each with its own rate"),
        bottleneck(evidence),
        prompts(evidence),
    ]


def report(evidence: Evidence) -> str:
    """Markdown: a line a claim, then the figures of each."""
    found = claims(evidence)
    table = [f"| {i} | {c.name} | {c.paper} | {c.verdict} |" for i, c in enumerate(found, 1)]
    parts = [
        "# The paper's claims, and what became of them here",
        "Written by `python -m benchmarks.claims docs/frames`; the rules stand in that file. Noise "
        f"of seeds: s = {evidence.noise:.2f} points of top-1 ({evidence.degrees} degrees of "
        "freedom); m is a difference's margin, two of its standard errors.",
        "\n".join(["|   | claim | paper | here |", "|---|---|---|---|", *table]),
    ]
    for number, claim in enumerate(found, 1):
        lines = "\n".join(f"- {line}" for line in claim.lines)
        parts.append(f"## {number}. {claim.name}: {claim.verdict}\n\n{lines}")
    return "\n\n".join(parts) + "\n"


def _first(lines: Lines, variant: str) -> Mapping[str, Any]:
    """The first seed's line at 8 frames."""
    return next(line for line in lines if line["variant"] == variant and line["frames"] == 8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "folder", type=Path, help="with study/, baselines/ and sweeps/, as docs/frames"
    )
    folder = parser.parse_args().folder
    write_text(folder / "claims.md", report(Evidence(folder)))
    print(f"written: {folder / 'claims.md'}")


if __name__ == "__main__":
    main()
