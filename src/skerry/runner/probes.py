# SPDX-License-Identifier: Apache-2.0
"""Golden samples an idle runner asks itself, the way a client's request goes, to know that it still answers right and in time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import cycle
from typing import Final

from skerry.effects import Clock
from skerry.errors import Overloaded
from skerry.oip import requests
from skerry.runtime import selftest
from skerry.runtime.variant import LoadedVariant
from skerry.serve.calls import Answered, Call, Done, Outcome, Refused
from skerry.serve.http.call import Wishes, call
from skerry.serve.served import Served

_PATIENCE_SECONDS: Final = 10.0
_PATIENCE_RUNS: Final = 50  # there may be that many requests before it

Ask = Callable[[Served, Call, Done], None]


class Probes:
    """Takes turns among the samples the variant agreed on at its self-test: a miss tolerated there is no error now."""

    def __init__(self, loaded: LoadedVariant, served: Served, agreed: Sequence[int], *, ask: Ask, clock: Clock) -> None:
        self._loaded = loaded
        self._served = served
        self._ask = ask
        self._clock = clock
        self._patience = _PATIENCE_SECONDS + _PATIENCE_RUNS * served.costs.one
        self._turns = cycle(agreed)
        self._possible = bool(agreed)
        self._asked = False  # one is under way
        self._overdue_at = 0.0
        self._seen = -1

    def tick(self) -> None:
        """Ask the next sample unless clients were answered since the last tick or a probe is still under way.

        When neither clients nor a probe are answered for long, the model hangs: then every tick counts a failed probe.
        """
        counters = self._served.counters
        live = counters.answered + counters.failed.total()
        quiet, self._seen = live == self._seen, live
        if not quiet or not self._possible:
            return
        if not self._asked:
            self._probe(next(self._turns))
        elif self._clock.monotonic() > self._overdue_at:
            counters.probe(self._patience, right=False)

    def _probe(self, index: int) -> None:
        inputs = selftest.feed(self._loaded.samples, index, self._loaded.engine)
        body, head = requests.encode(inputs, self._served.signature)
        now = self._clock.monotonic()
        self._asked = True
        self._overdue_at = now + self._patience
        self._ask(self._served, call(body, Wishes(header_length=head), received=now), partial(self._finish, index, now))

    def _finish(self, index: int, begun: float, outcome: Outcome) -> None:
        self._asked = False
        if isinstance(outcome, Refused) and isinstance(outcome.error, Overloaded):
            return  # then it is not idle
        right = isinstance(outcome, Answered) and self._right(index, outcome)
        self._served.counters.probe(self._clock.monotonic() - begun, right=right)

    def _right(self, index: int, answered: Answered) -> bool:
        expected = selftest.golden(self._loaded.samples, index, self._loaded.engine)
        tolerance = self._loaded.variant.tolerance
        return all(selftest.agrees(answered.outputs[name], value, tolerance) for name, value in expected.items())
