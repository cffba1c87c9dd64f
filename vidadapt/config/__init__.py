"""Configuration: every key, its default, and checks between keys."""

from vidadapt.config.command_line import (
    BrowseOptions,
    EvaluateOptions,
    GridOptions,
    TrainOptions,
    parse_backbone,
    parse_beside_keys,
    parse_browse,
    parse_evaluate,
    parse_published,
    parse_train,
)
from vidadapt.config.constraints import check, check_evaluation
from vidadapt.config.parsing import spelt, value_of
from vidadapt.config.plugins import import_named, import_plugins, require_imported
from vidadapt.config.renamed import file_with_new_keys, new_name, with_new_keys
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
from vidadapt.config.shipped import config_file, shipped
from vidadapt.config.typed import Within, hints_of, misfits, out_of_range
from vidadapt.config.yaml_files import flattened

__all__ = [
    "SECTIONS",
    "BrowseOptions",
    "CacheConfig",
    "Config",
    "ConfigError",
    "DataConfig",
    "EvalConfig",
    "EvaluateOptions",
    "GridOptions",
    "ModelConfig",
    "TrainConfig",
    "TrainOptions",
    "Within",
    "as_dict",
    "check",
    "check_evaluation",
    "config_file",
    "file_with_new_keys",
    "flattened",
    "hints_of",
    "import_named",
    "import_plugins",
    "misfits",
    "new_name",
    "out_of_range",
    "parse_backbone",
    "parse_beside_keys",
    "parse_browse",
    "parse_evaluate",
    "parse_published",
    "parse_train",
    "require_imported",
    "shipped",
    "spelt",
    "value_of",
    "with_new_keys",
]
