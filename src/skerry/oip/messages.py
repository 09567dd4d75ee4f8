# SPDX-License-Identifier: Apache-2.0
"""Open Inference Protocol v2: the documents of a request and an answer, and what a served model says about itself.

Unknown keys of a request are ignored, as every server of the protocol does; a missing or mistyped one is refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

from msgspec import UNSET, Raw, Struct, UnsetType

from skerry.bundle.manifest import Io, TensorSpec
from skerry.oip.ranges import Bounds, bounds_of
from skerry.runtime.datatypes import Array
from skerry.runtime.engine import Sequence

Parameter = str | int | float | bool

EXTENSIONS: Final = ("binary_tensor_data", "classification", "model_configuration", "statistics", "parameters")


class RequestTensor(Struct, frozen=True):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Parameter] = {}
    data: Raw | UnsetType = UNSET


class RequestOutput(Struct, frozen=True):
    name: str
    parameters: dict[str, Parameter] = {}


class RequestBody(Struct, frozen=True):
    inputs: list[RequestTensor]
    outputs: list[RequestOutput] = []
    parameters: dict[str, Parameter] = {}
    id: str | UnsetType = UNSET


class AnswerTensor(Struct, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int] | UnsetType = UNSET
    data: Raw | UnsetType = UNSET


class AnswerBody(Struct, frozen=True, kw_only=True):
    model_name: str
    model_version: str
    outputs: list[AnswerTensor]
    id: str | UnsetType = UNSET


@dataclass(frozen=True, kw_only=True)
class ModelSignature:
    """Under which names a loaded variant is served. `io` is the engine's, with the manifest's labels where it has any.

    `plans` remembers what the heads of binary requests said: a client sends the same head with every request.
    """

    name: str
    version: str
    variant: str
    io: Io
    platform: str = "onnx_onnxruntime"
    backend: str = "onnxruntime"
    plans: dict[bytes, RequestPlan] = field(default_factory=dict, compare=False, repr=False)

    @cached_property
    def inputs(self) -> dict[str, TensorSpec]:
        return {spec.name: spec for spec in self.io.inputs}

    @cached_property
    def outputs(self) -> dict[str, TensorSpec]:
        return {spec.name: spec for spec in self.io.outputs}

    @cached_property
    def bounds(self) -> tuple[Bounds, ...]:
        """What the bundle says of the values of inputs."""
        return bounds_of(self.io.inputs)


class Wanted(Struct, frozen=True, kw_only=True):
    """An output the client asked for, in the model's order whatever the request's."""

    name: str
    binary: bool
    classes: int = 0  # how many of the largest values, in place of all of them; 0 = the values themselves


class Selection(Struct, frozen=True, kw_only=True):
    """The outputs asked for. `heads` remembers, by the shapes of an all-binary answer, its JSON without the request's id."""

    outputs: tuple[Wanted, ...]
    binary: bool  # all of them
    classes: bool = False  # some of them
    heads: dict[tuple[tuple[int, ...], ...], bytes] = {}


class InferRequest(Struct, frozen=True, kw_only=True, gc=False):
    """`inputs` are valid for the model; binary ones are read-only views of the body. `timeout` in seconds, 0 = none.

    `priority` as Triton has it: 1 goes first, larger numbers later, 0 is the default.
    """

    inputs: dict[str, Array]
    wanted: Selection
    id: str | None = None
    timeout: float = 0.0
    priority: int = 0
    sequence: Sequence | None = None  # only for a model that carries state


class Source(Struct, frozen=True, kw_only=True):
    """Where an input of a request comes from: `size` bytes of the tail, or JSON."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    size: int = -1  # -1 = JSON
    data: Raw = Raw()


class RequestPlan(Struct, frozen=True, kw_only=True):
    """The JSON of a request, checked against the model. With binary inputs only it holds for every tail of `tail` bytes."""

    sources: tuple[Source, ...]
    wanted: Selection
    tail: int
    id: str | None = None
    timeout: float = 0.0
    priority: int = 0
    sequence: Sequence | None = None


class InferAnswer(Struct, frozen=True, kw_only=True):
    """`header_length` is the length of the JSON when binary tensors follow it, else None."""

    body: bytes
    header_length: int | None
    not_finite: int = 0
