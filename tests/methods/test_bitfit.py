"""BitFit: which parameters are biases."""

from __future__ import annotations

import torch

from vidadapt import methods
from vidadapt.models import build


def test_on_vit_base_it_trains_the_biases_of_the_formula():
    with torch.device("meta"):
        model, _ = build("vit_base", num_frames=8, crop_size=224, num_classes=174)
        methods.apply(model, {"name": "bitfit"})
    assert methods.count_parameters(model)[0] == 768 * (10 * 12 + 1) + 135_342
    assert 768 * (10 * 12 + 1) == 92_928


def test_it_trains_all_biases_and_no_weight_of_the_backbone():
    model, _ = build("vit_tiny", num_frames=4, crop_size=32, num_classes=5)
    methods.apply(model, {"name": "bitfit"})
    readout = ("fc_norm.", "head.")
    for name, parameter in model.named_parameters():
        if not name.startswith(readout):
            assert parameter.requires_grad == (parameter.ndim == 1 and "bias" in name), name
    assert model.blocks[0].attn.q_bias.requires_grad and model.blocks[0].attn.v_bias.requires_grad


def test_tables_of_relative_positions_stay_frozen():
    model, _ = build("vit_tiny", num_frames=4, crop_size=32, num_classes=5)
    attn = model.blocks[0].attn
    attn.relative_position_bias_table = torch.nn.Parameter(torch.zeros(9, 3))
    methods.apply(model, {"name": "bitfit"})
    assert not attn.relative_position_bias_table.requires_grad
