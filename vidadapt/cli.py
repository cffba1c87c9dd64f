"""The command `vidadapt NAME ...`; each file of tools/ calls the one of its name."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.metadata import version

from vidadapt.commands.quick_help import heavy_libraries_left_out
from vidadapt.config.plugins import named_plugins
from vidadapt.console import did_you_mean

# What `vidadapt --help` says of each command; each is a module of vidadapt.commands.
COMMANDS = {
    "From videos to a trained model": {
        "weights": "list published weights of backbones, or fetch one",
        "prepare": "make checked lists of official data sets or your own videos",
        "browse": "look at a list as training would see it",
        "train": "adapt a pre-trained video transformer to a list of videos",
        "evaluate": "score a test list, several clips x crops a video, exactly",
        "predict": "say what trained adapters see in videos",
        "features": "write what a backbone makes of each video of a set, for other tools",
    },
    "Looking closer": {
        "report": "show runs and their evaluations as one HTML page, side by side",
        "check_videos": "decode every file of a list once, and quarantine broken ones",
        "bench_frames": "compare methods over 2, 4, 8 frames: accuracy and full cost",
        "cost": "parameters, FLOPs, memory and time of each method",
        "temporal": "find out whether a model or a data set uses the order of frames",
        "explain": "show where in a video the evidence for an answer is",
        "tsne": "show how trained runs part the classes",
    },
    "Further use": {
        "serve": "answer requests for what trained adapters see in videos, over HTTP",
        "export": "write a trained model as weights, or as a program (ONNX, torch.export)",
        "push": "publish a trained adapter on the Hugging Face hub",
        "demo": "watch the whole system work on generated videos, a few minutes",
    },
}
NAMES = [name for group in COMMANDS.values() for name in group]
# These load clips, in processes that import torch as these do.
LOADING = ("train", "evaluate", "predict", "features", "serve")

FIRST_STEPS = """\
usage: vidadapt COMMAND [options]; `vidadapt COMMAND --help` says more

The first five minutes, with videos in one folder for each class:
  vidadapt prepare folder VIDEOS lists/mine
  vidadapt browse lists/mine/train.txt
  vidadapt train --config custom --data.lists lists/mine --run_dir runs/mine \\
      --model.weights WEIGHTS
  vidadapt evaluate --run_dir runs/mine
  vidadapt predict NEW_VIDEO.mp4 --adapter runs/mine
On several GPUs: torchrun --nproc-per-node 8 -m vidadapt train ...
"""


def main() -> None:
    """Run the command line of this process: the script `vidadapt`, and `python -m vidadapt`."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview(), end="")
    elif words[0] == "--version":
        print(f"vidadapt {version('vidadapt')}")
    else:
        name = words[0].replace("-", "_")
        if name not in NAMES:
            hint = did_you_mean(name, NAMES) or f"there are {', '.join(NAMES)}"
            print(f"error: vidadapt has no command {words[0]!r}; {hint}", file=sys.stderr)
            sys.exit(2)
        run(name, words[1:])


def overview() -> str:
    """Say which commands there are and how to begin."""
    lines = [FIRST_STEPS]
    for title, group in COMMANDS.items():
        lines += [f"{title}:", *(f"  {name:14}{what}" for name, what in group.items()), ""]
    return "\n".join(lines)


def run(name: str, words: list[str]) -> None:
    """Run a command with these options, and end this process with its exit status if that is not 0.

    `--help` is answered without the libraries that take seconds to import. Else the processes that
    load clips import theirs beside this one.
    """
    sys.argv = [f"vidadapt {name}", *words]
    if any(word in ("-h", "--help", "--help_all", "--help-all") for word in words):
        with heavy_libraries_left_out():
            if not named_plugins(words):  # what they import is not known
                import_module(f"vidadapt.commands.{name}").parse(words)
    elif name in LOADING and "torch" not in sys.modules:
        begin_loaders()
    import_module(f"vidadapt.commands.{name}").run()


def begin_loaders() -> None:
    """Let the processes that load clips begin their imports, beside those of this process."""
    import_module("vidadapt.processes").start_server("vidadapt.data.loaders")
