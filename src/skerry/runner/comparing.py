# SPDX-License-Identifier: Apache-2.0
"""Two versions' answers to one request, compared. What comes out are counts; nothing of the answers is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from skerry.bundle.manifest import TensorSpec, Tolerance
from skerry.observe.comparison import Comparison
from skerry.runtime.datatypes import Array
from skerry.wire.v1.device import Compare

_ROWS_LOOKED_AT: Final = 32
"""Of a batch, for shifts and flips; agreement is counted over all of it."""

_CLASSIFIES: Final = "classif"  # what the tasks of classifiers have in common


class Comparer:
    """`outputs` are the current version's, `tolerance` that of its variant."""

    def __init__(
        self, outputs: Sequence[TensorSpec], tolerance: Tolerance, *, how: Compare = Compare.AUTO, task: str = ""
    ) -> None:
        self._outputs = outputs
        self._tolerance = tolerance
        self._batched = bool(outputs) and all(spec.shape[:1] == (-1,) for spec in outputs)
        labelled = any(spec.labels for spec in outputs)
        classifier = labelled or tolerance.top1 or _CLASSIFIES in task.lower()
        self._top1 = how is Compare.TOP1 or (how is Compare.AUTO and classifier)

    def compare(self, current: Mapping[str, Array], tried: Mapping[str, Array], into: Comparison) -> None:
        """Counts every row of the answers; one whose outputs are missing or of another shape or type agrees with nothing."""
        rows = self._rows(current)
        agree = np.ones(rows, dtype=bool)
        for spec in self._outputs:
            now = tried.get(spec.name)
            agree &= self._agreeing(current[spec.name], now, rows) if now is not None else False
        into.add_rows(compared=rows, agreed=int(agree.sum()))
        self._look_closer(current, tried, rows, into)

    def _rows(self, current: Mapping[str, Array]) -> int:
        if not self._batched:
            return 1
        counts = {current[spec.name].shape[:1] for spec in self._outputs}
        return int(next(iter(counts))[0]) if len(counts) == 1 else 1

    def _agreeing(self, was: Array, now: Array, rows: int) -> Array:
        """Per row."""
        if was.shape != now.shape or was.dtype != now.dtype or not was.size:
            return np.full(rows, was.shape == now.shape and was.dtype == now.dtype)
        before, after = was.reshape(rows, -1), now.reshape(rows, -1)
        if was.dtype.kind != "f":
            return np.asarray((before == after).all(axis=1), dtype=bool)
        if self._top1 and before.shape[1] > 1:
            same = before.argmax(axis=1) == after.argmax(axis=1)
            return np.asarray(same & (np.isnan(before).any(axis=1) == np.isnan(after).any(axis=1)), dtype=bool)
        wide, narrow = after.astype(np.float64), before.astype(np.float64)
        close = np.isclose(wide, narrow, rtol=self._tolerance.rtol, atol=self._tolerance.atol, equal_nan=True)
        return np.asarray(close.all(axis=1), dtype=bool)

    def _look_closer(
        self, current: Mapping[str, Array], tried: Mapping[str, Array], rows: int, into: Comparison
    ) -> None:
        """How far the top value of the first output that has one moved, and which classes changed."""
        for spec in self._outputs:
            was, now = current[spec.name], tried.get(spec.name)
            if was.dtype.kind != "f" or now is None or was.shape != now.shape or was.size <= rows:
                continue
            before, after = was.reshape(rows, -1)[:_ROWS_LOOKED_AT], now.reshape(rows, -1)[:_ROWS_LOOKED_AT]
            shifts = after.max(axis=1).astype(np.float64) - before.max(axis=1).astype(np.float64)
            for shift in shifts.tolist():
                into.shifts.add(shift)
            pairs = zip(before.argmax(axis=1).tolist(), after.argmax(axis=1).tolist(), strict=True)
            for one, other in pairs:
                if one != other:
                    into.flip(_class(spec, one), _class(spec, other))
            return


def _class(spec: TensorSpec, index: int) -> str:
    return spec.labels[index][:64] if index < len(spec.labels) else str(index)
