"""Range checks of options that methods share."""

from __future__ import annotations


def require_counts(**options: int) -> None:
    """Refuse counts (ranks, widths, numbers of tokens) below 1.

    Raises:
        ValueError: naming the option.
    """
    for name, count in options.items():
        if count < 1:
            raise ValueError(f"method.{name}: expected 1 or more, got {count}")


def require_rate(dropout: float) -> None:
    """Refuse a dropout rate outside [0, 1).

    Raises:
        ValueError: naming the option.
    """
    if not 0.0 <= dropout < 1.0:
        raise ValueError(f"method.dropout: expected a rate in [0, 1), got {dropout}")
