"""Processes that train together, and what they exchange."""

from vidadapt.distributed.gradients import GradientMeans
from vidadapt.distributed.sums import (
    average_buffers,
    mean_over_ranks,
    own_buffers,
    require_equal_weights,
    sum_over_ranks,
    total_over_ranks,
)
from vidadapt.distributed.world import (
    ANSWER,
    PeerError,
    Stopped,
    World,
    exchange,
    from_main,
    gather_objects,
    held_by_main,
    is_broken_exchange,
    together,
    with_patience,
)
from vidadapt.processes import LostProcess

__all__ = [
    "ANSWER",
    "GradientMeans",
    "LostProcess",
    "PeerError",
    "Stopped",
    "World",
    "average_buffers",
    "exchange",
    "from_main",
    "gather_objects",
    "held_by_main",
    "is_broken_exchange",
    "mean_over_ranks",
    "own_buffers",
    "require_equal_weights",
    "sum_over_ranks",
    "together",
    "total_over_ranks",
    "with_patience",
]
