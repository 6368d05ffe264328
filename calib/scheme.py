"""Which scheme of reduced precision each component takes on each target. Here FP16 and INT8 are decided.

One set of ranges serves every scheme; a scheme only says which types hold the numbers. tokens, latent, embed and select
stay in float32 wherever the target can compute it: the published weights expect the head in float32, and together they
are a few per cent of the bytes. docs/int8.md and docs/engines.md say why.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from enum import StrEnum

from hart_edge.bundle.manifest import Dtype, Precision, TensorSpec
from hart_edge.calib.quantizable_nodes import NodeKind
from hart_edge.engines.base import GraphTraits
from hart_edge.engines.tensorrt.facts import NO_INT8_ENGINE


class Scheme(StrEnum):
    """How a component holds its weights and activations."""

    FLOAT32 = "float32"
    # FP16 initialisers, cast where they are used: CPUs compute in float32, and ONNX Runtime casts once, when it loads.
    FLOAT16_WEIGHTS = "float16 weights, float32 arithmetic"
    # FP16 in matrix products and between them; float32 in statistics and in sums over many steps.
    FLOAT16 = "float16, float32 statistics"
    # The same, also for the components and tensors that stay in float32 elsewhere.
    FLOAT16_PRODUCTS = "float16 products, float32 elsewhere"
    # INT8 weights with a scale per channel, dequantised where they are used.
    INT8_WEIGHTS = "INT8 weights per channel, float32 arithmetic"
    # The same, for the weights of matrix products only, with float16 around them.
    INT8_WEIGHTS_FLOAT16 = "INT8 weights per channel, float16 arithmetic"
    # UINT8 activations with a calibrated range per tensor, INT8 weights per channel: the operands of x86 VNNI.
    U8S8 = "static U8S8 Q/DQ"
    # The same for convolutions only, with ranges per channel: pictures show what one range for all would round away.
    U8S8_CHANNELS = "static U8S8 convolutions, ranges per channel"
    # UINT8 activations with ranges computed at run time, for matrix products only.
    DYNAMIC = "dynamic U8S8"
    # INT4 weights with a scale and a zero point per block of 32, embeddings in INT8: MatMulNBits of ONNX Runtime, which
    # quantises activations to INT8 as it multiplies.
    INT4_BLOCKS = "INT4 weights in blocks of 32, INT8 activations a block, INT8 embeddings"
    # INT8 activations and weights with zero points of 0: the operands of tensor cores; float16 around them.
    S8S8 = "static S8S8 Q/DQ, float16 elsewhere"
    # The same for convolutions only. What they read is divided by a factor per channel, what they make is float16.
    S8S8_CHANNELS = "static S8S8 convolutions, factors per channel, float16 elsewhere"

    def quantizes(self, kind: NodeKind, weight: str = "") -> bool:
        """Whether the activations of nodes of this kind, with a weight of this name, are quantised."""
        if self in (Scheme.U8S8_CHANNELS, Scheme.S8S8_CHANNELS):
            return kind is NodeKind.CONV and not weight.endswith(EXACT_CONVOLUTIONS)
        if self in (Scheme.S8S8, Scheme.DYNAMIC):
            return kind is NodeKind.LINEAR
        return self is Scheme.U8S8 and kind is not NodeKind.EMBEDDING

    def holds_int8(self, kind: NodeKind, weight: str) -> bool:
        """Whether a weight of nodes of this kind is INT8."""
        if self is Scheme.INT8_WEIGHTS_FLOAT16 and weight.startswith(NO_INT8_ENGINE):
            return False
        if self is Scheme.S8S8_CHANNELS:
            return self.quantizes(kind, weight)
        return self.precision is Precision.INT8 and (not self.fp16_activations or kind is NodeKind.LINEAR)

    @property
    def unsigned(self) -> bool:
        """Whether activations are UINT8."""
        return self in (Scheme.U8S8, Scheme.U8S8_CHANNELS, Scheme.DYNAMIC)

    @property
    def fp16_activations(self) -> bool:
        """Whether activations, and not only weights, are FP16."""
        mixed = (Scheme.INT8_WEIGHTS_FLOAT16, Scheme.S8S8, Scheme.S8S8_CHANNELS)
        return self in (Scheme.FLOAT16, Scheme.FLOAT16_PRODUCTS, *mixed)

    @property
    def precision(self) -> Precision:
        """The smallest type that it holds weights in."""
        if self is Scheme.FLOAT32:
            return Precision.FP32
        if self is Scheme.INT4_BLOCKS:
            return Precision.INT4
        is_fp16 = self in (Scheme.FLOAT16_WEIGHTS, Scheme.FLOAT16, Scheme.FLOAT16_PRODUCTS)
        return Precision.FP16 if is_fp16 else Precision.INT8


class Int8Scheme(StrEnum):
    """How INT8 layers hold their activations on a CPU."""

    MEASURED = "measured"  # whichever scheme is fastest on this machine
    STATIC = "static"  # in UINT8, with calibrated ranges
    DYNAMIC = "dynamic"  # in UINT8, with ranges computed at run time
    WEIGHTS = "weights"  # in float32: only weights are INT8


# Bytes of a text model's weights in float32 from which on they are not held so, as INT8 weights are in float32
# arithmetic: it would take more memory than all else together.
NEVER_FLOAT32 = 2**31
ALWAYS_FLOAT32 = frozenset({"tokens", "latent", "embed", "select"})
# With INT8 activations the encoder would choose other codes, and the decoder show grain on plain areas unless its
# channels have ranges or factors of their own.
WEIGHTS_ONLY = frozenset({"decoder", "encoder"})
PIXELS = "decoder"  # the component of such convolutions, where the target has INT8 activations
# What it has in place of them where its pictures would suffer.
INSTEAD = {Scheme.U8S8_CHANNELS: Scheme.INT8_WEIGHTS, Scheme.S8S8_CHANNELS: Scheme.FLOAT16}
# Ends of the names of weights that stay out of such convolutions: what stands at the two ends of a decoder, and what
# passes on a sum unchanged. They are a hundredth of its arithmetic.
EXACT_CONVOLUTIONS = ("post_quant_conv.weight", ".conv_in.weight", ".conv_out.weight", ".nin_shortcut.weight")
# Nodes behind this tensor stay in float32: distances to the codebook decide the encoder's codes.
EXACT_AFTER = {"encoder": "latent"}
# Beginnings of the names of the KV cache: what a call of the transformer writes, and what it reads of earlier calls.
NEW_KEYS, NEW_VALUES = ("key.", "null_key."), ("value.", "null_value.")
NEW_CACHE = (*NEW_KEYS, *NEW_VALUES)
PAST_CACHE = tuple(f"past_{name}" for name in NEW_CACHE)
CACHE = (*NEW_CACHE, *PAST_CACHE)
KEYS = (*NEW_KEYS, *(f"past_{name}" for name in NEW_KEYS))


class CacheForm(StrEnum):
    """How graphs whose arithmetic is float32 hold keys and values between calls."""

    FLOAT32 = "float32"
    FLOAT16 = "float16"
    # Of models whose keys are unit vectors: queries times keys are INT8 products.
    INT8_KEYS = "INT8 keys, float16 values"

    def dtype(self, name: str) -> Dtype:
        """Of a graph's input or output of that name, which belongs to the cache."""
        if self is CacheForm.FLOAT32:
            return Dtype.FLOAT32
        return Dtype.INT8 if self is CacheForm.INT8_KEYS and name.startswith(KEYS) else Dtype.FLOAT16


def scheme_of(component: str, precision: Precision, traits: GraphTraits, architectures: Sequence[str] = ()) -> Scheme:
    """The scheme of a component. traits: of the target's graphs; architectures: of the GPUs of its engines, if any."""
    if traits.fp16_tensors:
        return _fp16_tensor_scheme(component, precision, traits, architectures)
    if precision is Precision.INT4:
        return Scheme.INT4_BLOCKS
    if precision is Precision.FP32 or component in ALWAYS_FLOAT32:
        return Scheme.FLOAT32
    if precision is Precision.FP16:
        return Scheme.FLOAT16_WEIGHTS
    if component == PIXELS and traits.int8_activations:
        return Scheme.U8S8_CHANNELS
    if component in WEIGHTS_ONLY or not traits.int8_activations:
        return Scheme.INT8_WEIGHTS
    return Scheme.U8S8


def candidates(scheme: Scheme, wanted: Int8Scheme, *, float32: bool = True) -> tuple[Scheme, ...]:
    """The schemes that a component could have, the one that takes the most memory last.

    scheme: what scheme_of gives the component; wanted: what the user asked for; float32: whether memory may hold its
    weights in float32.
    """
    if scheme is Scheme.U8S8_CHANNELS:
        if wanted is Int8Scheme.MEASURED:
            return (scheme, Scheme.INT8_WEIGHTS)
        return (scheme,) if wanted is Int8Scheme.STATIC else (Scheme.INT8_WEIGHTS,)
    if scheme is not Scheme.U8S8:
        return (scheme,)
    if wanted is Int8Scheme.MEASURED and not float32:
        return (Scheme.U8S8, Scheme.DYNAMIC)
    return {
        Int8Scheme.MEASURED: (Scheme.U8S8, Scheme.DYNAMIC, Scheme.INT8_WEIGHTS),
        Int8Scheme.STATIC: (Scheme.U8S8,),
        Int8Scheme.DYNAMIC: (Scheme.DYNAMIC,),
        Int8Scheme.WEIGHTS: (Scheme.INT8_WEIGHTS,),
    }[wanted]


def _fp16_tensor_scheme(
    component: str, precision: Precision, traits: GraphTraits, architectures: Sequence[str]
) -> Scheme:
    if precision is Precision.FP32:
        return Scheme.FLOAT32
    if component in ALWAYS_FLOAT32 or component in EXACT_AFTER:
        if not traits.no_float32_products.isdisjoint(architectures):
            return Scheme.FLOAT16_PRODUCTS
        if component in ALWAYS_FLOAT32:
            return Scheme.FLOAT32
    if precision is Precision.INT8 and component == PIXELS and traits.int8_activations:
        return Scheme.S8S8_CHANNELS
    if precision is Precision.FP16 or component in WEIGHTS_ONLY:
        return Scheme.FLOAT16
    return Scheme.S8S8 if traits.int8_activations else Scheme.INT8_WEIGHTS_FLOAT16


def specs_in(
    specs: Sequence[TensorSpec], scheme: Scheme, cache: CacheForm = CacheForm.FLOAT32
) -> tuple[TensorSpec, ...]:
    """A graph's inputs or outputs in a scheme: the KV cache is FP16 where activations are, else as `cache` has it."""
    form = CacheForm.FLOAT16 if scheme.fp16_activations else cache
    return tuple(replace(spec, dtype=form.dtype(spec.name)) if spec.name.startswith(CACHE) else spec for spec in specs)
