"""Configuration: every key, its default, and checks between keys."""

from vidadapt.config.constraints import check, check_evaluation
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
