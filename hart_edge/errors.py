"""The errors of hart-edge. Every one says what was expected, what was found, and what to do.

hart_edge re-exports them, so that `except hart_edge.HartEdgeError` catches all of them.
"""


class HartEdgeError(Exception):
    """Base of every error that hart-edge raises on purpose."""


class InputError(HartEdgeError, ValueError):
    """A prompt, seed or sampling setting that cannot be used."""


class CheckpointError(HartEdgeError):
    """A checkpoint folder that is incomplete, misshapen or unsafe to read."""


class BundleError(HartEdgeError):
    """A bundle that is missing, altered, of an unknown format, or not to be trusted."""


class BuildError(HartEdgeError):
    """A build that cannot be finished; nothing was written under the final name."""


class ParityError(BuildError):
    """An exported graph that does not compute what the reference computes."""


class EngineError(HartEdgeError):
    """An engine library that is missing, refuses a graph, or fails while running."""


class GenerationError(HartEdgeError):
    """A generation that produced something no picture may be made of."""
