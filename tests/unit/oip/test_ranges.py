# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from skerry.bundle.manifest import TensorSpec
from skerry.errors import InferenceRequestInvalid
from skerry.oip.ranges import bounds_of, check


def bounds(dtype, low, high):
    return bounds_of([TensorSpec(name="x", dtype=dtype, shape=(-1,), range=(low, high))])


INSIDE: dict[str, tuple[str, float, float, np.ndarray]] = {
    "FP32 at its ends, as FP32 holds them": ("FP32", 0.1, 0.7, np.array([0.1, 0.7], np.float32)),
    "FP16, wider than its type": ("FP16", -1e9, 1e9, np.array([-65504, 65504], np.float16)),
    "FP64": ("FP64", 0.0, 1.0, np.array([-0.0, 1.0])),
    "INT64 beyond what floats hold": ("INT64", -(2.0**63), 2.0**63, np.array([-(2**63), 2**63 - 1])),
    "UINT8": ("UINT8", 0.0, 255.0, np.array([0, 255], np.uint8)),
    "BOOL": ("BOOL", 0.0, 1.0, np.array([True, False])),
    "BYTES have no order": ("BYTES", 0.0, 1.0, np.array([b"z"], object)),
    "nothing": ("FP32", 0.0, 1.0, np.empty((0, 4), np.float32)),
}


@pytest.mark.parametrize("case", INSIDE)
def test_what_is_within_passes(case):
    dtype, low, high, array = INSIDE[case]
    check({"x": array}, bounds(dtype, low, high))


OUTSIDE = {
    "above": ("FP32", 0.0, 1.0, np.array([0, np.nextafter(np.float32(1), np.float32(2))], np.float32)),
    "below": ("FP64", 0.0, 1.0, np.array([-5e-324])),
    "NaN": ("FP32", -np.inf, np.inf, np.array([0, np.nan, 1], np.float32)),
    "infinite": ("FP16", -1.0, 1.0, np.array([np.inf], np.float16)),
    "one too many": ("INT64", 0.0, 9.0, np.array([10])),
    "a fraction of a step": ("INT8", -0.5, 0.5, np.array([1], np.int8)),
}


@pytest.mark.parametrize("case", OUTSIDE)
def test_what_is_not_is_refused_by_name(case):
    dtype, low, high, array = OUTSIDE[case]
    with pytest.raises(InferenceRequestInvalid, match="input x: values must be from"):
        check({"x": array}, bounds(dtype, low, high))


def test_an_input_without_a_range_may_hold_anything():
    specs = [TensorSpec(name="x", dtype="FP32", shape=(-1,))]
    check({"x": np.array([np.nan, np.inf], np.float32)}, bounds_of(specs))
