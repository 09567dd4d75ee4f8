# SPDX-License-Identifier: Apache-2.0
"""What this machine can run, measured without importing an engine: they are recognised by their installed distributions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from skerry.wire.v1.device import Accelerator, Capabilities

_ENGINES = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-qnn"),
    "litert": ("ai-edge-litert", "tflite-runtime"),
    "genai": ("onnxruntime-genai",),
}
_INSTRUCTIONS = frozenset(
    {
        "sse4_2",
        "avx",
        "avx2",
        "fma",
        "f16c",
        "avx512f",
        "avx512_vnni",
        "avx512_bf16",
        "avx_vnni",
        "amx_int8",
        "amx_bf16",
        "asimd",
        "asimdhp",
        "asimddp",
        "i8mm",
        "bf16",
        "sve",
        "sve2",
    }
)
_NODES = {"cuda": "dev/nvidia0", "hailo": "dev/hailo0", "edgetpu": "dev/apex_0", "npu": "dev/accel/accel0"}


def measure(*, version: str, root: Path = Path("/")) -> Capabilities:
    return Capabilities(
        arch=platform.machine(),
        cpus=len(os.sched_getaffinity(0)),
        memory_mib=_memory_mib(root),
        runtimes=_runtimes(),
        instructions=_instructions(root),
        accelerators=tuple(Accelerator(kind=kind) for kind, node in _NODES.items() if (root / node).exists()),
        agent_version=version,
        os=_os(root),
    )


def _runtimes() -> dict[str, str]:
    found: dict[str, str] = {}
    for engine, distributions in _ENGINES.items():
        for distribution in distributions:
            try:
                found[engine] = importlib.metadata.version(distribution)
            except importlib.metadata.PackageNotFoundError:
                continue
            break
    return found


def _memory_mib(root: Path) -> int:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) // 1024
    return 0


def _instructions(root: Path) -> tuple[str, ...]:
    for line in _lines(root / "proc/cpuinfo"):
        name, _, words = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return tuple(sorted(_INSTRUCTIONS & set(words.split())))
    return ()


def _os(root: Path) -> str:
    facts = dict(line.split("=", 1) for line in _lines(root / "etc/os-release") if "=" in line)
    return facts.get("PRETTY_NAME", platform.system()).strip('"')


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:  # not this kind of system: nothing measured
        return []


def boot_id(root: Path = Path("/")) -> str:
    """Changes with every start of the machine; empty where the kernel does not tell."""
    return "".join(_lines(root / "proc/sys/kernel/random/boot_id"))
