"""The page docs/weights.md, made from the table of published weights.

python -m vidadapt.apps.report.weights_page docs/weights.md
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from vidadapt.files import write_text
from vidadapt.serving.card import markdown_templates
from vidadapt.weights import PUBLISHED, Published


def main(argv: list[str]) -> None:
    """Write the page to the path that is given."""
    write_text(Path(argv[0]), page(PUBLISHED))


def page(published: Mapping[str, Published]) -> str:
    """Return the text of the page: video models, image models, sources."""
    groups: dict[str, dict[str, Published]] = {"Video models": {}, "Image models": {}}
    for name, entry in published.items():
        groups["Image models" if "/" in entry.backbone else "Video models"][name] = entry
    environment = markdown_templates("vidadapt.apps.report")
    return environment.get_template("weights.md.j2").render(
        groups=groups,
        sources=sorted({source for entry in published.values() for source in entry.sources}),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
