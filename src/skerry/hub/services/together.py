# SPDX-License-Identifier: Apache-2.0
"""Many single questions answered by few common ones: what is asked while one is under way is answered by the next, together.

A question is only ever answered by a common one that began after it, so nobody is told what has changed since.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from itertools import islice
from typing import Generic, TypeVar

V = TypeVar("V")


class Together(Generic[V]):
    """`ask` answers up to `at_once` keys; a key it leaves out has no answer."""

    def __init__(self, ask: Callable[[tuple[str, ...]], Awaitable[Mapping[str, V]]], *, at_once: int) -> None:
        self._ask = ask
        self._at_once = at_once
        self._asked: dict[str, asyncio.Future[V | None]] = {}
        self._asking: asyncio.Task[None] | None = None

    async def one(self, key: str) -> V | None:
        """Raises what `ask` raises."""
        asked = self._asked.get(key)
        if asked is None:
            asked = self._asked[key] = asyncio.get_running_loop().create_future()
        if self._asking is None:
            self._asking = asyncio.create_task(self._work())
        return await asyncio.shield(asked)

    async def _work(self) -> None:
        try:
            while self._asked:
                await self._answer({key: self._asked.pop(key) for key in tuple(islice(self._asked, self._at_once))})
        finally:
            self._asking = None

    async def _answer(self, batch: dict[str, asyncio.Future[V | None]]) -> None:
        try:
            found = await self._ask(tuple(batch))
        except BaseException as error:
            for asked in batch.values():
                asked.set_exception(error)
                asked.exception()  # whoever asked may have gone: an answer nobody fetches is no defect
            if not isinstance(error, Exception):
                raise
            return
        for key, asked in batch.items():
            asked.set_result(found.get(key))
