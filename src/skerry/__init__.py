# SPDX-License-Identifier: Apache-2.0
"""Skerry: run, update and govern AI models on fleets of edge devices.

`Model` runs a bundle in this process, `Client` and `AsyncClient` call one that is served; they are loaded when first named.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from skerry.client import AsyncClient, Client
    from skerry.runtime.model import Model

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "Model", "__version__"]

_LAZY = {"AsyncClient": "skerry.client", "Client": "skerry.client", "Model": "skerry.runtime.model"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
