"""The errors of training."""

from __future__ import annotations

from hart_edge.errors import HartEdgeError, InputError


class TrainingError(HartEdgeError):
    """A recipe that cannot be used, a run that cannot be resumed or has diverged, a state that cannot be written."""


class RecipeError(TrainingError, InputError):
    """A recipe or a habit with values that cannot be used: what was asked for, and no fault of a run."""
