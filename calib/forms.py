"""Which form of reduced precision each component takes on each target. Here INT8 is decided.

One set of ranges serves every form; a form only says how numbers are held. tokens, latent and embed stay in float32
everywhere: the published weights expect the head in float32, and together they are a few per cent of the bytes.
"""

from __future__ import annotations

from enum import StrEnum

from calib.sites import SiteKind
from runtime.manifest import Precision, Target


class Form(StrEnum):
    """How a component holds its weights and activations."""

    FLOAT32 = "float32"
    # FP16 initialisers, cast where they are used: CPUs compute in float32, and ONNX Runtime casts once, at load.
    FLOAT16_WEIGHTS = "float16 weights, float32 arithmetic"
    # INT8 weights per channel, dequantised where they are used.
    INT8_WEIGHTS = "INT8 weights per channel, float32 arithmetic"
    # Activations UINT8 per tensor from calibration, weights INT8 per channel: the operands of x86 VNNI.
    U8S8 = "static U8S8 Q/DQ"

    def quantizes(self, kind: SiteKind) -> bool:
        """Whether activations of such a site are quantised."""
        return self is Form.U8S8 and kind is not SiteKind.EMBEDDING

    @property
    def precision(self) -> Precision:
        if self is Form.FLOAT32:
            return Precision.FP32
        return Precision.FP16 if self is Form.FLOAT16_WEIGHTS else Precision.INT8


ALWAYS_FLOAT32 = frozenset({"tokens", "latent", "embed"})
# Run once a picture, with activations that INT8 coarsens visibly: the decoder would show grain on plain grounds, and
# the encoder would choose other codes.
WEIGHTS_ONLY = frozenset({"decoder", "encoder"})


def form_of(component: str, precision: Precision, target: Target) -> Form:
    """The form of a component."""
    if precision is Precision.FP32 or component in ALWAYS_FLOAT32:
        return Form.FLOAT32
    if precision is Precision.FP16:
        return Form.FLOAT16_WEIGHTS
    if component in WEIGHTS_ONLY or target is not Target.CPU:
        return Form.INT8_WEIGHTS
    return Form.U8S8
