"""TimeSformer and ViViT against transformers' with the same weights; their files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from vidadapt import methods
from vidadapt.models import build
from vidadapt.models.encoder_files import TIMESFORMER_FILES, VIVIT_FILES
from vidadapt.training.optim import layers_of

TINY = {"width": 48, "depth": 3, "num_heads": 3}
FILES = {"timesformer": TIMESFORMER_FILES, "vivit": VIVIT_FILES}


@pytest.fixture(autouse=True)
def tiny_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind, files in FILES.items():
        monkeypatch.setitem(files.sizes, f"{kind}_tiny", TINY)


def reference(kind: str, frames: int, crop: int, *, base: bool = False) -> Any:
    """transformers' model with random weights, every parameter away from its initial value."""
    transformers = pytest.importorskip("transformers", reason="test extra: transformers")
    name = {"timesformer": "Timesformer", "vivit": "Vivit"}[kind]
    config = getattr(transformers, f"{name}Config")(
        image_size=crop,
        num_frames=frames,
        hidden_size=TINY["width"],
        num_hidden_layers=TINY["depth"],
        num_attention_heads=TINY["num_heads"],
        intermediate_size=4 * TINY["width"],
        num_labels=5,
    )
    torch.manual_seed(0)
    made = getattr(transformers, f"{name}{'Model' if base else 'ForVideoClassification'}")(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return made.eval()


def clips(frames: int, crop: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, frames, crop, crop, generator=generator)


def ours(kind: str, path: Path, frames: int, crop: int, **options: Any) -> Any:
    """Built by name, as a user builds it, from a file."""
    options = {"num_classes": 5, "head": "linear", "weights": path, **options}
    model, report = build(f"{kind}_tiny", num_frames=frames, crop_size=crop, **options)
    assert report is not None
    return model.eval(), report


def their_features(kind: str, theirs: Any, clip: Tensor) -> Tensor:
    """transformers' last hidden state, TimeSformer's patch-major tokens made time-major."""
    tokens = getattr(theirs, kind, theirs)(clip.transpose(1, 2)).last_hidden_state
    if kind == "vivit":
        return tokens
    places = tokens[:, 1:].unflatten(1, (-1, clip.shape[2])).transpose(1, 2).flatten(1, 2)
    return torch.cat([tokens[:, :1], places], dim=1)


def saved(theirs: nn.Module, folder: Path) -> Path:
    theirs.save_pretrained(folder)  # type: ignore[operator]
    return folder


@contextmanager
def float64() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


KINDS = pytest.mark.parametrize("kind", FILES)


@KINDS
@pytest.mark.parametrize(("frames", "crop"), [(2, 32), (8, 48), (16, 32), (32, 64)])
def test_features_and_logits_equal_those_of_transformers(kind, frames, crop, tmp_path):
    theirs = reference(kind, frames, crop)
    saved(theirs, tmp_path)
    model, report = ours(kind, tmp_path, frames, crop, keep_head=True)
    clip = clips(frames, crop)
    with torch.no_grad():
        expected = their_features(kind, theirs, clip)
        assert expected.std() > 0.5
        assert (model.forward_features(clip) - expected).abs().max() < 1e-4
        logits = theirs(clip.transpose(1, 2)).logits
        assert logits.std() > 0.1
        assert (model(clip) - logits).abs().max() < 1e-4
        with float64():
            wide, _ = ours(kind, tmp_path, frames, crop)
            expected = their_features(kind, theirs.double(), clip.double())
            assert (wide.forward_features(clip.double()) - expected).abs().max() < 1e-10
    assert not report.fresh and not report.dropped


@pytest.mark.parametrize(("frames", "crop"), [(4, 64), (2, 32), (6, 48), (8, 80)])
def test_timesformer_at_other_shapes_than_its_file(frames, crop, tmp_path):
    theirs = reference("timesformer", 4, 48)
    saved(theirs, tmp_path)
    # Its layers read the shape of the clip from the configuration, its tables resize themselves.
    theirs.config.num_frames, theirs.config.image_size = frames, crop
    clip = clips(frames, crop).double()
    with float64(), torch.no_grad():
        model, report = ours("timesformer", tmp_path, frames, crop)
        expected = their_features("timesformer", theirs.double(), clip)
        assert (model.forward_features(clip) - expected).abs().max() < 1e-10
    assert len(report.notes) == (frames != 4) + (crop != 48)


@pytest.mark.parametrize(("frames", "crop"), [(8, 32), (4, 48), (2, 80), (8, 64)])
def test_vivit_at_other_shapes_than_its_file(frames, crop, tmp_path):
    source = reference("vivit", 8, 48)
    saved(source, tmp_path)
    state = source.state_dict()
    first, table = state["vivit.embeddings.position_embeddings"].split([1, 36], dim=1)
    maps = [
        functional.interpolate(of_time.T.reshape(1, 48, 3, 3), size=crop // 16, mode="bicubic")
        for of_time in table[0].split(9)[: frames // 2]
    ]
    resized = [m.flatten(2).mT for m in maps]
    state["vivit.embeddings.position_embeddings"] = torch.cat([first, *resized], dim=1)
    theirs = reference("vivit", frames, crop)
    theirs.load_state_dict(state)
    clip = clips(frames, crop)
    model, report = ours("vivit", tmp_path, frames, crop, interpolate_from=(4, 3, 3))
    with torch.no_grad():
        expected = their_features("vivit", theirs, clip)
        assert (model.forward_features(clip) - expected).abs().max() < 1e-4
    assert len(report.notes) == 1


def test_vivit_refuses_what_its_table_does_not_have(tmp_path):
    saved(reference("vivit", 8, 48), tmp_path)
    with pytest.raises(ValueError, match="num_frames"):
        ours("vivit", tmp_path, 16, 48, interpolate_from=(4, 3, 3))
    for grid in ((2, 3, 3), None):
        with pytest.raises(ValueError, match="position_grid"):
            ours("vivit", tmp_path, 4, 48, interpolate_from=grid)


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
        return out + beside if self.kind == "vivit" else (out[0] + beside,)


@KINDS
def test_gradients_of_an_adapter_equal_those_through_transformers(kind, tmp_path):
    theirs = reference(kind, 4, 48)
    model, _ = ours(kind, saved(theirs, tmp_path), 4, 48)
    methods.apply(model, {"name": "adaptformer", "bottleneck": 8})
    adapters: list[Any] = [slot.block.adapter for slot in model.slots()]
    for number, adapter in enumerate(adapters):
        adapter.up.weight.data.normal_(generator=torch.Generator().manual_seed(number), std=0.1)
    weighted = torch.randn(48, generator=torch.Generator().manual_seed(2))
    clip = clips(4, 48)
    (model.forward_features(clip) * weighted).square().mean().backward()
    found = [adapter.down.weight.grad.clone() for adapter in adapters]
    model.zero_grad()
    inner = getattr(theirs, kind)
    holder, name = (inner, "layers") if kind == "vivit" else (inner.encoder, "layer")
    layers = zip(getattr(holder, name), adapters, strict=True)
    setattr(holder, name, nn.ModuleList(Adapted(kind, *both) for both in layers))
    (their_features(kind, theirs, clip) * weighted).square().mean().backward()
    for adapter, gradient in zip(adapters, found, strict=True):
        assert adapter.down.weight.grad.abs().max() > 1e-4
        assert (gradient - adapter.down.weight.grad).abs().max() < 1e-6


# --- files ---------------------------------------------------------------------------------------


@KINDS
def test_base_models_load_from_either_kind_of_file(kind, tmp_path):
    theirs = reference(kind, 4, 32, base=True)
    saved(theirs, tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    torch.save(state, tmp_path / "pytorch_model.bin")
    clip = clips(4, 32)
    with torch.no_grad():
        expected = their_features(kind, theirs, clip)
        for file in (tmp_path, tmp_path / "pytorch_model.bin"):
            model, report = ours(kind, file, 4, 32)
            assert (model.forward_features(clip) - expected).abs().max() < 1e-4
    assert {name.split(".")[0] for name in report.fresh} == {"fc_norm", "head"}
    pooler = {name for names in report.dropped.values() for name in names}
    assert pooler == {name for name in state if name.startswith("pooler.")}
    torch.save(theirs.state_dict(), tmp_path / "state.pt")  # as it is in memory
    again, _ = ours(kind, tmp_path / "state.pt", 4, 32)
    with torch.no_grad():
        assert torch.equal(again.forward_features(clip), model.forward_features(clip))


@KINDS
def test_an_old_head_is_dropped_and_the_new_one_reads_the_mean(kind, tmp_path):
    model, report = ours(kind, saved(reference(kind, 4, 32), tmp_path), 4, 32, head="attentive")
    assert [*report.dropped.values()] == [("head.bias", "head.weight")]
    model, _ = ours(kind, tmp_path, 4, 32)
    clip = clips(4, 32)
    with torch.no_grad():
        tokens = model.forward_features(clip)
        expected = model.head(model.fc_norm(tokens[:, 1:].mean(dim=1)))
        torch.testing.assert_close(model(clip), expected)


@KINDS
def test_a_file_that_was_written_by_this_package_loads(kind, tmp_path):
    source, _ = ours(kind, saved(reference(kind, 4, 32), tmp_path), 4, 32)
    methods.apply(source, {"name": "full"})
    save_file(source.state_dict(), tmp_path / "own.safetensors")
    model, report = ours(kind, tmp_path / "own.safetensors", 4, 32, keep_head=True)
    with torch.no_grad():
        assert torch.equal(model(clips(4, 32)), source(clips(4, 32)))
    assert not report.fresh and not report.dropped


def test_files_of_one_family_given_to_another_name_the_right_one(tmp_path):
    files = {kind: saved(reference(kind, 4, 32), tmp_path / kind) for kind in FILES}
    for kind in FILES:
        own, _ = ours(kind, files[kind], 4, 32)
        save_file(own.state_dict(), tmp_path / f"own_{kind}.safetensors")
        files[f"own_{kind}"] = tmp_path / f"own_{kind}.safetensors"
    for backbone in ("vit_tiny", "vjepa2_tiny"):
        source, _ = build(backbone, num_frames=4, crop_size=32, num_classes=5, head="linear")
        files[backbone.split("_")[0]] = tmp_path / f"{backbone}.safetensors"
        save_file(source.state_dict(), tmp_path / f"{backbone}.safetensors")
    for source, file in files.items():
        family = source.removeprefix("own_")
        for backbone in ("vit_tiny", "vjepa2_tiny", "timesformer_tiny", "vivit_tiny"):
            if backbone.startswith(f"{family}_"):
                continue
            with pytest.raises(ValueError, match=rf"model\.backbone {family}_"):
                build(backbone, num_frames=4, crop_size=32, num_classes=5, weights=file)


@KINDS
def test_files_of_another_size_name_what_differs(kind, tmp_path):
    saved(reference(kind, 4, 32), tmp_path)
    with pytest.raises(ValueError, match=f"{kind}_tiny: .* width 48, 3 blocks"):
        build(f"{kind}_base", num_frames=4, crop_size=32, num_classes=5, weights=tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state.pop(next(name for name in state if name.endswith("layernorm_before.bias")))
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=r"norm1\.bias"):
        ours(kind, tmp_path, 4, 32)


@pytest.mark.parametrize("attention", ["space_only", "joint_space_time"])
def test_timesformers_of_other_attention_are_refused(attention, tmp_path):
    saved(reference("timesformer", 4, 32), tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    unlike = ("temporal_", "time_embeddings") if attention == "space_only" else ("temporal_",)
    state = {k: v for k, v in state.items() if not any(part in k for part in unlike)}
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=f"{attention}.* divided_space_time"):
        ours("timesformer", tmp_path, 4, 32)


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
        ("timesformer", {"drop_path": 1.0}, "drop_path"),
    ],
)
def test_options_that_do_not_apply_are_refused_by_name(kind, options, key):
    given = {"num_frames": 4, "crop_size": 32, "num_classes": 5, **options}
    with pytest.raises(ValueError, match=key.replace(".", r"\.")):
        build(f"{kind}_tiny", **given)


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
