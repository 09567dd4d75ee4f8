# SPDX-License-Identifier: Apache-2.0
"""The client's side of a slot (oip/slot.py): inputs written where the server reads them, one byte each way."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Final

import msgspec
import numpy as np
from msgspec.json import Decoder

from skerry.client.address import Address
from skerry.client.answer import HEAD_END, MAX_HEAD, Answers, Result
from skerry.client.connection import Stale, connect, set_timeouts
from skerry.client.request import Message
from skerry.errors import CallRefused, CallTimedOut, ConnectionBroken, ServerUnreachable
from skerry.oip import slot
from skerry.oip.slot import Area, Layout, Refusal
from skerry.runtime.datatypes import NUMPY, Array

_SWITCHED: Final = 101
_MAX_SIZE: Final = 1 << 32
_UNDECODABLE: Final = (msgspec.DecodeError, UnicodeError, RecursionError)
_layout_decoder: Final = Decoder(Layout)
_refusal_decoder: Final = Decoder(Refusal)


class Slot:
    """For one thread at a time. After any exception but CallRefused it must be closed: the server may still write to it."""

    def __init__(self, address: Address, asked: Message, answers: Answers, seconds: float) -> None:
        """Raises CallRefused when the server has none to give, ServerUnreachable, CallTimedOut, AnswerNotUnderstood."""
        self._url = address.url
        self._answers = answers
        self._seconds = seconds
        self.ended = False  # the server wants it back
        try:
            with ExitStack() as stack:
                self._socket = stack.enter_context(connect(address, seconds))
                set_timeouts(self._socket, seconds)
                self._open(asked)
                stack.pop_all()
        except BlockingIOError as error:
            raise CallTimedOut(url=self._url, seconds=seconds) from error
        except OSError as error:
            raise ServerUnreachable(url=self._url, problem=error.strerror or str(error)) from error

    def close(self) -> None:
        """The memory is unmapped with its last view."""
        self._socket.close()

    def run(self, inputs: Mapping[str, Array]) -> Result:
        """Arrays of exactly the shapes and datatypes the slot was made for.

        Raises Stale when the server ended the slot before it answered, CallRefused, CallTimedOut, ConnectionBroken.
        """
        for name, area in self._inputs:
            area[...] = inputs[name]
        try:
            self._socket.send(slot.RUN)
            said = self._socket.recv(slot.MAX_MESSAGE)
        except BlockingIOError as error:
            raise CallTimedOut(url=self._url, seconds=self._seconds) from error
        except OSError as error:
            raise Stale from error
        if said != slot.DONE:
            self._unusual(said)
        result = Result(model=self._model, version=self._version, id="", datatypes=self._datatypes)
        for name, area in self._outputs:
            result[name] = area.copy()
        return result

    # --- what the server says

    def _unusual(self, said: bytes) -> None:
        if not said:
            raise Stale
        if said == slot.LAST:
            self.ended = True
        elif said[:1] == slot.REFUSED:
            raise self._refusal(said[1:])
        else:  # not of this protocol: somebody ended the connection in the server's place
            raise ConnectionBroken(url=self._url)

    def _refusal(self, said: bytes) -> CallRefused:
        data = self._whole(said)
        try:
            refusal = _refusal_decoder.decode(data)
        except _UNDECODABLE as error:
            raise self._answers.bad(f"its refusal is none: {error}") from error
        return CallRefused(
            url=self._url, status=refusal.status, problem=refusal.error, server_code=refusal.code, retry_after=""
        )

    def _whole(self, data: bytes) -> bytes:
        """A message with its length in front, of which `data` is the beginning."""
        while len(data) < slot.LENGTH.size or len(data) < slot.LENGTH.size + slot.LENGTH.unpack_from(data)[0]:
            if len(data) > slot.MAX_MESSAGE:
                raise self._answers.bad("a message of it is too long")
            data += self._more()
        (size,) = slot.LENGTH.unpack_from(data)
        if len(data) != slot.LENGTH.size + size:
            raise self._answers.bad("more came than a message's length says")
        return data[slot.LENGTH.size :]

    def _more(self) -> bytes:
        data = self._socket.recv(slot.MAX_MESSAGE)
        if not data:
            raise ConnectionBroken(url=self._url)
        return data

    # --- opening

    def _open(self, asked: Message) -> None:
        self._socket.sendall(b"".join(asked.parts))
        data, fds, _, _ = socket.recv_fds(self._socket, slot.MAX_MESSAGE, 4)
        try:
            if not data:
                raise ConnectionBroken(url=self._url)
            layout = self._layout(data)
            if len(fds) != 1:
                raise self._answers.bad("no memory came with the slot")
            self._map(layout, fds[0])
        finally:
            for fd in fds:
                os.close(fd)

    def _layout(self, data: bytes) -> Layout:
        while (end := data.find(HEAD_END)) < 0:
            if len(data) > MAX_HEAD:
                raise self._answers.bad(f"its head has more than {MAX_HEAD} bytes")
            data += self._more()
        head = self._answers.head(data[:end])
        body = data[end + len(HEAD_END) :]
        if head.status != _SWITCHED:
            while len(body) < head.length:
                body += self._more()
            raise self._answers.refusal(head, memoryview(body))
        try:
            return _layout_decoder.decode(self._whole(body))
        except _UNDECODABLE as error:
            raise self._answers.bad(f"it describes no slot: {error}") from error

    def _map(self, layout: Layout, fd: int) -> None:
        if not 0 < layout.size <= _MAX_SIZE or os.fstat(fd).st_size < layout.size:
            raise self._answers.bad("the slot's memory is smaller than it says")
        if not fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK:
            raise self._answers.bad("the slot's memory could be taken away")
        memory = mmap.mmap(fd, layout.size)
        self._inputs = [(area.name, self._area(area, memory)) for area in layout.inputs]
        self._outputs = [(area.name, self._area(area, memory)) for area in layout.outputs]
        self._datatypes = {area.name: area.datatype for area in layout.outputs}
        self._model = layout.model_name
        self._version = layout.model_version

    def _area(self, area: Area, memory: mmap.mmap) -> Array:
        """A view of the memory; numpy refuses one that would leave it."""
        if area.datatype not in NUMPY or area.datatype == "BYTES" or min(area.shape, default=0) < 0 or area.offset < 0:
            raise self._answers.bad(f"{area.name} cannot lie in a slot")
        try:
            return np.ndarray(area.shape, NUMPY[area.datatype], memory, area.offset)
        except (TypeError, ValueError, OverflowError) as error:
            raise self._answers.bad(f"{area.name} does not lie in the slot") from error

    def takes(self, inputs: Mapping[str, Array]) -> bool:
        """Whether the server lays out what was asked for."""
        return all(
            name in inputs and inputs[name].shape == area.shape and inputs[name].dtype == area.dtype
            for name, area in self._inputs
        ) and len(self._inputs) == len(inputs)
