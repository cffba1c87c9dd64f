"""Run as a program: trainings one after the other by the same two processes, for tests.

Arguments: a JSON list of the options of each training, and a file for what each process keeps of a
model for full fine-tuning and of one with adapters.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from conftest import load_tool
from on_five_processes import forked
from torch import nn
from torch.distributed.tensor import DTensor

from vidadapt import methods, models
from vidadapt.distributed import World, gather_objects
from vidadapt.training.sharding import shard


def main(world: World) -> None:
    _, runs, parts = sys.argv
    for options in json.loads(runs):
        sys.argv = ["train.py", *options]
        load_tool("train").main(world)
    kept = {name: gather_objects(world, kept_of(name, world)) for name in ("full", "adaptformer")}
    if world.is_main:
        Path(parts).write_text(json.dumps(kept))


def kept_of(method: str, world: World) -> dict[str, dict[str, int]]:
    """How many parameters a model has, and this process keeps of it once it is sharded."""
    torch.manual_seed(0)
    model, _ = models.build("vit_tiny", num_frames=4, crop_size=32, num_classes=3, head="linear")
    methods.apply(model, {"name": method})
    whole = counted(model)
    shard(model, world)
    return {"whole": whole, "kept": counted(model)}


def counted(model: nn.Module) -> dict[str, int]:
    found = {"trained": 0, "frozen": 0}
    for parameter in model.parameters():
        part = parameter.to_local() if isinstance(parameter, DTensor) else parameter
        found["trained" if parameter.requires_grad else "frozen"] += part.numel()
    return found


if __name__ == "__main__":
    sys.exit(forked(main, 2))
