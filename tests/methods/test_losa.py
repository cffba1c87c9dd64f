"""LoSA against a slow restatement, the features without a graph that it reads, and its counts."""

from __future__ import annotations

import copy
import math

import pytest
import slow_vit
import torch
from kinds import clips, disturb, fresh
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional

from vidadapt import methods
from vidadapt.models import build

RANKS = {"channel_rank": 5, "temporal_rank": 3, "spatial_rank": 2}

# Mixers that are left out.
OFF = [
    {"channel_rank": 0},
    {"temporal_rank": 0},
    {"spatial_rank": 0},
    {"temporal_rank": 0, "spatial_rank": 0},
    {"channel_rank": 0, "temporal_rank": 0},
    {"channel_rank": 0, "spatial_rank": 0},
]


def adapted(kind: str = "tubelet ViT", **options):
    model = fresh(kind)
    torch.manual_seed(2)
    methods.apply(model, {"name": "losa", **options})
    return model


def gelu(x: torch.Tensor) -> torch.Tensor:
    return torch.stack([v * (1 + math.erf(v / math.sqrt(2))) / 2 for v in x])


def mixed_by_loops(mixer, column: list[torch.Tensor]) -> list[torch.Tensor]:
    """A token mixer on some tokens (r_c,), every sum written out."""
    if mixer is None:
        return column
    hidden = []
    for weights, bias in zip(mixer.down.weight, mixer.down.bias, strict=True):
        hidden.append(gelu(sum(w * h for w, h in zip(weights, column, strict=True)) + bias))
    shifts = [0.0] * len(column) if mixer.up.bias is None else mixer.up.bias
    return [
        token + sum(w * h for w, h in zip(weights, hidden, strict=True)) + bias
        for token, weights, bias in zip(column, mixer.up.weight, shifts, strict=True)
    ]


def g_by_loops(mixer, tokens: list[torch.Tensor], times: int, places: int) -> list[torch.Tensor]:
    """g on one clip: tokens that pass by, then those of the places of each time."""
    normed = []
    for token in tokens:
        centred = token - sum(token) / len(token)
        normed.append(centred / torch.sqrt(sum(centred**2) / len(token) + 1e-6))
    low = list(normed)
    if mixer.down is not None:
        low = [mixer.down.weight @ token + mixer.down.bias for token in normed]
    passing = len(tokens) - times * places
    for s in range(places):
        at = [passing + t * places + s for t in range(times)]
        for i, token in zip(at, mixed_by_loops(mixer.time, [low[i] for i in at]), strict=True):
            low[i] = token
    for t in range(times):
        at = [passing + t * places + s for s in range(places)]
        for i, token in zip(at, mixed_by_loops(mixer.space, [low[i] for i in at]), strict=True):
            low[i] = token
    if mixer.up is None:
        return [h - token for h, token in zip(low, normed, strict=True)]
    return [mixer.up.weight @ gelu(h) + mixer.up.bias for h in low]


def side_by_loops(side, last, taps, times: int, places: int) -> list[torch.Tensor]:
    y = list(last)
    for mixer, tap in zip(side.mixers, taps, strict=True):
        change = g_by_loops(mixer, [b + v for b, v in zip(tap, y, strict=True)], times, places)
        y = [v + c for v, c in zip(y, change, strict=True)]
    return y


@torch.no_grad()
@pytest.mark.parametrize(("layers", "tapped"), [("all", [0, 1, 2]), ([1, 3], [0, 2]), ([2], [1])])
def test_the_whole_model_is_the_recurrence_written_out(layers, tapped):
    model = slow_vit.tiny_vit()
    methods.apply(model, {"name": "losa", "layers": layers, **RANKS})
    disturb(model)
    model.double().eval()
    clip = slow_vit.one_clip()
    tokens, outputs = slow_vit.embed(model, clip), []
    for block in model.blocks[0].blocks:
        tokens = slow_vit.block(block, tokens)
        outputs.append(tokens)
    taps = [outputs[i] for i in tapped]
    y = side_by_loops(model.blocks[0].side, outputs[-1], taps, times=2, places=4)
    expected = slow_vit.read_out(model, y)
    torch.testing.assert_close(model(clip[None])[0], expected, rtol=0, atol=1e-9)
    assert (expected - slow_vit.read_out(model, outputs[-1])).abs().max() > 1e-3


@torch.no_grad()
@pytest.mark.parametrize("off", [{}, *OFF], ids=str)
@pytest.mark.parametrize(
    ("kind", "rows", "times", "places"),
    [
        ("tubelet ViT", 1, 2, 4),
        ("inflated ViT", 1, 2, 4),  # the class token passes the token mixers by
        ("inflated EVA", 1, 2, 4),  # and so do registers
        ("frame-wise ViT", 4, 4, 5),  # the class token is a place of its frame
    ],
)
def test_rows_and_prefix_tokens_of_every_backbone(kind, rows, times, places, off):
    model = adapted(kind, layers="2-3", **{**RANKS, **off})
    disturb(model)
    side = model.slots()[0].block.side.double()
    tokens = model.num_prefix_tokens + 4 * (2 if rows == 1 else 1)
    generator = torch.Generator().manual_seed(5)
    given = [
        torch.randn(2 * rows, tokens, model.width, generator=generator, dtype=torch.float64)
        for _ in range(3)
    ]
    found = side(*given).unflatten(0, (2, rows)).flatten(1, 2)
    for clip in range(2):
        last, *taps = (x.unflatten(0, (2, rows)).flatten(1, 2)[clip] for x in given)
        expected = side_by_loops(side, last, taps, times, places)
        torch.testing.assert_close(found[clip], torch.stack(expected), rtol=0, atol=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("off", [{}, *OFF], ids=str)
def test_it_starts_as_the_linear_probe_bit_for_bit(off, half):
    probe, model = fresh("tubelet ViT"), adapted(**off)
    methods.apply(probe, {"name": "linear"})
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        assert torch.equal(model.eval()(clips()), probe.eval()(clips()))


def test_features_have_no_graph_and_the_autocast_type():
    model = adapted(layers=[2, 5])
    network = model.blocks[0]
    with torch.autocast("cpu", torch.bfloat16):
        last, *taps = network.frozen_features(model.embed(clips()))
    assert last.dtype == torch.float32 and [tap.dtype for tap in taps] == [torch.bfloat16] * 2
    assert all(x.grad_fn is None and not x.requires_grad for x in (last, *taps))
    plain = fresh("tubelet ViT")
    torch.testing.assert_close(
        network.frozen_features(model.embed(clips()))[0], plain.forward_features(clips()).detach()
    )


def kept_bytes(depth: int, layers: str) -> int:
    """Bytes that a forward pass keeps for backward, the model's own tensors not counted."""
    model, _ = build("vit_tiny", num_frames=4, crop_size=32, num_classes=5)
    del model.blocks[depth:]
    methods.apply(model, {"name": "losa", "layers": layers})
    methods.train_mode(model)
    own = {t.untyped_storage().data_ptr() for t in [*model.parameters(), *model.buffers()]}
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model(clips())
    assert logits.requires_grad
    return sum(storage.nbytes() for address, storage in kept.items() if address not in own)


def test_kept_bytes_grow_with_the_tapped_layers_and_not_with_the_backbone():
    assert kept_bytes(2, "1-2") == kept_bytes(6, "1-2")
    two, three, four = (kept_bytes(6, f"1-{n}") for n in (2, 3, 4))
    assert four - three == three - two > 0


@pytest.mark.parametrize("off", [{}, *OFF], ids=str)
def test_steps_reach_every_parameter_of_every_mixer(off):
    model = adapted(**off)
    methods.train_mode(model)
    side = dict(model.blocks[0].side.named_parameters())
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    reached: set[str] = set()
    for _ in range(3):  # what starts at zero hides what lies before it for a step
        functional.cross_entropy(model(clips()), torch.arange(4)).backward()
        reached |= {name for name, p in side.items() if p.grad.abs().max() > 0}
        optimizer.step()
        optimizer.zero_grad()
    assert reached == set(side)


def test_the_frozen_blocks_stay_in_eval_mode():
    torch.manual_seed(0)
    chosen = {"num_frames": 4, "crop_size": 32, "num_classes": 5, "drop_path": 0.9}
    model, _ = build("vit_tiny", **chosen)
    methods.apply(model, {"name": "losa", "dropout": 0.5})
    disturb(model)
    methods.train_mode(model)
    network, x = model.blocks[0], model.embed(clips())
    features = network.frozen_features(x)
    for first, second in zip(features, network.frozen_features(x), strict=True):
        assert torch.equal(first, second)
    assert not torch.equal(network.side(*features), network.side(*features))
    model.eval()
    assert torch.equal(network.side(*features), network.side(*features))


@pytest.mark.parametrize(
    ("num_frames", "rank", "added"),
    [
        (16, 4, 105_120),
        (16, 8, 198_576),
        (16, 16, 385_488),
        (16, 32, 759_312),
        (8, 4, 104_688),
        (8, 8, 197_760),
        (8, 16, 383_904),
        (8, 32, 756_192),
    ],
)
def test_parameters_of_vit_base_follow_the_closed_formula(num_frames, rank, added):
    ranks = {"channel_rank": rank, "temporal_rank": rank, "spatial_rank": rank}
    with torch.device("meta"):
        model, _ = build("vit_base", num_frames=num_frames, crop_size=224, num_classes=174)
        methods.apply(model, {"name": "losa", **ranks})
    linear_probe = 768 * 174 + 174 + 2 * 768
    assert methods.count_parameters(model)[0] == added + linear_probe


@pytest.mark.parametrize("off", OFF, ids=str)
def test_a_mixer_that_is_left_out_has_no_parameters(off):
    ranks = {"channel_rank": 32, "temporal_rank": 8, "spatial_rank": 16} | off
    with torch.device("meta"):
        model, _ = build("vit_base", num_frames=16, crop_size=224, num_classes=174)
        methods.apply(model, {"name": "losa", **off})
    channels, times, places = ranks.values()
    added = 2 * 768 * channels + channels + 768 if channels else 0
    for tokens, rank in ((8, times), (196, places)):
        if rank:
            added += 2 * tokens * rank + rank + (tokens if channels else 0)
    linear_probe = 768 * 174 + 174 + 2 * 768
    assert methods.count_parameters(model)[0] == 12 * added + linear_probe


@torch.no_grad()
@pytest.mark.parametrize("off", OFF, ids=str)
def test_a_saved_state_gives_the_same_function_and_fits_no_other_mixers(off):
    first, second = adapted(**off), adapted(**off)
    disturb(first)
    state = methods.trainable_state(first)
    methods.load_trainable_state(second, state, "file")
    assert torch.equal(first.eval()(clips()), second.eval()(clips()))
    with pytest.raises(ValueError, match=r"tensors missing from the file: .*\.mixers\.0\."):
        methods.load_trainable_state(adapted(), state, "file")


def test_without_the_time_mixers_a_state_fits_another_number_of_frames():
    first = adapted(temporal_rank=0)
    disturb(first)
    longer, _ = build("vit_tiny", num_frames=8, crop_size=32, num_classes=5)
    methods.apply(longer, {"name": "losa", "temporal_rank": 0})
    methods.load_trainable_state(longer, methods.trainable_state(first), "file")
    side, other = first.blocks[0].side, longer.blocks[0].side
    assert other.state_dict().keys() == side.state_dict().keys()
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in side.state_dict().items())


def test_two_side_networks_share_one_pass_of_the_backbone():
    first, second = adapted(), adapted(channel_rank=7, dropout=0.1)
    disturb(first)
    disturb(second)
    features = first.eval().blocks[0].frozen_features(first.embed(clips()))
    for model in (first, second.eval()):
        logits = model.forward_head(model.blocks[0].side(*features))
        assert torch.equal(logits, model(clips()))


def test_the_order_of_frames_counts_where_the_backbone_cannot_know_it():
    model = adapted("frame-wise ViT").eval()
    backwards = clips().flip(2)
    with torch.no_grad():
        torch.testing.assert_close(model(backwards), model(clips()))
        disturb(model)
        assert (model(backwards) - model(clips())).abs().max() > 1e-3


def test_a_state_of_another_clip_length_is_refused_with_the_tensors_named():
    trained = adapted()
    longer, _ = build("vit_tiny", num_frames=8, crop_size=32, num_classes=5)
    methods.apply(longer, {"name": "losa"})
    message = r"18 tensors of another shape: .*time\.down\.weight is \(8, 2\), needs \(8, 4\)"
    with pytest.raises(ValueError, match=message):
        methods.load_trainable_state(longer, methods.trainable_state(trained), "file")


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"channel_rank": -1}, r"method\.channel_rank: expected 1 or more, or 0"),
        ({"temporal_rank": -2}, "method.temporal_rank"),
        ({"spatial_rank": -1}, "method.spatial_rank"),
        ({"channel_rank": 0, "temporal_rank": 0, "spatial_rank": 0}, "leaves no mixer"),
        ({"channel_rank": 0, "dropout": 0.1}, "method.dropout: is inside the channels"),
        ({"dropout": 1.0}, "method.dropout"),
        ({"layers": "5-7"}, "method.layers"),
    ],
)
def test_impossible_options_name_the_key_and_change_nothing(options, key):
    model = fresh("tubelet ViT")
    names = list(copy.deepcopy(model).state_dict())
    with pytest.raises(ValueError, match=key):
        methods.apply(model, {"name": "losa", **options})
    assert list(model.state_dict()) == names
