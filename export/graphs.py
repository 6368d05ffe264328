"""All graphs of a model, each a traceable module with a specification of its tensors, in order.

In: the untouched reference model. Out: GraphModule objects that onnx_export.py traces and parity/compare.py checks. All
arithmetic of the loop is in them, so that hosts only hand buffers on. Symbols: B images, 2B both branches of guidance
(the conditional one first), T context tokens, n tokens of a scale, m of the next, p its side, N cached. The
unconditional branch ("null") is constant at scale 0 (unconditional.py), so there the transformer has R = B rows, U = 0
of them unconditional; later R = 2B and U = B, with M cached, but where a speed leaves that branch out
(reference/dial.py). A speed may leave tokens out as well: then k of a scale's n are computed, and `sources` has a row
of each image (S = B); else one for all (S = 1).
"""

from __future__ import annotations

from collections.abc import Sequence

from hart_edge.bundle.settings import Speed
from hart_edge.export.graph_module import GraphModule
from hart_edge.export.image_graphs import DecoderGraph, EncoderGraph
from hart_edge.export.latent_graphs import EmbedGraph, LatentGraph, ResidualGraph, SelectGraph
from hart_edge.export.text_graph import TextModelGraph
from hart_edge.export.token_graphs import ContextGraph, TokensGraph, TransformerGraph
from hart_edge.reference.dial import thins
from hart_edge.reference.hart import HART
from hart_edge.reference.text_model import TextModel


def build_graphs(
    model: HART, text_model: TextModel | None, speeds: Sequence[Speed] = (Speed.EXACT,)
) -> dict[str, GraphModule]:
    """All graphs of a model that speeds need, by name, in the order in which a prompt passes them."""
    config = model.config
    graphs: list[GraphModule] = []
    if text_model is not None:
        graphs.append(TextModelGraph(text_model, config.context_token, config.context_dim))
    graphs += [ContextGraph(model), TransformerGraph(model), TokensGraph(model), LatentGraph(model), EmbedGraph(model)]
    if thins(model.patch_nums, speeds):
        graphs.append(SelectGraph(model))
    graphs += [ResidualGraph(model), DecoderGraph(model), EncoderGraph(model)]
    return {graph.name: graph.eval() for graph in graphs}
