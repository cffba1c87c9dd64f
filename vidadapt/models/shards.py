"""Models in several files: the index that says which file holds which tensor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vidadapt.console import printable

INDEX = ".index.json"
LARGEST_INDEX = 1 << 26  # bytes: 500,000 tensors with long names


def shards_of(index: Path) -> dict[str, list[str]]:
    """Name of a file in the folder of the index -> the tensors that it holds.

    Raises:
        ValueError: not an index, a tensor named twice, none named, or a file in another folder.
    """
    try:
        if index.stat().st_size > LARGEST_INDEX:
            raise ValueError(f"it is larger than {LARGEST_INDEX:,} bytes")
        content = json.loads(index.read_bytes(), object_pairs_hook=_once)
        places = content["weight_map"].items()
    except (OSError, ValueError, RecursionError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{index} is neither a weights file nor the index of one in several files, which has a "
            f"`weight_map` of tensors to files ({printable(repr(error))[:200]}); fetch it again"
        ) from error
    shards: dict[str, list[str]] = {}
    for tensor, shard in places:
        plain = isinstance(shard, str) and printable(shard) == shard
        if not plain or shard in ("", ".", "..") or Path(shard).name != shard:
            raise ValueError(
                f"{index}: {printable(tensor)} is said to be in {shard!r}; expected the name of a "
                "file in the folder of the index"
            )
        shards.setdefault(shard, []).append(tensor)
    if not shards:
        raise ValueError(f"{index}: its `weight_map` names no tensor")
    return shards


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"a name twice: {next(n for n in names if names.count(n) > 1)}")
    return found
