"""The classifier in a weights file: its kind, classes and names, before a model is built."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from vidadapt.models.config_json import stated_beside
from vidadapt.models.coverage import State, listed
from vidadapt.models.encoder_files import TIMESFORMER_FILES, VIVIT_FILES
from vidadapt.models.heads import pools
from vidadapt.models.layouts import TUBELET_VIT, our_names
from vidadapt.models.probe_file import Probe, read_probe
from vidadapt.models.tensor_files import MODEL_KEYS, model_file, read_tensors
from vidadapt.models.timesformer import TIMESFORMER_SIZES
from vidadapt.models.vit import SIZES
from vidadapt.models.vivit import VIVIT_SIZES
from vidadapt.models.vjepa import VJEPA_SIZES
from vidadapt.models.vjepa_head import NUM_HEADS, usual_heads
from vidadapt.models.vjepa_weights import VJEPA_FILES

# Families whose classifiers are known: their backbones -> layout of files, entries with the model.
KNOWN: tuple[tuple[Mapping[str, Mapping[str, Any]], str, Sequence[str]], ...] = (
    (SIZES, TUBELET_VIT, MODEL_KEYS),
    (VJEPA_SIZES, VJEPA_FILES.backbone, VJEPA_FILES.entries),
    (TIMESFORMER_SIZES, TIMESFORMER_FILES.backbone, TIMESFORMER_FILES.entries),
    (VIVIT_SIZES, VIVIT_FILES.backbone, VIVIT_FILES.entries),
)

# The last layer of each kind of head, by our names.
LAST_LAYERS = {
    "head.weight": "linear",
    "head.1.weight": "batchnorm_linear",
    "head.classifier.weight": "attentive",
}


@dataclass(frozen=True)
class PublishedHead:
    """A classifier of a weights file.

    Attributes:
        path: the file, or the index of several files.
        kind: key of `HEADS`.
        depth: blocks of `vjepa_attentive`; None: another kind.
        heads: attention heads of `vjepa_attentive`; None: another kind.
        num_classes: K.
        first_token: it reads the first token in place of the mean (`use_mean_pooling` false), which
            is the class token where there is one.
        label_names: of config.json; None: there are none.
        probe: the head, where it is in a file of probes and `path` holds the encoder alone.
    """

    path: Path
    kind: str
    depth: int | None
    heads: int | None
    num_classes: int
    first_token: bool
    label_names: tuple[str, ...] | None
    probe: Probe | None = None

    @property
    def head_path(self) -> Path:
        """The file with the head."""
        return self.path if self.probe is None else self.probe.path

    def __str__(self) -> str:
        reads = "its first token" if self.first_token else "the mean of all tokens"
        if self.kind in ("attentive", "vjepa_attentive"):
            reads = "all tokens"
        size = "" if self.depth is None else f" of {self.depth} blocks, {self.heads} heads"
        origin = "the file" if self.probe is None else self.probe
        return f"{self.kind}{size} from {origin}, {self.num_classes} classes, reads {reads}"


def published_head(
    weights: Path, backbone: str, num_heads: int | None, key: str | None = None
) -> PublishedHead:
    """Find the classifier in a weights file.

    Args:
        weights: file, index or folder.
        backbone: of one of `KNOWN`.
        num_heads: of the backbone; default: its own.
        key: entry of the file, see `read_tensors`.

    Raises:
        ValueError: a backbone or file without a classifier, or names that do not agree with it.
        FileNotFoundError: no such file.
    """
    known = [row for row in KNOWN if backbone in row[0]]
    if not known:
        families = ", ".join(family for _, family, _ in KNOWN)
        raise ValueError(f"model.head: from_file is for backbones {families}, not {backbone}")
    [(sizes, family, entries)] = known
    file = read_tensors(weights, key, entries)
    layout, state = our_names(file, family)
    last = next((name for name in LAST_LAYERS if name in state and state[name].ndim == 2), None)
    if last is None:
        found = listed([name for name in state if name.startswith("head.")]) or "none"
        raise ValueError(
            f"model.head: from_file: {file.path} holds no classifier (tensors of a head: {found}); "
            "give a fine-tuned file, or train a head of your own: --model.head linear"
        )
    kind, depth, heads = LAST_LAYERS[last], None, None
    if "head.query_tokens" in state:
        kind, depth = "vjepa_attentive", 1 + _count(state, r"head\.blocks\.(\d+)\.")
        # Transformers' pooler has as many as the encoder, which Meta's and ours need not have.
        encoder = num_heads or sizes[backbone]["num_heads"]
        width = state["head.query_tokens"].shape[-1]
        heads = encoder if layout.startswith("Hugging Face") else usual_heads(width)
    stated = stated_beside(weights)
    names = None if stated is None else stated.label_names
    of_tokens = depth is None and "fc_norm.weight" not in state
    first_token = of_tokens and "norm.weight" in state
    if names is not None and len(names) != len(state[last]):
        raise ValueError(
            f"{stated and stated.path}: id2label: {len(names)} names, but the classifier in "
            f"{file.path.name} has {len(state[last])} classes; the two are not of one model: "
            "fetch both again"
        )
    if stated is not None and stated.kind == "videomae" and kind == "linear":
        pooling = stated.get("use_mean_pooling")
        if pooling is not (not first_token):
            raise ValueError(
                f"{stated.path}: use_mean_pooling: {pooling} in the file, but the norms in "
                f"{file.path.name} are those of a classifier with {not first_token}; the two are "
                "not of one model: fetch both again"
            )
    return PublishedHead(file.path, kind, depth, heads, len(state[last]), first_token, names)


def published_probe(
    weights: Path,
    backbone: str,
    head_weights: Path,
    key: str | None = None,
    num_heads: int | None = None,
) -> PublishedHead:
    """Find a probe of V-JEPA 2 for an encoder of another file; it has no class names.

    Args:
        weights: file, index or folder of the encoder.
        head_weights: file of probes.
        key: entry of that file, see `read_probe`.
        num_heads: of the probe, which no tensor tells; default: 16, as Meta's code has for every
            width.

    Raises:
        ValueError: another backbone than V-JEPA's, or a file without a probe.
        FileNotFoundError: no such file.
    """
    if backbone not in VJEPA_SIZES:
        raise ValueError(
            f"model.head_weights: a probe of V-JEPA 2 is for backbones vjepa2_..., not {backbone}"
        )
    probe = read_probe(head_weights, key)
    return PublishedHead(
        path=model_file(weights),
        kind="vjepa_attentive",
        depth=probe.depth,
        heads=NUM_HEADS if num_heads is None else num_heads,
        num_classes=probe.num_classes,
        first_token=False,
        label_names=None,
        probe=probe,
    )


def reorder_classes(head: nn.Module, order: Sequence[int]) -> None:
    """Put class `order[k]` of a trained head in place k."""
    last = head.classifier if pools(head) else head
    if isinstance(last, nn.Sequential):
        last = last[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.weight.copy_(last.weight[list(order)])
        last.bias.copy_(last.bias[list(order)])


def _count(state: State, pattern: str) -> int:
    return len({found[1] for name in state if (found := re.match(pattern, name))})
