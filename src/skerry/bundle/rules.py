# SPDX-License-Identifier: Apache-2.0
"""What types cannot say about a bundle config. Every rule is a function from the config to the problems it sees."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from skerry.bundle import formats, paths
from skerry.bundle.digest import is_digest
from skerry.bundle.manifest import BundleConfig, TensorSpec, Variant
from skerry.errors import ManifestError

CONFIG_PATH: Final = "skerry.json"
"""Where the config lies among the files; no file may take this path."""

MAX_BLOB: Final = 8**11 - 1
"""Largest file, bytes: what the size field of a ustar header holds."""

MAX_RELEASE: Final = 2**53 - 1
"""Largest release number: the largest integer every JSON reader keeps exactly."""

DATATYPES: Final = frozenset(
    {
        *("BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64"),
        *("FP16", "FP32", "FP64", "BF16", "BYTES"),
    }
)

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
VERSION = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._+-]{0,62}[A-Za-z0-9])?")
_WORD = re.compile(r"[a-z0-9]([a-z0-9_.-]{0,61}[a-z0-9])?")

Problems = Iterator[str]


def validate_config(config: BundleConfig) -> None:
    """Raises ManifestError with everything that is wrong, not only the first."""
    found = problems_of(config)
    if found:
        raise ManifestError(problem="; ".join(found))


def problems_of(config: BundleConfig) -> tuple[str, ...]:
    return tuple(problem for rule in _RULES for problem in rule(config))


def name_problem(name: str) -> str | None:
    """Names of bundles, lines and variants go into URLs, file names and metrics."""
    if NAME.fullmatch(name):
        return None
    return f"{name!r} is not a name: lower-case letters, digits and inner hyphens, at most 63"


def version_problem(version: str) -> str | None:
    if VERSION.fullmatch(version) and ".." not in version:
        return None
    return f"{version!r} is not a version: letters, digits and inner ._+- without two dots in a row, at most 64"


def _names(config: BundleConfig) -> Problems:
    for what, name in (("name", config.name), ("line", config.line)):
        problem = name_problem(name)
        if problem:
            yield f"{what}: {problem}"
    problem = version_problem(config.version)
    if problem:
        yield f"version: {problem}"


def _sequence(config: BundleConfig) -> Problems:
    if not 1 <= config.release_seq <= MAX_RELEASE:
        yield f"release_seq: {config.release_seq} is not in 1..{MAX_RELEASE}"
    if not 0 <= config.floor_seq <= config.release_seq:
        yield f"floor_seq: {config.floor_seq} is not in 0..release_seq: no device could install this bundle again"


def _files(config: BundleConfig) -> Problems:
    for file in config.files:
        flaw = paths.flaw_of(file.path)
        if flaw:
            yield f"file {file.path!a}: {flaw.problem}"
        kind = formats.kind_by_name(file.path)
        if kind:
            yield f"file {file.path}: a format that can run code ({kind})"
        if file.path.lower() == CONFIG_PATH:
            yield f"file {file.path}: the path is reserved"
        if not is_digest(file.digest):
            yield f"file {file.path}: {file.digest!r} is not a digest"
        if not 0 <= file.size <= MAX_BLOB:
            yield f"file {file.path}: {file.size} bytes"
    yield from _repeated("file", (file.path for file in config.files))


def _variants(config: BundleConfig) -> Problems:
    if not config.variants:
        yield "variants: there is none"
    yield from _repeated("variant", (variant.name for variant in config.variants))
    sizes = {file.path: file.size for file in config.files}
    for variant in config.variants:
        yield from (f"variant {variant.name}: {problem}" for problem in _variant(variant, sizes))


def _variant(variant: Variant, sizes: dict[str, int]) -> Problems:
    problem = name_problem(variant.name)
    if problem:
        yield problem
    for what, word in (("runtime", variant.runtime), ("precision", variant.precision)):
        if not _WORD.fullmatch(word):
            yield f"{what} {word!r} is not a word"
    if variant.model not in variant.files:
        yield f"its model {variant.model} is not among its files"
    missing = [path for path in variant.files if path not in sizes]
    if missing:
        yield f"{', '.join(missing)} not among the bundle's files"
    elif variant.size != sum(sizes[path] for path in set(variant.files)):
        yield f"size {variant.size} is not the sum of its files"
    yield from _repeated("file", variant.files)
    yield from _numbers(variant)


def _numbers(variant: Variant) -> Problems:
    tolerance = variant.tolerance
    if not (math.isfinite(tolerance.atol) and tolerance.atol >= 0 and tolerance.rtol >= 0):
        yield "tolerance: atol and rtol are finite and not negative"
    if not math.isfinite(tolerance.rtol):
        yield "tolerance: rtol is not finite"
    if not 0 < tolerance.agreement <= 1:
        yield f"tolerance: agreement {tolerance.agreement:g} is not in (0, 1]"
    if variant.needs.memory_mib < 0:
        yield "needs: memory_mib is negative"


def _self_test(config: BundleConfig) -> Problems:
    if all(file.path != config.self_test.file for file in config.files):
        yield f"self_test: {config.self_test.file} is not among the bundle's files"
    if config.self_test.samples < 1:
        yield "self_test: there are no samples"


def _io(config: BundleConfig) -> Problems:
    if not config.io.outputs:
        yield "io: there are no outputs"
    for side, specs in (("input", config.io.inputs), ("output", config.io.outputs)):
        yield from _repeated(side, (spec.name for spec in specs))
        for spec in specs:
            yield from (f"{side} {spec.name}: {problem}" for problem in _tensor(spec))
    for side, seen, hidden in (
        ("input", config.io.inputs, [pair.input for pair in config.io.state]),
        ("output", config.io.outputs, [pair.output for pair in config.io.state]),
    ):
        names = [*(spec.name for spec in seen), *hidden]
        yield from (f"io: state: {problem}" for problem in _repeated(side, names) if hidden)


def _tensor(spec: TensorSpec) -> Problems:
    if not spec.name:
        yield "a tensor needs a name"
    if spec.dtype not in DATATYPES:
        yield f"{spec.dtype!r} is not a datatype of the Open Inference Protocol"
    if any(axis < -1 for axis in spec.shape):
        yield f"shape {list(spec.shape)}: an axis is -1 or a length"
    if spec.range is not None and not spec.range[0] <= spec.range[1]:
        yield f"range {list(spec.range)} is empty"


def _egress(config: BundleConfig) -> Problems:
    outputs = {spec.name for spec in config.io.outputs}
    for name in config.egress.results:
        if name not in outputs:
            yield f"egress: {name} is not an output"
    if config.egress.max_values < 1:
        yield "egress: max_values is less than 1"
    yield from _repeated("egress result", config.egress.results)


def _budget(config: BundleConfig) -> Problems:
    budget = config.latency_budget_ms
    if budget is not None and not (math.isfinite(budget) and budget > 0):
        yield f"latency_budget_ms: {budget} is not a positive number"


def _ml_bom(config: BundleConfig) -> Problems:
    if config.ml_bom and all(file.path != config.ml_bom for file in config.files):
        yield f"ml_bom: {config.ml_bom} is not among the bundle's files"


def _repeated(what: str, names: Iterable[str]) -> Problems:
    for name, count in Counter(names).items():
        if count > 1:
            yield f"{what} {name} appears {count} times"


_RULES: Final[tuple[Callable[[BundleConfig], Problems], ...]] = (
    _names,
    _sequence,
    _files,
    _variants,
    _self_test,
    _io,
    _egress,
    _budget,
    _ml_bom,
)
