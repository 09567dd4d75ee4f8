# SPDX-License-Identifier: Apache-2.0
"""What to ask a model that is measured: its self-test samples, or inputs made up within the ranges it declares."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from skerry.bundle.manifest import BundleConfig, Io, TensorSpec
from skerry.cli.samples import make_up_inputs
from skerry.runtime import bundle_dir
from skerry.runtime.datatypes import Array
from skerry.runtime.selftest import decode_samples

COUNT: Final = 8

Feed = dict[str, Array]
"""One sample, shaped as the model takes it."""

Inputs = list[Feed]


def of_bundle(folder: Path, config: BundleConfig, *, random: bool) -> Inputs:
    """Raises ArtefactError for a self-test that cannot be read."""
    if random:
        return made_up(config.io)
    return _each(decode_samples(bundle_dir.read_file(folder, config, config.self_test.file)).inputs, config.io)


def made_up(io: Io) -> Inputs:
    """Raises ManifestError when one sample is too large to make up."""
    return _each(make_up_inputs(io, COUNT), io)


def io_of(document: Mapping[str, Any]) -> Io:
    """From what a server says of a model (`/v2/models/NAME`)."""

    def specs(side: str) -> tuple[TensorSpec, ...]:
        return tuple(
            TensorSpec(name=each["name"], dtype=each["datatype"], shape=tuple(each["shape"])) for each in document[side]
        )

    return Io(inputs=specs("inputs"), outputs=specs("outputs"))


def _each(arrays: Mapping[str, Array], io: Io) -> Inputs:
    ranks = {spec.name: len(spec.shape) for spec in io.inputs}
    return [
        {name: array[at : at + 1] if array.ndim == ranks[name] else array[at] for name, array in arrays.items()}
        for at in range(len(next(iter(arrays.values()))))
    ]
