# SPDX-License-Identifier: Apache-2.0
"""From an unpacked bundle to a variant ready to serve: verify, load, warm up, measure, self-test."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from time import perf_counter

from skerry.bundle.manifest import BundleConfig, Io, TensorSpec, Variant
from skerry.errors import ManifestError
from skerry.runtime import bundle_dir, engines, memory, selftest
from skerry.runtime.costs import BATCH, Costs, measure
from skerry.runtime.engine import CPU_ONLY, Engine, Nearby
from skerry.runtime.selftest import Samples, SelfTestOutcome
from skerry.runtime.sequences import stateful

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LoadedVariant:
    """`costs` were measured on golden samples; `samples_file` the verified golden file itself."""

    config: BundleConfig
    variant: Variant
    engine: Engine
    io: Io
    costs: Costs
    load_ms: float
    samples: Samples
    samples_file: bytes


def load(folder: Path, variant_name: str, *, config_digest: str = "", cache: Path | None = None) -> LoadedVariant:
    """`cache` is a folder for what the engine derives from this bundle's models.

    Raises ArtefactError or InputMissing for what is wrong with the bundle, InferenceFailed when the warm-up fails.
    """
    begun = perf_counter()
    config = bundle_dir.read_config(folder, config_digest)
    variant = bundle_dir.find_variant(config, variant_name)
    samples_file = bundle_dir.read_file(folder, config, config.self_test.file)
    samples = selftest.decode_samples(samples_file)
    engine = _open(folder, config, variant, cache, samples_file)
    _same_tensors(engine.io, config.io)
    costs = measure(engine, [selftest.feed(samples, at, engine) for at in range(min(samples.count, BATCH))])
    memory.give_back()
    return LoadedVariant(
        config=config,
        variant=variant,
        engine=engine,
        io=_labelled(engine.io, config.io),
        costs=costs,
        load_ms=(perf_counter() - begun) * 1000,
        samples=samples,
        samples_file=samples_file,
    )


def _open(folder: Path, config: BundleConfig, variant: Variant, cache: Path | None, samples_file: bytes) -> Engine:
    """An accelerator that does not answer as the golden samples say is not used, and the engine's description says so."""
    model = bundle_dir.read_file(folder, config, variant.model)
    nearby = Nearby(read=_reader(folder, config, variant), cache=cache, accelerator=variant.needs.accelerator)
    engine = _engine(variant, model, config, nearby)
    if engine.on_cpu:
        return engine
    outcome = selftest.run_selftest(engine, samples_file, variant.tolerance)
    if outcome.passed:
        return engine
    _log.warning("not used: %s: %s", engine.description, outcome.problem)
    engine.close()
    plain = replace(nearby, accelerator=CPU_ONLY)
    return _engine(variant, model, config, plain)


def _engine(variant: Variant, model: bytes, config: BundleConfig, nearby: Nearby) -> Engine:
    engine = engines.load(variant.runtime, model, name=config.name, path=variant.model, nearby=nearby)
    return stateful(engine, config.io.state)


def _reader(folder: Path, config: BundleConfig, variant: Variant) -> Callable[[str], bytes]:
    """Reads files of `variant` by their paths relative to its model's folder: no other file of the bundle, none outside."""

    def read(location: str) -> bytes:
        path = str(PurePosixPath(variant.model).parent / location)
        if path not in variant.files:
            raise ManifestError(problem=f"variant {variant.name} uses {path}, which is not among its files")
        return bundle_dir.read_file(folder, config, path)

    return read


def _same_tensors(actual: Io, declared: Io) -> None:
    """The model must have the tensors the bundle declares, or clients would be promised something else."""
    for kind, have, want in (("inputs", actual.inputs, declared.inputs), ("outputs", actual.outputs, declared.outputs)):
        if [(spec.name, spec.dtype) for spec in have] != [(spec.name, spec.dtype) for spec in want]:
            raise ManifestError(problem=f"the model's {kind} are not those the bundle declares")


def _labelled(actual: Io, declared: Io) -> Io:
    """Shapes as the engine has them, everything else as the bundle says."""

    def merge(have: TensorSpec, want: TensorSpec) -> TensorSpec:
        return TensorSpec(
            name=have.name,
            dtype=have.dtype,
            shape=have.shape,
            layout=want.layout,
            range=want.range,
            labels=want.labels,
        )

    return Io(
        inputs=tuple(map(merge, actual.inputs, declared.inputs)),
        outputs=tuple(map(merge, actual.outputs, declared.outputs)),
        state=actual.state,
    )


def self_test(loaded: LoadedVariant) -> SelfTestOutcome:
    outcome = selftest.run_selftest(loaded.engine, loaded.samples_file, loaded.variant.tolerance)
    memory.give_back()
    return outcome
