"""Configuration: every key, its default, and checks between keys."""

from vidadapt.config.schema import (
    SECTIONS,
    CacheConfig,
    Config,
    ConfigError,
    DataConfig,
    EvalConfig,
    ModelConfig,
    TrainConfig,
    as_dict,
    check,
    check_evaluation,
)

__all__ = [
    "SECTIONS",
    "CacheConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "EvalConfig",
    "ModelConfig",
    "TrainConfig",
    "as_dict",
    "check",
    "check_evaluation",
]
