# SPDX-License-Identifier: Apache-2.0
"""Which engine opens which model. Only the engine asked for is imported: a device has the one its variants need."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Final, Protocol, cast

from skerry.bundle.manifest import Io
from skerry.errors import InputMissing, ManifestError, MissingExtra, ModelFileError
from skerry.runtime import litert_file
from skerry.runtime.engine import ALONE, Engine, Nearby

ONNXRUNTIME: Final = "onnxruntime"
LITERT: Final = "litert"
_OPENERS: Final = {
    ONNXRUNTIME: ("skerry.runtime.onnx", "OnnxEngine"),
    LITERT: ("skerry.runtime.litert", "LiteRtEngine"),
}
_EXTRAS: Final = {ONNXRUNTIME: "ort", LITERT: "litert"}
SUFFIXES: Final[Mapping[str, str]] = {ONNXRUNTIME: "onnx", LITERT: "tflite"}
"""Runtime -> how its model files are called."""

PLATFORMS: Final[Mapping[str, str]] = {ONNXRUNTIME: "onnx_onnxruntime", LITERT: "tflite_litert"}
"""Runtime -> format and engine, as the inference protocol's metadata call them."""


class _Opener(Protocol):
    def load(self, model: bytes, *, name: str, path: str, nearby: Nearby) -> Engine: ...


def opener(runtime: str) -> _Opener:
    """The engine class of `runtime`. Raises MissingExtra when it is not installed, ManifestError when there is none of that name."""
    if runtime not in _OPENERS:
        raise ManifestError(problem=f"there is no runtime {runtime}, only {' and '.join(_OPENERS)}")
    module, name = _OPENERS[runtime]
    try:
        return cast("_Opener", getattr(import_module(module), name))
    except ImportError as error:
        raise MissingExtra(feature=f"the runtime {runtime}", extra=_EXTRAS[runtime]) from error


def load(runtime: str, model: bytes, *, name: str, path: str, nearby: Nearby = ALONE) -> Engine:
    """Raises MissingExtra, ManifestError, ModelFileError, MemoryError, and what `nearby.read` raises."""
    return opener(runtime).load(model, name=name, path=path, nearby=nearby)


def runtime_of(model: bytes) -> str:
    """Which engine a model file is for, by its content."""
    return LITERT if litert_file.is_litert(model) else ONNXRUNTIME


def read_model(path: Path) -> bytes:
    """Raises InputMissing, or ModelFileError when there is a file that cannot be read."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise InputMissing(path=str(path)) from error
    except OSError as error:
        raise ModelFileError(path=str(path), problem=error.strerror or str(error)) from error


def reader(model: Path) -> Callable[[str], bytes]:
    """Reads files beside a model that is not in a bundle. Raises InputMissing, ModelFileError, also for links."""

    def read(location: str) -> bytes:
        path = model.parent / location
        if path.resolve() != model.parent.resolve() / location:
            raise ModelFileError(path=str(path), problem="it is a link")
        return read_model(path)

    return read


def inspect(path: Path) -> tuple[str, Io]:
    """Runtime, inputs and outputs of the model file at `path`. Raises InputMissing, ModelFileError, MissingExtra."""
    model = read_model(path)
    runtime = runtime_of(model)
    engine = load(runtime, model, name=path.stem, path=str(path), nearby=Nearby(read=reader(path)))
    try:
        return runtime, engine.io
    finally:
        engine.close()
