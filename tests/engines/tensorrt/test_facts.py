"""The facts about TensorRT are in one table; the C library and the documents agree with it."""

import re
from pathlib import Path

import pytest

from hart_edge.bundle.manifest import Precision
from hart_edge.engines.tensorrt.facts import JETSON, TENSORRT, TENSORRT_RTX, Capabilities

ROOT = Path(__file__).parents[3]


def test_the_c_library_has_the_same_jetsons() -> None:
    (source,) = (ROOT / "runtime" / "native" / "src").rglob("compatibility.cpp")
    assert dict(re.findall(r'\{"(sm_\d+)", "(Jetson \w+)"\}', source.read_text("utf-8"))) == JETSON


def test_the_page_has_the_same_architectures() -> None:
    page = (ROOT / "docs" / "engines.md").read_text("utf-8")
    assert f"desktop RTX GPUs: {', '.join(TENSORRT_RTX.architectures)}" in page
    assert f"{' '.join(TENSORRT_RTX.default_architectures)} by default" in page
    for architecture in ("sm_87", "sm_110"):
        assert f"{JETSON[architecture].removeprefix('Jetson ')} ({architecture})" in page


@pytest.mark.parametrize(
    ("facts", "precision", "architectures", "reason"),
    [
        (TENSORRT_RTX, Precision.FP32, ("sm_86", "sm_75"), "TensorRT-RTX has no matrix products in float32 for sm_75"),
        (TENSORRT_RTX, Precision.INT8, ("sm_75",), "TensorRT-RTX supports no INT8 weights on sm_75"),
        (TENSORRT_RTX, Precision.FP16, ("sm_75",), None),
        (TENSORRT_RTX, Precision.FP32, ("sm_86",), None),
        (TENSORRT, Precision.FP32, ("sm_75",), None),
    ],
)
def test_limits_of_turing(
    facts: Capabilities, precision: Precision, architectures: tuple[str, ...], reason: str | None
) -> None:
    assert facts.lacks(precision, architectures) == reason
