"""The error of training data."""

from hart_edge.errors import HartEdgeError


class DataError(HartEdgeError):
    """A folder of pictures that cannot be used, or that cannot be made."""
