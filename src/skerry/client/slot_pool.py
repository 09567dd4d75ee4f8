# SPDX-License-Identifier: Apache-2.0
"""The slots of a client: one for each model and set of shapes at a time per thread, made when first needed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Mapping
from http import HTTPStatus
from time import monotonic
from typing import Any, Final

import numpy as np

from skerry.client.address import Address
from skerry.client.answer import Answers, Result
from skerry.client.connection import Stale
from skerry.client.request import Options, Requests
from skerry.client.slot import Slot
from skerry.errors import CallInvalid, CallRefused, ConnectionBroken
from skerry.runtime.datatypes import Array

_MAX_KINDS: Final = 64
_AGAIN: Final = 2.0
"""Seconds until a server that had no slot is asked again; meanwhile calls go over HTTP."""

_NO_SLOTS: Final = frozenset(
    {
        HTTPStatus.BAD_REQUEST,  # for this model, or these shapes
        HTTPStatus.NOT_FOUND,  # an older server; or no such model, which HTTP will say
        HTTPStatus.METHOD_NOT_ALLOWED,
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        HTTPStatus.SERVICE_UNAVAILABLE,
    }
)


Asked = tuple[str, str, tuple[str, ...], float]
"""Model, version, outputs, seconds."""


class SlotPool:
    """Threads may share it."""

    def __init__(self, address: Address, requests: Requests, answers: Answers, *, keep: int) -> None:
        self._address = address
        self._requests = requests
        self._answers = answers
        self._keep = keep
        self._kinds: dict[Any, deque[Slot]] = {}
        self._not_before: dict[Any, float] = {}
        self._process = os.getpid()
        self._closed = False

    def infer(self, inputs: Mapping[str, Array], asked: Asked) -> Result | None:
        """None when the call has to go another way."""
        if self._closed:
            raise CallInvalid(problem="the client is closed")
        if self._process != os.getpid():  # forked: these slots are the parent's
            self._process = os.getpid()
            self._end()
        key = (
            asked,
            *[(name, value.dtype, value.shape) for name, value in inputs.items() if type(value) is np.ndarray],
        )
        idle = self._kinds.get(key)
        if idle is None:
            if len(key) <= len(inputs) or not _fixed(inputs):  # `key` is short of what is no array
                return None
            idle = self._kind(key)
        try:
            slot = idle.pop()
        except IndexError:
            return self._in_new(key, idle, inputs, asked)
        try:
            return self._over(slot, idle, inputs)
        except Stale:  # ended between two calls, as a connection may be: the request is sent once more
            return self._in_new(key, idle, inputs, asked)

    def close(self) -> None:
        self._closed = True
        self._end()

    # --- inside

    def _kind(self, key: object) -> deque[Slot]:
        if len(self._kinds) >= _MAX_KINDS:
            self._end()
        return self._kinds.setdefault(key, deque())

    def _end(self) -> None:
        kinds, self._kinds = self._kinds, {}
        self._not_before.clear()
        for idle in kinds.values():
            while idle:
                idle.pop().close()

    def _in_new(self, key: object, idle: deque[Slot], inputs: Mapping[str, Array], asked: Asked) -> Result | None:
        if monotonic() < self._not_before.get(key, 0.0):
            return None
        model, version, outputs, seconds = asked
        options = Options(model=model, version=version, outputs=outputs, seconds=seconds)
        try:
            slot = Slot(self._address, self._requests.slot(inputs, options), self._answers, seconds)
        except CallRefused as refused:
            if refused.fields["status"] not in _NO_SLOTS:
                raise
            self._not_before[key] = monotonic() + _AGAIN
            return None
        if not slot.takes(inputs):
            slot.close()
            raise self._answers.bad("the slot is for other tensors than those asked for")
        try:
            return self._over(slot, idle, inputs)
        except Stale as error:
            raise ConnectionBroken(url=self._address.url) from error

    def _over(self, slot: Slot, idle: deque[Slot], inputs: Mapping[str, Array]) -> Result:
        usable = False
        try:
            result = slot.run(inputs)
            usable = True
        except CallRefused:
            usable = True
            raise
        finally:
            if usable:
                self._put_back(slot, idle)
            else:  # also after Ctrl-C: the server may still be about to answer
                slot.close()
        return result

    def _put_back(self, slot: Slot, idle: deque[Slot]) -> None:
        if slot.ended or self._closed or len(idle) >= self._keep:
            slot.close()
        else:
            idle.append(slot)


def _fixed(inputs: Mapping[str, Array]) -> bool:
    """Datatypes whose values have one size, in the byte order of the wire: the others have to be converted anyhow."""
    return all(
        value.dtype.kind in "biufV" and value.dtype == value.dtype.newbyteorder("<") for value in inputs.values()
    )
