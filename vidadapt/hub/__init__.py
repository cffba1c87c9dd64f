"""The Hugging Face hub: fetch files of a repository, and put files there; imports no torch."""

from vidadapt.hub.fetching import (
    FILES,
    PREFIX,
    HubError,
    Stated,
    download,
    download_if_there,
    first_download,
    first_stated,
    stated,
    unreachable,
)
from vidadapt.hub.publishing import publish

__all__ = [
    "FILES",
    "PREFIX",
    "HubError",
    "Stated",
    "download",
    "download_if_there",
    "first_download",
    "first_stated",
    "publish",
    "stated",
    "unreachable",
]
