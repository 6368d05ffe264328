"""What the steps of a bundle take, for `hart-edge plan` and `bench`: told by the bundle, or counted here."""

from __future__ import annotations

from hart_edge.bundle.costs import Costs, read_costs
from hart_edge.bundle.verify import Bundle
from hart_edge.cli.command import needs_extra


def costs_of(bundle: Bundle) -> Costs:
    """The costs that the bundle carries. One that carries none is counted, which needs onnx; HartEdgeError without."""
    found = read_costs(bundle)
    if found is not None:
        return found
    with needs_extra(f"{bundle.folder} carries no costs.json, and counting what its graphs take", "export"):
        from hart_edge.export.costs import count_costs
    return count_costs(bundle.manifest, bundle.folder)
