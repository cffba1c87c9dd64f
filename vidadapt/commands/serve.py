"""Serve: trained adapters as a web service on this machine."""

from __future__ import annotations

import argparse

from vidadapt import launching
from vidadapt.apps.report import filled
from vidadapt.config import ConfigError, parse_beside_keys
from vidadapt.serving import predict_command, serve_command


def main(argv: list[str] | None = None) -> None:
    """Serve as the arguments say, until SIGINT or SIGTERM."""
    options = parse(argv)
    from vidadapt.serving.server.run import serve  # needs the extra `serve`

    serve(predict_command.predictor_of(options), options, filled("serve.html.j2"))


def parse(argv: list[str] | None) -> argparse.Namespace:
    """Read and check the options."""
    parser = argparse.ArgumentParser(
        prog="vidadapt serve",
        description="Answer requests for what adapters see in videos, over HTTP.",
        epilog=serve_command.EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    serve_command.add_options(parser)
    options = parse_beside_keys(parser, argv)
    if options.keys:
        raise ConfigError(f"{options.keys[0]}: is no option of vidadapt serve; see --help")
    serve_command.check_options(parser, options)
    return options


def run() -> None:
    """Run this process's command line."""
    launching.alone(main)
