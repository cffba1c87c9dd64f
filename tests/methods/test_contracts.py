"""What every method promises on every kind of backbone, and docs/methods.md's table of what works.

`python tests/methods/test_contracts.py` prints that table.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
import torch
from kinds import KINDS, NUM_CLASSES, OPTIONS, chosen, clips, disturb, fresh
from torch.nn import functional

from vidadapt import methods
from vidadapt.models import FrameByFrame
from vidadapt.models.weights import backbone_state

ROOT = Path(__file__).parents[2]

# Trained, but their effect cancels, so their gradients are ~0: the scale and shift of fc_norm, or
# of one image's class token, in the BatchNorm that follows; what a token mixer adds to all channels
# of a token in the next LayerNorm.
CANCELLED = re.compile(
    r"(fc_norm|image\.norm)\.(weight|bias)$|.*over_tokens\.fc2\.(bias|delta\.shift)$"
)

# Pairs that are undefined, and the words of the reason.
UNDEFINED = {
    ("vpt", "frame-wise Swin"): "attends within windows",
    ("vpt", "frame-wise Mixer"): "has no attention",
    ("losa", "frame-wise Swin"): "attends within windows",
    ("losa", "frame-wise Mixer"): "has no attention",
}
PAIRS = [(m, k) for m in methods.METHODS for k in KINDS if (m, k) not in UNDEFINED]

# Pairs that the method could merge elsewhere, and the words of the reason.
UNMERGEABLE = {
    ("arc", "frame-wise Swin"): "residual stream",
    ("arc", "frame-wise Mixer"): "TokenMixing",
    ("arc", "InternVideo2"): "adapter's bias",  # its norms and its qkv have none
}

# The options with which a pair that is not merged by default is.
MERGE_OPTIONS = {("arc", "frame-wise Swin"): {"positions": "attention"}}

# Parameters that a method adds, from the blocks' widths w, at its default options.
ADDED = {
    "linear": lambda widths, grid: 0,
    "adaptformer": lambda widths, grid: sum(2 * w * 64 + 64 + w for w in widths),
    "vpt": lambda widths, grid: sum(widths),
    "arc": lambda widths, grid: (
        sum(2 * w * 50 for w in set(widths)) + sum(2 * (50 + w) for w in widths)
    ),
    "st_adapter": lambda widths, grid: sum(2 * w * 384 + 384 + w + 384 * 3 + 384 for w in widths),
    "losa": lambda widths, grid: sum(
        (2 * w * 32 + 32 + w) + token_mixer(grid[0], 8) + token_mixer(grid[1], 16) for w in widths
    ),
}

# Not the frozen model at the start: the prompts take a share of the attention.
NO_IDENTITY = {"vpt"}


def token_mixer(count: int, rank: int) -> int:
    return 2 * count * rank + rank + count


def adapted(method: str, kind: str, **options):
    model = fresh(kind)
    torch.manual_seed(4)
    methods.apply(model, {**chosen(method, kind), **options})
    return model


@pytest.mark.parametrize(("method", "kind"), UNDEFINED)
def test_undefined_pairs_raise_one_error_that_names_both(method, kind):
    model = fresh(kind)
    words = f"{method} is not defined on {model.name}, which {UNDEFINED[method, kind]}"
    with pytest.raises(ValueError, match=re.escape(words)):
        methods.apply(model, chosen(method, kind))


@pytest.mark.parametrize(("method", "kind"), [p for p in PAIRS if p[0] not in NO_IDENTITY])
def test_the_function_is_unchanged_at_initialisation(method, kind):
    with torch.no_grad():
        expected = fresh(kind).eval()(clips(kind=kind))
        found = adapted(method, kind).eval()(clips(kind=kind))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("method", "kind"), PAIRS)
def test_two_steps_move_what_is_trained_and_nothing_else(method, kind):
    model = adapted(method, kind)
    disturb(model)
    methods.train_mode(model)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    trained = {k: p for k, p in model.named_parameters() if p.requires_grad}
    shared = {k for k, p in model.named_parameters(remove_duplicate=False) if p.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=0.1)
    largest = dict.fromkeys(trained, 0.0)
    for _ in range(2):
        optimizer.zero_grad()
        labels = torch.arange(6) % NUM_CLASSES
        functional.cross_entropy(model(clips(6, kind)), labels).backward()
        for key, parameter in trained.items():
            assert parameter.grad is not None, key
            largest[key] = max(largest[key], parameter.grad.abs().max().item())
        optimizer.step()
    for key, value in model.state_dict().items():
        if key not in shared and not key.startswith("head.0."):
            assert torch.equal(before[key], value), f"{key} is frozen and moved"
    top = max(largest.values())
    for key, value in largest.items():
        assert value > 1e-6 * top or CANCELLED.match(key), f"{key} trains without a gradient"


@pytest.mark.parametrize(("method", "kind"), PAIRS)
def test_a_saved_state_gives_the_same_function(method, kind):
    first, second = adapted(method, kind), fresh(kind)
    disturb(first)
    torch.manual_seed(5)
    methods.apply(second, chosen(method, kind))
    methods.load_trainable_state(second, methods.trainable_state(first), "test")
    with torch.no_grad():
        assert torch.equal(first.eval()(clips(kind=kind)), second.eval()(clips(kind=kind)))


@pytest.mark.parametrize(("method", "kind"), PAIRS)
def test_a_state_holds_what_trains_and_the_buffers_only(method, kind):
    model = adapted(method, kind)
    state = methods.trainable_state(model)
    trainable, _ = methods.count_parameters(model)
    buffers = {name for name in state if name not in dict(model.named_parameters())}
    assert sum(t.numel() for k, t in state.items() if k not in buffers) == trainable


@pytest.mark.parametrize(("method", "kind"), [p for p in PAIRS if p[0] in ADDED])
def test_a_method_adds_what_its_formula_says(method, kind):
    plain = fresh(kind)
    widths = [slot.width for slot in plain.slots()]
    places = math.prod(plain.grid[1:])
    if isinstance(plain, FrameByFrame):
        places += plain.num_prefix_tokens
    readout = methods.count_parameters(plain.fc_norm)[1] + plain.width * NUM_CLASSES + NUM_CLASSES
    model = adapted(method, kind)
    if getattr(model, "time_embed", None) is not None:
        readout += methods.count_parameters(model.time_embed)[0]
    expected = ADDED[method](widths, (plain.grid[0], places)) + readout
    assert methods.count_parameters(model)[0] == expected


MERGING = [p for p in PAIRS if p[0] in methods.MERGES and p not in UNMERGEABLE]


@pytest.mark.parametrize(("method", "kind"), [*MERGING, *MERGE_OPTIONS])
def test_a_merged_model_is_a_plain_one_with_the_same_logits(method, kind):
    model = adapted(method, kind, **MERGE_OPTIONS.get((method, kind), {}))
    disturb(model)
    model.double().eval()
    with torch.no_grad():
        expected = model(clips(kind=kind).double())
        methods.merge(model, method)
        found = model(clips(kind=kind).double())
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    assert (expected - fresh(kind).double().eval()(clips(kind=kind).double())).abs().max() > 1e-4
    assert backbone_state(model).keys() == backbone_state(fresh(kind)).keys()


@pytest.mark.parametrize(("method", "kind"), UNMERGEABLE)
def test_pairs_that_cannot_be_merged_say_so_and_stay_as_they_were(method, kind):
    model = adapted(method, kind)
    before = set(model.state_dict())
    with pytest.raises(ValueError, match=UNMERGEABLE[method, kind]):
        methods.merge(model, method)
    assert set(model.state_dict()) == before


@pytest.mark.parametrize("method", sorted(methods.METHODS.keys() - methods.MERGES.keys()))
def test_a_method_that_cannot_be_merged_says_why(method):
    with pytest.raises(
        ValueError, match=f"{method} cannot be merged .*: {methods.why_unmergeable(method)}"
    ):
        methods.merge(adapted(method, "tubelet ViT"), method)


@pytest.mark.parametrize("method", methods.MERGES)
def test_a_method_that_is_not_there_cannot_be_merged(method):
    model = adapted("adaptformer", "tubelet ViT")
    with pytest.raises(ValueError, match=f"nothing of method {method} is in this model"):
        methods.merge(model, method)


@pytest.mark.parametrize("method", methods.METHODS)
def test_unknown_options_are_refused_with_the_key(method):
    with pytest.raises(ValueError, match=r"method\.no_such_option"):
        methods.apply(fresh("tubelet ViT"), {"name": method, "no_such_option": 1})


def with_options(options: dict) -> str:
    parts = [
        f"`{key} {'[' + ', '.join(value) + ']' if isinstance(value, list) else value}`"
        for key, value in options.items()
    ]
    return f" with {', '.join(parts)}" if parts else ""


def support_table() -> str:
    """What works, as docs/methods.md shows it."""

    def cell(pair: tuple[str, str]) -> str:
        if pair in UNDEFINED:
            return "-"
        said = "yes" + with_options(OPTIONS.get(pair, {}))
        if pair in MERGING:
            return f"{said}, merges"
        return (
            f"{said}, merges{with_options(MERGE_OPTIONS[pair])}" if pair in MERGE_OPTIONS else said
        )

    lines = [
        f"| method | {' | '.join(KINDS)} |",
        f"|---|{'---|' * len(KINDS)}",
    ]
    for method in methods.METHODS:
        cells = [cell((method, kind)) for kind in KINDS]
        lines.append(f"| `{method}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_the_page_on_methods_has_the_table_that_these_tests_hold():
    assert support_table() in (ROOT / "docs" / "methods.md").read_text(encoding="utf-8")


if __name__ == "__main__":
    print(support_table())
