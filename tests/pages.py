"""The pages that users read: README and docs/, and the commands in them."""

from __future__ import annotations

import re
import shlex
from itertools import dropwhile
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [README, *DOCS]
_SETS_VARIABLE = re.compile(r"[A-Z_]+=.*")


def text(*names: str) -> str:
    """Read pages, given relative to the root, one after the other."""
    return "\n".join((ROOT / name).read_text(encoding="utf-8") for name in names)


def blocks(page: str, language: str) -> list[str]:
    """List the code blocks of a page in a language; indented ones begin at their own margin."""
    found = re.findall(rf"(?m)^( *)```{language}\n(.*?)^ *```", page, flags=re.DOTALL)
    return [re.sub(rf"(?m)^{margin}", "", block) for margin, block in found]


def commands(page: str) -> list[list[str]]:
    """List the words of every command line in a page's bash blocks, without `NAME=value` before."""
    found = []
    for block in blocks(page, "bash"):
        joined = re.sub(r"\\\n\s*", "", block)
        for line in joined.splitlines():
            for part in line.split("&&"):
                words = shlex.split(part, comments=True)
                found.append(list(dropwhile(_SETS_VARIABLE.fullmatch, words)))
    return [words for words in found if words]


def called(words: list[str]) -> tuple[str, list[str]]:
    """Name the command of vidadapt that a line calls, and its arguments; "": it calls none."""
    if words[0] == "sbatch":  # tools/slurm/train.sbatch hands its arguments to training
        return "train", words[2:]
    if words[0] not in ("vidadapt", "torchrun"):
        return "", []
    name, *arguments = words[words.index("vidadapt") + 1 :]
    return name, arguments


def keys_of(page: str, heading: str) -> list[str]:
    """List the first column of the table below a heading of level 2, without its backticks."""
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"(?m)^\| `([^`]+)` \|", section)
