"""Settings of a caller: used exactly, or refused with what was expected and what was found."""

import math
import re
from typing import Any, cast

import numpy as np
import pytest

from hart_edge.bundle.plan import Buffer, BufferKind, Dtype
from hart_edge.bundle.settings import SETTINGS, Sampling, Settings
from hart_edge.errors import InputError
from hart_edge.runtime.settings import check_seeds, check_settings, setting_value

SAMPLING = Sampling(
    cfg_scale=4.5, top_p=0.9, smooth=True, top_k=(6, 3), guidance_ratio=(0.0, 0.5), temperature=(0.27, 0.2)
)
OUT_OF_CFG = r"cfg_scale: expected 0 to 100, found {}; 0 turns guidance off, the default is 4\.5"
OUT_OF_TOP_K = r"top_k: expected 1 to 6, found {}; 1 always takes the likeliest code"
OUT_OF_TOP_P = r"top_p: expected above 0 and at most 1, found {}; 1 keeps every candidate"


def check(**given: Any) -> Sampling:
    return check_settings(SAMPLING, cast(Settings, given))


def test_none_takes_the_settings_of_the_bundle() -> None:
    assert check() == SAMPLING == check(**dict.fromkeys(SETTINGS))


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ({"cfg_scale": 0}, 0.0),
        ({"cfg_scale": 100.0}, 100.0),
        ({"cfg_scale": np.float32(2.5)}, 2.5),
        ({"cfg_scale": np.int64(3)}, 3.0),
        ({"top_k": 1}, (1, 1)),
        ({"top_k": 6}, (6, 6)),
        ({"top_k": np.int32(4)}, (4, 4)),
        ({"top_p": 1}, 1.0),
        ({"top_p": 1e-6}, 1e-6),
        ({"top_p": np.float16(0.5)}, 0.5),
        ({"smooth": False}, False),
        ({"smooth": np.bool_(False)}, False),
    ],
)
def test_a_value_becomes_a_plain_python_one(given: dict[str, Any], taken: Any) -> None:
    (name,) = given
    found = getattr(check(**given), name)
    assert found == taken and type(found) is type(taken)
    if isinstance(found, tuple):
        assert {type(each) for each in found} == {int}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"cfg_scale": -0.1}, OUT_OF_CFG.format(r"-0\.1")),
        ({"cfg_scale": 100.5}, OUT_OF_CFG.format(r"100\.5")),
        ({"cfg_scale": math.nan}, "cfg_scale: expected a finite number, found nan"),
        ({"cfg_scale": -math.inf}, "cfg_scale: expected a finite number, found -inf"),
        ({"cfg_scale": np.float32("nan")}, "cfg_scale: expected a finite number, found .*nan.*"),
        ({"cfg_scale": 10**400}, "cfg_scale: expected a finite number, found 10{400}"),
        ({"cfg_scale": True}, "cfg_scale: expected a number, found True"),
        ({"cfg_scale": "4.5"}, r"cfg_scale: expected a number, found '4\.5'"),
        ({"cfg_scale": np.array([4.5])}, r"cfg_scale: expected a number, found array\(\[4\.5\]\)"),
        ({"top_k": 0}, OUT_OF_TOP_K.format("0")),
        ({"top_k": 7}, OUT_OF_TOP_K.format("7")),
        ({"top_k": -3}, OUT_OF_TOP_K.format("-3")),
        ({"top_k": 2.0}, r"top_k: expected an integer from 1 to 6, found 2\.0"),
        ({"top_k": True}, "top_k: expected an integer from 1 to 6, found True"),
        ({"top_k": "2"}, "top_k: expected an integer from 1 to 6, found '2'"),
        ({"top_p": 0}, OUT_OF_TOP_P.format("0")),
        ({"top_p": 1.01}, OUT_OF_TOP_P.format(r"1\.01")),
        ({"top_p": math.nan}, "top_p: expected a finite number, found nan"),
        ({"top_p": False}, "top_p: expected a number, found False"),
        ({"top_p": [1.0]}, r"top_p: expected a number, found \[1\.0\]"),
        ({"smooth": 1}, "smooth: expected True, False or None, found 1"),
        ({"smooth": "yes"}, "smooth: expected True, False or None, found 'yes'"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        check(**given)
    assert re.fullmatch(message, str(caught.value)), str(caught.value)


def test_the_largest_top_k_of_the_table_is_the_limit() -> None:
    assert check(top_k=5).top_k == (5, 5)  # more than scale 1 has by default
    with pytest.raises(InputError, match="expected 1 to 6"):
        check(top_k=16)
    assert check_settings(SAMPLING, Settings(top_k=16), most=16).top_k == (16, 16)


def test_an_unknown_setting_is_refused_like_an_unknown_keyword() -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'sharpness'; settings are cfg_scale, top_k, "):
        check(sharpness=1.0)


@pytest.mark.parametrize(
    ("seed", "count", "seeds"),
    [
        (7, 3, [7, 7, 7]),
        (0, 1, [0]),
        (2**64 - 1, 1, [2**64 - 1]),
        (np.uint64(2**64 - 1), 1, [2**64 - 1]),
        ([1, np.int8(2)], 2, [1, 2]),
        (range(3), 3, [0, 1, 2]),
        ([], 0, []),
    ],
)
def test_seeds(seed: Any, count: int, seeds: list[int]) -> None:
    assert check_seeds(seed, count) == seeds


@pytest.mark.parametrize(
    ("seed", "message"),
    [
        (-1, r"seed: expected an integer from 0 to 2\*\*64 - 1, found -1; pass an integer such as 7"),
        (2**64, r"seed: expected an integer from 0 to 2\*\*64 - 1, found 18446744073709551616"),
        (1.0, r"seed: expected an integer from 0 to 2\*\*64 - 1, found 1\.0 \(float\)"),
        (True, r"seed: expected an integer from 0 to 2\*\*64 - 1, found True \(bool\)"),
        ("7", r"seed: expected an integer from 0 to 2\*\*64 - 1, found '7' \(str\)"),
        (None, r"seed: expected an integer from 0 to 2\*\*64 - 1, found None"),
        ([1, -1], r"seed: expected an integer from 0 to 2\*\*64 - 1, found -1"),
        ([1, 2, 3], r"seed: expected one seed for each of 2 prompts, found 3"),
    ],
)
def test_seeds_that_cannot_be_used_are_refused(seed: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_seeds(seed, 2)


@pytest.mark.parametrize(
    ("setting", "scale", "dtype", "value"),
    [
        ("cfg_scale", None, Dtype.FLOAT32, 2.0),
        ("top_p", None, Dtype.FLOAT32, 0.5),
        ("smooth", None, Dtype.BOOL, False),
        ("top_k", 1, Dtype.INT64, 2),
        ("guidance_ratio", 1, Dtype.FLOAT32, 0.5),
        ("temperature", 0, Dtype.FLOAT32, 0.27),
    ],
)
def test_the_array_of_a_setting(setting: str, scale: int | None, dtype: Dtype, value: Any) -> None:
    buffer = Buffer(BufferKind.SETTING, dtype, (1,), dtype.itemsize, 0, 0, setting=setting, scale=scale)
    array = setting_value(check(cfg_scale=2.0, top_k=2, top_p=0.5, smooth=False), buffer)
    assert array.shape == (1,) and array.dtype == dtype.value
    assert array[0] == np.array(value, dtype.value)


@pytest.mark.parametrize(("scale", "expected"), [(0, 6), (1, 3)])
def test_without_top_k_every_scale_has_its_own(scale: int, expected: int) -> None:
    buffer = Buffer(BufferKind.SETTING, Dtype.INT64, (1,), 8, 0, 0, setting="top_k", scale=scale)
    assert setting_value(check(), buffer)[0] == expected
