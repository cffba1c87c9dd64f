"""Begin a run with what another task's adapter has learned, and a new head."""

from __future__ import annotations

import torch

from vidadapt import methods
from vidadapt.config import Config, ConfigError
from vidadapt.console import differing
from vidadapt.models import READ_OUT, VideoModel, require_match
from vidadapt.runs import adapters
from vidadapt.runs.differences import (
    IN_FILE,
    backbone_differences,
    refuse_backbone,
    refuse_differences,
)

KEY = "method.start"


def start_from_adapter(model: VideoModel, config: Config, backbone: str) -> None:
    """Copy the method's own weights from the adapter that `method.start` names; the head stays new.

    Clips may be of another shape, as long as the method's tensors are not.

    Args:
        model: with the method applied.
        backbone: fingerprint from `adapted_model`.

    Raises:
        ConfigError, ValueError: another method, option or backbone, or a method that has no weights
            but those of the head.
    """
    assert config.start is not None
    adapter = adapters.read_adapter(adapters.find_adapter(config.start, KEY))
    source, about, name = f"{KEY}: {adapter.source}", adapter.about, config.method["name"]
    trained, asked = dict(about["method"]), dict(config.method)
    if trained["name"] == name:
        options = methods.default_options(name)
        trained, asked = {**options, **trained}, {**options, **asked}
    else:
        trained, asked = {"name": trained["name"]}, {"name": name}
    in_file, here = (
        {f"method.{key}": value for key, value in one.items()} for one in (trained, asked)
    )
    refuse_differences(
        source,
        [
            *differing(in_file, here, IN_FILE + "asked for"),
            # Its own clips: other frames and crops are right where its tensors fit, see below.
            *backbone_differences(about, config.model, adapter.plan, "asked for"),
        ],
    )
    refuse_backbone(source, about, backbone, f"model.weights ({config.model.weights})")
    own, theirs = (
        {key: tensor for key, tensor in state.items() if key.split(".")[0] not in READ_OUT}
        for state in (methods.trainable_state(model), adapter.tensors)
    )
    if not own:
        raise ConfigError(
            f"{KEY}: {name} trains nothing but the head, which is new for every task: leave it out"
        )
    advice = "the adapter does not fit these clips: use data.num_frames and data.crop_size of it"
    require_match(source, theirs, own, list(own), advice)
    with torch.no_grad():
        for key, tensor in own.items():
            tensor.copy_(theirs[key])
