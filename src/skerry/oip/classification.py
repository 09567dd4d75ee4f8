# SPDX-License-Identifier: Apache-2.0
"""The classification extension (Triton's protocol/extension_classification.md): the largest values of an output, with labels. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from skerry.oip.messages import ModelSignature, Selection
from skerry.runtime.datatypes import Array


def presented(outputs: Mapping[str, Array], selection: Selection, model: ModelSignature) -> Mapping[str, Array]:
    """`outputs` with those asked for as classes replaced by BYTES; the very same object when there are none."""
    if not selection.classes:
        return outputs
    replaced = dict(outputs)
    for wanted in selection.outputs:
        if wanted.classes:
            replaced[wanted.name] = classes(outputs[wanted.name], wanted.classes, model.outputs[wanted.name].labels)
    return replaced


def classes(array: Array, count: int, labels: Sequence[str]) -> Array:
    """For each row (first axis; an array of one axis is one row) its `count` largest values, the largest first.

    Elements are `value:index`, with `:label` where the index has one; equal values in the order of their indices. Shape
    [rows, count], without the first axis for one axis; fewer columns when a row has fewer values.
    """
    several = array.ndim > 1
    rows = array.reshape((array.shape[0], math.prod(array.shape[1:])) if several else (1, array.size))  # of values
    count = min(count, rows.shape[1])
    best = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]
    answer = np.empty(best.shape, dtype=object)
    for row, columns in enumerate(best.tolist()):
        for at, index in enumerate(columns):
            label = f":{labels[index]}" if index < len(labels) else ""
            answer[row, at] = f"{rows[row, index]:f}:{index}{label}".encode()
    return answer if several else answer[0]
