# SPDX-License-Identifier: Apache-2.0
"""Static int8 quantisation (QDQ) through onnxruntime's quantiser. Build machines only: no runner imports this.

The optimisation search of later releases builds on it; here it is one function with settings that suit small dense nets.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)

Sample = Mapping[str, NDArray[np.generic]]


class _Samples(CalibrationDataReader):  # type: ignore[misc] # the library has no types
    def __init__(self, samples: Iterable[Sample]) -> None:
        self._rest: Iterator[Sample] = iter(samples)

    def get_next(self) -> dict[str, NDArray[np.generic]] | None:
        sample = next(self._rest, None)
        return None if sample is None else dict(sample)


class _NoAdvice(logging.Filter):
    """The quantiser advises on the root logger to pre-process; for the small dense nets this serves there is nothing to fold."""

    def filter(self, record: logging.LogRecord) -> bool:
        return "pre-processing before quantization" not in record.getMessage()


def quantize_int8(source: Path, target: Path, samples: Iterable[Sample]) -> None:
    """Write `target`: weights int8 per channel, activations uint8, ranges (MinMax) from `samples`: one dict of arrays per sample."""
    quiet = _NoAdvice()
    logging.getLogger().addFilter(quiet)
    try:
        quantize_static(
            str(source),
            str(target),
            _Samples(samples),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul"],
        )
    finally:
        logging.getLogger().removeFilter(quiet)
