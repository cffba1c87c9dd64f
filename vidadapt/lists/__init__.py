"""Lists of videos, the folders that hold them, and what is known of their files.

`read_list` reads a list, `counted_videos` looks its files up in the index beside it and decodes
once those that it does not know. An evaluation or a training run then takes the `Videos`.
"""

from vidadapt.lists.counting import counted_videos, frame_counts, known_rows, look_at
from vidadapt.lists.file_counting import CountJob, count_file, facts_of_failure
from vidadapt.lists.folds import (
    FOLDS_FILE,
    FoldedVideo,
    fold_names,
    group_numbers,
    read_folds,
    write_folds,
)
from vidadapt.lists.index import Index, add_to_index, index_path, read_index, tidy_index
from vidadapt.lists.names import (
    IMAGE_ENDINGS,
    PATH_COLUMNS,
    VIDEO_ENDINGS,
    composed,
    is_image,
    is_video,
    other_spelling,
    spelled,
    without_ending,
)
from vidadapt.lists.prepared import (
    PREPARED_FILE,
    Prepared,
    known_root,
    read_prepared,
    with_lists,
    write_prepared,
)
from vidadapt.lists.quarantine import barred_files, read_quarantine, write_quarantine
from vidadapt.lists.reading import (
    HEADER_FIELDS,
    LABELS_FILE,
    MOST_LISTED,
    ListError,
    Sample,
    Samples,
    check_label_names,
    listing,
    manifest_hash,
    parse_line,
    read_label_names,
    read_list,
    shared_paths,
    write_list,
)
from vidadapt.lists.videos import Videos

__all__ = [
    "FOLDS_FILE",
    "HEADER_FIELDS",
    "IMAGE_ENDINGS",
    "LABELS_FILE",
    "MOST_LISTED",
    "PATH_COLUMNS",
    "PREPARED_FILE",
    "VIDEO_ENDINGS",
    "CountJob",
    "FoldedVideo",
    "Index",
    "ListError",
    "Prepared",
    "Sample",
    "Samples",
    "Videos",
    "add_to_index",
    "barred_files",
    "check_label_names",
    "composed",
    "count_file",
    "counted_videos",
    "facts_of_failure",
    "fold_names",
    "frame_counts",
    "group_numbers",
    "index_path",
    "is_image",
    "is_video",
    "known_root",
    "known_rows",
    "listing",
    "look_at",
    "manifest_hash",
    "other_spelling",
    "parse_line",
    "read_folds",
    "read_index",
    "read_label_names",
    "read_list",
    "read_prepared",
    "read_quarantine",
    "shared_paths",
    "spelled",
    "tidy_index",
    "with_lists",
    "without_ending",
    "write_folds",
    "write_list",
    "write_prepared",
    "write_quarantine",
]
