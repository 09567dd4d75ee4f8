# SPDX-License-Identifier: Apache-2.0
"""LiteRT models (.tflite) through ai-edge-litert: the only file that imports it.

One interpreter serves one caller at a time and holds its tensors at one set of shapes, so an engine keeps a few of them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from typing import Final, Self

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from skerry.bundle.manifest import Io
from skerry.errors import InferenceFailed, ModelFileError
from skerry.runtime import litert_file
from skerry.runtime.datatypes import Array
from skerry.runtime.engine import ALONE, Nearby
from skerry.runtime.litert_file import Contents

_REFUSALS: Final = (RuntimeError, ValueError, TypeError, KeyError, MemoryError, UnicodeError, SystemError)
_VERSION: Final = metadata.version("ai-edge-litert")

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class LiteRtSettings:
    """One thread per run. `instances` bounds the interpreters of a model: as many run at once, each with its own tensors."""

    threads: int = 1
    instances: int = 4


class _Instance:
    """One interpreter, for one caller at a time. Once it has raised, it is not to be used again."""

    def __init__(self, model: bytes, contents: Contents, settings: LiteRtSettings) -> None:
        self._interpreter = Interpreter(model_content=model, num_threads=settings.threads)
        self._inputs = [port.tensor for port in contents.inputs]
        self._outputs = [port.tensor for port in contents.outputs]
        self._remembers = contents.remembers
        self.shapes: Shapes | None = None

    def lay_out(self, shapes: Shapes) -> None:
        for tensor, shape in zip(self._inputs, shapes, strict=True):
            self._interpreter.resize_tensor_input(tensor, list(shape), strict=True)
        self._interpreter.allocate_tensors()
        self.shapes = shapes

    def run(self, arrays: list[Array], shapes: Shapes) -> list[Array]:
        interpreter = self._interpreter
        if shapes != self.shapes:
            self.lay_out(shapes)
        elif self._remembers:  # or one caller's answer would depend on what another has asked
            interpreter.reset_all_variables()
        for tensor, array in zip(self._inputs, arrays, strict=True):
            interpreter.set_tensor(tensor, array)
        interpreter.invoke()
        return [np.asarray(interpreter.get_tensor(tensor)) for tensor in self._outputs]


class _Pool:
    """Interpreters by the shapes they are set to: a shape seen before costs no allocation."""

    def __init__(self, first: _Instance, make: Callable[[], _Instance], limit: int) -> None:
        self._make = make
        self._free = [first]
        self._made = 1
        self._limit = limit
        self._changed = threading.Condition()
        self._closed = False

    def take(self, shapes: Shapes) -> _Instance | None:
        """One set to `shapes` if there is one free, else a new one, else the longest unused. None when closed."""
        with self._changed:
            while not self._closed:
                fitting = next((each for each in reversed(self._free) if each.shapes == shapes), None)
                if fitting is None and self._free and (self._made == self._limit or self._free[0].shapes is None):
                    fitting = self._free[0]
                if fitting is not None:
                    self._free.remove(fitting)
                    return fitting
                if self._made < self._limit:
                    self._made += 1
                    break
                self._changed.wait()
            else:
                return None
        try:
            return self._make()
        except BaseException:
            self.drop()
            raise

    def give_back(self, instance: _Instance) -> None:
        with self._changed:
            if not self._closed:
                self._free.append(instance)
            self._changed.notify()

    def drop(self) -> None:
        """One that was taken is gone; another may be made in its place."""
        with self._changed:
            self._made -= 1
            self._changed.notify()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._free.clear()
            self._changed.notify_all()


class LiteRtEngine:
    """The Engine contract over LiteRT on the CPU, with XNNPACK where an operator has a kernel there."""

    def __init__(self, pool: _Pool, io: Io, name: str) -> None:
        self._pool = pool
        self._name = name
        self._io = io
        self._inputs = [spec.name for spec in io.inputs]
        self._outputs = [spec.name for spec in io.outputs]

    @classmethod
    def load(
        cls,
        model: bytes,
        *,
        name: str = "model",
        path: str = "model.tflite",
        nearby: Nearby = ALONE,
        settings: LiteRtSettings | None = None,
    ) -> Self:
        """`name` appears in failures of a run, `path` in failures to load. Raises ModelFileError, MemoryError."""
        del nearby  # a LiteRT file is complete in itself, and opening it costs next to nothing
        contents = litert_file.read(model, path=path)
        chosen = settings or LiteRtSettings()
        io = Io(
            inputs=tuple(port.spec for port in contents.inputs), outputs=tuple(port.spec for port in contents.outputs)
        )
        try:
            first = _Instance(model, contents, chosen)
            # Operators the engine has not got, and shapes that contradict each other, show only now.
            first.lay_out(tuple(tuple(max(axis, 1) for axis in spec.shape) for spec in io.inputs))
        except _REFUSALS as error:
            if isinstance(error, MemoryError):
                raise
            raise ModelFileError(path=path, problem=_first_line(error)) from error
        return cls(_Pool(first, lambda: _Instance(model, contents, chosen), chosen.instances), io, name)

    @property
    def io(self) -> Io:
        return self._io

    @property
    def description(self) -> str:
        return f"litert {_VERSION}"

    @property
    def on_cpu(self) -> bool:
        return True

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        if inputs.keys() != set(self._inputs):
            raise self._failed(f"it takes {', '.join(self._inputs)}")
        arrays = [inputs[name] for name in self._inputs]
        shapes = tuple(array.shape for array in arrays)
        try:
            instance = self._pool.take(shapes)
        except _REFUSALS as error:
            raise self._failed(_first_line(error)) from error
        if instance is None:
            raise self._failed("the engine is closed")
        try:
            values = instance.run(arrays, shapes)
        except _REFUSALS as error:
            self._pool.drop()
            raise self._failed(_first_line(error)) from error
        self._pool.give_back(instance)
        return dict(zip(self._outputs, values, strict=True))

    def close(self) -> None:
        self._pool.close()

    def _failed(self, problem: str) -> InferenceFailed:
        return InferenceFailed(name=self._name, problem=problem)


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
