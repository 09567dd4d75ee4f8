# SPDX-License-Identifier: Apache-2.0
"""The engine contract: what a runner needs from whatever executes a model. tests/contracts/engine holds every engine to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
from msgspec import Struct

from skerry.bundle.manifest import Io


@dataclass(frozen=True, kw_only=True)
class Nearby:
    """What an engine may use beside the model file itself.

    `read` gives the content of another file of the variant by its path relative to the model's folder, and raises ArtefactError
    or InputMissing for one that does not belong to it. `cache` is a folder for what it derives from this model, `accelerator`
    the one the variant was made for.
    """

    read: Callable[[str], bytes] | None = None
    cache: Path | None = None
    accelerator: str = ""


ALONE: Final = Nearby()
CPU_ONLY: Final = "cpu"
"""The accelerator of a variant that is to run on none."""


class Sequence(Struct, frozen=True, kw_only=True):
    """Where a request to a model that carries state belongs. `id` is the client's number or text: 1 and "1" are two sequences."""

    id: int | str
    start: bool = False
    end: bool = False


@runtime_checkable
class Bindable(Protocol):
    """An engine that can run over buffers that stay, without looking at them anew each time."""

    def bind(
        self, inputs: Mapping[str, np.ndarray[Any, Any]], outputs: Mapping[str, np.ndarray[Any, Any]]
    ) -> Callable[[], None]:
        """A run that reads `inputs` and writes `outputs` in place: all tensors of the model, without gaps, no BYTES.

        One call at a time. Raises InferenceRequestInvalid for arrays that are not so; a call raises InferenceFailed.
        """


class Engine(Protocol):
    """A loaded model variant. `run` may be called from any thread, from several at once."""

    @property
    def io(self) -> Io:
        """Inputs and outputs in the model's order, datatypes in protocol words, -1 for axes of any length."""

    @property
    def description(self) -> str:
        """Name and version of the engine, for people: `onnxruntime 1.31.1`."""

    @property
    def on_cpu(self) -> bool:
        """Whether the processor alone does the work; an accelerator's answers are held to the golden samples first."""

    def run(self, inputs: Mapping[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
        """Every output, in the order of `io.outputs`, C-contiguous, owned by the caller.

        `inputs` holds exactly the declared inputs with their exact datatypes; they are not changed and not kept.
        BYTES are object arrays of `bytes` both ways. Raises InferenceRequestInvalid for values the engine has no form for
        (bytes that are not UTF-8), InferenceFailed on whatever else it refuses.
        """

    def close(self) -> None:
        """Give the model's memory back. May be called twice; `run` raises InferenceFailed afterwards."""
