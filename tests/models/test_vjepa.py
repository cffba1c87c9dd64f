"""V-JEPA 2 against transformers' with the same weights, 2.1 against its equations; their files."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from safetensors.torch import save_file
from torch import Tensor, nn

from vidadapt import methods
from vidadapt.models import build
from vidadapt.models.vjepa import VJEPA_SIZES, VJepaViT
from vidadapt.models.vjepa_head import VJepaHead
from vidadapt.models.vjepa_weights import load_vjepa_weights

TINY = {"width": 64, "depth": 3, "num_heads": 2}  # 32 channels a head, of which 30 are rotated
# Frames and crops: the pre-training's 16 x 16 patches are none of them.
SHAPES = [(2, 32), (4, 48), (16, 64), (32, 32)]


def disturbed(model: nn.Module) -> nn.Module:
    """Every parameter away from its initial value, in eval mode."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return model.eval()


def reference(frames: int, crop: int, **changes: Any) -> Any:
    transformers = pytest.importorskip("transformers", reason="test extra: transformers")
    sizes = {**TINY, **changes}
    config = transformers.VJEPA2Config(
        crop_size=crop,
        frames_per_clip=frames,
        hidden_size=sizes["width"],
        num_hidden_layers=sizes["depth"],
        num_attention_heads=sizes["num_heads"],
        mlp_ratio=sizes.get("mlp_ratio", 4.0),
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        num_pooler_layers=sizes.get("pooler_layers", 3),
        num_labels=5,
        initializer_range=0.02,
    )
    return disturbed(transformers.VJEPA2ForVideoClassification(config))


def clips(frames: int, crop: int, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 3, frames, crop, crop, generator=generator)


def ours(
    monkeypatch: pytest.MonkeyPatch, path: Path, frames: int, crop: int, **options: Any
) -> Any:
    """Built by name, as a user builds it, from a file."""
    sizes = {**TINY, **options.pop("sizes", {})}
    monkeypatch.setitem(VJEPA_SIZES, "vjepa2_tiny", sizes)
    options = {"num_classes": 5, "head": "linear", **options}
    model, report = build("vjepa2_tiny", num_frames=frames, crop_size=crop, weights=path, **options)
    assert report is not None
    return model.eval(), report


@pytest.mark.parametrize(("frames", "crop"), SHAPES)
def test_features_equal_those_of_transformers(frames, crop, tmp_path, monkeypatch):
    theirs = reference(frames, crop)
    theirs.save_pretrained(tmp_path)
    model, _ = ours(monkeypatch, tmp_path, frames, crop)
    clip = clips(frames, crop)
    with torch.no_grad():
        expected = theirs.vjepa2.get_vision_features(clip.transpose(1, 2))
        found = model.forward_features(clip)
    assert expected.std() > 0.5
    assert (found - expected).abs().max() < 1e-4


@pytest.mark.parametrize(
    "sizes",
    [
        {"width": 176, "num_heads": 2, "mlp_ratio": 48 / 11},  # 88 channels a head, as the huge one
        {"width": 48, "num_heads": 4},  # 12 channels a head, all of them rotated
    ],
)
def test_features_equal_in_float64_at_other_widths(sizes, tmp_path, monkeypatch):
    theirs = reference(8, 48, **sizes).double()
    theirs.save_pretrained(tmp_path)
    torch.set_default_dtype(torch.float64)
    try:
        model, _ = ours(monkeypatch, tmp_path, 8, 48, sizes=sizes)
    finally:
        torch.set_default_dtype(torch.float32)
    clip = clips(8, 48).double()
    with torch.no_grad():
        expected = theirs.vjepa2.get_vision_features(clip.transpose(1, 2))
        assert (model.forward_features(clip) - expected).abs().max() < 1e-10


class Adapted(nn.Module):
    """transformers' layer with AdaptFormer's equation written out around it."""

    def __init__(self, layer: Any, adapter: nn.Module) -> None:
        super().__init__()
        self.layer, self.adapter = layer, adapter

    def forward(self, x: Tensor, position_mask: Any = None, **_: Any) -> tuple[Tensor, Any]:
        layer = self.layer
        x = x + layer.attention(layer.norm1(x))[0]
        hidden = torch.relu(self.adapter.down(x))
        beside = 0.1 * self.adapter.up(hidden)
        return x + layer.mlp(layer.norm2(x)) + beside, None


def test_gradients_of_an_adapter_equal_those_through_transformers(tmp_path, monkeypatch):
    theirs = reference(4, 48)
    theirs.save_pretrained(tmp_path)
    model, _ = ours(monkeypatch, tmp_path, 4, 48)
    torch.manual_seed(0)
    methods.apply(model, {"name": "adaptformer", "bottleneck": 8})
    adapters = [slot.block.adapter for slot in model.slots()]
    for number, adapter in enumerate(adapters):
        adapter.up.weight.data.normal_(generator=torch.Generator().manual_seed(number), std=0.1)
    clip = clips(4, 48)
    towards = torch.randn(2, 18, 64, generator=torch.Generator().manual_seed(2))
    (model.forward_features(clip) * towards).sum().backward()
    found = [adapter.down.weight.grad.clone() for adapter in adapters]
    model.zero_grad()
    encoder = theirs.vjepa2.encoder
    encoder.layer = nn.ModuleList(
        Adapted(layer, adapter) for layer, adapter in zip(encoder.layer, adapters, strict=True)
    )
    (encoder(clip.transpose(1, 2)).last_hidden_state * towards).sum().backward()
    for adapter, gradient in zip(adapters, found, strict=True):
        expected = adapter.down.weight.grad
        assert expected.abs().max() > 0.1
        assert (gradient - expected).abs().max() < 1e-5 * expected.abs().max()


def test_version_2_1_turns_pairs_by_their_stretched_places():
    """Its attention in complex numbers, token by token."""
    torch.manual_seed(0)
    model = disturbed(VJepaViT(num_frames=4, crop_size=48, version="2.1", num_classes=3, **TINY))
    attn = model.blocks[1].attn
    x = torch.randn(1, 18, 64, dtype=torch.float64)
    q, k, v = attn.double().qkv(x)[0].unflatten(1, (3, 2, 32)).unbind(1)
    part = 2 * (32 // 3 // 2)

    def turned(channels: Tensor, token: int) -> Tensor:
        t, row, column = token // 9, token % 9 // 3 * 15 / 2, token % 3 * 15 / 2
        parts = []
        for place, start in ((t, 0), (row, part), (column, 2 * part)):
            pairs = torch.view_as_complex(channels[start : start + part].view(-1, 2))
            angles = [place / 10000 ** (i / (part / 2)) for i in range(part // 2)]
            turns = torch.tensor([complex(math.cos(a), math.sin(a)) for a in angles])
            parts.append(torch.view_as_real(pairs * turns.to(torch.complex128)).flatten())
        return torch.cat([*parts, channels[3 * part :]])

    rows = []
    for head in range(2):
        turned_q = torch.stack([turned(q[n, head], n) for n in range(18)])
        turned_k = torch.stack([turned(k[n, head], n) for n in range(18)])
        rows.append((turned_q @ turned_k.T / 32**0.5).softmax(1) @ v[:, head])
    expected = attn.proj(torch.cat(rows, dim=1))
    assert (attn(x)[0] - expected).abs().max() < 1e-6  # the table is float32


# --- probes in a file of their own ---------------------------------------------------------------

SIXTEEN = {"width": 96, "depth": 2, "num_heads": 16}  # as many heads as Meta's probes have


def meta_probe(theirs: Any) -> dict[str, Tensor]:
    """The tensors of transformers' pooler and classifier as facebookresearch/vjepa2 names them."""
    state = {f"module.{k}": v for k, v in theirs.state_dict().items() if "vjepa2." not in k}
    renames = {
        "self_attention_layers": "blocks",
        "cross_attention_layer": "cross_attention_block",
        "layer_norm": "norm",
        "self_attn.out_proj": "attn.proj",
        "cross_attn.q_proj": "xattn.q",
        "module.classifier": "module.linear",
    }
    probe = {}
    for name, tensor in state.items():
        if "_proj" in name and "out_proj" not in name and "cross_attn.q_proj" not in name:
            parts = ("k", "v") if "cross_attn" in name else ("q", "k", "v")
            if f".{parts[0]}_proj" not in name:
                continue
            joined = [state[name.replace(f".{parts[0]}_proj", f".{p}_proj")] for p in parts]
            tensor = torch.cat(joined)
            name = name.replace(f"self_attn.{parts[0]}_proj", "attn.qkv")
            name = name.replace(f"cross_attn.{parts[0]}_proj", "xattn.kv")
        for old, new in renames.items():
            name = name.replace(old, new)
        probe[name] = tensor
    return probe


def write_probes(folder: Path, theirs: Any, *, place: int, count: int) -> tuple[Path, Path]:
    """An encoder alone, and a file of several probes, of which one is that of `theirs`."""
    theirs.vjepa2.save_pretrained(folder / "encoder")
    probe = meta_probe(theirs)
    probes = [{name: tensor + 1 for name, tensor in probe.items()} for _ in range(count)]
    probes[place] = probe
    moments = {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 0.1}]}
    content = {"classifiers": probes, "opt": [moments] * count, "scaler": None, "epoch": 20}
    torch.save(content, folder / "ssv2-vitl-16x2x3.pt")
    return folder / "encoder", folder / "ssv2-vitl-16x2x3.pt"


@pytest.mark.parametrize(("place", "count"), [(0, 1), (0, 3), (2, 3)])
@pytest.mark.parametrize("layers", [0, 2])
def test_logits_of_metas_probes_equal_those_of_transformers(
    layers, place, count, tmp_path, monkeypatch
):
    theirs = reference(4, 48, pooler_layers=layers, **SIXTEEN)
    encoder, probes = write_probes(tmp_path, theirs, place=place, count=count)
    head = {"head": "vjepa_attentive", "head_depth": 1 + layers, "head_heads": 16}
    head |= {"head_weights": probes}
    if place:
        head["head_weights_key"] = f"classifiers.{place}"
    model, report = ours(monkeypatch, encoder, 4, 48, sizes=SIXTEEN, **head)
    clip = clips(4, 48)
    with torch.no_grad():
        expected = theirs(clip.transpose(1, 2)).logits
        assert expected.std() > 0.05
        assert (model(clip) - expected).abs().max() < 1e-4
    assert not report.fresh
    said = next(note for note in report.notes if str(probes) in note)
    assert f"classifiers.{place}" in said and ("head_weights_key" in said) == (count > 1)


def test_files_that_hold_no_fitting_probe_are_named(tmp_path, monkeypatch):
    theirs = reference(4, 48, **SIXTEEN)
    encoder, probes = write_probes(tmp_path, theirs, place=0, count=2)
    head = {"head": "vjepa_attentive", "head_depth": 4, "head_heads": 16, "sizes": SIXTEEN}

    def refused(match: str, path: Path = encoder, **options: Any) -> None:
        with pytest.raises(ValueError, match=match):
            ours(monkeypatch, path, 4, 48, **{**head, **options})

    refused("head_weights_key: .*classifiers.1", head_weights=probes, head_weights_key="2")
    refused(r"query_tokens is missing", head_weights=encoder)
    refused("of another shape", head_weights=probes, num_classes=7)
    refused(r"missing from the file: blocks", head_weights=probes, head_depth=6)
    refused("from_file", head_weights=probes, head="linear", head_depth=None, head_heads=None)
    refused("for model.head_weights", path=probes)
    with pytest.raises(ValueError, match=r"head_weights.* is for vjepa2_"):
        build("vit_tiny", num_frames=4, crop_size=48, num_classes=5, head_weights=probes)


# --- files ---------------------------------------------------------------------------------------


def meta_file(model: nn.Module, entry: str = "target_encoder", *, version: str = "2") -> dict:
    """The layout that facebookresearch/vjepa2 writes."""
    body = {
        name: tensor.clone()
        for name, tensor in model.state_dict().items()
        if not name.startswith(("head.", "fc_norm."))
    }
    if version == "2":
        body["pos_embed"] = torch.zeros(1, 8, 64)
    else:
        body = {
            name.replace("video_embed", "video_mod_embed").replace("norm.", "norms_block.3.")
            if name.startswith(("video_embed", "norm."))
            else name: tensor
            for name, tensor in body.items()
        }
        lower = {
            f"norms_block.{n}.{kind}": torch.ones(64)
            for n in range(3)
            for kind in ("weight", "bias")
        }
        body |= lower | {
            "img_mod_embed": torch.zeros(1, 1, 64),
            "patch_embed_img.proj.weight": torch.zeros(64, 3, 1, 16, 16),
            "patch_embed_img.proj.bias": torch.zeros(64),
        }
    named = {f"module.backbone.{name}": tensor for name, tensor in body.items()}
    student = {name: tensor + 1 for name, tensor in named.items()}
    predictor = {"module.backbone.predictor_embed.weight": torch.zeros(24, 64)}
    return {"encoder": student, "predictor": predictor, entry: named, "epoch": 3}


@pytest.mark.parametrize(
    ("version", "entry"),
    [("2", "target_encoder"), ("2.1", "target_encoder"), ("2.1", "ema_encoder")],
)
def test_metas_files_load_the_average_of_the_weights(version, entry, tmp_path, monkeypatch):
    source = disturbed(VJepaViT(num_frames=4, crop_size=32, version=version, num_classes=5, **TINY))
    torch.save(meta_file(source, entry, version=version), tmp_path / "vitl.pt")
    sizes = {"version": version} if version == "2.1" else {}
    model, report = ours(monkeypatch, tmp_path / "vitl.pt", 4, 32, sizes=sizes)
    with torch.no_grad():
        clip = clips(4, 32)
        assert torch.equal(model.forward_features(clip), source.forward_features(clip))
    assert report.family == f"V-JEPA {version}, under `{entry}`"
    assert {name.split(".")[0] for name in report.fresh} == {"fc_norm", "head"}
    dropped = {name for names in report.dropped.values() for name in names}
    assert dropped == (
        {"pos_embed"}
        if version == "2"
        else {
            *(f"norms_block.{n}.{kind}" for n in range(3) for kind in ("weight", "bias")),
            *("img_mod_embed", "patch_embed_img.proj.weight", "patch_embed_img.proj.bias"),
        }
    )


def test_a_file_that_was_written_by_this_package_loads(tmp_path, monkeypatch):
    source = disturbed(VJepaViT(num_frames=4, crop_size=32, num_classes=5, **TINY))
    save_file(source.state_dict(), tmp_path / "own.safetensors")
    model, report = ours(monkeypatch, tmp_path / "own.safetensors", 4, 32, keep_head=True)
    with torch.no_grad():
        assert torch.equal(model(clips(4, 32)), source(clips(4, 32)))
    assert not report.fresh and not report.dropped


def test_what_is_no_encoder_of_this_size_is_refused(tmp_path, monkeypatch):
    source = VJepaViT(num_frames=4, crop_size=32, num_classes=5, **TINY)
    content = meta_file(source)
    file = tmp_path / "a.pt"

    def refusal(content: dict, backbone: str = "vjepa2_tiny", **options: Any) -> str:
        torch.save(content, file)
        with pytest.raises(ValueError) as refused:
            shape = {"num_frames": 4, "crop_size": 32, "num_classes": 5}
            build(backbone, weights=file, **shape, **options)
        return str(refused.value)

    monkeypatch.setitem(VJEPA_SIZES, "vjepa2_tiny", TINY)
    assert "vjepa2_" in refusal(content["target_encoder"], "vit_large")
    videomae = build("vit_tiny", num_frames=4, crop_size=32, num_classes=5)[0].state_dict()
    assert "vit_" in refusal(videomae)
    assert "predictor" in refusal({"predictor": content["predictor"]})
    assert "predictor" in refusal(content["predictor"])
    wrong = refusal(content, "vjepa2_large")
    assert "width 64, 3 blocks" in wrong and "another shape" in wrong
    newer = VJepaViT(num_frames=4, crop_size=32, version="2.1", num_classes=5, **TINY)
    assert "V-JEPA 2.1" in refusal(meta_file(newer, version="2.1"))
    assert "position_grid" in refusal(content, interpolate_from=(2, 2, 2))


def test_a_crop_of_one_patch_has_no_place_in_version_2_1():
    with pytest.raises(ValueError, match="crop_size"):
        VJepaViT(num_frames=2, crop_size=16, version="2.1", num_classes=3, **TINY)


# --- the probe -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("depth", "count"), [(4, 27_895_470), (1, 6_631_854)])
def test_parameters_of_the_published_probes(depth, count):
    with torch.device("meta"):
        head = VJepaHead(768, 174, depth)
    assert sum(parameter.numel() for parameter in head.parameters()) == count


@pytest.mark.parametrize("layers", [3, 0])
def test_logits_equal_those_of_transformers_classifier(layers, tmp_path):
    theirs = reference(8, 48, pooler_layers=layers)
    theirs.save_pretrained(tmp_path)
    model = VJepaViT(num_frames=8, crop_size=48, num_classes=5, **TINY).eval()
    model.fc_norm, model.head = nn.Identity(), VJepaHead(64, 5, layers + 1, num_heads=2)
    report = load_vjepa_weights(model, tmp_path, keep_head=True)
    clip = clips(8, 48)
    with torch.no_grad():
        expected = theirs(clip.transpose(1, 2)).logits
        assert expected.std() > 0.05
        assert (model(clip) - expected).abs().max() < 1e-4
    assert not report.fresh
    assert all(name.startswith("predictor.") for names in report.dropped.values() for name in names)


def test_the_probe_starts_as_published():
    torch.manual_seed(0)
    head = VJepaHead(256, 7)
    deviations = [block.attn.proj.weight.std().item() for block in head.blocks]
    expected = [0.02 / math.sqrt(2 * number) for number in (1, 2, 3)]
    assert deviations == pytest.approx(expected, rel=0.05)
    last = head.cross_attention_block.mlp.fc2.weight.std().item()
    assert last == pytest.approx(0.02 / math.sqrt(6), rel=0.05)
    assert not head.classifier.bias.any() and head.query_tokens.std() > 0.01


# --- clips in segments ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", methods.METHODS)
def test_segments_are_encoded_one_by_one_and_read_together(method, monkeypatch):
    monkeypatch.setitem(VJEPA_SIZES, "vjepa2_tiny", TINY)
    options = {"crop_size": 32, "num_classes": 5, "head": "linear"}
    together, _ = build("vjepa2_tiny", num_frames=8, segments=2, **options)
    alone, _ = build("vjepa2_tiny", num_frames=4, **options)
    for model in (together, alone):
        methods.apply(model, {"name": method})
    together.load_state_dict(disturbed(alone).state_dict())
    together.eval()
    clip = clips(8, 32)
    with torch.no_grad():
        parts = [alone.forward_features(half) for half in clip.split(4, dim=2)]
        assert torch.allclose(together.forward_features(clip), torch.cat(parts, dim=1), atol=1e-5)
        assert together(clip).shape == (2, 5)


def test_other_backbones_refuse_segments():
    for backbone in ("vit_tiny", "timm/vit_tiny_patch16_224"):
        with pytest.raises(ValueError, match=r"data\.sampling"):
            build(backbone, num_frames=8, crop_size=32, num_classes=5, segments=2)


# --- counts --------------------------------------------------------------------------------------


OF_THE_PAGE = ("vjepa2_large", "vjepa2_huge", "vjepa2_giant")


@pytest.mark.parametrize("name", OF_THE_PAGE)
def test_trained_parameters_follow_the_closed_formulas(name):
    """16 frames of 256 pixels, 174 classes, each method's defaults; docs/methods.md shows them."""
    page = (ROOT / "docs" / "methods.md").read_text(encoding="utf-8").splitlines()
    titles = next(line for line in page if f"`{OF_THE_PAGE[0]}`" in line and line.startswith("|"))
    column = titles.split("|").index(f" `{name}` ")
    table = page[page.index(titles) :]
    sizes = VJEPA_SIZES[name]
    d, depth = sizes["width"], sizes["depth"]
    hidden = round(d * sizes.get("mlp_ratio", 4))
    times, places = 8, 256
    biases = 7 * d + hidden  # of a block: two norms, qkv (3 D), proj, the MLP's two layers
    backbone = 1536 * d + d + depth * (4 * d * d + 2 * d * hidden + 2 * d + biases) + 2 * d
    of_a_losa_layer = (
        *(2 * d * 32 + 32 + d, 2 * times * 8 + 8 + times, 2 * places * 16 + 16 + places),
    )
    added = {
        "linear": 0,
        "adaptformer": depth * (2 * d * 64 + 64 + d),
        "arc": 2 * (50 * d + depth * (50 + d)),
        "vpt": depth * d,
        "lora": depth * 2 * 2 * 8 * d,
        "losa": depth * sum(of_a_losa_layer),
        "ssf": 2 * (d + depth * biases + d),
        "st_adapter": depth * (2 * d * 384 + 384 + d + 4 * 384),
        "bitfit": d + depth * biases + d,
        "full": backbone,
    }
    assert added.keys() == methods.METHODS.keys()
    for method, expected in added.items():
        with torch.device("meta"):
            model, _ = build(name, num_frames=16, crop_size=256, num_classes=174)
            methods.apply(model, {"name": method})
        found = methods.count_parameters(model)[0]
        assert found == expected + 2 * d + (d + 1) * 174, method
        [row] = [line for line in table[: len(added) + 2] if line.startswith(f"| `{method}` |")]
        assert row.split("|")[column].strip() == f"{found:,}"
