"""Published classifiers: `model.head from_file` becomes the head that the weights file holds.

A head that was trained elsewhere knows its classes by number; the names beside it (`id2label`) are
compared with those of the list, since two lists may number the same classes differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from vidadapt import data
from vidadapt.config import Config, ConfigError
from vidadapt.models import (
    WITHOUT_FILE,
    PublishedHead,
    published_head,
    published_probe,
    weights_file,
)

FROM_FILE = "from_file"
SHOWN = 5  # names of a message


def is_published(config: Config) -> bool:
    """Check that the head is asked for by `from_file`."""
    return config.model.head == FROM_FILE


def head_of_file(config: Config) -> tuple[Config, PublishedHead]:
    """Replace `from_file` by the kind of head that the weights file holds.

    Raises:
        ConfigError, ValueError: no file, none with a classifier, or another depth was asked for.
    """
    chosen = config.model
    if chosen.weights is None or chosen.weights in WITHOUT_FILE:
        raise ConfigError(
            f"model.head: {FROM_FILE} takes the classifier of a weights file; give --model.weights "
            "FILE, FOLDER or hub:OWNER/NAME"
        )
    path = weights_file(chosen.weights)
    assert path is not None
    if chosen.head_weights is None:
        found = published_head(path, chosen.backbone, chosen.num_heads, chosen.weights_key)
    else:
        found = published_probe(
            path,
            chosen.backbone,
            Path(chosen.head_weights),
            chosen.head_weights_key,
            chosen.head_heads,
        )
    for key, asked, held in (
        ("head_depth", chosen.head_depth, found.depth),
        ("head_heads", chosen.head_heads, found.heads),
    ):
        if asked is not None and asked != held:
            raise ConfigError(
                f"model.{key}: {asked}, but the head in {found.head_path} has {held}; leave it out"
            )
    model = replace(
        chosen,
        head=found.kind,
        head_depth=found.depth,
        head_heads=found.heads,
        keep_head=found.probe is None,
    )
    return replace(config, model=model), found


def to_train_on(config: Config) -> Config:
    """Return the configuration of a run that begins with the head of its weights file.

    One that asks for no such head is returned as it is.

    Raises:
        ConfigError, ValueError: see `head_of_file`, `class_names`; or a head that reads the first
            token, which adapters cannot tell.
    """
    if not is_published(config):
        return config
    config, found = head_of_file(config)
    if found.first_token:
        raise ConfigError(
            f"model.head: {FROM_FILE}: the classifier in {found.path} reads its first token "
            "(use_mean_pooling false), which is for evaluation alone; train a new head: "
            "--model.head linear"
        )
    plan = data.resolve(config.data, config.eval)
    class_names(found, plan.label_names, config.model.class_order, plan.num_classes)
    return config


def class_names(
    found: PublishedHead,
    of_list: Sequence[str] | None,
    asked: str | None,
    num_classes: int | None = None,
) -> tuple[tuple[str, ...] | None, str]:
    """Compare the classes of a head with those of a list.

    Args:
        of_list: class names in the list's order; None: it has none.
        asked: `model.class_order`.
        num_classes: of the data set; None: any.

    Returns:
        Class names in the order in which the model is to number them, and that order in words.

    Raises:
        ConfigError: another number of classes, other names, or the same in another order that
            nobody asked to apply.
    """
    own, source = found.label_names, found.head_path
    given = len(of_list) if of_list is not None else num_classes
    if given is not None and given != found.num_classes:
        raise ConfigError(
            f"model.head: {FROM_FILE}: the head in {source} has {found.num_classes} classes, "
            f"the data {given}; use lists of its classes, or a head of your own"
        )
    if own is None or of_list is None:
        if asked == "by_name":
            which = "weights file" if own is None else "list"
            raise ConfigError(f"model.class_order: by_name needs names, and the {which} has none")
        if own is None:
            return None if of_list is None else tuple(of_list), "by number: the file has no names"
        return own, "the file's"
    if list(own) == list(of_list):
        return own, "names agree with the list's"
    if asked == "by_number":
        return tuple(of_list), "by number, though the file's names differ, as asked"
    pairs = [
        f"{number}: {a!r} in the file, {b!r} in the list"
        for number, (a, b) in enumerate(zip(own, of_list, strict=True))
        if a != b
    ]
    if set(own) == set(of_list):
        if asked == "by_name":
            return tuple(of_list), f"by name: {len(pairs)} of the file's classes moved, as asked"
        raise ConfigError(
            f"model.head: {FROM_FILE}: the head in {source} numbers the same "
            f"{len(own)} classes in another order than the list; {len(pairs)} differ "
            f"({'; '.join(pairs[:SHOWN])}). --model.class_order by_name puts them in the list's"
        )
    strange = sorted(set(own) - set(of_list))
    raise ConfigError(
        f"model.head: {FROM_FILE}: {len(strange)} class names of {source} are not in the list "
        f"({'; '.join(pairs[:SHOWN])}). Use a list of the file's classes; or, if only the spelling "
        "differs and the numbers mean the same, --model.class_order by_number"
    )
