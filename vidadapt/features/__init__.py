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
from vidadapt.features.layers import POOLS, LayerFeatures, Pool, classified
from vidadapt.features.plan import Cache, free_bytes, plan_cache, protocol, size
from vidadapt.features.store import CacheError, Reader, Store, check_key
from vidadapt.features.views import fill_views, view_store

__all__ = [
    "POOLS",
    "Cache",
    "CacheError",
    "CachedBatches",
    "Halves",
    "Joined",
    "LayerFeatures",
    "NothingFrozen",
    "Pool",
    "Reader",
    "Store",
    "check_key",
    "classified",
    "copy_sharing_frozen",
    "cut_in_two",
    "fill_cache",
    "fill_views",
    "free_bytes",
    "plan_cache",
    "protocol",
    "run_from_features",
    "score_features",
    "size",
    "view_store",
]
