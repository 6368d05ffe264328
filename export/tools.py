"""The functions that a build does its work with. Tests pass others in their place: tools=Tools(trace=...)."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import onnx

from hart_edge.bundle.writer import BundleWriter, write_bundle
from hart_edge.calib.graph_files import save_graph
from hart_edge.calib.rewrite.apply import apply_scheme
from hart_edge.engines.registry import REGISTRY, Registry
from hart_edge.export.graph_module import GraphModule
from hart_edge.export.onnx_export import export_graph
from hart_edge.export.parity.limits import Breach, find_breach
from hart_edge.reference.config import TokenizerConfig, TransformerConfig
from hart_edge.reference.presets import PUBLISHED_TEXT, TextShape, configs


@dataclass(frozen=True)
class Tools:
    """registry: the engine libraries; trace: a module into an ONNX file; rewrite: a graph into a scheme; judge: figures
    against limits; save, write_bundle: a graph, and what it becomes a part of; configs, text_shape: of a preset."""

    registry: Registry = REGISTRY
    trace: Callable[[GraphModule, Path], None] = export_graph
    rewrite: Callable[..., onnx.ModelProto] = apply_scheme
    save: Callable[..., int] = save_graph
    judge: Callable[..., Breach | None] = find_breach
    write_bundle: Callable[[Path], AbstractContextManager[BundleWriter]] = write_bundle
    configs: Callable[[str], tuple[TransformerConfig, TokenizerConfig]] = configs
    text_shape: TextShape = PUBLISHED_TEXT


TOOLS = Tools()
