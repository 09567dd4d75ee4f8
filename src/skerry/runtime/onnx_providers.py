# SPDX-License-Identifier: Apache-2.0
"""Which of onnxruntime's execution providers to try, in which order, and why not the others. Pure."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

CPU: Final = "CPUExecutionProvider"

_TENSORRT, _CUDA, _OPENVINO, _QNN, _COREML = (
    f"{name}ExecutionProvider" for name in ("Tensorrt", "CUDA", "OpenVINO", "QNN", "CoreML")
)
_ORDER: Final = (_TENSORRT, _CUDA, _OPENVINO, _QNN, _COREML)
_ALLOWED: Final = {
    # TensorRT builds its engine for minutes at the first load, and OpenVINO gains nothing for fp32 on a processor that
    # onnxruntime knows itself: neither is taken unless the variant was made for it.
    "": frozenset({_CUDA, _COREML}),
    "cpu": frozenset(),
    "cuda": frozenset({_TENSORRT, _CUDA}),
    "tensorrt": frozenset({_TENSORRT, _CUDA}),
    "gpu": frozenset({_TENSORRT, _CUDA, _OPENVINO, _COREML}),
    "openvino": frozenset({_OPENVINO}),
    "npu": frozenset({_OPENVINO, _QNN, _COREML}),
    "qnn": frozenset({_QNN}),
    "coreml": frozenset({_COREML}),
}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """`providers` to try one after another, the CPU last; `passed_over`: what the device has and is not tried, and why."""

    providers: tuple[str, ...]
    passed_over: dict[str, str]


def choose(available: Collection[str], accelerator: str = "") -> Choice:
    """`available` as onnxruntime tells, `accelerator` as the variant's `needs` say; an unknown kind allows every provider."""
    allowed = _ALLOWED.get(accelerator, frozenset(_ORDER))
    found = [provider for provider in _ORDER if provider in available]
    why = f"not for a variant that needs {accelerator}" if accelerator else "only for a variant that asks for it"
    return Choice(
        providers=(*(provider for provider in found if provider in allowed), CPU),
        passed_over={plain(provider): why for provider in found if provider not in allowed},
    )


def plain(provider: str) -> str:
    """`CUDAExecutionProvider` -> CUDA."""
    return provider.removesuffix("ExecutionProvider")
