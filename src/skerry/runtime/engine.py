# SPDX-License-Identifier: Apache-2.0
"""The engine contract: what a runner needs from whatever executes a model. tests/contracts/engine holds every engine to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from skerry.bundle.manifest import Io


class Engine(Protocol):
    """A loaded model variant. `run` may be called from any thread, from several at once."""

    @property
    def io(self) -> Io:
        """Inputs and outputs in the model's order, datatypes in protocol words, -1 for axes of any length."""

    @property
    def description(self) -> str:
        """Name and version of the engine, for people: `onnxruntime 1.31.1`."""

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Every output, in the order of `io.outputs`, C-contiguous, owned by the caller.

        `inputs` holds exactly the declared inputs with their exact datatypes; they are not changed and not kept.
        BYTES are object arrays of `bytes` both ways. Raises InferenceRequestInvalid for values the engine has no form for
        (bytes that are not UTF-8), InferenceFailed on whatever else it refuses.
        """

    def close(self) -> None:
        """Give the model's memory back. May be called twice; `run` raises InferenceFailed afterwards."""
