# SPDX-License-Identifier: Apache-2.0
"""`skerry.json`: the config blob of a bundle, our authoritative manifest inside the OCI image manifest.

- versioned by `schema`; fields are only added, with defaults;
- `files` names every file of the bundle with digest and size; nothing else may be in it;
- paths are relative, `/`-separated, without `.` or `..`.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

Kind = Literal["weight", "weight.config", "doc", "code", "dataset", "self-test", "ml-bom", "evidence"]
"""What a file is for. No file may be in a format that can run code, whatever its kind."""


class TensorSpec(Struct, frozen=True, kw_only=True):
    """One input or output. `dtype` in Open Inference Protocol words (FP32, INT64, UINT8, BOOL, BYTES ...); -1 = any length."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    layout: str = ""
    range: tuple[float, float] | None = None
    labels: tuple[str, ...] = ()


class State(Struct, frozen=True, kw_only=True):
    """What the model's `output` gave in one request of a sequence goes into its `input` in the next; zeros at the start."""

    input: str
    output: str


class Io(Struct, frozen=True, kw_only=True):
    """What clients see. The tensors of `state` are the model's too, but not among them."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    state: tuple[State, ...] = ()


class Needs(Struct, frozen=True, kw_only=True):
    """What a device must have to run a variant; empty = anything."""

    arch: tuple[str, ...] = ()
    accelerator: str = ""
    memory_mib: int = 0
    instructions: tuple[str, ...] = ()


class Tolerance(Struct, frozen=True, kw_only=True):
    """How close a variant must come to the golden outputs of the fp32 reference, per output value or per answer.

    Passed when, for each output, at least `agreement` of the samples are within |a - b| <= atol + rtol * |b| everywhere
    (integer outputs: equal). With `top1`, float outputs are judged by the position of their largest value instead.
    """

    atol: float = 1e-4
    rtol: float = 1e-3
    agreement: float = 1.0
    top1: bool = False


class SelfTest(Struct, frozen=True, kw_only=True):
    """Golden samples: an npz archive without pickles, arrays `in.<input>` and `out.<output>`, first axis = sample."""

    file: str
    samples: int


class Variant(Struct, frozen=True, kw_only=True):
    name: str
    runtime: str  # onnxruntime, litert
    precision: str  # fp32, fp16, int8 ...
    model: str  # path of the file the engine opens
    files: tuple[str, ...]  # all paths it needs, `model` included
    needs: Needs = Needs()
    tolerance: Tolerance = Tolerance()
    size: int = 0  # bytes of `files`
    latency_ms: float | None = None  # p50 measured when it was packed
    preference: int = 0  # higher wins among the variants that fit; pack gives the later listed the higher one


class Egress(Struct, frozen=True, kw_only=True):
    """What may leave the device. Default: nothing."""

    results: tuple[str, ...] = ()  # names of outputs reported per answered request
    max_values: int = 16  # an output with more values than this is never reported


class File(Struct, frozen=True, kw_only=True):
    path: str
    digest: str
    size: int
    kind: Kind


class BundleConfig(Struct, frozen=True, kw_only=True):
    schema: Literal["skerry/bundle/v1"]
    name: str
    version: str
    line: str
    release_seq: int
    floor_seq: int = 0  # devices that commit this never accept a lower release_seq again
    task: str = ""
    description: str = ""
    labels: dict[str, str] = {}
    io: Io
    variants: tuple[Variant, ...]
    self_test: SelfTest
    files: tuple[File, ...]
    latency_budget_ms: float | None = None
    egress: Egress = Egress()
    licenses: tuple[str, ...] = ()
    preprocess: tuple[dict[str, Any], ...] = ()
    ml_bom: str = ""  # path of the CycloneDX document
    unsafe: tuple[str, ...] = ()  # checks that were skipped when packing; devices may refuse by policy
