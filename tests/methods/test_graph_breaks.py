"""torch.compile takes each model as one graph: no method and no kind of backbone breaks it."""

from __future__ import annotations

import pytest
import torch
from kinds import KINDS, NUM_CLASSES, chosen, clips, fresh
from torch import nn
from torch._dynamo.utils import counters

from vidadapt import methods
from vidadapt.models import HEADS, VideoModel, autocast, cast_frozen

CPU = torch.device("cpu")

pytestmark = pytest.mark.slow  # traces for seconds


def graphs(model: VideoModel, method: str, kind: str) -> tuple[int, dict[str, int]]:
    """How many graphs a training step's forward pass is traced as, and what broke it."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ModuleList):  # two blocks tell it as well as twelve
                setattr(module, name, child[:2])
    methods.apply(model, chosen(method, kind))
    methods.train_mode(model)
    cast_frozen(model, CPU, "bf16")
    torch._dynamo.reset()
    counters.clear()
    model.compile(backend="eager")
    with autocast(CPU, "bf16"):
        logits = model(clips(2, kind))
    logits.float().sum().backward()
    return counters["stats"]["unique_graphs"], dict(counters["graph_break"])


# One kind for every method and one method for every kind; all pairs take five minutes.
PAIRS = [(method, "tubelet ViT") for method in methods.METHODS]
PAIRS += [("adaptformer", kind) for kind in KINDS if kind != "tubelet ViT"]


@pytest.mark.parametrize(("method", "kind"), PAIRS)
def test_a_training_step_is_one_graph(method, kind):
    assert graphs(fresh(kind), method, kind) == (1, {})


@pytest.mark.parametrize("head", HEADS)
def test_a_head_is_in_the_same_graph(head):
    model = fresh("tubelet ViT")
    model.head = HEADS[head](model.width, NUM_CLASSES)
    assert graphs(model, "linear", "tubelet ViT") == (1, {})
