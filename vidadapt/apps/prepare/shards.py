"""Parts of a list that machines count or check on their own, and the index joined of them."""

from __future__ import annotations

from pathlib import Path

from vidadapt.lists import Samples, add_to_index, index_path, join_indexes, shard_path
from vidadapt.video import film_of


def sharded(
    list_path: Path, samples: Samples, shard: tuple[int, int] | None, folder: Path | None
) -> tuple[Path, Samples]:
    """Take every N-th video from the I-th on; return the name that the part's files have, too.

    Segments go with their film: every N-th film is taken with all of them.

    Args:
        shard: I, from 1, and N; None: the whole list.
        folder: of the index; None: beside the list.

    Raises:
        ValueError: the part has no video.
        OSError: its index cannot be written.
    """
    if shard is None:
        return list_path, samples
    part, number = shard
    films = {film: place for place, film in enumerate(dict.fromkeys(map(film_of, samples.paths())))}
    chosen = [one for one in samples if films[film_of(one.path)] % number == part - 1]
    if not chosen:
        raise ValueError(
            f"--shard {part}/{number}: {list_path} has {len(samples):,} videos; choose fewer parts"
        )
    named = shard_path(list_path, part, number)
    add_to_index(index_path(named, folder), [])  # there, even where none of its files is
    return named, Samples.of(chosen)


def join(list_path: Path, number: int | None, folder: Path | None) -> None:
    """Put the indices of all N parts of a list into its own, and say how many videos they know.

    Raises:
        ValueError: one is missing, or no index.
        OSError: the list's index cannot be written.
    """
    if number is None:
        return
    parts = [index_path(shard_path(list_path, 1 + n, number), folder) for n in range(number)]
    rows = join_indexes(index_path(list_path, folder), parts)
    print(f"{list_path}: {rows:,} videos of {number} parts joined")
