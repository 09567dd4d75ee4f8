# SPDX-License-Identifier: Apache-2.0
"""A store method that has begun ends, even when its caller is cancelled meanwhile (a client hung up, the hub stops).

A statement cut off in the driver's thread can leave SQLite's write lock with a connection nobody holds any more, and every
later writer waiting for it. Transactions are short; letting them end is cheaper than cleaning up after them.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C", bound=type[Any])


def whole(method: Callable[P, Awaitable[R]]) -> Callable[P, Awaitable[R]]:
    """Run `method` to its end; a cancelled caller gets its CancelledError after that."""

    @functools.wraps(method)
    async def inner(*args: P.args, **kwargs: P.kwargs) -> R:
        task = asyncio.ensure_future(method(*args, **kwargs))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            if not task.cancelled():
                task.exception()  # the caller is gone: nobody else will look at it
            raise

    return inner


def whole_methods(*, but: frozenset[str]) -> Callable[[C], C]:
    """Every public coroutine method of the class and its bases, except those in `but`, which wait on purpose."""

    def decorate(cls: C) -> C:
        for name, method in inspect.getmembers(cls, inspect.iscoroutinefunction):
            if not name.startswith("_") and name not in but:
                setattr(cls, name, whole(method))
        return cls

    return decorate
