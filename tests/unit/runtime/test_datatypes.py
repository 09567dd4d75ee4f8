# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from skerry.runtime.datatypes import BF16, NUMPY, name_of, narrow, widen


def test_every_datatype_has_one_type_and_every_type_one_word():
    assert {name_of(dtype) for dtype in NUMPY.values()} == set(NUMPY)


@pytest.mark.parametrize(
    ("value", "bits"),
    [
        (1.0, 0x3F80),
        (-2.0, 0xC000),
        (0.0, 0x0000),
        (-0.0, 0x8000),
        (np.inf, 0x7F80),
        (1.00390625, 0x3F80),  # halfway: to even
        (1.01171875, 0x3F82),
        (3.4e38, 0x7F80),  # above the largest
        (1e-40, 0x0001),
    ],
)
def test_narrow_rounds_to_the_nearest_and_ties_to_even(value, bits):
    assert narrow(np.array([value], np.float32)).view("<u2")[0] == bits


def test_nan_stays_nan():
    pattern = np.array([0x7F800001, 0xFFFFFFFF], np.uint32).view(np.float32)
    assert np.isnan(widen(narrow(pattern))).all()


def test_every_bf16_survives_the_way_out_and_back():
    bits = np.arange(2**16, dtype="<u2")
    wide = widen(bits.view(BF16))
    there_and_back = narrow(wide).view("<u2")
    numbers = ~np.isnan(wide)
    np.testing.assert_array_equal(there_and_back[numbers], bits[numbers])


def test_shapes_are_kept_and_other_types_left_alone():
    assert narrow(np.zeros((2, 0, 3), np.float32)).shape == (2, 0, 3)
    assert widen(narrow(np.array(1.5, np.float32))).shape == ()
    plain = np.ones(3, np.int8)
    assert widen(plain) is plain
