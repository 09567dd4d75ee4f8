# SPDX-License-Identifier: Apache-2.0
"""Golden samples: how they are stored, recorded, and compared with what a variant answers on this device.

The file is an npz archive (zip of npy) with arrays `in.<input>` and `out.<output>`, first axis = sample. Sample i of an
array A goes to the model as A[i] when that has the declared rank, and as A[i:i+1] (a batch of one) when A itself has.
"""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from time import perf_counter
from tokenize import TokenError
from typing import Any, Final, cast

import numpy as np
from numpy.lib import format as npy

from skerry.bundle.manifest import TensorSpec, Tolerance
from skerry.errors import InferenceFailed, InferenceRequestInvalid, ManifestError
from skerry.runtime.datatypes import NUMPY, Array, fits, name_of, widen
from skerry.runtime.engine import Engine

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the first date a zip can hold; a real one would change the digest
_MAX_ARRAYS: Final = 64
_MAX_BYTES: Final = 256 * 1024 * 1024
_NPY_1_0: Final = (1, 0)
_UNREADABLE: Final = (
    zipfile.BadZipFile,
    zlib.error,
    ValueError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
    SyntaxError,  # numpy reads the header of an array with Python's own parser
    TokenError,
)


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Arrays by tensor name, all with the same first axis."""

    inputs: dict[str, Array]
    outputs: dict[str, Array]
    count: int


@dataclass(frozen=True, kw_only=True)
class SelfTestOutcome:
    """`agreement` is that of the worst output; `problem` is empty exactly when `passed`.

    `agreed` holds the samples whose every output was close enough: those a healthy variant can be asked again later.
    """

    passed: bool
    samples: int
    agreement: float
    problem: str
    latency_p50_ms: float
    agreed: tuple[int, ...] = ()


def _bad(problem: str) -> ManifestError:
    return ManifestError(problem=f"self-test file: {problem}")


# --- file ----------------------------------------------------------------------------------------------------------------


def _storable(name: str, array: Array) -> Array:
    if array.dtype == object:
        if any(value.endswith(b"\0") for value in array.ravel()):
            raise _bad(f"{name}: a byte string that ends in a zero byte cannot be stored")
        return np.array(array.tolist(), dtype=np.bytes_).reshape(array.shape)
    kind = name_of(array.dtype)
    if kind is None:
        raise _bad(f"{name}: arrays of {array.dtype} are not supported")
    return np.ascontiguousarray(array, dtype=NUMPY[kind]).reshape(array.shape)


def encode_samples(inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> bytes:
    """The archive; equal samples give equal bytes. Raises ManifestError when the arrays do not belong together."""
    arrays = {f"in.{name}": array for name, array in inputs.items()}
    arrays |= {f"out.{name}": array for name, array in outputs.items()}
    _count(arrays)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            member = io.BytesIO()
            npy.write_array(member, _storable(name, arrays[name]), version=_NPY_1_0, allow_pickle=False)
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=_EPOCH)
            entry.create_system = 3  # the same bytes whatever system packs
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, member.getvalue())
    return buffer.getvalue()


def decode_samples(data: bytes) -> Samples:
    """Raises ManifestError on anything that is not such an archive, holds a pickle, or is larger than it should be."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            arrays = _members(archive)
    except _UNREADABLE as error:
        raise _bad(str(error) or type(error).__name__) from error
    count = _count(arrays)
    return Samples(
        inputs={name[3:]: array for name, array in arrays.items() if name.startswith("in.")},
        outputs={name[4:]: array for name, array in arrays.items() if name.startswith("out.")},
        count=count,
    )


def _members(archive: zipfile.ZipFile) -> dict[str, Array]:
    entries = archive.infolist()
    if len(entries) > _MAX_ARRAYS or sum(entry.file_size for entry in entries) > _MAX_BYTES:
        raise _bad(f"more than {_MAX_ARRAYS} arrays or {_MAX_BYTES} bytes")
    arrays: dict[str, Array] = {}
    for entry in entries:
        name = entry.filename.removesuffix(".npy")
        if name == entry.filename or name in arrays or not name.startswith(("in.", "out.")):
            raise _bad(f"unexpected entry {entry.filename}")
        with archive.open(entry) as member:
            arrays[name] = _array(name, member.read(entry.file_size + 1))
    return arrays


def _array(name: str, content: bytes) -> Array:
    stream = io.BytesIO(content)
    if npy.read_magic(stream) != _NPY_1_0:
        raise _bad(f"{name}: npy version is not 1.0")
    shape, fortran, dtype = npy.read_array_header_1_0(stream)
    if dtype.hasobject or fortran or not dtype.itemsize or (dtype.kind != "S" and name_of(dtype) is None):
        raise _bad(f"{name}: arrays of {dtype} are not accepted")
    body = memoryview(content)[stream.tell() :]
    if math.prod(shape) * dtype.itemsize != len(body):
        raise _bad(f"{name}: size does not match shape {shape}")
    array = np.frombuffer(body, dtype).reshape(shape) if len(body) else np.empty(shape, dtype)
    return array.astype(object) if dtype.kind == "S" else array


def _count(arrays: Mapping[str, Array]) -> int:
    if not any(name.startswith("in.") for name in arrays) or not any(name.startswith("out.") for name in arrays):
        raise _bad("it needs at least one input and one output")
    counts = {array.shape[0] if array.ndim else 0 for array in arrays.values()}
    if len(counts) != 1 or counts == {0}:
        raise _bad("arrays differ in their number of samples, or have none")
    return cast("int", counts.pop())


# --- running -------------------------------------------------------------------------------------------------------------


def _one(array: Array, index: int, spec: TensorSpec) -> Array:
    value = array[index : index + 1] if array.ndim == len(spec.shape) else array[index]
    value = np.ascontiguousarray(value).reshape(value.shape)
    if not fits(value.shape, spec):
        raise _bad(f"{spec.name}: sample of shape {value.shape} where the model declares {spec.shape}")
    if value.dtype != NUMPY[spec.dtype]:
        raise _bad(f"{spec.name}: sample of {value.dtype} where the model declares {spec.dtype}")
    return value


def feed(samples: Samples, index: int, engine: Engine) -> dict[str, Array]:
    """Sample `index` as `engine` takes it. Raises ManifestError when the samples are not for this model."""
    declared = {spec.name: spec for spec in engine.io.inputs}
    if declared.keys() != samples.inputs.keys():
        raise _bad(f"it has inputs {sorted(samples.inputs)}, the model {sorted(declared)}")
    return {name: _one(array, index, declared[name]) for name, array in samples.inputs.items()}


def golden(samples: Samples, index: int, engine: Engine) -> dict[str, Array]:
    """What sample `index` must give, shaped as the model answers."""
    declared = {spec.name: spec for spec in engine.io.outputs}
    if not samples.outputs.keys() <= declared.keys():
        raise _bad(f"it has outputs {sorted(samples.outputs)}, the model {sorted(declared)}")
    return {name: _one(array, index, declared[name]) for name, array in samples.outputs.items()}


def record(engine: Engine, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Golden outputs of the reference `engine`, one run per sample; the first axis is the sample. Raises InferenceFailed."""
    samples = Samples(inputs=dict(inputs), outputs={}, count=_length(inputs))
    answers = [engine.run(feed(samples, index, engine)) for index in range(samples.count)]
    outputs: dict[str, Array] = {}
    for spec in engine.io.outputs:
        parts = [answer[spec.name] for answer in answers]
        batched = bool(spec.shape) and spec.shape[0] in {-1, 1} and all(part.shape[0] == 1 for part in parts)
        outputs[spec.name] = np.concatenate(parts) if batched else np.stack(parts)
    return outputs


def _length(inputs: Mapping[str, Array]) -> int:
    counts = {array.shape[0] for array in inputs.values() if array.ndim}
    if len(counts) != 1:
        raise _bad("inputs differ in their number of samples, or have none")
    return cast("int", counts.pop())


# --- judging -------------------------------------------------------------------------------------------------------------


def agrees(actual: Array, expected: Array, tolerance: Tolerance) -> bool:
    """Whether one answer is as close to its golden one as `tolerance` asks. NaN agrees with NaN, an infinity with itself."""
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return False
    actual, expected = widen(actual), widen(expected)
    if actual.dtype.kind != "f":
        return bool(np.array_equal(actual, expected))
    if tolerance.top1 and actual.size:
        if bool(np.isnan(actual).any()) and not bool(np.isnan(expected).any()):
            return False
        return bool(np.argmax(actual) == np.argmax(expected))
    wide, narrow = actual.astype(np.float64), expected.astype(np.float64)
    return bool(np.allclose(wide, narrow, rtol=tolerance.rtol, atol=tolerance.atol, equal_nan=True))


def run_selftest(engine: Engine, npz: bytes, tolerance: Tolerance) -> SelfTestOutcome:
    """Run every sample and judge the answers as Tolerance says. Never raises for what the file or the engine get wrong."""
    times: list[float] = []
    good: dict[str, list[bool]] = {}
    try:
        samples = decode_samples(npz)
        good = {name: [] for name in samples.outputs}
        for index in range(samples.count):
            inputs = feed(samples, index, engine)
            expected = golden(samples, index, engine)
            start = perf_counter()
            answer = engine.run(inputs)
            times.append(perf_counter() - start)
            for name, value in expected.items():
                good[name].append(agrees(answer[name], value, tolerance))
    except (ManifestError, InferenceFailed, InferenceRequestInvalid) as error:
        return SelfTestOutcome(
            passed=False, samples=len(times), agreement=0.0, problem=str(error), latency_p50_ms=_median_ms(times)
        )
    return _verdict(good, times, tolerance)


def _verdict(good: dict[str, list[bool]], times: list[float], tolerance: Tolerance) -> SelfTestOutcome:
    total = len(times)
    worst = min(good, key=lambda name: sum(good[name]))
    right = sum(good[worst])
    passed = right / total >= tolerance.agreement
    problem = "" if passed else f"output {worst}: {right} of {total} samples agree, {tolerance.agreement:g} needed"
    return SelfTestOutcome(
        passed=passed,
        samples=total,
        agreement=right / total,
        problem=problem,
        latency_p50_ms=_median_ms(times),
        agreed=tuple(index for index, marks in enumerate(zip(*good.values(), strict=True)) if all(marks)),
    )


def _median_ms(times: list[float]) -> float:
    return float(np.median(cast("Any", times))) * 1000 if times else 0.0
