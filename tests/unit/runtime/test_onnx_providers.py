# SPDX-License-Identifier: Apache-2.0
import pytest

from skerry.runtime.onnx_providers import choose

ALL = ("Tensorrt", "CUDA", "OpenVINO", "QNN", "CoreML", "Azure", "CPU")


@pytest.mark.parametrize(
    ("available", "accelerator", "tried"),
    [
        ("CPU", "", "CPU"),
        ("Azure CPU", "", "CPU"),
        ("CPU", "cuda", "CPU"),
        ("Tensorrt CUDA CPU", "", "CUDA CPU"),
        ("CUDA Tensorrt CPU", "cuda", "Tensorrt CUDA CPU"),
        ("OpenVINO CPU", "", "CPU"),
        ("OpenVINO CPU", "openvino", "OpenVINO CPU"),
        ("OpenVINO QNN CPU", "npu", "OpenVINO QNN CPU"),
        ("QNN CPU", "qnn", "QNN CPU"),
        ("CoreML CPU", "", "CoreML CPU"),
        ("Tensorrt CUDA OpenVINO QNN CoreML CPU", "cpu", "CPU"),
        ("Tensorrt CUDA OpenVINO QNN CoreML CPU", "gpu", "Tensorrt CUDA OpenVINO CoreML CPU"),
        ("CUDA QNN CPU", "somebody-elses", "CUDA QNN CPU"),
    ],
)
def test_what_is_tried_in_which_order(available, accelerator, tried):
    choice = choose([f"{name}ExecutionProvider" for name in available.split()], accelerator)
    assert choice.providers == tuple(f"{name}ExecutionProvider" for name in tried.split())


def test_what_is_there_and_not_tried_has_a_reason():
    choice = choose([f"{name}ExecutionProvider" for name in ALL])
    assert choice.passed_over == dict.fromkeys(("Tensorrt", "OpenVINO", "QNN"), "only for a variant that asks for it")
    choice = choose([f"{name}ExecutionProvider" for name in ALL], "cuda")
    assert choice.passed_over["QNN"] == "not for a variant that needs cuda"
