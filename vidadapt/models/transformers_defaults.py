"""Kinds of config.json that are compared with the model: transformers' defaults, our backbones."""

from __future__ import annotations

from typing import Any

# model_type -> values of the keys that a config.json leaves out.
DEFAULTS: dict[str, dict[str, Any]] = {
    "videomae": {
        **{"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
        **{"intermediate_size": 3072, "patch_size": 16, "tubelet_size": 2, "num_channels": 3},
        **{"hidden_act": "gelu", "layer_norm_eps": 1e-12, "qkv_bias": True, "qv_bias": True},
        **{"image_size": 224, "num_frames": 16, "use_mean_pooling": True},
    },
    "vjepa2": {
        **{"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16},
        **{"mlp_ratio": 4.0, "patch_size": 16, "tubelet_size": 2, "in_chans": 3},
        **{"hidden_act": "gelu", "layer_norm_eps": 1e-6, "qkv_bias": True},
        **{"crop_size": 256, "frames_per_clip": 64},
    },
    "timesformer": {
        **{"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
        **{"intermediate_size": 3072, "patch_size": 16, "num_channels": 3},
        **{"hidden_act": "gelu", "layer_norm_eps": 1e-6, "qkv_bias": True},
        **{"image_size": 224, "num_frames": 8, "attention_type": "divided_space_time"},
    },
    "vivit": {
        **{"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
        **{"intermediate_size": 3072, "tubelet_size": [2, 16, 16], "num_channels": 3},
        **{"hidden_act": "gelu_fast", "layer_norm_eps": 1e-6, "qkv_bias": True},
        **{"image_size": 224, "num_frames": 32},
    },
    "videoprism_vision_model": {
        **{"hidden_size": 768, "num_spatial_layers": 12, "num_temporal_layers": 4},
        **{"num_attention_heads": 12, "intermediate_size": 3072, "tubelet_size": [1, 18, 18]},
        **{"num_channels": 3, "hidden_act": "gelu_python", "layer_norm_eps": 1e-6},
        **{"qkv_bias": True, "attn_logit_softcapping": 50.0, "image_size": 288, "num_frames": 16},
    },
}

# model_type -> the backbones that are of it.
FAMILIES = {
    "videomae": "vit_...",
    "vjepa2": "vjepa2_...",
    "timesformer": "timesformer_...",
    "vivit": "vivit_...",
    "videoprism_vision_model": "videoprism_...",
}
