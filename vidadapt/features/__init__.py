"""Cut a model in two, keep the features of its frozen half, and read them again."""

from vidadapt.features.cache import fill_cache
from vidadapt.features.cached_training import CachedBatches, score_features
from vidadapt.features.halves import (
    Halves,
    Joined,
    NothingFrozen,
    copy_sharing_frozen,
    cut_in_two,
    run_from_features,
)
from vidadapt.features.plan import Cache, plan_cache
from vidadapt.features.store import CacheError

__all__ = [
    "Cache",
    "CacheError",
    "CachedBatches",
    "Halves",
    "Joined",
    "NothingFrozen",
    "copy_sharing_frozen",
    "cut_in_two",
    "fill_cache",
    "plan_cache",
    "run_from_features",
    "score_features",
]
