"""The scheme of each component at each precision, on each target."""

from __future__ import annotations

import pytest

from hart_edge.bundle.manifest import ComponentName, Dtype, Precision, Target, TensorSpec
from hart_edge.calib.quantizable_nodes import NodeKind
from hart_edge.calib.scheme import Int8Scheme, Scheme, candidates, scheme_of, specs_in
from hart_edge.engines.registry import REGISTRY

CONTRACT = ("tokens", "latent", "embed", "select")  # always float32


@pytest.mark.parametrize("target", list(Target))
def test_fp32_is_fp32(target: Target) -> None:
    for name in ComponentName:
        assert scheme_of(name, Precision.FP32, REGISTRY[target].graphs) is Scheme.FLOAT32


@pytest.mark.parametrize("target", [Target.CPU, Target.CUDA])
def test_fp16_stores_weights(target: Target) -> None:
    for name in ComponentName:
        expected = Scheme.FLOAT32 if name in CONTRACT else Scheme.FLOAT16_WEIGHTS
        assert scheme_of(name, Precision.FP16, REGISTRY[target].graphs) is expected


@pytest.mark.parametrize("target", [Target.TENSORRT, Target.TENSORRT_RTX])
def test_fp16_of_engines_is_arithmetic(target: Target) -> None:
    for name in ComponentName:
        expected = Scheme.FLOAT32 if name in CONTRACT else Scheme.FLOAT16
        assert scheme_of(name, Precision.FP16, REGISTRY[target].graphs) is expected
        assert scheme_of(name, Precision.FP16, REGISTRY[target].graphs, ("sm_86", "sm_120")) is expected


def test_turing_has_no_products_in_float32() -> None:
    """On TensorRT-RTX; classic TensorRT has them."""
    traits = REGISTRY[Target.TENSORRT_RTX].graphs
    found = {str(name): scheme_of(name, Precision.FP16, traits, ("sm_75",)) for name in ComponentName}
    throughout = (*CONTRACT, "encoder")
    assert {name for name, scheme in found.items() if scheme is Scheme.FLOAT16_PRODUCTS} == set(throughout)
    assert all(scheme is Scheme.FLOAT16 for name, scheme in found.items() if name not in throughout)
    assert scheme_of("tokens", Precision.FP16, REGISTRY[Target.TENSORRT].graphs, ("sm_75",)) is Scheme.FLOAT32


@pytest.mark.parametrize(
    ("target", "scheme", "decoder"),
    [
        (Target.TENSORRT, Scheme.S8S8, Scheme.S8S8_CHANNELS),
        (Target.TENSORRT_RTX, Scheme.INT8_WEIGHTS_FLOAT16, Scheme.FLOAT16),
    ],
)
def test_int8_of_engines(target: Target, scheme: Scheme, decoder: Scheme) -> None:
    found = {str(name): scheme_of(name, Precision.INT8, REGISTRY[target].graphs) for name in ComponentName}
    assert found == {
        **dict.fromkeys(("text_model", "context", "transformer", "residual"), scheme),
        "decoder": decoder,
        "encoder": Scheme.FLOAT16,
        **dict.fromkeys(CONTRACT, Scheme.FLOAT32),
    }


def test_the_cache_is_fp16_where_the_arithmetic_is() -> None:
    cached = ("past_key.0", "value.11", "past_null_value.0", "key.3", "null_key.2", "null_value.0")
    names = ("x", "past_f_hat", "null_hidden", *cached)
    specs = [TensorSpec(name, Dtype.FLOAT32, ("B",)) for name in names]
    assert [spec.name for spec in specs_in(specs, Scheme.FLOAT16) if spec.dtype == "float16"] == list(cached)
    assert specs_in(specs, Scheme.FLOAT16_WEIGHTS) == tuple(specs)


def test_int8_on_the_cpu() -> None:
    found = {str(name): scheme_of(name, Precision.INT8, REGISTRY[Target.CPU].graphs) for name in ComponentName}
    assert found == {
        **dict.fromkeys(("text_model", "context", "transformer", "residual"), Scheme.U8S8),
        "decoder": Scheme.U8S8_CHANNELS,
        "encoder": Scheme.INT8_WEIGHTS,
        **dict.fromkeys(CONTRACT, Scheme.FLOAT32),
    }


def test_u8s8_is_for_cpus_only() -> None:
    for name in ComponentName:
        expected = Scheme.FLOAT32 if name in CONTRACT else Scheme.INT8_WEIGHTS
        assert scheme_of(name, Precision.INT8, REGISTRY[Target.CUDA].graphs) is expected
        assert scheme_of(name, Precision.INT8, REGISTRY[Target.TENSORRT].graphs) is not Scheme.U8S8


def test_properties_of_schemes() -> None:
    assert {scheme: scheme.precision for scheme in Scheme} == {
        Scheme.FLOAT32: Precision.FP32,
        Scheme.FLOAT16_WEIGHTS: Precision.FP16,
        Scheme.FLOAT16: Precision.FP16,
        Scheme.FLOAT16_PRODUCTS: Precision.FP16,
        Scheme.INT8_WEIGHTS: Precision.INT8,
        Scheme.INT8_WEIGHTS_FLOAT16: Precision.INT8,
        Scheme.U8S8: Precision.INT8,
        Scheme.U8S8_CHANNELS: Precision.INT8,
        Scheme.DYNAMIC: Precision.INT8,
        Scheme.INT4_BLOCKS: Precision.INT4,
        Scheme.S8S8: Precision.INT8,
        Scheme.S8S8_CHANNELS: Precision.INT8,
    }
    assert [kind for kind in NodeKind if Scheme.S8S8.quantizes(kind)] == [NodeKind.LINEAR]
    assert [kind for kind in NodeKind if Scheme.U8S8.holds_int8(kind, "w")] == list(NodeKind)
    assert [kind for kind in NodeKind if Scheme.INT8_WEIGHTS_FLOAT16.holds_int8(kind, "w")] == [NodeKind.LINEAR]
    assert [kind for kind in NodeKind if Scheme.U8S8.quantizes(kind)] == [NodeKind.LINEAR, NodeKind.CONV]
    for channels in (Scheme.U8S8_CHANNELS, Scheme.S8S8_CHANNELS):
        assert [kind for kind in NodeKind if channels.quantizes(kind, "up.conv1.weight")] == [NodeKind.CONV]
        assert not channels.quantizes(NodeKind.CONV, "decoder.conv_out.weight")
    assert not Scheme.S8S8_CHANNELS.holds_int8(NodeKind.CONV, "decoder.conv_out.weight")
    assert [kind for kind in NodeKind if Scheme.DYNAMIC.quantizes(kind)] == [NodeKind.LINEAR]
    assert [scheme for scheme in Scheme if scheme.unsigned] == [Scheme.U8S8, Scheme.U8S8_CHANNELS, Scheme.DYNAMIC]
    for scheme in (Scheme.FLOAT32, Scheme.FLOAT16_WEIGHTS, Scheme.INT8_WEIGHTS):
        assert not any(scheme.quantizes(kind) for kind in NodeKind)
    assert {str(scheme) for scheme in Scheme} >= {"static U8S8 Q/DQ", "float16 weights, float32 arithmetic"}


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Int8Scheme.MEASURED, (Scheme.U8S8_CHANNELS, Scheme.INT8_WEIGHTS)),
        (Int8Scheme.STATIC, (Scheme.U8S8_CHANNELS,)),
        (Int8Scheme.DYNAMIC, (Scheme.INT8_WEIGHTS,)),
        (Int8Scheme.WEIGHTS, (Scheme.INT8_WEIGHTS,)),
    ],
)
def test_schemes_of_a_decoder(wanted: Int8Scheme, found: tuple[Scheme, ...]) -> None:
    assert candidates(Scheme.U8S8_CHANNELS, wanted) == found
    assert candidates(Scheme.S8S8_CHANNELS, wanted) == (Scheme.S8S8_CHANNELS,)  # what was asked for is for CPUs
