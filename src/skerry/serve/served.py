# SPDX-License-Identifier: Apache-2.0
"""A loaded variant under its name, and the table of those a server has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from skerry.errors import UnknownModel
from skerry.observe.counters import ModelCounters
from skerry.oip.messages import ModelSignature
from skerry.runtime.costs import Costs
from skerry.runtime.engine import Engine


@dataclass(kw_only=True)
class Served:
    signature: ModelSignature
    engine: Engine
    costs: Costs
    counters: ModelCounters = field(default_factory=ModelCounters)
    ready: bool = True
    placement: str = ""  # where its requests run, and why: for people


def find(models: Mapping[str, Served], name: str, version: str) -> Served:
    """Any version when `version` is empty. Raises UnknownModel."""
    served = models.get(name)
    if served is None:
        raise UnknownModel(name=name)
    if version not in {"", served.signature.version}:
        raise UnknownModel(name=f"{name} version {version}")
    return served
