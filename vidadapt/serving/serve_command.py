"""The command line of vidadapt serve; the server itself needs the extra `serve`."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from pathlib import Path

from vidadapt.config import ConfigError, plugins
from vidadapt.data import cores
from vidadapt.serving.predict_command import usable_device

EXTRA = "pip install 'vidadapt[serve]'"
EPILOG = """examples:
  vidadapt serve runs/mine
  vidadapt serve runs/ssv2 runs/hmdb51 --weights videomae_vit_b.pth --root /data/videos
  curl --data-binary @clip.mp4 'http://127.0.0.1:8000/predict?top=3'
  curl --json '{"path": "a/clip.mp4"}' http://127.0.0.1:8000/predict/path

A video is looked at as in the adapter's evaluation, by vidadapt predict's own code. Adapters of one
backbone share it: videos of several requests, each with its own adapters, go through one forward
pass. /health, /metrics (Prometheus), /adapters and /openapi.json say more; / is a page to try it.
More requests at once than --queue are turned away at once (status 429), larger uploads than
--max_upload with 413. Each video is decoded in a process of its own, which is replaced where a file
kills it, or hangs for --time_limit. Ctrl-C and SIGTERM end the server after what it has in hand.
There are no users or passwords: to serve others than this machine, put a proxy in front of it.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of vidadapt serve."""
    parser.add_argument(
        "adapter", nargs="+",
        help="a run's folder, or its checkpoint's or an exported adapter's; or hub:OWNER/NAME",
    )  # fmt: skip
    parser.add_argument(
        "--weights", metavar="FILE", help="the backbone's weights; default: those of the run"
    )
    parser.add_argument("--num_clips", type=int, metavar="N", help="default: the adapter's")
    parser.add_argument("--num_crops", type=int, metavar="N", help="default: the adapter's")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=8000, help="0: a free one, which is printed (%(default)s)"
    )
    parser.add_argument(
        "--root", type=Path, metavar="DIR",
        help="requests may name videos below this folder; default: they may name none",
    )  # fmt: skip
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--queue", type=int, default=64, metavar="N", help="requests at once (%(default)s)"
    )
    limits.add_argument(
        "--max_upload", type=float, default=100.0, metavar="MB", help="of a video (%(default)g)"
    )
    limits.add_argument(
        "--time_limit", type=float, default=30.0, metavar="S",
        help="seconds for sending a video, and again for decoding it (%(default)g)",
    )  # fmt: skip
    limits.add_argument(
        "--max_batch", type=int, default=16, metavar="N",
        help="clips of a forward pass; 1: each video has its own (%(default)s)",
    )  # fmt: skip
    limits.add_argument(
        "--max_wait", type=float, default=5.0, metavar="MS",
        help="milliseconds that a pass waits for videos that are being decoded (%(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--num_workers", type=int, metavar="N", help="decoding processes; default: one a core"
    )
    parser.add_argument("--device", help="default: cuda where there is one, else cpu")
    parser.add_argument(plugins.OPTION, metavar="MODULES", help=plugins.HELP)


def check_options(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Refuse numbers below their least; fill in what is not given.

    Raises:
        ConfigError: names the option, or a library that is not installed.
        SystemExit: a device that is not there.
    """
    for module in ("fastapi", "uvicorn", "prometheus_client"):
        if find_spec(module) is None:
            raise ConfigError(f"vidadapt serve needs {module}, which is not installed: {EXTRA}")
    least = {"num_clips": 1, "num_crops": 1, "queue": 1, "max_batch": 1, "num_workers": 1}
    for name, smallest in {**least, "port": 0, "max_wait": 0}.items():
        value = getattr(options, name)
        if value is not None and not value >= smallest:
            raise ConfigError(f"--{name}: expected {smallest} or more, got {value}")
    for name in ("max_upload", "time_limit"):
        if not 0 < getattr(options, name) < float("inf"):
            raise ConfigError(f"--{name}: expected more than 0, got {getattr(options, name)}")
    if options.port > 65535:
        raise ConfigError(f"--port: expected 65535 or less, got {options.port}")
    options.root = None if options.root is None else options.root.absolute()
    options.device = usable_device(parser, options.device)
    options.num_workers = options.num_workers or cores()
