"""Keys that have another name now: what older runs wrote is read, what people write is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# By the old key: the new one, and its value for each of the old values.
RENAMED: dict[str, tuple[str, dict[Any, Any]]] = {
    "data.class_balanced_sampling": (
        "data.class_sampling",
        {False: "natural", True: "balanced"},
    ),
}


def new_name(key: str) -> str:
    """Say what an old key is called now; empty: it is none.

    >>> new_name("data.class_balanced_sampling")
    'is data.class_sampling now: natural for false, balanced for true'
    """
    if key not in RENAMED:
        return ""
    new, values = RENAMED[key]
    said = ", ".join(f"{now} for {str(old).lower()}" for old, now in values.items())
    return f"is {new} now: {said}"


def with_new_keys(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Put new keys in the place of old ones, in settings "section.key" of an older version.

    >>> with_new_keys({"data.class_balanced_sampling": True, "train.seed": 1})
    {'data.class_sampling': 'balanced', 'train.seed': 1}
    """
    found = {}
    for key, value in settings.items():
        new, values = RENAMED.get(key, (key, {}))
        found[new] = values.get(value, value) if values else value
    return found


def file_with_new_keys(content: Mapping[str, Any]) -> dict[str, Any]:
    """Put new keys in the place of old ones, in the content of a run's config.yaml."""
    found = dict(content)
    for name, section in content.items():
        if isinstance(section, dict):
            renewed = with_new_keys({f"{name}.{key}": value for key, value in section.items()})
            found[name] = {key.partition(".")[2]: value for key, value in renewed.items()}
    return found
