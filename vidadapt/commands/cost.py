"""Cost: what each method trains, stores, computes and keeps in memory on a backbone."""

from __future__ import annotations

from vidadapt import launching, methods
from vidadapt.apps.study.method_costs import CostOptions, compare_costs
from vidadapt.apps.study.options import parse_options

EPILOG = f"""methods: {", ".join(methods.METHODS)}
examples:
  vidadapt cost --method all --json cost.json
  vidadapt cost --method adaptformer adaptformer:bottleneck=16,layers=7-12 --no_time"""


def parse(argv: list[str] | None) -> CostOptions:
    """Read the options of the command line."""
    return parse_options(CostOptions, argv, "cost", __doc__ or "", EPILOG)


def main(argv: list[str] | None = None) -> int:
    """Measure as the arguments say; the exit status: 1 if a method broke down, or none works."""
    return compare_costs(parse(argv))


def run() -> None:
    """Run this process's command line."""
    launching.alone(main)
