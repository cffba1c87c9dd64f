"""What can be set: every key, its default and what it must agree with."""

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
