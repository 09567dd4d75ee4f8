# SPDX-License-Identifier: Apache-2.0
"""Skerry: run, update and govern AI models on fleets of edge devices.

`Model` runs a bundle in this process, `Client` and `AsyncClient` call one that is served. They are loaded when first named, so
that nobody else pays for them; `__init__.pyi` tells type checkers what they are.
"""

from importlib import import_module

__version__ = "0.1.0"

_LAZY = {"AsyncClient": "skerry.client", "Client": "skerry.client", "Model": "skerry.runtime.model"}


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_LAZY])
