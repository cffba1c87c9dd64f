"""A small object store on this machine: S3's GET (with ranges), HEAD, PUT, DELETE over a folder.

It speaks what s3fs and fsspec's http ask for: `/bucket/name`. What it is asked for is noted; it can
fail, wait, refuse, hang, or give other bytes. As a process of its own:
`python -m benchmarks.store_server FOLDER SECONDS` prints its address, and serves until it is ended.
"""

from __future__ import annotations

import hashlib
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

RANGE = re.compile(r"bytes=(\d+)-(\d*)")


@dataclass
class Store:
    """What the server does, and what it was asked for."""

    folder: Path
    address: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, range
    fail: int = 0  # requests that get status 503
    refuse: bool = False  # status 403
    damage: bool = False  # a bit of each answer is another one
    wait: float = 0.0  # seconds before each answer
    now: int = 0  # requests that wait for their answer
    most: int = 0  # of them at one time
    hang: str = ""  # a PUT of an object whose path ends so is never answered, nor done
    hung: int = 0  # of them
    broken: str = ""  # a PUT of an object whose path ends so gets status 503
    left: int | None = None  # so many PUTs are done, the others get status 503
    puts: list[str] = field(default_factory=list)  # paths that were written, in order

    def gets(self) -> list[tuple[str, str]]:
        """Path and range of each object that was read."""
        return [(path, wanted) for method, path, wanted in self.asked if method == "GET"]


@contextmanager
def serving(folder: Path) -> Iterator[Store]:
    """Serve a folder until the block ends; its subfolders are the buckets."""
    store = Store(folder)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = 1 << 16

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def handle_expect_100(self) -> bool:
            found = super().handle_expect_100()
            self.wfile.flush()  # the client waits for it
            return found

        def do_PUT(self) -> None:
            path = unquote(urlsplit(self.path).path)
            store.asked.append(("PUT", path, ""))
            data = self.rfile.read(int(self.headers["Content-Length"]))
            if store.hang and path.endswith(store.hang):
                store.hung += 1
                threading.Event().wait()
            if self._failed():
                return
            if store.left == 0 or (store.broken and path.endswith(store.broken)):
                self._end(503)
                return
            store.left = None if store.left is None else store.left - 1
            file = store.folder / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_name(f"{file.name}.{threading.get_ident()}.partial")
            partial.write_bytes(data)
            partial.replace(file)
            store.puts.append(path)
            self._end(200)

        def do_DELETE(self) -> None:
            path = unquote(urlsplit(self.path).path)
            store.asked.append(("DELETE", path, ""))
            if not self._failed():
                (store.folder / path.lstrip("/")).unlink(missing_ok=True)
                self._end(204)

        def _failed(self) -> bool:
            """Answer as a store that fails or refuses, if it is to."""
            if store.fail > 0:
                store.fail -= 1
                self._end(503)
                return True
            if store.refuse:
                self._end(403)
            return store.refuse

        def _answer(self, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            store.asked.append((self.command, path, self.headers.get("Range", "")))
            store.now += 1
            store.most = max(store.most, store.now)
            time.sleep(store.wait)
            store.now -= 1
            file = store.folder / path.lstrip("/")
            if self._failed():
                return
            if not file.is_file():
                self._end(404)
                return
            with file.open("rb") as opened:
                facts = file.stat()
                wanted = RANGE.fullmatch(self.headers.get("Range", ""))
                start, end = 0, facts.st_size
                if wanted:
                    start = int(wanted[1])
                    end = min(end, int(wanted[2]) + 1) if wanted[2] else end
                opened.seek(start)
                data = bytearray(opened.read(end - start) if with_body else b"")
            if store.damage and data:
                data[len(data) // 2] ^= 1
            state = f"{facts.st_size}.{facts.st_mtime_ns}"
            self.send_response(206 if wanted else 200)
            self.send_header("ETag", f'"{hashlib.md5(state.encode()).hexdigest()}"')
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Content-Length", str(end - start))
            if wanted:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{facts.st_size}")
            self.end_headers()
            self.wfile.write(data)

        def _end(self, status: int) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *about: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    store.address = f"127.0.0.1:{server.server_port}"
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def main() -> None:
    with serving(Path(sys.argv[1])) as store:
        store.wait = float(sys.argv[2])
        print(store.address, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
