# SPDX-License-Identifier: Apache-2.0
"""ONNX models through onnxruntime: the only file that imports it.

The Linux wheel of onnxruntime reports usage to its maker unless ORT_DISABLE_TELEMETRY is set before the first import;
calling disable_telemetry_events() later does not stop it.
"""

from __future__ import annotations

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# Nothing may be imported before the line above.
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as native

from skerry.bundle.manifest import Io, TensorSpec
from skerry.errors import InferenceFailed, InferenceRequestInvalid, InputMissing, ModelFileError
from skerry.runtime import onnx_file
from skerry.runtime.datatypes import NUMPY, Array

onnxruntime.set_default_logger_severity(4)  # fatal only: every failure also arrives as an exception

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
    "tensor(string)": "BYTES",
}

# The binding's exceptions share no base of their own; bad_alloc arrives as MemoryError, the rest of C++ as RuntimeError.
_REFUSALS: Final[tuple[type[Exception], ...]] = (
    *(kind for kind in vars(native).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
    TypeError,
    MemoryError,
    UnicodeError,
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


def _open(model: bytes, settings: OnnxSettings, path: str) -> onnxruntime.InferenceSession:
    onnx_file.check(model, path=path)
    try:
        session = onnxruntime.InferenceSession(model, _options(settings), providers=["CPUExecutionProvider"])
    except _REFUSALS as error:
        if isinstance(error, MemoryError) or "bad_alloc" in str(error):
            raise MemoryError from error
        raise ModelFileError(path=path, problem=_first_line(error)) from error
    session._model_bytes = None  # noqa: SLF001 - kept by the library only to open it anew: once more the size of the file
    return session


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _spec(node: onnxruntime.NodeArg, path: str) -> TensorSpec:
    datatype = _DATATYPES.get(node.type)
    if datatype is None:
        raise ModelFileError(path=path, problem=f"{node.name} is a {node.type}, which a request cannot carry")
    shape = tuple(axis if isinstance(axis, int) and axis >= 0 else -1 for axis in node.shape)
    return TensorSpec(name=node.name, dtype=datatype, shape=shape)


def _io(session: onnxruntime.InferenceSession, path: str) -> Io:
    inputs = tuple(_spec(node, path) for node in session.get_inputs())
    outputs = tuple(_spec(node, path) for node in session.get_outputs())
    if not outputs:
        raise ModelFileError(path=path, problem="it has no outputs")
    return Io(inputs=inputs, outputs=outputs)


def read_model(path: Path) -> bytes:
    """Raises InputMissing, or ModelFileError when there is a file that cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputMissing(path=str(path)) from error
    except OSError as error:
        raise ModelFileError(path=str(path), problem=error.strerror or str(error)) from error


def inspect(path: Path) -> Io:
    """Inputs and outputs of the model file at `path`. Raises InputMissing, ModelFileError."""
    return _io(_open(read_model(path), OnnxSettings(optimise=False), str(path)), str(path))


class OnnxEngine:
    """The Engine contract over one onnxruntime session on the CPU."""

    def __init__(self, session: onnxruntime.InferenceSession, io: Io, name: str) -> None:
        self._session = session
        self._name = name
        self._io = io
        self._output_names = [spec.name for spec in io.outputs]
        self._text_inputs = frozenset(spec.name for spec in io.inputs if spec.dtype == "BYTES")
        self._text_outputs = frozenset(spec.name for spec in io.outputs if spec.dtype == "BYTES")

    @classmethod
    def load(
        cls, model: bytes, *, name: str = "model", path: str = "model.onnx", settings: OnnxSettings | None = None
    ) -> Self:
        """`name` appears in failures of a run, `path` in failures to load.

        Raises ModelFileError, MemoryError when the model does not fit.
        """
        session = _open(model, settings or OnnxSettings(), path)
        return cls(session, _io(session, path), name)

    @property
    def io(self) -> Io:
        return self._io

    @property
    def description(self) -> str:
        return f"onnxruntime {onnxruntime.__version__}"

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        session = self._session
        if session is None:
            raise InferenceFailed(name=self._name, problem="the engine is closed")
        try:
            feed = self._as_text(inputs) if self._text_inputs else dict(inputs)
            # The inner session skips checks of the feed that the codec has already made.
            values = session._sess.run(self._output_names, feed, None)  # noqa: SLF001 - 1.5 us of 30 on a small model
        except _REFUSALS as error:
            raise InferenceFailed(name=self._name, problem=_first_line(error)) from error
        answer = dict(zip(self._output_names, values, strict=True))
        return self._as_bytes(answer) if self._text_outputs else answer

    def close(self) -> None:
        self._session = None

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
