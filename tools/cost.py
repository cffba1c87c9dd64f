"""Cost: what each method trains, stores, computes and keeps in memory on a backbone."""

from __future__ import annotations

from vidadapt import launching, methods
from vidadapt.apps.study.method_costs import CostOptions, compare_costs
from vidadapt.apps.study.options import parse_options

EPILOG = f"""methods: {", ".join(methods.METHODS)}
examples:
  python tools/cost.py --method all --json cost.json
  python tools/cost.py --method adaptformer adaptformer:bottleneck=16,layers=7-12 --no_time"""


def main(argv: list[str] | None = None) -> int:
    """Measure as the arguments say; the exit status: 1 if a method broke down, or none works."""
    return compare_costs(parse_options(CostOptions, argv, "cost", __doc__ or "", EPILOG))


if __name__ == "__main__":
    launching.alone(main)
