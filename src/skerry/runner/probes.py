# SPDX-License-Identifier: Apache-2.0
"""Golden samples an idle runner asks itself, the way a client's request goes, to know that it still answers right and in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle

from skerry.effects import Clock
from skerry.errors import Overloaded
from skerry.runner.loading import LoadedVariant
from skerry.runtime import selftest
from skerry.serve import requests
from skerry.serve.inference import Answered, Call, Refused, Served
from skerry.serve.schedule import Crashed

Ask = Callable[[Served, Call, Callable[[Answered | Refused | Crashed], None]], None]


class Probes:
    """Takes turns among the samples the variant agreed on at its self-test: a miss tolerated there is no error now."""

    def __init__(self, loaded: LoadedVariant, served: Served, agreed: Sequence[int], *, ask: Ask, clock: Clock) -> None:
        self._loaded = loaded
        self._served = served
        self._ask = ask
        self._clock = clock
        self._turns = cycle(agreed)
        self._possible = bool(agreed)
        self._asked = False  # one is under way
        self._seen = -1

    def tick(self) -> None:
        """Ask the next sample unless clients were answered since the last tick or a probe is still under way."""
        counters = self._served.counters
        live = counters.answered + counters.failed.total()
        quiet, self._seen = live == self._seen, live
        if quiet and self._possible and not self._asked:
            self._probe(next(self._turns))

    def _probe(self, index: int) -> None:
        inputs = selftest.feed(self._loaded.samples, index, self._loaded.engine)
        body, head = requests.encode(inputs, self._served.signature)
        call = Call(body=body, header_length=head, received=self._clock.monotonic())
        self._asked = True
        try:
            self._ask(self._served, call, partial(self._finish, index, call))
        except Overloaded:  # then it is not idle
            self._asked = False

    def _finish(self, index: int, call: Call, result: Answered | Refused | Crashed) -> None:
        self._asked = False
        right = isinstance(result, Answered) and self._right(index, result)
        self._served.counters.probe(self._clock.monotonic() - call.received, right=right)

    def _right(self, index: int, answered: Answered) -> bool:
        expected = selftest.golden(self._loaded.samples, index, self._loaded.engine)
        tolerance = self._loaded.variant.tolerance
        return all(selftest.agrees(answered.outputs[name], value, tolerance) for name, value in expected.items())
