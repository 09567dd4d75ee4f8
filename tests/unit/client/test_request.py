# SPDX-License-Identifier: Apache-2.0
import json

import numpy as np
import pytest

from skerry.bundle.manifest import Io, TensorSpec
from skerry.client.address import parse
from skerry.client.request import Options, Requests, as_tensor
from skerry.errors import CallInvalid
from skerry.oip import requests as served
from skerry.oip.messages import ModelSignature
from skerry.runtime.datatypes import BF16


def make(inputs, *, request_id="", headers=None, maker=None, **options):
    maker = maker or Requests(address=parse("http://h:1"), headers=headers or {})
    message = maker.infer(inputs, Options(model="m", **options), request_id)
    data = b"".join(message.parts)
    assert len(data) == message.size
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode().split("\r\n")
    fields = dict(line.split(": ", 1) for line in lines)
    assert int(fields["Content-Length"]) == len(body)
    split = int(fields.get("Inference-Header-Content-Length", len(body)))
    return first, fields, json.loads(body[:split]), body[split:]


def understood(inputs, datatypes, **options):
    """What the server's own decoder makes of it."""
    maker = Requests(address=parse("http://h:1"))
    message = maker.infer(inputs, Options(model="m", **options), "")
    head, _, body = b"".join(message.parts).partition(b"\r\n\r\n")
    length = [line for line in head.decode().split("\r\n") if line.startswith("Inference-Header")]
    specs = tuple(
        TensorSpec(name=name, dtype=datatypes[name], shape=(-1,) * value.ndim) for name, value in inputs.items()
    )
    model = ModelSignature(name="m", version="1", variant="v", io=Io(inputs=specs, outputs=specs))
    return served.decode(body, int(length[0].split(": ")[1]) if length else None, model)


X = np.arange(6, dtype=np.float32).reshape(2, 3)


def test_binary_by_default():
    first, fields, document, tail = make({"x": X})
    assert first == "POST /v2/models/m/infer HTTP/1.1"
    assert fields["Host"] == "h:1"
    assert document == {
        "inputs": [{"name": "x", "shape": [2, 3], "datatype": "FP32", "parameters": {"binary_data_size": 24}}],
        "parameters": {"timeout": 30_000_000, "binary_data_output": True},
    }
    assert tail == X.tobytes()


@pytest.mark.parametrize(
    ("datatype", "array"),
    [
        ("BOOL", np.array([[True, False]])),
        *(
            (f"{sign}INT{bits}", np.array([1, 2], f"{sign.lower()}int{bits}"))
            for sign in ("", "U")
            for bits in (8, 16, 32, 64)
        ),
        ("FP32", np.array(2, np.float32)),
        ("FP64", np.zeros((0, 3))),
        ("BYTES", np.array([[b"a\0b", b""], ["ä".encode(), b"x" * 300]], dtype=object)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("binary", [True, False])
def test_every_datatype_reaches_the_server_as_it_was(datatype, array, binary):
    decoded = understood({"x": array}, {"x": datatype}, binary=binary).inputs["x"]
    assert decoded.dtype == array.dtype
    assert np.array_equal(decoded, array)
    assert decoded.shape == array.shape


def test_fp16_is_binary_only():
    array = np.array([1.5, -2], np.float16)
    assert np.array_equal(understood({"x": array}, {"x": "FP16"}).inputs["x"], array)
    with pytest.raises(CallInvalid, match="no JSON form"):
        make({"x": array}, binary=False)


def test_arrays_that_lie_otherwise_in_memory():
    turned = X.T
    assert make({"x": turned})[3] == turned.copy().tobytes()
    assert make({"x": turned})[3] == make({"x": X[:, ::-1][:, ::-1].T})[3]
    assert make({"x": X.astype(">f4")})[3] == X.tobytes()
    for _ in range(2):  # remembered heads too
        maker = Requests(address=parse("http://h:1"))
        assert make({"x": turned}, maker=maker)[3] == turned.copy().tobytes()


def test_a_scalar_of_numpy_has_no_axes():
    assert make({"x": np.float32(2)})[2]["inputs"][0]["shape"] == []


def test_texts_of_numpy_are_bytes():
    for array in (np.array(["a", "ü"]), np.array([b"a", "ü".encode()]), np.array(["a", "ü"], dtype=object)):
        decoded = understood({"x": array}, {"x": "BYTES"}).inputs["x"]
        assert decoded.tolist() == [b"a", "ü".encode()]


def test_bf16_has_a_type_of_its_own():
    array = np.array([0x3F80, 0xC000], np.uint16).view(BF16)
    _, _, document, tail = make({"x": array})
    assert document["inputs"][0]["datatype"] == "BF16"
    assert tail == array.tobytes()
    assert np.array_equal(understood({"x": array}, {"x": "BF16"}).inputs["x"], array)


def test_the_bfloat16_of_ml_dtypes_is_it_too():
    ml_dtypes = pytest.importorskip("ml_dtypes")  # comes with onnx in a development environment
    tensor = as_tensor("x", np.array([1, -2], ml_dtypes.bfloat16))
    assert (tensor.datatype, tensor.array.dtype) == ("BF16", BF16)
    assert tensor.array.view("<u2").tolist() == [0x3F80, 0xC000]


def test_the_same_head_is_made_once_and_another_shape_is_another_head():
    maker = Requests(address=parse("http://h:1"))
    heads = [
        maker.infer({"x": array}, Options(model="m"), "").parts[0] for array in (X, X + 1, X[:1], X.astype(np.float64))
    ]
    assert heads[0] is heads[1]
    assert len(set(heads)) == 3


def test_true_and_one_are_different_parameters():
    maker = Requests(address=parse("http://h:1"))
    documents = [make({"x": X}, maker=maker, parameters=(("a", value),))[2] for value in (True, 1, 1.0)]
    assert [type(each["parameters"]["a"]) for each in documents] == [bool, int, float]


def test_names_and_options_travel():
    first, fields, document, _ = make(
        {"x": X},
        request_id="q/1",
        version="1.0+a",
        outputs=("b", "a"),
        headers={"Authorization": "Bearer t"},
        seconds=0.5,
    )
    assert first == "POST /v2/models/m/versions/1.0%2Ba/infer HTTP/1.1"
    assert fields["Authorization"] == "Bearer t"
    assert document["id"] == "q/1"
    assert document["outputs"] == [{"name": name, "parameters": {"binary_data": True}} for name in "ba"]
    assert document["parameters"]["timeout"] == 500_000


def test_a_models_name_cannot_leave_its_place_in_the_path():
    maker = Requests(address=parse("http://h:1"))
    message = maker.infer({"x": X}, Options(model="../a b?x\r\nX: y"), "")
    assert message.parts[0].startswith(b"POST /v2/models/..%2Fa%20b%3Fx%0D%0AX%3A%20y/infer HTTP/1.1\r\n")


@pytest.mark.parametrize("headers", [{"a\r\nb": "c"}, {"a": "b\r\nc: d"}, {"a b": "c"}, {"": "c"}])
def test_headers_cannot_hold_others(headers):
    with pytest.raises(CallInvalid):
        Requests(address=parse("http://h:1"), headers=headers)


@pytest.mark.parametrize(
    ("inputs", "options"),
    [
        ({"x": [1.0, 2.0]}, {}),
        ({"x": 1.0}, {}),
        ({"x": np.array([1 + 2j])}, {}),
        ({"x": np.array(["2024-01-01"], "datetime64[D]")}, {}),
        ({"x": np.array([1, "a"], dtype=object)}, {}),
        ({"x": np.array([np.nan], np.float32)}, {"binary": False}),
        ({"x": np.array([b"\xff"], dtype=object)}, {"binary": False}),
        ({"x": X}, {"seconds": 0.0}),
        ({"x": X}, {"seconds": -1.0}),
        ({"x": X}, {"seconds": float("nan")}),
        ({"x": X}, {"seconds": float("inf")}),
        ({"x": X}, {"parameters": (("timeout", 1),)}),
        ({"x": X}, {"parameters": (("binary_data_output", False),)}),
    ],
)
def test_what_has_no_form_is_not_sent(inputs, options):
    with pytest.raises(CallInvalid):
        make(inputs, **options)


def test_a_model_without_a_name():
    with pytest.raises(CallInvalid):
        Requests(address=parse("http://h:1")).infer({"x": X}, Options(model=""), "")


def test_a_request_of_a_sequence_is_not_repeatable():
    assert Options(model="m", parameters=(("priority", 1),)).repeatable
    assert not Options(model="m", parameters=(("sequence_id", 7),)).repeatable
