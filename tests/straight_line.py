"""Count what one reads of this project from the command to the metric.

    python -m tests.straight_line

docs/reading_the_code.md lists the files: the straight line, and what is opened behind
its doors. What a file of the straight line imports from another room must come through the room's
door (`vidadapt.ROOM`) or from a listed file; another import is an error, since the reader would
have to look for its file. Modules of the file's own room lie beside it, and their names and
docstrings say whether to open them. The exit status is 1 on an error, and where the list is longer
than it may be.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reading_the_code.md"
LIMITS = {"essential": (15, 1900), "doors opened": (20, 3300)}  # files, lines


def main() -> None:
    essential, doors = listed(PAGE.read_text(encoding="utf-8"))
    errors = [error for file in essential for error in strangers(file, {*essential, *doors})]
    for title, files in (("essential", essential), ("doors opened", [*essential, *doors])):
        most_files, most_lines = LIMITS[title]
        lines = sum(length(file) for file in files)
        print(
            f"{title}: {len(files)} files, {lines:,} lines (at most {most_files}, {most_lines:,})"
        )
        if len(files) > most_files or lines > most_lines:
            errors.append(f"{title}: longer than it may be")
    for file in [*essential, *doors]:
        print(f"{length(file):6} {'' if file in essential else '  '}{file}")
    print("\n".join(errors))
    sys.exit(bool(errors))


def listed(page: str) -> tuple[list[str], list[str]]:
    """Read the files of the straight line, and those behind its doors, in the page's order."""
    block = page.split("```text\n")[1].split("```")[0]
    straight, opened = block.split("\n\n", 1)
    parts = [
        [line.split()[0] for line in part.splitlines() if line.split()[0].endswith(".py")]
        for part in (straight, opened)
    ]
    return parts[0], parts[1]


def length(file: str) -> int:
    """Return the number of lines of a file of this project."""
    return len((ROOT / file).read_text(encoding="utf-8").splitlines())


def strangers(file: str, known: set[str]) -> list[str]:
    """List the imports of a file that lead neither to a known file nor to a room's door."""
    found = []
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            # A name is a module of the room, or one that its door exports.
            names = [
                f"{node.module}.{alias.name}" if is_module(node.module, alias.name) else node.module
                for alias in node.names
            ]
        else:
            continue
        for name in names:
            path = name.replace(".", "/")
            is_door = (ROOT / path / "__init__.py").exists()
            is_beside = Path(file).parent == Path(path).parent
            if name.split(".")[0] == "vidadapt" and not (
                is_door or is_beside or f"{path}.py" in known
            ):
                found.append(f"{file} imports {name}, which is not in the list and no door")
    return sorted(set(found))


def is_module(package: str, name: str) -> bool:
    """Return whether a name that is imported from a package is a module or package itself."""
    path = ROOT / package.replace(".", "/") / name
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


if __name__ == "__main__":
    main()
