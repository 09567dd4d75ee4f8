# SPDX-License-Identifier: Apache-2.0
"""Model files made to end the process, or to make it read what it should not: refused when they are loaded, with SKY-1002."""

import random

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as tfl

from contracts.engine import litert_models
from contracts.engine.litert_models import Builder
from skerry.errors import ModelFileError
from skerry.runtime import litert_file
from skerry.runtime.litert import LiteRtEngine


def altered(change):
    """`affine` after `change(model, graph)`."""
    model = tfl.ModelT.InitFromPackedBuf(litert_models.affine(), 0)
    change(model, model.subgraphs[0])
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def weights(graph):
    return graph.tensors[1]


def per_channel(graph, *, scales, dimension=0, zeros=None):
    quantization = tfl.QuantizationParametersT()
    quantization.scale = scales
    quantization.zeroPoint = [0] * len(scales) if zeros is None else zeros
    quantization.quantizedDimension = dimension
    weights(graph).quantization = quantization


def cycle():
    builder = Builder()
    x, a, b = (builder.tensor(name, "FP32", [1, 2]) for name in "xab")
    builder.operator(tfl.BuiltinOperator.ADD, [x, b], [a], tfl.AddOptionsT())
    builder.operator(tfl.BuiltinOperator.ADD, [x, a], [b], tfl.AddOptionsT())
    return builder.bytes([x], [b])


def lost_weights(model, _):
    model.buffers[1].data = model.buffers[1].data[:10]


def outside(model, _):
    model.buffers[1].data, model.buffers[1].offset, model.buffers[1].size = None, 1 << 40, 48


def external(model, _):
    group, buffer = tfl.ExternalBufferGroupT(), tfl.ExternalBufferT()
    group.name = b"/etc/passwd"
    buffer.group, buffer.length = 0, 48
    model.externalBufferGroups, model.externalBuffers = [group], [buffer]


def one_name(_, graph):
    graph.outputs, graph.tensors[0].name = [3, 0], b"scores"


def point(graph, side, *indices):
    setattr(graph.operators[0], side, list(indices))


LITERT = {
    "quantised along a dimension it has not got": (
        lambda _, g: per_channel(g, scales=[1.0] * 3, dimension=7),
        "quantised along dimension 7",
    ),
    "quantised along a negative dimension": (
        lambda _, g: per_channel(g, scales=[1.0] * 3, dimension=-1),
        "quantised along dimension -1",
    ),
    "more scales than the dimension is long": (lambda _, g: per_channel(g, scales=[1.0] * 5), "5 scales"),
    "zero points of another number": (lambda _, g: per_channel(g, scales=[1.0] * 3, zeros=[0, 0]), "2 zero points"),
    "zero points without scales": (lambda _, g: per_channel(g, scales=[], zeros=[1]), "0 scales and 1 zero points"),
    "a scale that is not a number": (lambda _, g: per_channel(g, scales=[float("nan")]), "the scale nan"),
    "a denormal scale": (lambda _, g: per_channel(g, scales=[1e-44]), "the scale"),
    "a negative scale": (lambda _, g: per_channel(g, scales=[-1.0]), "the scale -1"),
    "a node that reads a tensor it has not got": (lambda _, g: point(g, "inputs", 0, 99, 2), "reads tensor 99"),
    "a node that reads tensor -7": (lambda _, g: point(g, "inputs", 0, -7, 2), "reads tensor -7"),
    "a node without an input it needs": (lambda _, g: point(g, "inputs", 0, -1, 2), "without an input"),
    "a node that writes a tensor it has not got": (lambda _, g: point(g, "outputs", 12345), "writes tensor 12345"),
    "a node that writes its weights": (lambda _, g: point(g, "outputs", 1), "writes w, which has a value"),
    "a node that writes its input": (lambda _, g: point(g, "outputs", 0), "writes x, which has a value"),
    "a node of no operator": (lambda _, g: setattr(g.operators[0], "opcodeIndex", 9), "not in its list"),
    "an operator nobody knows": (
        lambda m, _: setattr(m.operatorCodes[0], "builtinCode", 30000),
        "operator 30000",
    ),
    "an output nothing computes": (lambda _, g: setattr(g, "operators", []), "nothing computes its output scores"),
    "an input it has not got": (lambda _, g: setattr(g, "inputs", [-1]), "names tensor -1"),
    "an input that is a constant": (lambda _, g: setattr(g, "inputs", [1]), "input w is a constant"),
    "an input twice": (lambda _, g: setattr(g, "inputs", [0, 0]), "twice"),
    "no inputs": (lambda _, g: setattr(g, "inputs", []), "before anything computes it"),
    "no outputs": (lambda _, g: setattr(g, "outputs", []), "it has no outputs"),
    "no graph": (lambda m, _: setattr(m, "subgraphs", []), "it has no graph"),
    "a tensor in a buffer it has not got": (lambda _, g: setattr(weights(g), "buffer", 77), "buffer 77"),
    "weights shorter than their shape": (lost_weights, "only 10 bytes"),
    "a negative shape": (lambda _, g: setattr(weights(g), "shape", [-3, 4]), "shape [-3, 4]"),
    "a shape of more elements than memory": (lambda _, g: setattr(g.tensors[3], "shape", [2**30, 2**30]), "shape"),
    "a type nobody knows": (lambda _, g: setattr(weights(g), "type", 99), "type this engine does not know"),
    "an input no request can carry": (
        lambda _, g: setattr(g.tensors[0], "type", tfl.TensorType.COMPLEX64),
        "COMPLEX64, which a request cannot carry",
    ),
    "two outputs of one name": (one_name, "same name"),
    "a buffer beyond the end of the file": (outside, "beyond the end"),
    "weights in another file": (external, "external buffers"),
    "a schema of the future": (lambda m, _: setattr(m, "version", 4), "version 4"),
}


@pytest.mark.parametrize("attack", LITERT)
def test_a_litert_file_is_refused_before_the_interpreter_opens_it(attack):
    change, reason = LITERT[attack]
    with pytest.raises(ModelFileError) as caught:
        litert_file.read(altered(change), path="m.tflite")
    assert caught.value.code == "SKY-1002"
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (cycle(), "before anything computes it"),
        (litert_models.affine().replace(b"TFL3", b"TFL9"), "not a LiteRT model"),
        (b"", "not a LiteRT model"),
        (b"\xff\xff\xff\xffTFL3", "cut short or damaged"),
        (litert_models.custom_operator(), "AudioSpectrogramOfOurs"),
        (litert_models.quantized(dimension=2), "quantised along dimension 2"),
    ],
    ids=["cycle", "identifier", "empty", "root", "custom", "dimension"],
)
def test_a_litert_file_is_refused_when_it_is_loaded(data, reason):
    with pytest.raises(ModelFileError, match=reason):
        LiteRtEngine.load(data)


def test_a_litert_file_cut_anywhere_is_refused():
    whole = litert_models.classifier()
    for size in range(0, len(whole) - 8, 7):
        with pytest.raises(ModelFileError):
            LiteRtEngine.load(whole[:size])


def test_reading_damaged_litert_files_raises_nothing_but_a_refusal():
    random_ = random.Random(11)
    whole = litert_models.quantized()
    for _ in range(4000):
        damaged = bytearray(whole)
        for _ in range(random_.randint(1, 4)):
            damaged[random_.randrange(8, len(damaged))] = random_.choice((0, 1, 127, 128, 255))
        try:
            litert_file.read(bytes(damaged), path="m")
        except ModelFileError:
            continue


def test_a_model_that_was_not_touched_loads():
    x = np.ones((1, 4), np.float32)
    assert LiteRtEngine.load(altered(lambda *_: None)).run({"x": x})["scores"].shape == (1, 3)
