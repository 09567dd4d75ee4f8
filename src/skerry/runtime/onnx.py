# SPDX-License-Identifier: Apache-2.0
"""ONNX models through onnxruntime: the only file that imports it.

The Linux wheel of onnxruntime reports usage to its maker unless ORT_DISABLE_TELEMETRY is set before the first import;
calling disable_telemetry_events() later does not stop it.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Nothing may be imported before the line above.
import contextlib
import ctypes
import hashlib
import logging
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from skerry.bundle.manifest import Io, TensorSpec
from skerry.errors import InferenceFailed, InferenceRequestInvalid, ModelFileError
from skerry.runtime import onnx_file
from skerry.runtime.datatypes import BF16, NUMPY, Array, fits
from skerry.runtime.derived import Derived, key_of
from skerry.runtime.engine import ALONE, Nearby
from skerry.runtime.onnx_providers import CPU, choose, plain

onnxruntime.set_default_logger_severity(4)  # fatal only: every failure also arrives as an exception

_log = logging.getLogger(__name__)
_ONNX_BFLOAT16: Final = 16  # of TensorProto.DataType

_DATATYPES: Final = {
    "tensor(bool)": "BOOL",
    "tensor(uint8)": "UINT8",
    "tensor(uint16)": "UINT16",
    "tensor(uint32)": "UINT32",
    "tensor(uint64)": "UINT64",
    "tensor(int8)": "INT8",
    "tensor(int16)": "INT16",
    "tensor(int32)": "INT32",
    "tensor(int64)": "INT64",
    "tensor(float16)": "FP16",
    "tensor(float)": "FP32",
    "tensor(double)": "FP64",
    "tensor(bfloat16)": "BF16",
    "tensor(string)": "BYTES",
}

_DECORATION: Final = re.compile(
    r"^\[ONNXRuntimeError\] : \d+ : \w+ : |/onnxruntime_src/\S+ [^()]*\([^()]*\)(?: const)? ?"
)

# The binding's exceptions share no base of their own; bad_alloc arrives as MemoryError, the rest of C++ as RuntimeError.
_REFUSALS: Final[tuple[type[Exception], ...]] = (
    *(kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
    TypeError,
    MemoryError,
    UnicodeError,
    UserWarning,  # made an error where it is one: see _session
)


@dataclass(frozen=True, kw_only=True)
class OnnxSettings:
    """Defaults for a device: one thread, no spinning (the library's own default burns a core between requests)."""

    threads: int = 1
    arena: bool = False  # an arena never shrinks after one large batch; it saves 0-3 % of the time
    optimise: bool = True  # off only for a file that was saved optimised: on a plain one that costs up to 3.5x


def _options(settings: OnnxSettings) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = settings.threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.enable_cpu_mem_arena = settings.arena
    options.log_severity_level = 4
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    if not settings.optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options


def _session(
    model: bytes, options: onnxruntime.SessionOptions, providers: list[str], path: str
) -> onnxruntime.InferenceSession:
    try:
        with warnings.catch_warnings():
            # Of a provider that is not there the library only warns, and takes the processor.
            warnings.simplefilter("error" if providers[0] != CPU else "ignore")
            session = onnxruntime.InferenceSession(model, options, providers=providers, enable_fallback=0)
    except _REFUSALS as error:
        if isinstance(error, MemoryError) or "bad_alloc" in str(error):
            raise MemoryError from error
        raise ModelFileError(path=path, problem=_first_line(error)) from error
    session._model_bytes = None  # noqa: SLF001 - kept by the library only to open it anew: once more the size of the file
    return session


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A model file that was looked at, with the files it names."""

    content: bytes
    path: str
    files: dict[str, bytes]

    @property
    def size(self) -> int:
        return len(self.content) + sum(map(len, self.files.values()))

    def open(self, settings: OnnxSettings, providers: list[str], *, write: Path | None = None) -> Any:  # noqa: ANN401 - untyped library
        options = _options(settings)
        if self.files:  # the library keeps pointers: the bytes outlive this call, and their lengths are their own
            options.add_external_initializers_from_files_in_memory(
                list(self.files), list(self.files.values()), [len(data) for data in self.files.values()]
            )
        if write is not None:
            options.optimized_model_filepath = str(write)
        return _session(self.content, options, providers, self.path)


def _source(model: bytes, path: str, nearby: Nearby) -> _Source:
    externals = onnx_file.check(model, path=path)
    if externals and nearby.read is None:
        raise ModelFileError(path=path, problem="its weights are in another file (external data), which is not at hand")
    read = nearby.read or (lambda _: b"")
    files = {location: read(location) for location in dict.fromkeys(each.location for each in externals)}
    for each in externals:
        if each.offset + each.size > len(files[each.location]):
            raise ModelFileError(
                path=path,
                problem=f"the weights {each.tensor} lie beyond the end of {each.location}, which has "
                f"{len(files[each.location])} bytes",
            )
    return _Source(content=model, path=path, files=files)


def _open(source: _Source, settings: OnnxSettings, cache: Path | None) -> onnxruntime.InferenceSession:
    """On the CPU. With a cache, what the library made of the model at the first load is opened at the next."""
    if cache is None or not settings.optimise:
        return source.open(settings, [CPU])
    derived = Derived(cache)
    key = key_of(
        f"onnxruntime {onnxruntime.__version__}",
        repr(settings),
        *(hashlib.sha256(data).hexdigest() for data in (source.content, *source.files.values())),
    )
    ready = derived.read(key)
    if ready is not None:
        try:
            return _session(ready, _options(replace(settings, optimise=False)), [CPU], source.path)
        except ModelFileError as error:  # then the model itself is still there
            _log.warning("derived model not used: %s", error)
    opened: list[onnxruntime.InferenceSession] = []
    with contextlib.suppress(ModelFileError):  # the folder may be the reason; if the model is, opening it anew says so
        derived.write(key, lambda target: opened.append(source.open(settings, [CPU], write=target)), size=source.size)
    return opened[0] if opened else source.open(settings, [CPU])


def _start(
    source: _Source, settings: OnnxSettings, nearby: Nearby, available: Sequence[str]
) -> tuple[onnxruntime.InferenceSession, str]:
    """A session on the first provider that takes the model, and what to tell about those that do not."""
    choice = choose(available, nearby.accelerator)
    problems = [f"{name} {reason}" for name, reason in choice.passed_over.items()]
    for provider in choice.providers[:-1]:
        try:
            session = source.open(settings, [provider, CPU])
        except ModelFileError as error:
            problems.append(f"{plain(provider)} {error.fields['problem']}")
            continue
        if provider in session.get_providers():
            return session, "; ".join(problems)
        problems.append(f"{plain(provider)} did not start")
    return _open(source, settings, nearby.cache), "; ".join(problems)


def _first_line(error: Exception) -> str:
    """Without the library's own numbers and places in its source."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return _DECORATION.sub("", line) or line


def _spec(node: onnxruntime.NodeArg, path: str) -> TensorSpec:
    try:
        name, kind, axes = node.name, node.type, node.shape
    except UnicodeDecodeError as error:
        raise ModelFileError(path=path, problem="a name in it is not UTF-8") from error
    datatype = _DATATYPES.get(kind)
    if datatype is None:
        raise ModelFileError(path=path, problem=f"{name} is a {kind}, which a request cannot carry")
    shape = tuple(axis if isinstance(axis, int) and axis >= 0 else -1 for axis in axes)
    return TensorSpec(name=name, dtype=datatype, shape=shape)


def _io(session: onnxruntime.InferenceSession, path: str) -> Io:
    inputs = tuple(_spec(node, path) for node in session.get_inputs())
    outputs = tuple(_spec(node, path) for node in session.get_outputs())
    for side, specs in (("inputs", inputs), ("outputs", outputs)):
        if not specs:
            raise ModelFileError(path=path, problem=f"it has no {side}")
        if len({spec.name for spec in specs}) != len(specs):
            raise ModelFileError(path=path, problem=f"two of its {side} have the same name")
    return Io(inputs=inputs, outputs=outputs)


class OnnxEngine:
    """The Engine contract over one onnxruntime session."""

    def __init__(self, session: onnxruntime.InferenceSession, io: Io, name: str, notes: str = "") -> None:
        self._session = session
        self._name = name
        self._io = io
        self._notes = notes
        self._output_names = [spec.name for spec in io.outputs]
        self._text_inputs = frozenset(spec.name for spec in io.inputs if spec.dtype == "BYTES")
        self._text_outputs = frozenset(spec.name for spec in io.outputs if spec.dtype == "BYTES")
        self._halves = any(spec.dtype == "BF16" for spec in (*io.inputs, *io.outputs))
        self.provider = plain(session.get_providers()[0])

    @classmethod
    def load(
        cls,
        model: bytes,
        *,
        name: str = "model",
        path: str = "model.onnx",
        nearby: Nearby = ALONE,
        settings: OnnxSettings | None = None,
        available: Sequence[str] | None = None,
    ) -> Self:
        """`name` appears in failures of a run, `path` in failures to load; `available` providers: those of this machine.

        Raises ModelFileError, MemoryError when the model does not fit, and what `nearby.read` raises.
        """
        source = _source(model, path, nearby)
        found = onnxruntime.get_available_providers() if available is None else available
        session, notes = _start(source, settings or OnnxSettings(), nearby, found)
        return cls(session, _io(session, path), name, notes)

    @property
    def io(self) -> Io:
        return self._io

    @property
    def description(self) -> str:
        text = f"onnxruntime {onnxruntime.__version__}"
        if self.provider != "CPU" or self._notes:
            text += f" on {self.provider}" + (f" ({self._notes})" if self._notes else "")
        return text

    @property
    def on_cpu(self) -> bool:
        return self.provider == plain(CPU)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        session = self._session
        if session is None:
            raise InferenceFailed(name=self._name, problem="the engine is closed")
        try:
            feed = self._as_text(inputs) if self._text_inputs else dict(inputs)
            # The inner session skips checks of the feed that the codec has already made.
            if self._halves:
                values = self._run_values(session, feed)
            else:
                values = session._sess.run(self._output_names, feed, None)  # noqa: SLF001 - 1.5 us of 30 on a small model
        except _REFUSALS as error:
            raise InferenceFailed(name=self._name, problem=_first_line(error)) from error
        answer = dict(zip(self._output_names, values, strict=True))
        return self._as_bytes(answer) if self._text_outputs else answer

    def bind(self, inputs: Mapping[str, Array], outputs: Mapping[str, Array]) -> Callable[[], None]:
        """A run over these very arrays, for buffers that stay: each call reads `inputs` and writes `outputs` in place.

        All tensors of the model, C-contiguous, no BYTES; one call at a time. Raises InferenceRequestInvalid for arrays that are
        not so. A call raises InferenceFailed, as `run`, and for an answer that has not the shape of its array.
        """
        session = self._session
        if session is None:
            raise InferenceFailed(name=self._name, problem="the engine is closed")
        binding = session.io_binding()
        try:
            for specs, arrays, bind in (
                (self._io.inputs, inputs, binding.bind_input),
                (self._io.outputs, outputs, binding.bind_output),
            ):
                _require_plain(specs, arrays)
                for name, array in arrays.items():
                    kind = _ONNX_BFLOAT16 if array.dtype == BF16 else array.dtype.type
                    bind(name, "cpu", 0, kind, array.shape, array.ctypes.data)
        except _REFUSALS as error:
            raise InferenceRequestInvalid(problem=_first_line(error)) from error
        kept = (dict(inputs), dict(outputs))  # the library has only their addresses

        def run() -> None:
            if self._session is None or not kept:
                raise InferenceFailed(name=self._name, problem="the engine is closed")
            try:
                session._sess.run_with_iobinding(binding._iobinding, None)  # noqa: SLF001 - as in run
            except _REFUSALS as error:
                raise InferenceFailed(name=self._name, problem=_first_line(error)) from error

        return run

    def close(self) -> None:
        self._session = None

    def _run_values(self, session: onnxruntime.InferenceSession, feed: dict[str, Array]) -> list[Array]:
        """Through the library's own values: numpy has no BF16 to hand over."""
        given = {name: _value(array) for name, array in feed.items()}
        return [_array(value) for value in session.run_with_ort_values(self._output_names, given)]

    def _as_text(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Strings go in as `str`: onnxruntime would turn `bytes` into their repr."""
        feed = dict(inputs)
        for name in self._text_inputs & feed.keys():
            array = feed[name]
            try:
                text = [value.decode() for value in array.ravel()]
            except UnicodeDecodeError as error:
                raise InferenceRequestInvalid(problem=f"input {name}: the model takes text in UTF-8") from error
            feed[name] = np.array(text, dtype=object).reshape(array.shape)
        return feed

    def _as_bytes(self, outputs: dict[str, Array]) -> dict[str, Array]:
        for name in self._text_outputs:
            array = outputs[name]
            outputs[name] = np.array([str(value).encode() for value in array.ravel()], dtype=NUMPY["BYTES"]).reshape(
                array.shape
            )
        return outputs


def _require_plain(specs: Iterable[TensorSpec], arrays: Mapping[str, Array]) -> None:
    """Raises InferenceRequestInvalid unless an engine may read or write `arrays` where they lie."""
    wanted = {spec.name: spec for spec in specs}
    if wanted.keys() != arrays.keys():
        raise InferenceRequestInvalid(problem=f"a binding has arrays for exactly {', '.join(wanted)}")
    for name, array in arrays.items():
        spec = wanted[name]
        if array.dtype != NUMPY[spec.dtype] or array.dtype.hasobject or not fits(array.shape, spec):
            raise InferenceRequestInvalid(
                problem=f"{name}: an array of {array.dtype} {list(array.shape)} cannot be bound"
            )
        if not array.flags.c_contiguous or not array.flags.aligned:
            raise InferenceRequestInvalid(problem=f"{name}: only an aligned array without gaps can be bound")


def _value(array: Array) -> onnxruntime.OrtValue:
    """A BF16 without a copy: `array` must outlive it."""
    if array.dtype != BF16:
        return onnxruntime.OrtValue.ortvalue_from_numpy(array)
    bits = np.ascontiguousarray(array).view("<u2").reshape(array.shape)
    return onnxruntime.OrtValue.ortvalue_from_numpy_with_onnx_type(bits, _ONNX_BFLOAT16)


def _array(value: onnxruntime.OrtValue) -> Array:
    if value.element_type() != _ONNX_BFLOAT16:
        held: Array = value.numpy()
        return held
    size = value.tensor_size_in_bytes()
    data = ctypes.string_at(value.data_ptr(), size) if size else b""
    return np.frombuffer(bytearray(data), BF16).reshape(value.shape())
