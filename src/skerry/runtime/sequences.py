# SPDX-License-Identifier: Apache-2.0
"""Models that carry state from one request to the next: the state stays here, per sequence, and clients never see it.

A sequence is what a client names by Triton's request parameters `sequence_id`, `sequence_start` and `sequence_end`
(https://github.com/triton-inference-server/server, protocol extension "sequence"). As there, a start under an id that is in use
ends the earlier sequence; unlike there, a second request while one is under way is refused rather than queued, because on
several threads nothing else keeps their order.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Final

import numpy as np

from skerry.bundle.manifest import Io, State, TensorSpec
from skerry.errors import InferenceFailed, ManifestError, SequenceRefused, TooManySequences
from skerry.runtime.datatypes import NUMPY, Array
from skerry.runtime.engine import Engine, Sequence

_LIMIT: Final = 1024
_IDLE_SECONDS: Final = 60.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """`idle` seconds after its last request a sequence is forgotten; of more than `count` at once none is begun."""

    count: int = _LIMIT
    idle: float = _IDLE_SECONDS


@dataclass(kw_only=True)
class _Live:
    values: dict[str, Array]
    used: float
    busy: bool = False


def stateful(engine: Engine, state: tuple[State, ...]) -> Engine:
    """`engine` without its state tensors, or as it is when it has none. Raises ManifestError when they are not the model's."""
    return Stateful(engine, state) if state else engine


class Stateful:
    """The Engine contract over another engine; `run` starts from zero and keeps nothing, `run_in` goes on with a sequence."""

    def __init__(
        self,
        engine: Engine,
        state: tuple[State, ...],
        *,
        limits: Limits | None = None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._engine = engine
        self._fed = {pair.output: pair.input for pair in state}
        self._limits = limits or Limits()
        self._now = now
        self._io, self._zeros = _divide(engine.io, state)
        self._lock = threading.Lock()
        self._live: OrderedDict[int | str, _Live] = OrderedDict()  # the one used longest ago first

    @property
    def io(self) -> Io:
        return self._io

    @property
    def description(self) -> str:
        return self._engine.description

    @property
    def on_cpu(self) -> bool:
        return self._engine.on_cpu

    @property
    def sequences(self) -> int:
        """How many are live."""
        return len(self._live)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        return self._run(inputs, self._zeros)[0]

    def run_in(self, sequence: Sequence, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """As `run`, with the state the last request of `sequence` left; a run that fails leaves it as it was.

        Raises SequenceRefused for one that was not started or has a request under way, TooManySequences.
        """
        live = self._begin(sequence)
        try:
            outputs, values = self._run(inputs, live.values)
        except BaseException:
            self._finish(sequence, live, live.values, forget=sequence.start)
            raise
        self._finish(sequence, live, values, forget=sequence.end)
        return outputs

    def close(self) -> None:
        self._engine.close()
        with self._lock:
            self._live.clear()

    def _run(
        self, inputs: Mapping[str, Array], state: Mapping[str, Array]
    ) -> tuple[dict[str, Array], dict[str, Array]]:
        if inputs.keys() & state.keys():
            raise InferenceFailed(name="model", problem="its state is not for clients to give")
        outputs = self._engine.run({**inputs, **state})
        return outputs, {self._fed[name]: outputs.pop(name) for name in self._fed}

    def _begin(self, sequence: Sequence) -> _Live:
        with self._lock:
            now = self._now()
            self._forget_idle(now)
            live = self._live.get(sequence.id)
            if live is not None and live.busy:
                raise SequenceRefused(id=sequence.id, problem="a request of it is under way")
            if live is None and not sequence.start:
                raise SequenceRefused(id=sequence.id, problem="it is not live here: begin it with sequence_start")
            if sequence.start:
                if live is None and len(self._live) >= self._limits.count:
                    raise TooManySequences(limit=self._limits.count, retry_after=1)
                live = self._live[sequence.id] = _Live(values=self._zeros, used=now)
            assert live is not None  # noqa: S101 - for the type checker: refused above
            live.busy = True
            return live

    def _finish(self, sequence: Sequence, live: _Live, values: dict[str, Array], *, forget: bool) -> None:
        with self._lock:
            live.values, live.used, live.busy = values, self._now(), False
            if self._live.get(sequence.id) is live:
                if forget:
                    del self._live[sequence.id]
                else:
                    self._live.move_to_end(sequence.id)

    def _forget_idle(self, now: float) -> None:
        """With the lock. A busy one is as good as used now, and the order of the others is that of their last use."""
        while self._live:
            oldest = next(iter(self._live))
            live = self._live[oldest]
            if not live.busy and now - live.used <= self._limits.idle:
                return
            if live.busy:
                live.used = now
                self._live.move_to_end(oldest)
                if all(each.busy for each in self._live.values()):
                    return
            else:
                del self._live[oldest]


def _divide(io: Io, state: tuple[State, ...]) -> tuple[Io, dict[str, Array]]:
    """What clients see, and the state a sequence starts with: zeros, 1 where any length goes."""
    inputs, outputs = ({spec.name: spec for spec in side} for side in (io.inputs, io.outputs))
    zeros: dict[str, Array] = {}
    for pair in state:
        if pair.input not in inputs or pair.output not in outputs:
            raise ManifestError(problem=f"state {pair.input} <- {pair.output}: the model has no such input and output")
        taken, given = inputs[pair.input], outputs[pair.output]
        if taken.dtype != given.dtype or taken.dtype == "BYTES" or not _compatible(taken, given):
            raise ManifestError(problem=f"state {pair.input} <- {pair.output}: they differ in datatype or shape")
        zeros[pair.input] = np.zeros(tuple(max(axis, 1) for axis in taken.shape), NUMPY[taken.dtype])
    fed_back = {pair.output for pair in state}
    if len(zeros) != len(state) or len(fed_back) != len(state):
        raise ManifestError(problem="state: a tensor appears twice")
    seen = Io(
        inputs=tuple(spec for spec in io.inputs if spec.name not in zeros),
        outputs=tuple(spec for spec in io.outputs if spec.name not in fed_back),
        state=state,
    )
    if not seen.inputs or not seen.outputs:
        raise ManifestError(problem="state: the model has no other inputs or no other outputs")
    return seen, zeros


def _compatible(one: TensorSpec, other: TensorSpec) -> bool:
    return len(one.shape) == len(other.shape) and all(
        -1 in {a, b} or a == b for a, b in zip(one.shape, other.shape, strict=True)
    )
