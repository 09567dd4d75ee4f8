# SPDX-License-Identifier: Apache-2.0
"""A server that has seen similar requests before reads a request exactly as one that has not."""

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from skerry.bundle.manifest import Io, TensorSpec
from skerry.errors import InferenceRequestInvalid
from skerry.oip import requests
from skerry.oip.messages import ModelSignature

IO = Io(
    inputs=(TensorSpec(name="x", dtype="FP32", shape=(-1, 2)),),
    outputs=(TensorSpec(name="y", dtype="FP32", shape=(-1, 2)), TensorSpec(name="z", dtype="FP32", shape=(-1,))),
)
NAMES = st.sampled_from(["x", "y", "data", '"data":', "\\u0064ata"])
NUMBERS = st.one_of(
    st.floats(allow_nan=False, width=32), st.integers(-5, 5), st.sampled_from([1e39, True, None, "1", "]"])
)
DATA = st.one_of(
    st.lists(NUMBERS, max_size=6),
    st.lists(st.lists(st.floats(-9, 9), min_size=2, max_size=2), max_size=3),
    st.just({"data": [1]}),
)
TENSOR = st.fixed_dictionaries(
    {
        "name": NAMES,
        "shape": st.sampled_from([[1, 2], [2, 2], [3, 2], [0, 2]]),
        "datatype": st.just("FP32"),
        "data": DATA,
    },
    optional={"parameters": st.dictionaries(NAMES, st.sampled_from(["a", 1, '"data":[1]']), max_size=2)},
)
DOCUMENT = st.fixed_dictionaries(
    {"inputs": st.lists(TENSOR, min_size=1, max_size=2)},
    optional={
        "id": st.sampled_from(["", "7", "8f-9", "ü", "a\nb", '"id":"3"', '"data":[1,2]', 5]),
        "outputs": st.lists(st.fixed_dictionaries({"name": st.sampled_from(["y", "z", "data"])}), max_size=2),
        "parameters": st.dictionaries(
            st.sampled_from(["timeout", "data", "id"]), st.integers(0, 9) | st.just("7"), max_size=2
        ),
    },
)
STYLES = st.sampled_from([(",", ":"), (", ", ": "), (" , ", " :")])


def signature():
    return ModelSignature(name="m", version="1", variant="v", io=IO)


def read(body, header_length, model):
    try:
        request = requests.decode(body, header_length, model)
    except InferenceRequestInvalid:
        return "refused"  # what is wrong in two ways may be told either of them
    inputs = {name: (array.shape, array.tobytes()) for name, array in request.inputs.items()}
    return (inputs, request.wanted.outputs, request.id, request.timeout, request.priority)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(DOCUMENT, STYLES), min_size=2, max_size=6), st.data())
def test_json_is_read_the_same_with_and_without_memory(documents, data):
    experienced = signature()
    bodies = [json.dumps(document, separators=style).encode() for document, style in documents]
    bodies += [_altered(body, data) for body in bodies]
    for body in bodies:
        assert read(body, None, experienced) == read(body, None, signature())


def _altered(body, data):
    """The same request with one byte or one number changed: most likely to meet a memory that is not its own."""
    at = data.draw(st.integers(0, len(body) - 1))
    return body[:at] + data.draw(st.sampled_from([b"1", b"]", b"[", b'"', b",", b"", b" "])) + body[at + 1 :]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([[1, 2], [2, 2], [0, 2]]),
            st.integers(0, 24),
            st.one_of(st.none(), st.text(max_size=3), st.integers(0, 3)),
            st.sampled_from([{}, {"parameters": {"id": "7"}}, {"parameters": {"id": ""}}]),
        ),
        min_size=2,
        max_size=6,
    ),
    STYLES,
)
def test_binary_is_read_the_same_with_and_without_memory(cases, style):
    experienced = signature()
    for shape, size, request_id, more in cases * 2:
        tensor = {"name": "x", "shape": shape, "datatype": "FP32", "parameters": {"binary_data_size": size}}
        document = {"inputs": [tensor], **more, **({} if request_id is None else {"id": request_id})}
        head = json.dumps(document, separators=style, ensure_ascii=False).encode("utf-8", "replace")
        for tail in (bytes(range(size)), bytes(size + 4)):
            assert read(head + tail, len(head), experienced) == read(head + tail, len(head), signature())


def test_what_is_remembered_holds_no_values_and_is_bounded():
    model = signature()
    for n in range(200):
        tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
        body = json.dumps({"inputs": [{**tensor, "parameters": {"n": n}}]}).encode()
        np.testing.assert_array_equal(requests.decode(body, None, model).inputs["x"], [[1, 2]])
    assert 0 < len(model.plans) <= 64
    assert all(not bytes(source.data) for plan in model.plans.values() for source in plan.sources)
