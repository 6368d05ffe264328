"""Which form each component takes, on each target."""

from __future__ import annotations

import pytest

from calib.forms import Form, form_of
from calib.sites import SiteKind
from runtime.manifest import ComponentName, Precision, Target

CONTRACT = ("tokens", "latent", "embed")  # float32 everywhere


@pytest.mark.parametrize("target", list(Target))
def test_fp32_and_fp16(target: Target) -> None:
    for name in ComponentName:
        assert form_of(name, Precision.FP32, target) is Form.FLOAT32
        expected = Form.FLOAT32 if name in CONTRACT else Form.FLOAT16_WEIGHTS
        assert form_of(name, Precision.FP16, target) is expected


def test_int8_on_the_cpu() -> None:
    found = {str(name): form_of(name, Precision.INT8, Target.CPU) for name in ComponentName}
    assert found == {
        **dict.fromkeys(("text_model", "context", "transformer", "residual"), Form.U8S8),
        **dict.fromkeys(("decoder", "encoder"), Form.INT8_WEIGHTS),
        **dict.fromkeys(CONTRACT, Form.FLOAT32),
    }


@pytest.mark.parametrize("target", [target for target in Target if target is not Target.CPU])
def test_u8s8_is_for_x86_alone(target: Target) -> None:
    for name in ComponentName:
        expected = Form.FLOAT32 if name in CONTRACT else Form.INT8_WEIGHTS
        assert form_of(name, Precision.INT8, target) is expected


def test_what_a_form_says() -> None:
    assert {form: form.precision for form in Form} == {
        Form.FLOAT32: Precision.FP32,
        Form.FLOAT16_WEIGHTS: Precision.FP16,
        Form.INT8_WEIGHTS: Precision.INT8,
        Form.U8S8: Precision.INT8,
    }
    assert [kind for kind in SiteKind if Form.U8S8.quantizes(kind)] == [SiteKind.LINEAR, SiteKind.CONV]
    for form in (Form.FLOAT32, Form.FLOAT16_WEIGHTS, Form.INT8_WEIGHTS):
        assert not any(form.quantizes(kind) for kind in SiteKind)
    assert {str(form) for form in Form} >= {"static U8S8 Q/DQ", "float16 weights, float32 arithmetic"}
