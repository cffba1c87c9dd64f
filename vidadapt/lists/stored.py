"""Indices of lists in a store: `s3://bucket/lists/train.txt` and `train.txt.index` beside it.

An index is a file that is mapped and appended to, so a list in a store has a local one, see
`index.index_path`. The rows of the index beside the list are added to it, once for each state of
that. What is counted stays local: nothing is written to the store.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from vidadapt.files import fetched, replaced, state_of, write_text
from vidadapt.lists import index_file
from vidadapt.lists.index import add_to_index, read_index

FROM = ".from"  # ending of the file that tells which state of the store's index was added


def add_stored_index(list_url: str, index: Path) -> None:
    """Add the rows of the index beside a list, if there is one, to the local index.

    Raises:
        OSError, ImportError, ValueError: it cannot be fetched or is no index, or the local one
            cannot be written.
    """
    url = f"{list_url}.index"
    try:
        state = state_of(url)
    except FileNotFoundError:
        return
    mark, told = index.with_name(index.name + FROM), f"{url} {state.size} {state.version}\n"
    if index.exists() and mark.exists() and mark.read_text(encoding="utf-8") == told:
        return
    copy = fetched(url, state)
    with copy.file:
        try:
            found = read_index(copy.path)
        except ValueError:
            raise ValueError(f"{url}: is no video index; delete it in the store") from None
        assert found is not None
        index.parent.mkdir(parents=True, exist_ok=True)
        with index_file.locked(index):
            is_new = not index.exists()
            if is_new:
                with replaced(index) as partial:
                    shutil.copyfile(copy.path, partial)
    if not is_new:
        add_to_index(index, [found[row] for row in found.newest().tolist()])
    write_text(mark, told)
