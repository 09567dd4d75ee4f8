# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from skerry.bundle.manifest import TensorSpec, Tolerance
from skerry.observe.comparison import Comparison
from skerry.runner.comparing import Comparer
from skerry.wire.v1.device import Compare

SCORES = TensorSpec(name="scores", dtype="FP32", shape=(-1, 3))
LABELLED = TensorSpec(name="scores", dtype="FP32", shape=(-1, 3), labels=("cat", "dog", "eel"))
LABEL = TensorSpec(name="label", dtype="INT64", shape=(-1,))
TEXT = TensorSpec(name="text", dtype="BYTES", shape=(-1,))
WHOLE = TensorSpec(name="map", dtype="FP32", shape=(2, 2))


def scores(*rows):
    return {"scores": np.array(rows, np.float32)}


def counted(was, now, *specs, how=Compare.AUTO, tolerance=Tolerance(), task=""):  # noqa: B008 - frozen
    found = Comparison()
    Comparer(specs or (SCORES,), tolerance, how=how, task=task).compare(was, now, found)
    return found


def test_values_must_be_close_unless_it_is_a_classifier():
    was, now = scores([1, 2, 9]), scores([1, 2, 8])
    assert counted(was, now).agreed == 0
    assert counted(was, scores([1, 2, 9.0005])).agreed == 1
    for classifier in ({"task": "image-classification"}, {"tolerance": Tolerance(top1=True)}, {"how": Compare.TOP1}):
        assert counted(was, now, **classifier).agreed == 1
    assert counted(was, now, LABELLED).agreed == 1
    assert counted(was, now, LABELLED, how=Compare.CLOSE).agreed == 0


def test_every_row_of_a_batch_counts_by_itself():
    was = {**scores([0, 0, 9], [9, 0, 0], [0, 9, 0]), "label": np.array([2, 0, 1])}
    now = {**scores([0, 0, 8], [0, 9, 0], [0, 7, 0]), "label": np.array([2, 1, 1])}
    found = counted(was, now, LABELLED, LABEL)
    assert (found.compared, found.agreed) == (3, 2)
    assert dict(found.flips) == {"cat > dog": 1}
    assert found.shifts.mean == pytest.approx(-1.0)


def test_a_model_without_a_batch_axis_gives_one_answer():
    was = {"map": np.zeros((2, 2), np.float32)}
    now = {"map": np.array([[0, 0], [0, 1]], np.float32)}
    found = counted(was, now, WHOLE)
    assert (found.compared, found.agreed) == (1, 0)


@pytest.mark.parametrize(
    "now",
    [
        {},
        scores([1, 2], [1, 2]),
        scores([1, 2, 3], [1, 2, 3]),
        {"scores": np.array([[1, 2, 3]], np.float64)},
        {"scores": np.array([[1, 2, np.nan]], np.float32)},
    ],
)
def test_an_answer_of_another_form_agrees_with_nothing(now):
    for how in (Compare.TOP1, Compare.CLOSE):
        found = counted(scores([1, 2, 3]), now, how=how)
        assert (found.compared, found.agreed) == (1, 0)


def test_the_same_nan_and_the_same_text_agree():
    assert counted(scores([np.nan, 1, 2]), scores([np.nan, 1, 2])).agreed == 1
    was = {"text": np.array([b"yes", b"no"], object)}
    found = counted(was, {"text": np.array([b"yes", b"maybe"], object)}, TEXT)
    assert (found.compared, found.agreed) == (2, 1)


def test_no_rows_are_nothing_to_count():
    found = counted(scores(*[]) | {"scores": np.empty((0, 3), np.float32)}, {"scores": np.empty((0, 3), np.float32)})
    assert (found.compared, found.agreed, found.shifts.count) == (0, 0, 0)
