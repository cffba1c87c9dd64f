"""The page docs/weights.md, made from the table of published weights.

python -m vidadapt.apps.report.weights_page docs/weights.md
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

from vidadapt.apps.report.markdown import markdown_table
from vidadapt.files import write_text
from vidadapt.weights import PUBLISHED, Published

ABOVE = """# Published weights

Every published file that was known when this page was made, and what is known of each. The same
from the command line:

```bash
vidadapt weights                       # the list
vidadapt weights videomae-base         # all that is known of one, and the options that use it
vidadapt weights videomae-base --out videomae_base.safetensors   # fetch it
```

Files that are on the Hugging Face hub are fetched by training itself, into the hub's cache, where
`model.weights` names them: `hub` for timm's models, else `hub:OWNER/REPOSITORY` or
`hub:OWNER/REPOSITORY/FILE`. The others must be opened in a browser and saved; give their path.
Nothing is fetched that you do not name. `--out` compares a file with the size and SHA-256 that the
hub states, and with the SHA-256 of this table where one is known.

- **Licences** are those that the makers, the hub's pages or timm state. Weights under CC-BY-NC-4.0
  are not for commercial use, and what is trained on them may fall under it.
- **Sizes** are those that the hub's pages show. "computed" means: not seen; four bytes for each
  parameter of the backbone.
- **Figures** are what the makers or timm publish. None of them has been run again here.
- **Not checked** names what could not be verified when the page was made.

The tiny backbone that comes with the package is `--model.backbone vit_tiny --model.weights demo`
([demo_backbone.md](demo_backbone.md)).

<!-- Made by: python -m vidadapt.apps.report.weights_page docs/weights.md -->
"""


def main(argv: list[str]) -> None:
    """Write the page to the path that is given."""
    write_text(Path(argv[0]), page(PUBLISHED))


def page(published: Mapping[str, Published]) -> str:
    """Return the text of the page: video models, image models, sources."""
    video = {name: entry for name, entry in published.items() if "/" not in entry.backbone}
    image = {name: entry for name, entry in published.items() if "/" in entry.backbone}
    sources = sorted({source for entry in published.values() for source in entry.sources})
    numbers = {source: number for number, source in enumerate(sources, start=1)}
    parts = [ABOVE]
    for title, entries in (("Video models", video), ("Image models", image)):
        parts += [f"## {title}\n", _facts(entries), "\nTo use them:\n", _uses(entries, numbers), ""]
    listed = [f"{number}. {source}" for source, number in numbers.items()]
    return "\n".join([*parts, "## Sources\n", *listed, ""])


def _facts(entries: Mapping[str, Published]) -> str:
    return markdown_table(
        ["name", "made by", "trained on", "licence", "parameters", "size", "published accuracy"],
        [
            [
                f"[`{name}`]({entry.place})",
                entry.maker,
                entry.data,
                entry.licence or "not known",
                f"{entry.millions:g} M",
                entry.said_size,
                entry.figure or "none found",
            ]
            for name, entry in entries.items()
        ],
    )


def _uses(entries: Mapping[str, Published], numbers: Mapping[str, int]) -> str:
    return markdown_table(
        ["name", "options", "not checked", "sources"],
        [
            [
                f"`{name}`",
                "`" + " ".join(f"--{key} {value}" for key, value in entry.settings.items()) + "`",
                "; ".join(entry.unverified) or "-",
                ", ".join(str(numbers[source]) for source in entry.sources),
            ]
            for name, entry in entries.items()
        ],
    )


if __name__ == "__main__":
    main(sys.argv[1:])
