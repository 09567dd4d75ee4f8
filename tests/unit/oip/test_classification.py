# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest

from contracts.engine.models import affine_answer, classifier
from skerry.oip.classification import classes
from unit.serve.rig import Rig

X = np.array([[1, 2, 3, 4], [5, 6, 7, 9]], np.float32)


@pytest.mark.parametrize(
    ("values", "count", "labels", "expected"),
    [
        ([0.1, 0.7, 0.2], 2, ("a", "b", "c"), [b"0.700000:1:b", b"0.200000:2:c"]),
        ([[0.1, 0.7], [0.6, 0.4]], 1, (), [[b"0.700000:1"], [b"0.600000:0"]]),
        ([1, 1, 1], 2, (), [b"1.000000:0", b"1.000000:1"]),  # equal values in the order of their indices
        ([0.5], 9, ("a",), [b"0.500000:0:a"]),
        ([[[1, 2], [3, 4]]], 1, ("a",), [[b"4.000000:3"]]),
        (np.zeros((2, 0)), 3, (), np.zeros((2, 0))),
        (np.zeros((0, 3)), 2, (), np.zeros((0, 2))),
        (np.zeros((0, 2, 3)), 9, ("a",), np.zeros((0, 6))),
        (np.zeros(0), 2, (), []),
        (np.array(3.0), 1, (), [b"3.000000:0"]),
    ],
)
def test_the_largest_values_of_each_row(values, count, labels, expected):
    answer = classes(np.asarray(values, np.float32), count, labels)
    assert answer.tolist() == np.asarray(expected, dtype=object).tolist()
    assert answer.shape == np.shape(expected)


def test_nan_is_never_the_largest():
    assert classes(np.array([np.nan, 1.0], np.float32), 1, ())[0] == b"1.000000:1"


@pytest.mark.parametrize("binary", [False, True])
def test_asked_for_in_a_request(binary):
    rig = Rig({"m": classifier()})
    parameters = {"classification": 2, "binary_data": binary}
    tensor = {"name": "x", "shape": [2, 4], "datatype": "FP32", "data": X.tolist()}
    document = {"inputs": [tensor], "outputs": [{"name": "scores", "parameters": parameters}, {"name": "label"}]}
    for _ in range(2):  # read, and remembered
        answer = rig.infer(document)
        assert answer.status == 200
        scores, label = answer.json["outputs"]
        assert (scores["datatype"], scores["shape"], label["datatype"]) == ("BYTES", [2, 2], "INT64")
        best = np.argsort(-affine_answer(X), axis=1, kind="stable")[:, 0]
        assert label["data"] == best.tolist()
        if binary:
            assert answer.tail[4:].startswith(b"%f:%d" % (affine_answer(X)[0].max(), best[0]))
        else:
            assert scores["data"][0] == f"{affine_answer(X)[0].max():f}:{best[0]}"


@pytest.mark.parametrize("count", [0, -1, "3", 1.5, True])
def test_a_count_that_is_none(count):
    rig = Rig({"m": classifier()})
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}
    document = {"inputs": [tensor], "outputs": [{"name": "scores", "parameters": {"classification": count}}]}
    answer = rig.infer(json.dumps(document).encode())
    assert answer.status == 400
    assert "classification" in answer.json["error"]
