"""The part of the public API that trains; the rest is in `serving`."""

from vidadapt.api.training_run import finetune

__all__ = ["finetune"]
