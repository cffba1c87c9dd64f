"""Files of V-JEPA 2's attentive probes: heads alone, for an encoder that is in another file.

Layout of facebookresearch/vjepa2 (`evals/video_classification_frozen/eval.py`): a list
`classifiers` with the tensors of every probe that was trained at once, of other learning rates and
weight decays each. Nothing in the file tells how well one does; Meta's own code
(`notebooks/vjepa2_demo.py`) and transformers' converter take the first.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

from vidadapt.models.backbone import VideoModel
from vidadapt.models.coverage import LoadReport, State, listed, require_match
from vidadapt.models.layouts import without_wrappers
from vidadapt.models.renaming import by_patterns, renamed
from vidadapt.models.tensor_files import PROBES, read_tensors
from vidadapt.models.vjepa_head import VJepaHead

OPTION = "model.head_weights_key"

NAMES = {
    r"^pooler\.": "",
    r"^cross_attention_block\.xattn\.(q|kv)\.": r"cross_attention_block.\1.",
    r"^linear\.": "classifier.",
}


@dataclass(frozen=True)
class Probe:
    """One probe of a file.

    Attributes:
        path: the file.
        key: its entry; None: the file holds one probe at the top.
        others: entries that hold other probes.
        state: tensors by the names of `VJepaHead`.
    """

    path: Path
    key: str | None
    others: tuple[str, ...]
    state: State

    def __str__(self) -> str:
        entry = f", {self.key}" if self.key else ""
        count = 1 + len(self.others)
        choice = f" of {count} probes ({OPTION} chooses another)" if self.others else ""
        return f"{self.path}{entry}{choice}"

    @property
    def depth(self) -> int:
        """Blocks, with that of cross-attention."""
        found = (re.match(r"blocks\.(\d+)\.", name) for name in self.state)
        return 1 + len({match[1] for match in found if match})

    @property
    def num_classes(self) -> int:
        return len(self.state["classifier.weight"])


def read_probe(path: Path, key: str | None = None) -> Probe:
    """Read a probe.

    Args:
        key: entry of the file, e.g. `classifiers.3`; default: the first.

    Raises:
        FileNotFoundError, ValueError: see `read_tensors`; or a file of something else.
    """
    file = read_tensors(path, key, (f"{PROBES}0",), OPTION)
    state = renamed(without_wrappers(file.tensors), by_patterns(NAMES))
    missing = [name for name in ("query_tokens", "classifier.weight") if name not in state]
    if missing:
        raise ValueError(
            f"model.head_weights: {file.path}{file.where} is no probe of V-JEPA 2: {missing[0]} is "
            f"missing; its first tensors: {listed(list(file.tensors)) or 'none'}"
        )
    return Probe(file.path, file.key, file.others, state)


def load_probe(
    model: VideoModel, path: Path, report: LoadReport, key: str | None = None
) -> LoadReport:
    """Load a probe into the head of a model, strictly; returns the report with it.

    Args:
        model: with the head `vjepa_attentive` of the probe's depth and classes.
        report: of the encoder.
        key: see `read_probe`.

    Raises:
        FileNotFoundError, ValueError: see `read_probe`; another head, or one message with all
            tensors that are missing, left over or of another shape.
    """
    if not isinstance(model.head, VJepaHead):
        raise ValueError(
            "model.head_weights: holds a head of the kind vjepa_attentive; give --model.head "
            "from_file with it, or leave it out"
        )
    probe = read_probe(path, key)
    target = model.head.state_dict()
    width = probe.state["query_tokens"].shape[-1]
    advice = (
        f"it is a probe of {probe.depth} blocks and {probe.num_classes} classes on features of "
        f"width {width}, and {model.name} gives {model.width}; choose the encoder that it is of"
    )
    require_match(probe.path, probe.state, target, list(target), advice)
    model.head.load_state_dict(probe.state, strict=True)
    added = tuple(f"head.{name}" for name in target)
    return replace(
        report,
        loaded=(*report.loaded, *added),
        loaded_values=report.loaded_values + sum(t.numel() for t in probe.state.values()),
        fresh=tuple(name for name in report.fresh if name not in added),
        notes=(*report.notes, f"the head is of {probe}"),
    )
