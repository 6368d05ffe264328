"""The error of training."""

from __future__ import annotations

from hart_edge.errors import HartEdgeError


class TrainingError(HartEdgeError):
    """A recipe that makes no sense, a run that cannot be resumed or has diverged, a state that cannot be written."""
