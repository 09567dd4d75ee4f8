# SPDX-License-Identifier: Apache-2.0
"""Model files made to end the process, or to make it read what it should not: refused when they are loaded, with SKY-1002."""

import random
from pathlib import Path

import flatbuffers
import msgspec
import numpy as np
import onnx
import pytest
from ai_edge_litert import schema_py_generated as tfl
from onnx import TensorProto, helper

from acceptance.runner_harness import write_bundle
from contracts.engine import litert_models, models
from contracts.engine.litert_models import Builder
from skerry.bundle.digest import digest_of
from skerry.bundle.manifest import BundleConfig, File
from skerry.errors import DigestMismatch, InputMissing, ManifestError, ModelFileError
from skerry.runtime import litert_file, variant
from skerry.runtime.engine import Nearby
from skerry.runtime.litert import LiteRtEngine
from skerry.runtime.onnx import OnnxEngine


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


# --- ONNX ----------------------------------------------------------------------------------------------------------------

FLOAT = TensorProto.FLOAT


def pairs(*names):
    return [(name, FLOAT, ["N", 2]) for name in names]


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs.split(), outputs.split(), **attributes)


def weights_of(dims, data):
    return TensorProto(name="w", data_type=FLOAT, dims=dims, raw_data=data)


def with_opsets(*sets):
    model = onnx.load_model_from_string(models.affine())
    del model.opset_import[:]
    model.opset_import.extend(helper.make_opsetid(*each) for each in sets)
    return model.SerializeToString()


def of_ir_version(version):
    model = onnx.load_model_from_string(models.affine())
    model.ir_version = version
    return model.SerializeToString()


def with_sequence():
    model = onnx.load_model_from_string(
        models.build([node("SequenceAt", "s i", "y")], [("i", TensorProto.INT64, [])], pairs("y"))
    )
    model.graph.input.append(helper.make_tensor_sequence_value_info("s", FLOAT, ["N", 2]))
    return model.SerializeToString()


ONNX = {
    "no operator set": (with_opsets(), "opset_import"),
    "an operator set of the future": (with_opsets(("", 99)), "Opset 99"),
    "an operator set twice": (with_opsets(("", 17), ("ai.onnx", 13)), "an operator set twice"),
    "a format of the future": (of_ir_version(999), "IR version: 999"),
    "a cycle": (
        models.build([node("Add", "x b", "a"), node("Add", "x a", "b")], pairs("x"), pairs("b")),
        "not acyclic",
    ),
    "a node that feeds itself": (models.build([node("Add", "x a", "a")], pairs("x"), pairs("a")), "not acyclic"),
    "a name given twice": (
        models.build([node("Abs", "x", "y"), node("Neg", "x", "y")], pairs("x"), pairs("y")),
        "Duplicate definition of name",
    ),
    "an input twice": (models.build([node("Abs", "x", "y")], pairs("x", "x"), pairs("y")), "Duplicate definition-site"),
    "an output twice": (models.build([node("Abs", "x", "y")], pairs("x"), pairs("y", "y")), "same name"),
    "an output nothing computes": (models.build([node("Abs", "x", "y")], pairs("x"), pairs("z")), "does not exist"),
    "an input nothing gives": (models.build([node("Add", "x q", "y")], pairs("x"), pairs("y")), "'q' is not"),
    "an operator nobody has": (models.build([node("Nonsense", "x", "y")], pairs("x"), pairs("y")), "Nonsense"),
    "an operator of somebody's": (
        models.build([node("Abs", "x", "y", domain="com.example")], pairs("x"), pairs("y")),
        "com.example",
    ),
    "no inputs": (
        models.build([node("Constant", "", "y", value_floats=[1.0, 2.0])], [], [("y", FLOAT, [2])]),
        "it has no inputs",
    ),
    "no outputs": (models.build([node("Abs", "x", "y")], pairs("x"), []), "it has no outputs"),
    "weights shorter than their shape": (
        models.build([node("Add", "x w", "y")], pairs("x"), pairs("y"), [weights_of([2], b"1234")]),
        "not a usable model",
    ),
    "weights larger than memory": (
        models.build([node("Add", "x w", "y")], pairs("x"), pairs("y"), [weights_of([2**40, 2**22], b"1234")]),
        "not a usable model",
    ),
    "weights of a negative shape": (
        models.build([node("Add", "x w", "y")], pairs("x"), pairs("y"), [weights_of([-2], bytes(8))]),
        "not a usable model",
    ),
    "an input no request can carry": (with_sequence(), "which a request cannot carry"),
    "a name that is no text": (models.affine().replace(b"scores", b"sc\xffres"), "UTF-8"),
    "an axis whose name is no text": (models.affine().replace(b"\x12\x01N", b"\x12\x01\xff"), "UTF-8"),
    "nothing": (b"", "not an ONNX model"),
}


@pytest.mark.parametrize("attack", ONNX)
def test_an_onnx_file_is_refused_when_it_is_loaded(attack):
    data, reason = ONNX[attack]
    with pytest.raises(ModelFileError) as caught:
        OnnxEngine.load(data)
    assert caught.value.code == "SKY-1002"
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_onnx_file_cut_anywhere_never_ends_the_process():
    whole = models.classifier()
    for size in range(0, len(whole), 3):
        try:
            OnnxEngine.load(whole[:size])
        except ModelFileError:
            continue


# --- ONNX weights in other files -----------------------------------------------------------------------------------------


def outlying(entries, *, declared=True):
    """`affine`, its matrix in another file as the pairs `entries` say; and the matrix."""
    model = onnx.load_model_from_string(models.affine())
    weights = model.graph.initializer[0]
    data = weights.raw_data
    weights.ClearField("raw_data")
    if declared:
        weights.data_location = TensorProto.EXTERNAL
    for key, value in entries:
        weights.external_data.add(key=key, value=value)
    return model.SerializeToString(), data


def refuse(location):
    raise AssertionError(f"{location} was read")


def at(location):
    return [("location", location)]


OUTLYING = {
    "above the folder": (at("../weights.bin"), "not a path below"),
    "above by a detour": (at("a/../../weights.bin"), "not a path below"),
    "absolute": (at("/etc/passwd"), "not a path below"),
    "here, in a roundabout way": (at("./weights.bin"), "not a path below"),
    "with a zero byte": (at("weights.bin\0.txt"), "not a path below"),
    "with a backslash": (at("..\\weights.bin"), "not a path below"),
    "an address in memory": (at("*/_ORT_MEM_ADDR_/*"), "not a path below"),
    "without a name": (at(""), "not a path below"),
    "no place at all": ([("offset", "0")], "does not say where"),
    "two places": ([("location", "a"), ("location", "b")], "two 'location'"),
    "a field nobody knows": ([("location", "a"), ("__class__", "b")], "an unknown '__class__'"),
    "a negative offset": ([("location", "a"), ("offset", "-1")], "at '-1'"),
    "an endless offset": ([("location", "a"), ("offset", "9" * 40)], "external data at"),
    "an offset in other digits": ([("location", "a"), ("offset", "\u0663")], "external data at"),
    "more bytes than its shape": ([("location", "a"), ("length", "4096")], "its shape needs 48"),
}


@pytest.mark.parametrize("attack", OUTLYING)
def test_weights_at_a_place_that_is_none_are_refused_before_anything_is_read(attack):
    entries, reason = OUTLYING[attack]
    model, _ = outlying(entries)
    with pytest.raises(ModelFileError) as caught:
        OnnxEngine.load(model, nearby=Nearby(read=refuse))
    assert reason in str(caught.value)


def test_a_place_that_is_named_and_not_declared_is_refused():
    model, _ = outlying(at("a"), declared=False)
    with pytest.raises(ModelFileError, match="does not say that it is used"):
        OnnxEngine.load(model, nearby=Nearby(read=refuse))


def test_weights_beyond_the_end_of_their_file_are_refused():
    model, data = outlying([("location", "w"), ("offset", "16")])
    with pytest.raises(ModelFileError, match="beyond the end of w, which has 48 bytes"):
        OnnxEngine.load(model, nearby=Nearby(read=lambda _: data))


@pytest.fixture
def bundle(tmp_path):
    """A bundle whose model has its weights beside it, and the folder it lies in."""
    model, data = outlying(at("parts/w.bin"))
    folder = write_bundle(tmp_path / "bundle", models.affine(), {"x": np.ones((2, 4), np.float32)})
    config = msgspec.json.decode((folder / "skerry.json").read_bytes(), type=BundleConfig)
    (folder / "parts").mkdir()
    for path, content in (("model.onnx", model), ("parts/w.bin", data), ("parts/other.bin", data)):
        (folder / path).write_bytes(content)
    names = ("model.onnx", "parts/w.bin", "parts/other.bin", "self-test.npz")
    files = tuple(
        File(path=path, digest=digest_of(content), size=len(content), kind="weight")
        for path, content in ((name, (folder / name).read_bytes()) for name in names)
    )
    used = msgspec.structs.replace(config.variants[0], files=("model.onnx", "parts/w.bin"))
    write_config(folder, msgspec.structs.replace(config, files=files, variants=(used,)))
    return folder


def write_config(folder, config):
    (folder / "skerry.json").write_bytes(msgspec.json.encode(config))


def test_weights_the_manifest_names_are_loaded_and_answer(bundle):
    loaded = variant.load(bundle, "fp32")
    assert variant.self_test(loaded).passed


def test_weights_of_the_bundle_that_are_not_the_variants_are_refused(bundle):
    config = msgspec.json.decode((bundle / "skerry.json").read_bytes(), type=BundleConfig)
    only = msgspec.structs.replace(config.variants[0], files=("model.onnx", "parts/other.bin"))
    write_config(bundle, msgspec.structs.replace(config, variants=(only,)))
    with pytest.raises(ManifestError, match=r"parts/w\.bin, which is not among its files"):
        variant.load(bundle, "fp32")


def test_weights_that_were_altered_are_refused(bundle):
    (bundle / "parts" / "w.bin").write_bytes(bytes(48))
    with pytest.raises(DigestMismatch):
        variant.load(bundle, "fp32")


def test_weights_that_are_not_there_are_refused(bundle):
    (bundle / "parts" / "w.bin").unlink()
    with pytest.raises(InputMissing):
        variant.load(bundle, "fp32")


@pytest.mark.parametrize("make", [Path.symlink_to, Path.hardlink_to], ids=["symlink", "hard link"])
def test_a_link_to_somebody_elses_file_is_refused(bundle, tmp_path, make):
    secret = tmp_path / "secret"
    secret.write_bytes(b"s" * 48)
    (bundle / "parts" / "w.bin").unlink()
    make(bundle / "parts" / "w.bin", secret)
    with pytest.raises(DigestMismatch):
        variant.load(bundle, "fp32")
