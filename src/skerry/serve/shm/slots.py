# SPDX-License-Identifier: Apache-2.0
"""Who gets a slot: a request for one is checked like the infer request it stands for, and run once to learn its outputs."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np

from skerry.errors import InferenceRequestInvalid, Overloaded, RequestTooLarge, SkerryError
from skerry.oip import requests, slot
from skerry.oip.messages import InferRequest, ModelSignature, RequestPlan, Source
from skerry.runtime.datatypes import NUMPY, Array
from skerry.serve.calls import Answered, Call, Outcome
from skerry.serve.desk import Desk
from skerry.serve.http.message import HttpResponse, Reply, Switching, refusal
from skerry.serve.served import Served
from skerry.serve.shm.memory import SharedMemory
from skerry.serve.shm.slot import Host, Office, Slot, SlotConnection, copy_of

_SWITCHING: Final = (
    f"HTTP/1.1 101 Switching Protocols\r\nUpgrade: {slot.PROTOCOL}\r\nConnection: upgrade\r\n\r\n".encode()
)


@dataclass(frozen=True, kw_only=True)
class SlotLimits:
    slots: int = 32
    bytes: int = 64 * 1024 * 1024  # of one
    all_bytes: int = 256 * 1024 * 1024
    idle_seconds: float = 75.0


class Slots:
    def __init__(self, desk: Desk, limits: SlotLimits | None = None) -> None:
        self._desk = desk
        self._limits = limits or SlotLimits()
        self.count = 0
        self.bytes = 0

    def ask(self, served: Served, body: bytes, received: float, reply: Reply) -> None:
        """`body` is the JSON of the request. Answers once, never raises for what a client sent."""
        try:
            plan = _checked(body, served.signature)
        except SkerryError as error:
            reply(refusal(error))
            return
        self._desk.probe(served, _FirstCall(plan=plan, received=received), partial(self._ran, served, plan, reply))

    def _ran(self, served: Served, plan: RequestPlan, reply: Reply, outcome: Outcome) -> None:
        if not isinstance(outcome, Answered):
            reply(refusal(outcome.error))
            return
        model = served.signature
        outputs = [
            Source(
                name=wanted.name, datatype=model.outputs[wanted.name].dtype, shape=outcome.outputs[wanted.name].shape
            )
            for wanted in plan.wanted.outputs
        ]
        layout = slot.lay_out(plan.sources, outputs, name=model.name, version=model.version)
        reply(Switching(take=partial(self._switch, served, plan, layout)))

    def _switch(
        self, served: Served, plan: RequestPlan, layout: slot.Layout, transport: asyncio.Transport, host: Host
    ) -> HttpResponse | SlotConnection:
        """The connection that takes over `transport`, or why there is none."""
        try:
            return self._opened(served, plan, layout, transport, host)
        except SkerryError as error:
            return refusal(error)

    def _opened(
        self, served: Served, plan: RequestPlan, layout: slot.Layout, transport: asyncio.Transport, host: Host
    ) -> SlotConnection:
        limits = self._limits
        if layout.size > limits.bytes:
            raise RequestTooLarge(limit=limits.bytes)
        if self.count >= limits.slots or self.bytes + layout.size > limits.all_bytes:
            raise Overloaded(retry_after=1)
        own = copy_of(transport)
        if own is None:
            raise InferenceRequestInvalid(problem="a slot is for clients on the server's unix socket")
        memory = SharedMemory(layout.size)
        try:
            _hand_over(own, _SWITCHING + slot.with_length(layout), memory)
        except OSError as error:
            own.close()
            raise Overloaded(retry_after=1) from error
        finally:
            memory.shared()
        self.count += 1
        self.bytes += layout.size
        office = Office(
            host=host,
            desk=self._desk,
            served=served,
            idle_seconds=self._limits.idle_seconds,
            ended=partial(self._ended, layout.size),
        )
        return SlotConnection(office, Slot(plan, layout, memory), own)

    def _ended(self, size: int) -> None:
        self.count -= 1
        self.bytes -= size


def _hand_over(own: socket.socket, message: bytes, memory: SharedMemory) -> None:
    """All of it or nothing: the socket's buffer is empty, and far larger than the message. Raises OSError."""
    if socket.send_fds(own, [message], [memory.fd]) != len(message):
        raise OSError("the client's buffer is full")


def _checked(body: bytes, model: ModelSignature) -> RequestPlan:
    plan = requests.plan_without_tail(body, model)
    if plan.sequence is not None:
        raise InferenceRequestInvalid(problem="a slot is for requests that belong to no sequence")
    for source in plan.sources:
        if source.size < 0 or source.datatype == "BYTES":
            raise InferenceRequestInvalid(problem=f"input {source.name}: a slot holds binary tensors of a fixed size")
    for wanted in plan.wanted.outputs:
        if not wanted.binary or model.outputs[wanted.name].dtype == "BYTES":
            raise InferenceRequestInvalid(problem=f"output {wanted.name}: a slot holds binary tensors of a fixed size")
    return plan


class _FirstCall(Call, kw_only=True):
    """Zeros, or what else is in range: the shapes of the outputs may depend on those of the inputs in any way."""

    plan: RequestPlan

    def decode(self, model: ModelSignature) -> InferRequest:
        ranges = {bound.name: (bound.low, bound.high) for bound in model.bounds}
        inputs = {source.name: _filled(source, ranges.get(source.name)) for source in self.plan.sources}
        return InferRequest(inputs=inputs, wanted=self.plan.wanted)

    def encode(self, request: InferRequest, outputs: Mapping[str, Array], model: ModelSignature) -> object:
        del request, outputs, model
        return None


def _filled(source: Source, bounds: tuple[float, float] | None) -> Array:
    array: Array = np.zeros(source.shape, NUMPY[source.datatype])
    if source.size != array.nbytes:
        raise InferenceRequestInvalid(
            problem=f"input {source.name}: {source.size} bytes where its shape needs {array.nbytes}"
        )
    if bounds is not None and not bounds[0] <= 0 <= bounds[1]:
        array[...] = bounds[0] if bounds[0] > 0 else bounds[1]
    return array
