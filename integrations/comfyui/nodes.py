"""The nodes, by ComfyUI's interface of custom nodes: INPUT_TYPES, RETURN_TYPES, FUNCTION, CATEGORY.

comfy.utils and comfy.model_management are ComfyUI's own; they show previews and tell of a click on Cancel.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch

from .sources import BundleSource, ServerSource, Source

SOURCE = "HART_EDGE"  # the type of a connection between these nodes
OWN = -1.0  # an input that leaves a setting as the bundle has it
PREVIEW = 512  # pixels at most


class HartEdgeBundle:
    """A bundle, opened in this process and kept open."""

    CATEGORY = "hart-edge"
    FUNCTION = "load"
    RETURN_TYPES = (SOURCE,)
    RETURN_NAMES = ("source",)
    DESCRIPTION = "Opens a bundle of hart-edge in this process."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  # ComfyUI's name
        folder = {"default": "bundles/hart-emoji-int8", "tooltip": "a folder that hart-edge build has made"}
        threads = {"default": 0, "min": 0, "max": 1024, "tooltip": "inside an operator; 0: one a core"}
        return {"required": {"folder": ("STRING", folder), "threads": ("INT", threads)}}

    def load(self, folder: str, threads: int) -> tuple[Source]:
        return (BundleSource(folder, threads or None),)


class HartEdgeServer:
    """A server of bundles: nothing is opened here."""

    CATEGORY = "hart-edge"
    FUNCTION = "connect"
    RETURN_TYPES = (SOURCE,)
    RETURN_NAMES = ("source",)
    DESCRIPTION = "Draws on a server that hart-edge serve runs; its key, if it asks for one, is HART_EDGE_API_KEY."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        return {"required": {"address": ("STRING", {"default": "http://127.0.0.1:8000"})}}

    def connect(self, address: str) -> tuple[Source]:
        return (ServerSource(address),)


class HartEdgeGenerate:
    """Pictures of a prompt, with a preview of every scale."""

    CATEGORY = "hart-edge"
    FUNCTION = "generate"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    DESCRIPTION = "Draws pictures scale by scale. The same prompt, seed and settings give the same picture."

    own: ClassVar[str] = f"{OWN:g}: as the bundle has it"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802
        guidance = {"default": OWN, "min": OWN, "max": 100.0, "step": 0.1, "tooltip": f"guidance; {cls.own}"}
        top_p = {"default": OWN, "min": OWN, "max": 1.0, "step": 0.01, "tooltip": f"share of probability; {cls.own}"}
        seed = {"default": 0, "min": 0, "max": 2**64 - 1, "control_after_generate": True}
        return {
            "required": {
                "source": (SOURCE,),
                "prompt": ("STRING", {"default": "a red heart", "multiline": True}),
                "seed": ("INT", seed),
                "batch_size": ("INT", {"default": 1, "min": 1, "max": 64, "tooltip": "pictures, of rising seeds"}),
                "cfg_scale": ("FLOAT", guidance),
                "top_p": ("FLOAT", top_p),
            },
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    def generate(
        self,
        source: Source,
        prompt: str,
        seed: int,
        batch_size: int,
        cfg_scale: float,
        top_p: float,
        unique_id: str | None = None,
    ) -> tuple[torch.Tensor]:
        """Images: (B, H, W, 3) float32, 0 to 1."""
        from comfy import model_management
        from comfy.utils import ProgressBar

        settings = asked({"cfg_scale": cfg_scale, "top_p": top_p})
        bar, pictures = None, []
        for number in range(batch_size):
            steps = source.stream(prompt, (seed + number) % 2**64, settings)
            try:
                for scale, scales, picture in steps:
                    bar = bar or ProgressBar(scales * batch_size, node_id=unique_id)
                    bar.update_absolute(scales * number + scale + 1, preview=("PNG", picture, PREVIEW))
                    model_management.throw_exception_if_processing_interrupted()
            finally:
                steps.close()  # stops what is under way, here or on the server
            pictures.append(torch.from_numpy(np.asarray(picture, np.float32) / 255.0))
        return (torch.stack(pictures),)


def asked(settings: Mapping[str, float]) -> dict[str, float]:
    """Those that are not left to the bundle."""
    return {name: value for name, value in settings.items() if value > OWN}


NODE_CLASS_MAPPINGS = {
    "HartEdgeBundle": HartEdgeBundle,
    "HartEdgeServer": HartEdgeServer,
    "HartEdgeGenerate": HartEdgeGenerate,
}
NODE_DISPLAY_NAME_MAPPINGS = {
    "HartEdgeBundle": "Load bundle (hart-edge)",
    "HartEdgeServer": "Server (hart-edge)",
    "HartEdgeGenerate": "Generate (hart-edge)",
}
