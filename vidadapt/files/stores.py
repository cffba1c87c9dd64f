"""Objects of a store, named by a URL in the place of a path: `s3://bucket/folder/a.mp4`.

fsspec reads them; the environment says how: AWS_PROFILE, AWS_ENDPOINT_URL, HF_TOKEN,
GOOGLE_APPLICATION_CREDENTIALS, or FSSPEC_S3_..., as each store's own tools do. A URL with a
password or a signed query is refused, since URLs are shown and saved. Names are taken as they are:
`%` and spaces are never those of a quoted URL.

Failures are `OSError`s, as those of files: `strerror` says what is wrong and how to mend it; the
URL is `filename`, and what may be a credential is taken out. A request that fails for a moment is
tried again.
"""

from __future__ import annotations

import errno
import functools
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

import xxhash

from vidadapt.files.retrying import Patience

# By the scheme of their URLs: what to install for them.
STORES = {
    "s3": "vidadapt[s3]",
    "gs": "vidadapt[gs]",
    "hf": "huggingface_hub",
    "http": "vidadapt[http]",
    "https": "vidadapt[http]",
    "file": "fsspec",
    "memory": "fsspec",
}
STARTS = tuple(f"{scheme}://" for scheme in STORES)
GAP = 1 << 18  # bytes between two wanted parts up to which one request reads both
SECONDS = 5.0  # patience of a request; those who read a video have more
AT_ONCE = 16  # requests about objects
FEW = 4  # objects of a folder that are looked at one by one; of more the folder is listed
# What tells one state of an object from another, the surest first. Stores have some of these.
VERSIONS = (
    *("generation", "ETag", "etag", "blob_id", "md5Hash", "Content-MD5"),
    *("LastModified", "last_modified", "Last-Modified", "mtime", "created"),
)
CREDENTIALS = re.compile(
    r"(?P<user>(?<=://)[^/\s@'\"]+@)|(?P<query>\?[^\s'\"<>]*)"
    r"|\b(?:A[KS]IA[0-9A-Z]{12,}|hf_\w{8,}|ya29\.[\w-]+)"
    r"|(?i:(?:bearer|basic)\s+\S+)"
    r"|(?i:(?:signature|credential|token|secret|key|password)\w*[\"']?\s*[=:]\s*[^\s,&]+)"
)
SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL")
# In the names of the errors of libraries that know no credentials, or none that may read.
UNKNOWN_USER = ("Credential", "AuthToken", "TokenRetrieval", "RefreshError", "GatedRepo")

Result = TypeVar("Result")


class State(NamedTuple):
    """State of an object as of a file: its bytes, and a number that every write changes."""

    size: int
    version: int


def is_url(path: str | os.PathLike[str]) -> bool:
    """Return whether a path names an object of a store.

    >>> is_url("s3://bucket/a.mp4"), is_url("/data/s3://bucket/a.mp4"), is_url("a:b.mp4")
    (True, False, False)
    """
    return isinstance(path, str) and path.startswith(STARTS)


def joined(root: str | Path, path: str) -> str:
    """Return the file or the URL of a list's path.

    >>> joined("s3://bucket/set", "a b.mp4"), joined("/data", "s3://bucket/a.mp4")
    ('s3://bucket/set/a b.mp4', 's3://bucket/a.mp4')
    """
    return path if is_url(path) else os.path.join(root, path)  # noqa: PTH118 (a Path costs more)


def absolute(path: str | os.PathLike[str]) -> str:
    """Return a URL as it is, and a path below the working folder as an absolute one."""
    return str(path) if is_url(path) else os.path.abspath(path)  # noqa: PTH100 (keeps no "..")


def without_credentials(text: str) -> str:
    """Take out what may be a key, a token, a password or a signed query.

    >>> without_credentials("GET https://me:pw@host/a?X-Amz-Signature=12 failed")
    'GET https://...@host/a?... failed'
    """
    for name, value in os.environ.items():
        if SECRET.search(name) and len(value) >= 8:
            text = text.replace(value, "...")
    kept = {"user": "...@", "query": "?..."}
    return CREDENTIALS.sub(lambda found: kept.get(str(found.lastgroup), "..."), text)


def refuse_credentials(url: str) -> None:
    """Raise ValueError for a URL that holds a password or a signed query; the message does not.

    >>> refuse_credentials("s3://bucket/why? a=b.mp4")
    >>> refuse_credentials("https://host/a.mp4?sig=12")
    Traceback (most recent call last):
    ValueError: https://host/a.mp4?...: a URL with a password or a signed query, which would be ...
    """
    place = url.partition("://")[2].partition("/")[0]
    if "@" in place or re.search(r"\?[\w.-]+=", url):
        raise ValueError(
            f"{without_credentials(url)}: a URL with a password or a signed query, which would be "
            "shown and saved; take it out, and give credentials by the store's environment "
            "variables or files, e.g. AWS_PROFILE"
        )


def state_of(url: str) -> State:
    """Ask the store for the state of an object.

    Raises:
        OSError, ImportError, ValueError: see `read_ranges`.
    """

    def look(fs: Any, path: str) -> State:
        fs.invalidate_cache()
        return _state(url, fs.info(path))

    return request(url, look)


@functools.lru_cache(maxsize=1 << 16)
def known_state(url: str) -> State:
    """Return `state_of`, asked once in this process: what is read is compared with checksums."""
    return state_of(url)


def states_of(urls: Iterable[str]) -> dict[str, State | OSError]:
    """Ask for the states of many objects, or why each cannot be had; folders are listed.

    Raises:
        ImportError, ValueError: see `read_ranges`.
    """
    folders: defaultdict[str, list[str]] = defaultdict(list)
    for url in dict.fromkeys(urls):
        folders[url.rpartition("/")[0]].append(url)
    listed = [folder for folder, inside in folders.items() if len(inside) > FEW]
    found: dict[str, State | OSError] = {}
    with ThreadPoolExecutor(AT_ONCE) as threads:
        for folder, there in zip(listed, threads.map(_listed, listed), strict=True):
            found |= {url: there[url] for url in folders[folder] if url in there}
        left = [url for inside in folders.values() for url in inside if url not in found]
        return found | dict(zip(left, threads.map(_state_or_error, left), strict=True))


def read_ranges(url: str, places: Sequence[tuple[int, int]]) -> list[memoryview]:
    """Read parts of an object; those that lie side by side, or nearly, by one request.

    Args:
        places: offset and size of each part, in bytes.

    Raises:
        FileNotFoundError: there is no such object.
        PermissionError: the store refuses it, or no credentials are known.
        OSError: the store cannot be reached, or gives other bytes than asked for.
        ImportError: the package for this store is missing.
        ValueError: see `refuse_credentials`.
    """
    spans = _spans(places)

    def read(fs: Any, path: str) -> list[bytes]:
        starts, ends = zip(*spans, strict=True)
        found = fs.cat_ranges([path] * len(spans), [*starts], [*ends], on_error="return")
        for data, (start, end) in zip(found, spans, strict=True):
            if isinstance(data, BaseException):
                raise data
            if len(data) != end - start:
                raise OSError(f"it gave {len(data):,} bytes where {end - start:,} were asked for")
        return found

    parts = request(url, read)
    views = []
    for offset, size in places:
        number = next(n for n, (start, end) in enumerate(spans) if start <= offset <= end)
        begin = offset - spans[number][0]
        views.append(memoryview(parts[number])[begin : begin + size])
    return views


def _spans(places: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Begin and end of each request, in ascending order.

    >>> _spans([(512, 100), (0, 10), (10**7, 5)])
    [(0, 612), (10000000, 10000005)]
    """
    found: list[tuple[int, int]] = []
    for offset, size in sorted(places):
        if found and offset - found[-1][1] <= GAP:
            found[-1] = found[-1][0], max(found[-1][1], offset + size)
        else:
            found.append((offset, offset + size))
    return found


def _listed(folder: str) -> dict[str, State | OSError]:
    """States of a folder's objects, by URL; empty where it cannot be listed."""

    def look(fs: Any, path: str) -> dict[str, State | OSError]:
        fs.invalidate_cache()
        found: dict[str, State | OSError] = {}
        for one in fs.ls(path, detail=True):
            name = str(one["name"]).rstrip("/").rpartition("/")[2]
            if one.get("type") == "file":
                found[f"{folder}/{name}"] = _state(folder, one)
        return found

    if folder.startswith("http"):  # its listings are pages, without sizes
        return {}
    try:
        return request(folder, look)
    except OSError:
        return {}


def _state_or_error(url: str) -> State | OSError:
    try:
        return state_of(url)
    except OSError as error:
        return error


def _state(url: str, info: Mapping[str, Any]) -> State:
    if info.get("type") == "directory":
        raise IsADirectoryError(errno.EISDIR, "a folder, no object", url)
    if info.get("size") is None:
        raise OSError(errno.EINVAL, "the store does not tell its size", url)
    version = next((f"{name}={info[name]}" for name in VERSIONS if info.get(name)), "")
    return State(int(info["size"]), xxhash.xxh3_64_intdigest(version.encode()) >> 1)


def request(url: str, ask: Callable[[Any, str], Result]) -> Result:
    """Return `ask(file system, path)`, tried again if it fails for a moment.

    Raises:
        OSError, ImportError, ValueError: see `read_ranges`.
    """
    refuse_credentials(url)
    scheme, _, place = url.partition("://")

    def once() -> Result:
        import fsspec  # 0.1 s, which local files need not wait for

        try:
            fs = fsspec.filesystem(scheme)
            plain = f"{scheme}://{quote(place, safe='/:')}" if scheme in ("http", "https") else url
            return ask(fs, fs._strip_protocol(plain))
        except ImportError:
            raise ImportError(
                f"{url}: reading {scheme}:// needs a package that is not installed: "
                f"pip install '{STORES[scheme]}'"
            ) from None
        except Exception as error:  # each store raises those of its own library
            raise _named(url, error) from None

    return _patience().call(once)


@functools.cache
def _patience() -> Patience:
    """The patience of this process for requests."""
    return Patience(SECONDS)


def _named(url: str, error: BaseException) -> OSError:
    """Make an error without credentials of what a store's library raised; it says what to do."""
    if isinstance(error, OSError) and error.filename == url:
        return error  # already one of these
    if error.__cause__ and type(error.__cause__).__module__.startswith("aiohttp"):
        error = error.__cause__  # of whatever fails, fsspec says that there is no such file
    response = getattr(error, "response", None)
    status = getattr(error, "status", getattr(response, "status_code", None))
    kind = type(error).__name__
    lines = without_credentials(str(error)).strip().splitlines()
    cause = f"{kind}: {lines[0][:200]}" if lines else kind
    if isinstance(error, FileNotFoundError) or status == 404:
        why = "the store has no such object; check its name, and the bucket and folder before it"
        return FileNotFoundError(errno.ENOENT, why, url)
    unknown = any(word in kind for word in UNKNOWN_USER)
    if isinstance(error, PermissionError) or status in (401, 403) or unknown:
        why = (
            f"the store refuses it ({cause}); give this machine credentials that may do it, e.g. "
            "AWS_PROFILE, GOOGLE_APPLICATION_CREDENTIALS or HF_TOKEN; it may also not exist"
        )
        return PermissionError(errno.EACCES, why, url)
    why = f"the store fails now ({cause}); check the network, and the store's address"
    return OSError(errno.EREMOTEIO, why, url)
