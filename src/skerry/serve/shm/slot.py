# SPDX-License-Identifier: Apache-2.0
"""One slot: what runs over its memory, and the connection that says when. See oip/slot.py for the protocol.

Inputs are copied out of the shared memory before anything looks at them, outputs are copied in when all is done: engines
read tensors more than once and believe that they stay (an index checked, then used), and the client can write at any time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

import numpy as np

from skerry.errors import InferenceFailed, InferenceRequestInvalid, SkerryError
from skerry.oip import binary_codec, ranges, slot
from skerry.oip.messages import InferRequest, ModelSignature, RequestPlan
from skerry.oip.slot import Area, Layout
from skerry.runtime.datatypes import NUMPY, Array
from skerry.runtime.engine import Bindable, Engine
from skerry.serve.calls import Answered, Call, Outcome
from skerry.serve.desk import Desk
from skerry.serve.scheduling.tickets import rows_of
from skerry.serve.served import Served
from skerry.serve.shm.memory import SharedMemory
from skerry.serve.status import status_of

_NEVER: Final = float("inf")
_logger = logging.getLogger(__name__)


class Host(Protocol):
    """The server whose connection this was."""

    def now(self) -> float: ...

    def opened(self, connection: SlotConnection) -> bool: ...

    def closed(self, connection: SlotConnection) -> None: ...


class Slot:
    """The memory and what is in it."""

    def __init__(self, plan: RequestPlan, layout: Layout, memory: SharedMemory) -> None:
        self.plan = plan
        self.layout = layout
        self.memory = memory
        self._outputs = [(area, _array(area, memory)) for area in layout.outputs]
        self._private = {area.name: np.zeros(area.shape, NUMPY[area.datatype]) for area in layout.inputs}
        self._copies = [
            (_bytes_of(self._private[area.name]), memory.view[area.offset : area.offset + area.size])
            for area in layout.inputs
            if area.size
        ]
        self.plain = all(area.datatype != "BOOL" for area in layout.inputs)  # any bytes are a value
        self.rows = rows_of(self._private)
        self._bound: Callable[[], Mapping[str, Array]] | None = None

    def request(self) -> InferRequest:
        """Raises InferenceRequestInvalid for values the datatype has not."""
        plan, view = self.plan, self.memory.view
        inputs = {
            area.name: binary_codec.decode_tensor(
                area.name, area.datatype, area.shape, bytes(view[area.offset : area.offset + area.size])
            )
            for area in self.layout.inputs
        }
        return InferRequest(inputs=inputs, wanted=plan.wanted, timeout=plan.timeout, priority=plan.priority)

    def run(self, engine: Engine, model: ModelSignature, now: Callable[[], float]) -> tuple[float, float]:
        """The same in one go; when the engine began and ended. Raises SkerryError."""
        for private, shared in self._copies:
            private[:] = shared
        if model.bounds:
            ranges.check(self._private, model.bounds)
        if self._bound is None:
            self._bound = self._bind(engine)
        begun = now()
        outputs = self._bound()
        ended = now()
        self.put(outputs)
        return begun, ended

    def _bind(self, engine: Engine) -> Callable[[], Mapping[str, Array]]:
        """To private memory on both sides: what the client can alter meanwhile must not be what an engine computes with."""
        if not isinstance(engine, Bindable):
            return partial(engine.run, self._private)
        outputs = {area.name: np.zeros(area.shape, NUMPY[area.datatype]) for area in self.layout.outputs}
        try:
            run = engine.bind(self._private, outputs)
        except InferenceRequestInvalid:  # the client does not want every output
            return partial(engine.run, self._private)

        def bound() -> Mapping[str, Array]:
            run()
            return outputs

        return bound

    def put(self, outputs: Mapping[str, Array]) -> None:
        """Raises InferenceFailed when an output has another shape than it had for the request of zeros."""
        for area, shared in self._outputs:
            array = outputs[area.name]
            if array.shape != area.shape:
                problem = f"output {area.name} has shape {list(array.shape)}, the slot is made for {list(area.shape)}"
                raise InferenceFailed(name=self.layout.model_name, problem=problem)
            np.copyto(shared, array)


def _array(area: Area, memory: SharedMemory) -> Array:
    return np.ndarray(area.shape, NUMPY[area.datatype], memory.view, area.offset)


def _bytes_of(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


class SlotCall(Call, kw_only=True):
    """`request` once it was read: read again, for a trial, it must be what was answered, not what the client wrote since."""

    slot: Slot
    answered: Callable[[Outcome], None]
    request: InferRequest | None = None

    @property
    def weight(self) -> int:
        return self.slot.layout.size

    def decode(self, model: ModelSignature) -> InferRequest:
        del model
        if self.request is None:
            self.request = self.slot.request()
        return self.request

    def encode(self, request: InferRequest, outputs: Mapping[str, Array], model: ModelSignature) -> object:
        del request, model
        self.slot.put(outputs)
        return None

    def finish(self, outcome: Outcome) -> None:
        self.answered(outcome)


@dataclass(frozen=True, kw_only=True)
class Office:
    """What a slot's connection needs around it. `ended` is called once, when nothing uses the slot any more."""

    host: Host
    desk: Desk
    served: Served
    idle_seconds: float
    ended: Callable[[], None]


class SlotConnection(asyncio.Protocol):
    """From the switch of protocols to the end. Bytes go out through a descriptor of our own: a transport would wait a turn."""

    def __init__(self, office: Office, made: Slot, connected: socket.socket) -> None:
        self._office = office
        self._now = office.host.now
        self._slot = made
        self._socket = connected
        self._transport: asyncio.BaseTransport | None = None
        self._busy = False
        self._asked: SlotCall | None = None
        self._draining = False
        self.deadline = self._now() + office.idle_seconds

    # --- for the server

    @property
    def idle(self) -> bool:
        return not self._busy

    def drain(self) -> None:
        """From now on the next answer is the last."""
        self._draining = True

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    def expire(self) -> None:
        self.close()

    # --- asyncio

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._office.host.opened(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._transport = None
        self._socket.close()
        self._office.host.closed(self)
        if not self._busy:
            self._office.ended()
        elif self._asked is not None:
            self._asked.gone = True

    def data_received(self, data: bytes) -> None:
        if data != slot.RUN or self._busy:
            _logger.debug("a slot's client does not keep to the protocol")
            self.close()
            return
        office = self._office
        if self._slot.plain and office.desk.unattended(office.served):
            self._run()
            return
        self._busy = True
        self.deadline = _NEVER
        self._asked = SlotCall(slot=self._slot, received=self._now(), answered=self._answered)
        office.desk.ask(office.served, self._asked)

    # --- answers

    def _run(self) -> None:
        """The short way: what `Desk.ask` does for a request that waits for nobody, without what such a request has no use for.

        Anything but an error of ours is a defect: the loop logs it and ends this connection, and no other.
        """
        office = self._office
        received = self._now()
        try:
            begun, ended = self._slot.run(office.served.engine, office.served.signature, self._now)
        except SkerryError as error:
            self._refuse(error)
            office.desk.refused(office.served, error)
            self._settle(received)
            return
        self._send(slot.LAST if self._draining else slot.DONE)
        office.desk.ran(office.served, self._slot.rows, (received, begun, ended))
        self._settle(received)

    def _answered(self, outcome: Outcome) -> None:
        self._busy = False
        self._asked = None  # which refers back to here
        if self._transport is None:
            self._office.ended()
            return
        if isinstance(outcome, Answered):
            self._send(slot.LAST if self._draining else slot.DONE)
        else:
            self._refuse(outcome.error)
        self._settle(self._now())

    def _refuse(self, error: SkerryError) -> None:
        refusal = slot.Refusal(error=str(error), code=error.code, status=status_of(error))
        self._send(slot.REFUSED + slot.with_length(refusal))

    def _settle(self, now: float) -> None:
        self.deadline = now + self._office.idle_seconds
        if self._draining:
            self.close()

    def _send(self, data: bytes) -> None:
        """A client that does not read what it asked for has filled the socket's buffer: it gets no more."""
        try:
            sent = self._socket.send(data)
        except OSError:
            sent = 0
        if sent != len(data):
            self.close()


def copy_of(transport: asyncio.Transport) -> socket.socket | None:
    """A socket of its own on the transport's connection; None unless that is a unix socket with nothing left to send."""
    connected = transport.get_extra_info("socket")
    if connected is None or connected.family != socket.AF_UNIX or transport.get_write_buffer_size():
        return None
    own = socket.socket(fileno=os.dup(connected.fileno()))
    own.setblocking(False)  # noqa: FBT003 - the standard library's signature
    return own
