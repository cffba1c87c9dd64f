"""TimeSformer, ViViT and VideoPrism against transformers' with the same weights; their files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from timm.layers import Attention
from torch import Tensor, nn
from torch.nn import functional

from vidadapt import methods
from vidadapt.models import TokenAttention, build, published_head
from vidadapt.models.axis_attention import AxisAttention
from vidadapt.models.encoder_files import TIMESFORMER_FILES, VIDEOPRISM_FILES, VIVIT_FILES
from vidadapt.training.optim import layers_of

TINY = {"width": 48, "depth": 3, "num_heads": 3}
FILES = {"timesformer": TIMESFORMER_FILES, "vivit": VIVIT_FILES, "videoprism": VIDEOPRISM_FILES}
PATCH = {"timesformer": 16, "vivit": 16, "videoprism": 18}


@pytest.fixture(autouse=True)
def tiny_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, files in FILES.items():
        more = {"depth": 4, "temporal_depth": 2, "patch_size": 18} if kind == "videoprism" else {}
        monkeypatch.setitem(files.sizes, f"{kind}_tiny", TINY | more)


def reference(kind: str, frames: int, side: int, *, base: bool = False) -> Any:
    """transformers' model of side x side patches, every parameter away from its initial value."""
    transformers = pytest.importorskip("transformers", reason="test extra: transformers")
    depth = TINY["depth"]
    name, model, layers = {
        "timesformer": ("Timesformer", "Model", {"num_hidden_layers": depth}),
        "vivit": ("Vivit", "Model", {"num_hidden_layers": depth}),
        "videoprism": (
            *("VideoPrism", "VisionModel"),
            {"num_spatial_layers": 2, "num_temporal_layers": 2},
        ),
    }[kind]
    config_class = name + model.removesuffix("Model") + "Config"
    config = getattr(transformers, config_class)(
        image_size=side * PATCH[kind],
        num_frames=frames,
        hidden_size=TINY["width"],
        num_attention_heads=TINY["num_heads"],
        intermediate_size=4 * TINY["width"],
        num_labels=5,
        **layers,
    )
    torch.manual_seed(0)
    made = getattr(transformers, f"{name}{model if base else 'ForVideoClassification'}")(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return made.eval()


def clips(kind: str, frames: int, side: int) -> Tensor:
    generator, crop = torch.Generator().manual_seed(1), side * PATCH[kind]
    return torch.randn(2, 3, frames, crop, crop, generator=generator)


def ours(kind: str, path: Path, frames: int, side: int, **options: Any) -> Any:
    """Built by name, as a user builds it, from a file."""
    shape = {"num_frames": frames, "crop_size": side * PATCH[kind], "num_classes": 5}
    options = {"head": "linear", "weights": path, **options}
    model, report = build(f"{kind}_tiny", **shape, **options)
    assert report is not None
    return model.eval(), report


def their_features(kind: str, theirs: Any, clip: Tensor, **options: Any) -> Tensor:
    """transformers' last hidden state, TimeSformer's patch-major tokens made time-major."""
    inner = getattr(theirs, "vision_model" if kind == "videoprism" else kind, theirs)
    tokens = inner(clip.transpose(1, 2), **options).last_hidden_state
    if kind != "timesformer":
        return tokens
    places = tokens[:, 1:].unflatten(1, (-1, clip.shape[2])).transpose(1, 2).flatten(1, 2)
    return torch.cat([tokens[:, :1], places], dim=1)


def saved(theirs: nn.Module, folder: Path) -> Path:
    theirs.save_pretrained(folder)  # type: ignore[operator]
    return folder


def saved_state(theirs: nn.Module, folder: Path) -> dict[str, Tensor]:
    return load_file(saved(theirs, folder) / "model.safetensors")


@contextmanager
def float64() -> Iterator[None]:
    """In the models, and in transformers' softmax, which it computes in float32."""
    softmax = functional.softmax
    torch.set_default_dtype(torch.float64)
    functional.softmax = lambda x, dim, dtype=None: softmax(x, dim=dim)
    try:
        yield
    finally:
        functional.softmax = softmax
        torch.set_default_dtype(torch.float32)


KINDS = pytest.mark.parametrize("kind", FILES)
CLASSIFIERS = pytest.mark.parametrize("kind", ["timesformer", "vivit"])


@KINDS
@pytest.mark.parametrize(("frames", "side"), [(2, 2), (8, 3), (16, 2), (32, 4)])
def test_features_equal_those_of_transformers(kind, frames, side, tmp_path):
    theirs = reference(kind, frames, side)
    saved(theirs, tmp_path)
    model, report = ours(kind, tmp_path, frames, side)
    clip = clips(kind, frames, side)
    with torch.no_grad():
        expected = their_features(kind, theirs, clip)
        assert expected.std() > 0.5
        assert (model.forward_features(clip) - expected).abs().max() < 1e-4
        with float64():
            wide, _ = ours(kind, tmp_path, frames, side)
            expected = their_features(kind, theirs.double(), clip.double())
            assert (wide.forward_features(clip.double()) - expected).abs().max() < 1e-10
    assert not [note for note in report.notes if "resized" in note]


@CLASSIFIERS
@pytest.mark.parametrize(("frames", "side"), [(2, 2), (8, 3), (16, 2)])
def test_logits_of_a_kept_head_equal_those_of_transformers(kind, frames, side, tmp_path):
    theirs = reference(kind, frames, side)
    model, report = ours(kind, saved(theirs, tmp_path), frames, side, keep_head=True)
    clip = clips(kind, frames, side)
    with torch.no_grad():
        logits = theirs(clip.transpose(1, 2)).logits
        assert logits.std() > 0.1
        assert (model(clip) - logits).abs().max() < 1e-4
    assert not report.fresh and not report.dropped


def test_the_classifier_of_videoprism_is_refused(tmp_path):
    saved(reference("videoprism", 4, 2), tmp_path)
    with pytest.raises(ValueError, match="keep_head"):
        ours("videoprism", tmp_path, 4, 2, keep_head=True)


@pytest.mark.parametrize(("frames", "side"), [(4, 4), (2, 2), (6, 3), (8, 5)])
@pytest.mark.parametrize("kind", ["timesformer", "videoprism"])
def test_tables_are_resized_as_transformers_does(kind, frames, side, tmp_path):
    theirs = reference(kind, 4, 3)
    saved(theirs, tmp_path)
    options = {"interpolate_pos_encoding": True} if kind == "videoprism" else {}
    # TimeSformer's layers read the shape of the clip from the configuration.
    theirs.config.num_frames, theirs.config.image_size = frames, side * PATCH[kind]
    clip = clips(kind, frames, side).double()
    with float64(), torch.no_grad():
        model, report = ours(kind, tmp_path, frames, side)
        expected = their_features(kind, theirs.double(), clip, **options)
        assert (model.forward_features(clip) - expected).abs().max() < 1e-10
    resized = [note for note in report.notes if "resized" in note]
    assert len(resized) == (frames != 4) + (side != 3)


@pytest.mark.parametrize(("frames", "side"), [(8, 2), (4, 3), (2, 5), (8, 4)])
def test_vivit_at_other_shapes_than_its_file(frames, side, tmp_path):
    source = reference("vivit", 8, 3)
    saved(source, tmp_path)
    state = source.state_dict()
    first, table = state["vivit.embeddings.position_embeddings"].split([1, 36], dim=1)
    maps = [
        functional.interpolate(of_time.T.reshape(1, 48, 3, 3), size=side, mode="bicubic")
        for of_time in table[0].split(9)[: frames // 2]
    ]
    resized = [m.flatten(2).mT for m in maps]
    state["vivit.embeddings.position_embeddings"] = torch.cat([first, *resized], dim=1)
    theirs = reference("vivit", frames, side)
    theirs.load_state_dict(state)
    clip = clips("vivit", frames, side)
    model, report = ours("vivit", tmp_path, frames, side, interpolate_from=(4, 3, 3))
    with torch.no_grad():
        expected = their_features("vivit", theirs, clip)
        assert (model.forward_features(clip) - expected).abs().max() < 1e-4
    assert len([note for note in report.notes if "positions of" in note]) == 1


def test_vivit_refuses_what_its_table_does_not_have(tmp_path):
    saved(reference("vivit", 8, 3), tmp_path)
    with pytest.raises(ValueError, match="num_frames"):
        ours("vivit", tmp_path, 16, 3, interpolate_from=(4, 3, 3))
    for grid in ((2, 3, 3), None):
        with pytest.raises(ValueError, match="position_grid"):
            ours("vivit", tmp_path, 4, 3, interpolate_from=grid)


class Adapted(nn.Module):
    """transformers' layer with AdaptFormer's equation written out around its MLP."""

    def __init__(self, kind: str, layer: Any, adapter: Any) -> None:
        super().__init__()
        self.kind, self.layer, self.adapter = kind, layer, adapter

    def forward(self, x: Tensor, *_: Any, **__: Any) -> Any:
        layer, inside = self.layer, []
        # What enters the second norm is the stream behind the attention.
        hook = layer.layernorm_after.register_forward_pre_hook(lambda _, x: inside.append(x[0]))
        out = layer(x)
        hook.remove()
        beside = 0.1 * self.adapter.up(torch.relu(self.adapter.down(inside[0])))
        return (out[0] + beside,) if self.kind == "timesformer" else out + beside


@KINDS
def test_gradients_of_an_adapter_equal_those_through_transformers(kind, tmp_path):
    theirs = reference(kind, 4, 3)
    model, _ = ours(kind, saved(theirs, tmp_path), 4, 3)
    torch.manual_seed(0)
    methods.apply(model, {"name": "adaptformer", "bottleneck": 8})
    adapters: list[Any] = [slot.block.adapter for slot in model.slots()]
    for number, adapter in enumerate(adapters):
        adapter.up.weight.data.normal_(generator=torch.Generator().manual_seed(number), std=0.1)
    weighted = torch.randn(48, generator=torch.Generator().manual_seed(2))
    clip = clips(kind, 4, 3)
    (model.forward_features(clip) * weighted).square().sum().backward()
    found = [adapter.down.weight.grad.clone() for adapter in adapters]
    model.zero_grad()
    left = iter(adapters)
    for holder, name in {
        "timesformer": lambda: [(theirs.timesformer.encoder, "layer")],
        "vivit": lambda: [(theirs.vivit, "layers")],
        "videoprism": lambda: [
            (theirs.vision_model, f"{kind}_layers") for kind in ("spatial", "temporal")
        ],
    }[kind]():
        layers = [Adapted(kind, layer, next(left)) for layer in getattr(holder, name)]
        setattr(holder, name, nn.ModuleList(layers))
    assert next(left, None) is None
    (their_features(kind, theirs, clip) * weighted).square().sum().backward()
    for adapter, gradient in zip(adapters, found, strict=True):
        expected = adapter.down.weight.grad
        assert expected.abs().max() > 0.1
        assert (gradient - expected).abs().max() < 1e-5 * expected.abs().max()


# --- files ---------------------------------------------------------------------------------------


@KINDS
def test_base_models_load_from_either_kind_of_file(kind, tmp_path):
    theirs = reference(kind, 4, 2, base=True)
    saved(theirs, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    torch.save(state, tmp_path / "pytorch_model.bin")
    clip = clips(kind, 4, 2)
    with torch.no_grad():
        expected = their_features(kind, theirs, clip)
        for file in (tmp_path, tmp_path / "pytorch_model.bin"):
            model, report = ours(kind, file, 4, 2)
            assert (model.forward_features(clip) - expected).abs().max() < 1e-4
    assert {name.split(".")[0] for name in report.fresh} == {"fc_norm", "head"}
    dropped = {name for names in report.dropped.values() for name in names}
    assert dropped == {name for name in state if name.startswith("pooler.")}
    torch.save(theirs.state_dict(), tmp_path / "state.pt")  # as it is in memory
    again, _ = ours(kind, tmp_path / "state.pt", 4, 2)
    with torch.no_grad():
        assert torch.equal(again.forward_features(clip), model.forward_features(clip))


@KINDS
def test_an_old_head_is_dropped_and_the_new_one_reads_the_mean(kind, tmp_path):
    model, report = ours(kind, saved(reference(kind, 4, 2), tmp_path), 4, 2, head="attentive")
    assert ("head.bias", "head.weight") in report.dropped.values()
    model, _ = ours(kind, tmp_path, 4, 2)
    clip = clips(kind, 4, 2)
    with torch.no_grad():
        tokens = model.forward_features(clip)
        expected = model.head(model.fc_norm(tokens[:, model.num_prefix_tokens :].mean(dim=1)))
        torch.testing.assert_close(model(clip), expected)


@KINDS
def test_a_file_that_was_written_by_this_package_loads(kind, tmp_path):
    source, _ = ours(kind, saved(reference(kind, 4, 2), tmp_path), 4, 2)
    methods.apply(source, {"name": "full"})
    save_file(source.state_dict(), tmp_path / "own.safetensors")
    model, report = ours(kind, tmp_path / "own.safetensors", 4, 2, keep_head=True)
    with torch.no_grad():
        assert torch.equal(model(clips(kind, 4, 2)), source(clips(kind, 4, 2)))
    assert not report.fresh and not report.dropped


def test_files_of_one_family_given_to_another_name_the_right_one(tmp_path):
    files = {kind: saved(reference(kind, 4, 2), tmp_path / kind) for kind in FILES}
    for kind in FILES:
        own, _ = ours(kind, files[kind], 4, 2)
        save_file(own.state_dict(), tmp_path / f"own_{kind}.safetensors")
        files[f"own_{kind}"] = tmp_path / f"own_{kind}.safetensors"
    for backbone in ("vit_tiny", "vjepa2_tiny"):
        source, _ = build(backbone, num_frames=4, crop_size=32, num_classes=5, head="linear")
        files[backbone.split("_")[0]] = tmp_path / f"{backbone}.safetensors"
        save_file(source.state_dict(), tmp_path / f"{backbone}.safetensors")
    for source, file in files.items():
        family = source.removeprefix("own_")
        for backbone in ("vit_tiny", "vjepa2_tiny", *(f"{kind}_tiny" for kind in FILES)):
            if backbone.startswith(f"{family}_"):
                continue
            crop = 2 * PATCH.get(backbone.removesuffix("_tiny"), 16)
            with pytest.raises(ValueError, match=rf"model\.backbone {family}_"):
                build(backbone, num_frames=4, crop_size=crop, num_classes=5, weights=file)


@KINDS
def test_files_of_another_size_name_what_differs(kind, tmp_path):
    saved(reference(kind, 4, 2), tmp_path)
    (tmp_path / "config.json").unlink(missing_ok=True)  # by the tensors alone
    with pytest.raises(ValueError, match=f"{kind}_tiny: .* width 48, [34] blocks"):
        crop = 2 * PATCH[kind]
        build(f"{kind}_base", num_frames=4, crop_size=crop, num_classes=5, weights=tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state.pop(next(name for name in state if name.endswith("layernorm_before.bias")))
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"norm1\.bias"):
        ours(kind, tmp_path, 4, 2)


def official_timesformer(theirs: Any) -> dict[str, Any]:
    """The file that facebookresearch/TimeSformer writes, with transformers' tensors."""
    renames = {
        "timesformer.embeddings.patch_embeddings.projection": "patch_embed.proj",
        "timesformer.embeddings.position_embeddings": "pos_embed",
        "timesformer.embeddings.time_embeddings": "time_embed",
        "timesformer.embeddings.cls_token": "cls_token",
        "timesformer.encoder.layer.": "blocks.",
        "temporal_attention.attention.qkv": "temporal_attn.qkv",
        "temporal_attention.output.dense": "temporal_attn.proj",
        "temporal_layernorm": "temporal_norm1",
        "temporal_dense": "temporal_fc",
        "attention.attention.qkv": "attn.qkv",
        "attention.output.dense": "attn.proj",
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
        "timesformer.layernorm": "norm",
        "classifier": "head",
    }
    state = {}
    for name, tensor in theirs.state_dict().items():
        for old, new in renames.items():
            name = name.replace(old, new)
        state[f"model.{name}"] = tensor
    return {"epoch": 15, "model_state": state, "optimizer_state": {"state": {}}, "cfg": "TRAIN:"}


@pytest.mark.parametrize(("frames", "side"), [(4, 2), (8, 3)])
def test_timesformers_own_files_are_those_of_hugging_face(frames, side, tmp_path):
    theirs = reference("timesformer", 4, 2)
    saved(theirs, tmp_path)
    file = tmp_path / "own" / "TimeSformer_divST_8x32_224_K400.pyth"
    file.parent.mkdir()
    torch.save(official_timesformer(theirs), file)
    clip = clips("timesformer", frames, side)
    one, report = ours("timesformer", file, frames, side, keep_head=True)
    other, _ = ours("timesformer", tmp_path, frames, side, keep_head=True)
    with torch.no_grad():
        assert torch.equal(one(clip), other(clip))
        if (frames, side) == (4, 2):
            assert (one(clip) - theirs(clip.transpose(1, 2)).logits).abs().max() < 1e-4
    assert "model_state" in report.family and not report.fresh and not report.dropped
    found = published_head(file, "timesformer_tiny", None)
    assert (found.kind, found.num_classes, found.first_token) == ("linear", 5, True)


def test_a_joint_timesformer_of_its_makers_is_refused(tmp_path):
    content = official_timesformer(reference("timesformer", 4, 2))
    content["model_state"] = {
        k: v for k, v in content["model_state"].items() if "temporal" not in k
    }
    torch.save(content, tmp_path / "a.pyth")
    with pytest.raises(ValueError, match=r"joint_space_time.* divided_space_time"):
        ours("timesformer", tmp_path / "a.pyth", 4, 2)


@pytest.mark.parametrize("attention", ["space_only", "joint_space_time"])
def test_timesformers_of_other_attention_are_refused(attention, tmp_path):
    saved(reference("timesformer", 4, 2), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    unlike = ("temporal_", "time_embeddings") if attention == "space_only" else ("temporal_",)
    state = {k: v for k, v in state.items() if not any(part in k for part in unlike)}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"{attention}.* divided_space_time"):
        ours("timesformer", tmp_path, 4, 2)


@pytest.mark.parametrize(
    ("kind", "options", "key"),
    [
        ("timesformer", {"tubelet_size": 4}, "model.tubelet_size"),
        ("timesformer", {"interpolate_from": (4, 2, 2)}, "model.position_grid"),
        ("timesformer", {"from_image": "inflate"}, "model.from_image"),
        ("timesformer", {"segments": 2}, "data.sampling"),
        ("vivit", {"segments": 2}, "data.sampling"),
        ("vivit", {"inflation": "average"}, "model.inflation"),
        ("vivit", {"num_frames": 3}, "num_frames"),
        ("vivit", {"crop_size": 40}, "crop_size"),
        ("timesformer", {"num_classes": 0}, "num_classes"),
        ("videoprism", {"tubelet_size": 4, "crop_size": 36}, "model.tubelet_size"),
        ("videoprism", {"interpolate_from": (4, 2, 2)}, "model.position_grid"),
        ("timesformer", {"drop_path": 1.0}, "drop_path"),
    ],
)
def test_options_that_do_not_apply_are_refused_by_name(kind, options, key):
    given = {"num_frames": 4, "crop_size": 32, "num_classes": 5, **options}
    with pytest.raises(ValueError, match=key.replace(".", r"\.")):
        build(f"{kind}_tiny", **given)


@KINDS
def test_half_precision_files_are_rounded_once(kind, tmp_path):
    """Also where a table is resized, and where VideoPrism's scales of norms are less 1."""
    state = {k: v.half() for k, v in saved_state(reference(kind, 4, 3), tmp_path).items()}
    wide = {k: v.double() for k, v in state.items()}
    shape = (2, 2) if kind != "vivit" else (2, 3)
    options = {"interpolate_from": (2, 3, 3)} if kind == "vivit" else {}
    found = []
    for name, tensors in (("half", state), ("wide", wide)):
        save_file(tensors, tmp_path / f"{name}.safetensors")
        model, _ = ours(kind, tmp_path / f"{name}.safetensors", *shape, **options)
        found.append({k: v for k, v in model.state_dict().items() if not k.startswith("head.")})
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name


@pytest.mark.parametrize("shape", [(1, 0, 48), (1, 8, 48), (2, 10, 48), (10, 48), (1, 10, 24)])
@KINDS
def test_tables_that_are_none_are_named(kind, shape, tmp_path):
    state = saved_state(reference(kind, 4, 3), tmp_path)
    name = next(name for name in state if name.endswith("position_embeddings"))
    save_file({**state, name: torch.zeros(shape)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"pos_embed|position_grid"):
        ours(kind, tmp_path, 4, 2)


# --- in training ---------------------------------------------------------------------------------


def test_layer_decay_counts_the_time_attention_to_its_block():
    model, _ = build("timesformer_tiny", num_frames=4, crop_size=32, num_classes=5)
    layers = layers_of(model, model.depth)
    assert layers["pos_embed"] == layers["patch_embed.proj.weight"] == 0
    for number in range(3):
        assert layers[f"befores.{number}.dense.weight"] == number + 1
        assert layers[f"blocks.{number}.attn.qkv.weight"] == number + 1
    assert layers["norm.weight"] == layers["head.1.weight"] == 4


def test_methods_leave_the_time_attention_as_it_is():
    for name in ("adaptformer", "arc", "vpt", "lora", "st_adapter", "linear", "losa"):
        model, _ = build("timesformer_tiny", num_frames=4, crop_size=32, num_classes=5)
        inside = {id(p) for p in model.befores.parameters()}
        methods.apply(model, {"name": name})
        frozen = {id(p) for p in model.parameters() if not p.requires_grad}
        assert inside and inside <= frozen


@pytest.mark.parametrize("along", ["space", "time"])
def test_tokens_before_the_grid_take_part_in_every_frame_or_place(along):
    torch.manual_seed(0)
    t, h, w = 3, 2, 2
    attn = AxisAttention(Attention(48, 3, qkv_bias=True), (t, h, w), along).double()
    plain = TokenAttention(Attention(48, 3, qkv_bias=True), None).double()
    plain.load_state_dict(attn.state_dict())
    x = torch.randn(2, 2 + t * h * w, 48, dtype=torch.float64)
    prefix, grid = x[:, :2], x[:, 2:].unflatten(1, (t, h * w))
    expected, of_prefix = torch.zeros_like(grid), []
    for index in range(t if along == "space" else h * w):
        chosen = (slice(None), index) if along == "space" else (slice(None), slice(None), index)
        out = plain(torch.cat([prefix, grid[chosen]], dim=1))
        of_prefix.append(out[:, :2])
        expected[chosen] = out[:, 2:]
    found = attn(x)
    assert (found[:, 2:] - expected.flatten(1, 2)).abs().max() < 1e-10
    assert (found[:, :2] - torch.stack(of_prefix).mean(dim=0)).abs().max() < 1e-10


@pytest.mark.parametrize("kind", ["timesformer", "videoprism"])
def test_shallow_prompts_pass_what_runs_between_the_blocks(kind):
    crop = 2 * PATCH[kind]
    model, _ = build(f"{kind}_tiny", num_frames=4, crop_size=crop, num_classes=5)
    methods.apply(model, {"name": "vpt", "form": "shallow", "num_prompts": 2})
    clip = clips(kind, 4, 2)
    assert model.forward_features(clip).shape == (2, model.num_prefix_tokens + 16, 48)
    model.forward_features(clip).square().mean().backward()
    prompts = model.slots()[0].block.prompts.tokens
    assert prompts.grad is not None and prompts.grad.abs().max() > 0
