# SPDX-License-Identifier: Apache-2.0
"""Clients of the Open Inference Protocol: synchronous and asyncio, over TCP, a unix socket or shared memory.

Loads numpy and msgspec, neither a server nor an engine.
"""

from skerry.client.aio import AsyncClient
from skerry.client.answer import Result
from skerry.client.sync import Client
from skerry.runtime.datatypes import BF16

__all__ = ["BF16", "AsyncClient", "Client", "Result"]
