"""Which form each component takes, on each target."""

from __future__ import annotations

import pytest

from hart_edge.bundle.manifest import ComponentName, Dtype, Precision, Target, TensorSpec
from hart_edge.calib.quantizable import SiteKind
from hart_edge.calib.scheme import Form, form_of, held

CONTRACT = ("tokens", "latent", "embed")  # float32 everywhere


@pytest.mark.parametrize("target", list(Target))
def test_fp32_is_fp32(target: Target) -> None:
    for name in ComponentName:
        assert form_of(name, Precision.FP32, target) is Form.FLOAT32


@pytest.mark.parametrize("target", [Target.CPU, Target.CUDA])
def test_fp16_stores_weights(target: Target) -> None:
    for name in ComponentName:
        expected = Form.FLOAT32 if name in CONTRACT else Form.FLOAT16_WEIGHTS
        assert form_of(name, Precision.FP16, target) is expected


@pytest.mark.parametrize("target", [Target.TENSORRT, Target.TENSORRT_RTX])
def test_fp16_of_engines_is_arithmetic(target: Target) -> None:
    for name in ComponentName:
        expected = Form.FLOAT32 if name in CONTRACT else Form.FLOAT16
        assert form_of(name, Precision.FP16, target) is expected
        assert form_of(name, Precision.FP16, target, ("sm_86", "sm_120")) is expected


def test_turing_has_no_products_in_float32() -> None:
    """With TensorRT-RTX; classic TensorRT has them."""
    found = {str(name): form_of(name, Precision.FP16, Target.TENSORRT_RTX, ("sm_75",)) for name in ComponentName}
    throughout = (*CONTRACT, "encoder")
    assert {name for name, form in found.items() if form is Form.FLOAT16_PRODUCTS} == set(throughout)
    assert all(form is Form.FLOAT16 for name, form in found.items() if name not in throughout)
    assert form_of("tokens", Precision.FP16, Target.TENSORRT, ("sm_75",)) is Form.FLOAT32


@pytest.mark.parametrize(
    ("target", "form"), [(Target.TENSORRT, Form.S8S8), (Target.TENSORRT_RTX, Form.INT8_WEIGHTS_FLOAT16)]
)
def test_int8_of_engines(target: Target, form: Form) -> None:
    found = {str(name): form_of(name, Precision.INT8, target) for name in ComponentName}
    assert found == {
        **dict.fromkeys(("text_model", "context", "transformer", "residual"), form),
        **dict.fromkeys(("decoder", "encoder"), Form.FLOAT16),
        **dict.fromkeys(CONTRACT, Form.FLOAT32),
    }


def test_the_cache_is_fp16_where_the_arithmetic_is() -> None:
    cached = ("past_key.0", "value.11", "past_null_value.0", "key.3", "null_key.2", "null_value.0")
    names = ("x", "past_f_hat", "null_hidden", *cached)
    specs = [TensorSpec(name, Dtype.FLOAT32, ("B",)) for name in names]
    assert [spec.name for spec in held(specs, Form.FLOAT16) if spec.dtype == "float16"] == list(cached)
    assert held(specs, Form.FLOAT16_WEIGHTS) == tuple(specs)


def test_int8_on_the_cpu() -> None:
    found = {str(name): form_of(name, Precision.INT8, Target.CPU) for name in ComponentName}
    assert found == {
        **dict.fromkeys(("text_model", "context", "transformer", "residual"), Form.U8S8),
        **dict.fromkeys(("decoder", "encoder"), Form.INT8_WEIGHTS),
        **dict.fromkeys(CONTRACT, Form.FLOAT32),
    }


def test_u8s8_is_for_x86_alone() -> None:
    for name in ComponentName:
        expected = Form.FLOAT32 if name in CONTRACT else Form.INT8_WEIGHTS
        assert form_of(name, Precision.INT8, Target.CUDA) is expected
        assert form_of(name, Precision.INT8, Target.TENSORRT) is not Form.U8S8


def test_what_a_form_says() -> None:
    assert {form: form.precision for form in Form} == {
        Form.FLOAT32: Precision.FP32,
        Form.FLOAT16_WEIGHTS: Precision.FP16,
        Form.FLOAT16: Precision.FP16,
        Form.FLOAT16_PRODUCTS: Precision.FP16,
        Form.INT8_WEIGHTS: Precision.INT8,
        Form.INT8_WEIGHTS_FLOAT16: Precision.INT8,
        Form.U8S8: Precision.INT8,
        Form.DYNAMIC: Precision.INT8,
        Form.S8S8: Precision.INT8,
    }
    assert [kind for kind in SiteKind if Form.S8S8.quantizes(kind)] == [SiteKind.LINEAR]
    assert [kind for kind in SiteKind if Form.U8S8.holds_int8(kind, "w")] == list(SiteKind)
    assert [kind for kind in SiteKind if Form.INT8_WEIGHTS_FLOAT16.holds_int8(kind, "w")] == [SiteKind.LINEAR]
    assert [kind for kind in SiteKind if Form.U8S8.quantizes(kind)] == [SiteKind.LINEAR, SiteKind.CONV]
    assert [kind for kind in SiteKind if Form.DYNAMIC.quantizes(kind)] == [SiteKind.LINEAR]
    assert [form for form in Form if form.unsigned] == [Form.U8S8, Form.DYNAMIC]
    for form in (Form.FLOAT32, Form.FLOAT16_WEIGHTS, Form.INT8_WEIGHTS):
        assert not any(form.quantizes(kind) for kind in SiteKind)
    assert {str(form) for form in Form} >= {"static U8S8 Q/DQ", "float16 weights, float32 arithmetic"}
