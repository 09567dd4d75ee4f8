# SPDX-License-Identifier: Apache-2.0
"""The new version in a trial, as the runner of the current one asks it: over a unix socket, and never waiting long."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from http import HTTPStatus
from typing import Final
from urllib.parse import quote

from skerry.client.aio import AsyncClient
from skerry.errors import CallError, CallRefused, CallTimedOut, ConnectionBroken, ServerUnreachable
from skerry.observe.comparison import Problem
from skerry.oip.messages import ModelSignature
from skerry.runtime.datatypes import Array
from skerry.runtime.engine import Sequence

_PATIENCE_SECONDS: Final = 2.0
_PATIENCE_RUNS: Final = 20  # of the current version

Outputs = Mapping[str, Array]


class Candidate:
    """`patience` is the longest it may take for an answer, in seconds: far more than the current version takes."""

    def __init__(self, path: str, model: ModelSignature, *, cost: float) -> None:
        self._client = AsyncClient(f"unix://{quote(path)}")
        self._model = model
        self.patience = _PATIENCE_SECONDS + _PATIENCE_RUNS * cost

    async def ask(
        self,
        inputs: Outputs,
        names: Iterable[str] = (),
        *,
        seconds: float | None = None,
        sequence: Sequence | None = None,
    ) -> Outputs | Problem:
        """Its outputs called `names`, without any all of them. `seconds` may shorten its patience."""
        patience = self.patience if seconds is None else min(seconds, self.patience)
        if patience <= 0:
            return Problem.TIMEOUT
        names = tuple(names)
        parameters = _parameters(sequence) if sequence is not None else None
        try:
            found = await self._client.infer(
                self._model.name, inputs, outputs=names, timeout=patience, parameters=parameters
            )
        except CallError as error:
            return _problem(error)
        wanted = names or tuple(self._model.outputs)
        alike = all(name in found and found.datatypes[name] == self._model.outputs[name].dtype for name in wanted)
        return found if alike else Problem.UNREADABLE

    async def close(self) -> None:
        await self._client.close()


def _parameters(sequence: Sequence) -> dict[str, int | str | bool]:
    return {"sequence_id": sequence.id, "sequence_start": sequence.start, "sequence_end": sequence.end}


def _problem(error: CallError) -> Problem:
    match error:
        case CallTimedOut():
            return Problem.TIMEOUT
        case ServerUnreachable() | ConnectionBroken():
            return Problem.GONE
        case CallRefused(fields={"status": int(status)}) if status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return Problem.REFUSED
        case CallRefused():
            return Problem.FAILED
        case _:
            return Problem.UNREADABLE
