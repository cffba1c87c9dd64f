"""The life of a server, from its address to its summary."""

from __future__ import annotations

import argparse
import signal
import socket
import time

import uvicorn

from vidadapt.config import ConfigError
from vidadapt.console import duration
from vidadapt.serving.predict import Predictor
from vidadapt.serving.server.app import make_app
from vidadapt.serving.server.service import Limits, Service

WAITING = 2048  # connections that are not taken yet
ENDING = 60  # seconds that requests in hand have when the server is to end


def serve(predictor: Predictor, options: argparse.Namespace, page: str) -> None:
    """Serve until SIGINT or SIGTERM; requests in hand are answered before it ends.

    A second SIGINT ends it without them.

    Args:
        page: the web page, HTML.

    Raises:
        ConfigError: the address cannot be had, or the root is no folder.
    """
    if options.root is not None and not options.root.is_dir():
        raise ConfigError(f"--root: {options.root} is no folder")
    door = _door(options.host, options.port)
    limits = Limits(
        requests=options.queue,
        upload=round(options.max_upload * 1e6),
        seconds=options.time_limit,
        batch=options.max_batch,
        wait=options.max_wait / 1000,
    )
    service = Service(predictor, num_workers=options.num_workers, root=options.root, limits=limits)
    service.warm_up()
    door.listen(WAITING)
    host, port = door.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    print(
        f"serving {', '.join(predictor.names)} at http://{shown}:{port} (Ctrl-C ends)", flush=True
    )
    began = time.monotonic()
    for number in (signal.SIGINT, signal.SIGTERM):  # uvicorn sends them on when it has ended
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        make_app(service, page),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=ENDING,
    )
    server = uvicorn.Server(config)
    server.run(sockets=[door])
    if server.force_exit:  # Ctrl-C twice: nobody waits for what is in hand
        service.abandon()
    said = ", ".join(
        f"{n} {name.replace('_', ' ')}" for name, n in service.figures.counts().items()
    )
    print(f"ended after {duration(time.monotonic() - began)}: {said}", flush=True)


def _door(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    door = socket.socket(family)
    door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        door.bind((host, port))
    except OSError as error:
        door.close()
        raise ConfigError(
            f"--host, --port: {host}:{port} cannot be had ({error.strerror}); give another --port, "
            "or 0 for a free one"
        ) from None
    return door
