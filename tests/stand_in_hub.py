"""A stand-in for the Hugging Face hub's HTTP interface, on this machine alone.

As far as huggingface_hub needs it: repositories are made, files are put there in commits (large
ones by LFS), and read again at a revision. Every request is kept, so that a test can say what was
asked for.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_writer"
LARGE = (".safetensors", ".bin", ".pth")


@dataclass
class Repository:
    """Its commits, oldest first: hash -> name -> content."""

    private: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        number = hashlib.sha1(repr((len(self.commits), sorted(files.items()))).encode())
        self.commits[number.hexdigest()] = files
        return number.hexdigest()

    @property
    def head(self) -> tuple[str, dict[str, bytes]]:
        return list(self.commits.items())[-1]


@dataclass
class StandIn:
    """Repositories by OWNER/NAME, large files by SHA-256, and "METHOD path" of each request."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    damage: bool = False  # send large files with their last byte changed

    def put(self, name: str, files: dict[str, bytes], private: bool = False) -> str:
        repository = self.repositories.setdefault(name, Repository(private))
        return repository.commit(files)

    def files(self, name: str) -> dict[str, bytes]:
        return self.repositories[name].head[1]

    @property
    def fetched(self) -> list[str]:
        """The last part of each path whose content was sent."""
        gets = (line for line in self.requests if line.startswith("GET") and "/resolve/" in line)
        return [line.rpartition("/")[2] for line in gets]


class Refused(Exception):
    """An answer other than 200: status, the hub's own code of the error, and further headers."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: StandIn

    def log_message(self, *args: object) -> None:
        pass

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.requests.append(f"{self.command} /{path}")
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length else b""
        try:
            headers, content = self.content(path, body)
            status = 200
        except Refused as refused:
            status, code, *more = refused.args
            headers, content = {"X-Error-Code": code, "X-Error-Message": code}, b"{}"
            headers |= more[0] if more else {}
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_HEAD = do_POST = do_PUT = answer

    def content(self, path: str, body: bytes) -> tuple[dict[str, str], bytes]:
        if "/resolve/" in path:
            return self.file(path)
        if path.startswith("lfs/"):
            assert hashlib.sha256(body).hexdigest() == path[4:]
            self.hub.large[path[4:]] = body
            return {}, b""
        if path == "api/validate-yaml":
            return as_json({"errors": [], "warnings": []})
        if path == "api/repos/create":
            return self.create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self.batch(json.loads(body))
        if not path.startswith("api/models/"):
            raise Refused(404, "EntryNotFound")
        owner, name, *rest = path.removeprefix("api/models/").split("/")
        repository = self.readable(f"{owner}/{name}")
        if not rest or rest[0] == "revision":
            sha, files = repository.head if repository.commits else ("0" * 40, {})
            siblings = [{"rfilename": file} for file in files]
            about = {"id": f"{owner}/{name}", "private": repository.private, "sha": sha}
            return as_json({**about, "siblings": siblings})
        self.require_token()
        if rest[0] == "preupload":
            return as_json({"files": [self.mode(file) for file in json.loads(body)["files"]]})
        assert rest[0] == "commit"
        return self.commit(repository, f"{owner}/{name}", body)

    def require_token(self) -> None:
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "Unauthorized")

    def readable(self, name: str) -> Repository:
        repository = self.hub.repositories.get(name)
        if repository is None:
            raise Refused(404, "RepoNotFound")
        if repository.private and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            raise Refused(401, "RepoNotFound")
        return repository

    def create(self, asked: dict) -> tuple[dict[str, str], bytes]:
        self.require_token()
        if asked["organization"] == "others":
            raise Refused(403, "Forbidden")
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.hub.repositories:
            raise Refused(409, "Conflict")
        self.hub.repositories[name] = Repository(
            bool(asked.get("private")) or asked.get("visibility") == "private"
        )
        return as_json({"url": f"{self.hub.address}/{name}"})

    @staticmethod
    def mode(file: dict) -> dict:
        large = file["path"].endswith(LARGE)
        return {
            "path": file["path"],
            "uploadMode": "lfs" if large else "regular",
            "shouldIgnore": False,
        }

    def batch(self, asked: dict) -> tuple[dict[str, str], bytes]:
        self.require_token()
        objects = [
            {**about, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{about['oid']}"}}}
            for about in asked["objects"]
        ]
        return as_json({"transfer": "basic", "objects": objects})

    def commit(
        self, repository: Repository, name: str, body: bytes
    ) -> tuple[dict[str, str], bytes]:
        files = dict(repository.head[1]) if repository.commits else {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            else:
                assert line["key"] == "header"
        sha = repository.commit(files)
        url = f"{self.hub.address}/{name}/commit/{sha}"
        return as_json({"success": True, "commitUrl": url, "commitOid": sha})

    def file(self, path: str) -> tuple[dict[str, str], bytes]:
        repository, _, rest = path.partition("/resolve/")
        revision, _, name = rest.partition("/")
        commits = self.readable(repository).commits
        sha = list(commits)[-1] if revision == "main" else revision
        if sha not in commits:
            raise Refused(404, "RevisionNotFound")
        if name not in commits[sha]:
            raise Refused(404, "EntryNotFound", {"X-Repo-Commit": sha})
        content = commits[sha][name]
        digest = hashlib.sha256(content).hexdigest()
        tag = digest if name.endswith(LARGE) else hashlib.sha1(content).hexdigest()
        if self.hub.damage and name.endswith(LARGE):
            content = content[:-1] + bytes([content[-1] ^ 1])
        return {"X-Repo-Commit": sha, "ETag": f'"{tag}"'}, content


def as_json(value: object) -> tuple[dict[str, str], bytes]:
    return {"Content-Type": "application/json"}, json.dumps(value).encode()


@contextmanager
def serving() -> Iterator[StandIn]:
    """Serve an empty hub while the block runs."""
    hub = StandIn()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"hub": hub}))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
