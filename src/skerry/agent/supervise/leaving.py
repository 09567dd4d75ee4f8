# SPDX-License-Identifier: Apache-2.0
"""Runners on their way out: each drains in a thread of its own, for it may finish long requests while the next one soaks."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from skerry.agent.supervise.orphans import Orphan
from skerry.agent.supervise.process import RunnerProcess


class Leaving:
    """`patience`: seconds an orphan, which hears no command, has to end."""

    def __init__(self, *, patience: float) -> None:
        self._patience = patience
        self._threads: list[threading.Thread] = []

    def retire(self, before: RunnerProcess | None, leftovers: Iterable[Orphan] = ()) -> None:
        """In the background."""
        orphans = list(leftovers)
        if before is None and not orphans:
            return

        def drain() -> None:
            if before is not None:
                before.drain()
            self.end(orphans)

        thread = threading.Thread(target=drain, name="drain", daemon=True)
        self._threads = [*(each for each in self._threads if each.is_alive()), thread]
        thread.start()

    def end(self, leftovers: Iterable[Orphan]) -> None:
        """Now."""
        for orphan in leftovers:
            orphan.end(patience=self._patience)

    def join(self) -> None:
        for thread in self._threads:
            thread.join()
