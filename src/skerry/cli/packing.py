# SPDX-License-Identifier: Apache-2.0
"""From a project to a bundle: record what the reference answers, hold every variant to it, write down the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from skerry import __version__
from skerry.bundle import oci
from skerry.bundle.blob import Blob, FileBlob, MemoryBlob
from skerry.bundle.digest import digest_of
from skerry.bundle.formats import require_inert
from skerry.bundle.manifest import (
    BundleConfig,
    Egress,
    Io,
    Needs,
    SelfTest,
    State,
    TensorSpec,
    Tolerance,
    Variant,
)
from skerry.bundle.mlbom import ML_BOM_PATH, ml_bom
from skerry.bundle.oci import Bundle
from skerry.cli.evidence import require_valid_bom
from skerry.cli.progress import size_text
from skerry.cli.project import ModelSpec, Project, ProjectTensor, ProjectVariant
from skerry.cli.project_file import ProjectFile
from skerry.cli.samples import make_up_inputs, read_inputs
from skerry.errors import DigestMismatch, InferenceFailed, InputMissing, ManifestError, SchemaError, SelfTestFailed
from skerry.runtime import engines
from skerry.runtime.datatypes import Array, fits
from skerry.runtime.engine import Engine, Nearby
from skerry.runtime.selftest import SelfTestOutcome, encode_samples, record, run_selftest
from skerry.runtime.sequences import stateful

SELF_TEST_PATH: Final = "self-test.npz"
_DTYPES: Final = {
    **{f"{kind}{bits}": f"{kind}{bits}".upper() for kind in ("int", "uint") for bits in (8, 16, 32, 64)},
    **{f"float{bits}": f"FP{bits}" for bits in (16, 32, 64)},
    "bool": "BOOL",
    "string": "BYTES",
    "bytes": "BYTES",
}
"""numpy's words, which people also write in a project file."""

_MUCH: Final = 4_000_000
"""Bytes of samples worth a word when they are more than the models."""


class VariantReport(Struct, frozen=True, kw_only=True):
    """How one variant did on this machine."""

    name: str
    precision: str
    size: int
    samples: int
    agreement: float
    passed: bool
    problem: str
    latency_p50_ms: float


@dataclass(frozen=True, kw_only=True)
class Packed:
    bundle: Bundle
    variants: tuple[VariantReport, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    unsafe: bool = False  # pack variants that fail their self-test, and say so in the bundle
    record_latency: bool = False  # put the measured p50 into the bundle, which then differs each time


@dataclass(kw_only=True)
class _Bench:
    """What is known so far about the project being packed."""

    file: ProjectFile
    options: PackOptions
    tested: dict[str, str] = field(default_factory=dict)  # variant -> digest of the model that was run
    weights: dict[str, dict[str, str]] = field(default_factory=dict)  # variant -> its files beside the model, digests
    warnings: list[str] = field(default_factory=list)

    @property
    def project(self) -> Project:
        return self.file.project

    @property
    def state(self) -> tuple[State, ...]:
        return tuple(_plain(pair, State) for pair in self.project.spec.io.state)

    def model_path(self, variant: ProjectVariant) -> Path:
        return self.file.folder / variant.file

    def beside(self, variant: ProjectVariant) -> Nearby:
        """Reads files the model names, and notes that they go into the bundle with it."""
        read = engines.reader(self.model_path(variant))

        def noted(location: str) -> bytes:
            data = read(location)
            self.weights.setdefault(variant.name, {})[location] = digest_of(data)
            return data

        return Nearby(read=noted)


def pack_project(file: ProjectFile, options: PackOptions | None = None) -> Packed:
    """Runs every variant. Raises ProjectFileError, InputMissing, ModelFileError, SelfTestFailed, ManifestError and the
    ArchiveRefused that reading the bundle would raise. Same files, same bundle.
    """
    bench = _Bench(file=file, options=options or PackOptions())
    io, samples, count = _record_reference(bench)
    reports = tuple(_judge(bench, variant, io, samples) for variant in bench.project.spec.variants)
    _warn_of_size(bench, len(samples), sum(report.size for report in reports))
    bundle = _assemble(bench, _config(bench, io, count, reports), samples)
    return Packed(bundle=bundle, variants=reports, warnings=tuple(bench.warnings))


# --- running -------------------------------------------------------------------------------------------------------------


def _load(bench: _Bench, variant: ProjectVariant) -> Engine:
    path = bench.model_path(variant)
    if path.is_file():
        require_inert(variant.file, FileBlob(path, 0, path.stat().st_size))
    data = engines.read_model(path)
    bench.tested[variant.name] = digest_of(data)
    engine = engines.load(variant.runtime, data, name=variant.name, path=str(path), nearby=bench.beside(variant))
    return stateful(engine, bench.state)


def _record_reference(bench: _Bench) -> tuple[Io, bytes, int]:
    """The io of the bundle, the self-test file with golden outputs, and its number of samples."""
    engine = _load(bench, bench.project.reference)
    try:
        io = _declared_io(bench.file, engine.io)
        inputs = _inputs(bench, io)
        return io, encode_samples(inputs, record(engine, inputs)), len(next(iter(inputs.values())))
    except ManifestError as error:
        raise bench.file.error(("spec", "self_test", "samples"), str(error.fields["problem"])) from error
    except InferenceFailed as error:
        problem = f"the reference cannot run the samples: {error.fields['problem']}"
        if not bench.project.spec.self_test.samples:
            problem += (
                "; they are made up, with length 1 where the model says any: give real ones in spec.self_test.samples, "
                "or lengths in spec.io.inputs"
            )
        raise bench.file.error(("spec", "self_test"), problem) from error
    finally:
        engine.close()


def _inputs(bench: _Bench, io: Io) -> dict[str, Array]:
    wanted = bench.project.spec.self_test
    if wanted.samples:
        return read_inputs(bench.file.folder / wanted.samples, io, wanted.count)
    bench.warnings.append(
        "self-test inputs are made up from the io ranges: they prove that variants agree, not that the model is "
        "right; give real ones in spec.self_test.samples"
    )
    return make_up_inputs(io, wanted.count)


def _warn_of_size(bench: _Bench, samples: int, models: int) -> None:
    if samples > max(models, _MUCH):
        bench.warnings.append(
            f"the self-test's samples take {size_text(samples)}, the models {size_text(models)}, and every device fetches "
            "both; spec.self_test.count takes fewer"
        )


def _judge(bench: _Bench, variant: ProjectVariant, io: Io, samples: bytes) -> VariantReport:
    path = bench.model_path(variant)
    engine = _load(bench, variant)
    try:
        _require_same_io(variant, engine.io, io)
        outcome = run_selftest(engine, samples, _plain(variant.tolerance, Tolerance))
    finally:
        engine.close()
    if not outcome.passed:
        if not bench.options.unsafe:
            raise SelfTestFailed(variant=variant.name, problem=outcome.problem)
        bench.warnings.append(
            f"variant {variant.name} FAILS its self-test and is packed all the same: {outcome.problem}"
        )
    budget = bench.project.spec.latency_budget_ms
    if budget is not None and outcome.latency_p50_ms > budget:
        bench.warnings.append(
            f"variant {variant.name} took {outcome.latency_p50_ms:.1f} ms here, its budget is {budget:g} ms"
        )
    return _report(variant, outcome, path.stat().st_size)


def _report(variant: ProjectVariant, outcome: SelfTestOutcome, size: int) -> VariantReport:
    return VariantReport(
        name=variant.name,
        precision=variant.precision,
        size=size,
        samples=outcome.samples,
        agreement=outcome.agreement,
        passed=outcome.passed,
        problem=outcome.problem,
        latency_p50_ms=outcome.latency_p50_ms,
    )


def _require_same_io(variant: ProjectVariant, actual: Io, declared: Io) -> None:
    for side, have, want in (
        ("inputs", actual.inputs, declared.inputs),
        ("outputs", actual.outputs, declared.outputs),
    ):
        if {(spec.name, spec.dtype) for spec in have} != {(spec.name, spec.dtype) for spec in want}:
            raise SelfTestFailed(variant=variant.name, problem=f"its {side} are {_words(have)}, not {_words(want)}")


def _words(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(f"{spec.name}:{spec.dtype}" for spec in specs) or "none"


# --- io ------------------------------------------------------------------------------------------------------------------


def _declared_io(file: ProjectFile, model: Io) -> Io:
    """The model's io with what the project file adds to it. Raises ProjectFileError where the two contradict each other."""
    io = file.project.spec.io
    return Io(
        inputs=_side(file, "inputs", model.inputs, io.inputs),
        outputs=_side(file, "outputs", model.outputs, io.outputs),
        state=model.state,
    )


def _side(
    file: ProjectFile, side: str, model: tuple[TensorSpec, ...], said: tuple[ProjectTensor, ...]
) -> tuple[TensorSpec, ...]:
    by_name = {spec.name: spec for spec in model}
    merged = dict(by_name)
    for index, tensor in enumerate(said):
        if tensor.name not in by_name:
            raise file.error(
                ("spec", "io", side, index, "name"), f"the model has {', '.join(by_name) or 'none'}, not {tensor.name}"
            )
        problem = _contradiction(tensor, by_name[tensor.name])
        if problem:
            raise file.error(("spec", "io", side, index), problem)
        merged[tensor.name] = _plain(tensor, TensorSpec, dtype=by_name[tensor.name].dtype)
    return tuple(merged.values())


def _contradiction(said: ProjectTensor, model: TensorSpec) -> str:
    dtype = _DTYPES.get(said.dtype, said.dtype)
    if dtype != model.dtype:
        return f"{said.name} is {model.dtype} in the model, not {said.dtype}"
    if not fits(said.shape, model):
        return f"{said.name} has shape {list(model.shape)} in the model, not {list(said.shape)}"
    return ""


def _plain(value: Struct, kind: type[msgspec.Struct], **changes: object) -> Any:  # noqa: ANN401 - an instance of `kind`
    """`value` as its base `kind`: the project's structs differ only in refusing unknown keys."""
    return kind(**{**msgspec.structs.asdict(value), **changes})


# --- putting it together -------------------------------------------------------------------------------------------------


def _config(bench: _Bench, io: Io, count: int, reports: tuple[VariantReport, ...]) -> BundleConfig:
    metadata, spec = bench.project.metadata, bench.project.spec
    return BundleConfig(
        schema="skerry/bundle/v1",
        name=metadata.name,
        version=metadata.version,
        line=metadata.line,
        release_seq=spec.release_seq,
        floor_seq=spec.floor_seq,
        task=spec.task,
        description=spec.description,
        labels=metadata.labels,
        io=io,
        variants=tuple(
            _variant(bench, variant, report, index)
            for index, (variant, report) in enumerate(zip(spec.variants, reports, strict=True))
        ),
        self_test=SelfTest(file=SELF_TEST_PATH, samples=count),
        files=(),
        latency_budget_ms=spec.latency_budget_ms,
        egress=_plain(spec.egress, Egress),
        licenses=spec.licenses,
        preprocess=spec.preprocess,
        ml_bom=ML_BOM_PATH,
        unsafe=tuple(f"self-test:{report.name}" for report in reports if not report.passed),
    )


def _variant(bench: _Bench, variant: ProjectVariant, report: VariantReport, index: int) -> Variant:
    path = _bundle_path(bench, variant)
    return Variant(
        name=variant.name,
        runtime=variant.runtime,
        precision=variant.precision,
        model=path,
        files=(path, *_weights(bench, variant)),
        needs=_plain(variant.needs, Needs),
        tolerance=_plain(variant.tolerance, Tolerance),
        latency_ms=round(report.latency_p50_ms, 3) if bench.options.record_latency else None,
        preference=index,
    )


def _bundle_path(bench: _Bench, variant: ProjectVariant) -> str:
    """By the variant's name: whatever the author's file is called, the path is one every file system takes.

    In a folder of its own where files lie beside it, under the names the model has for them.
    """
    suffix = engines.SUFFIXES[variant.runtime]
    if variant.name in bench.weights:
        return f"models/{variant.name}/model.{suffix}"
    return f"models/{variant.name}.{suffix}"


def _weights(bench: _Bench, variant: ProjectVariant) -> dict[str, Path]:
    """Files beside the model: path in the bundle -> where it is."""
    folder = bench.model_path(variant).parent
    return {f"models/{variant.name}/{name}": folder / name for name in bench.weights.get(variant.name, {})}


def _assemble(bench: _Bench, config: BundleConfig, samples: bytes) -> Bundle:
    spec = bench.project.spec
    files: dict[str, Blob] = {SELF_TEST_PATH: MemoryBlob(samples)}
    for variant in spec.variants:
        files[_bundle_path(bench, variant)] = _file_blob(bench.model_path(variant))
        files |= {path: _file_blob(source) for path, source in _weights(bench, variant).items()}
    for document in spec.docs:
        files[f"docs/{Path(document).name}"] = _file_blob(bench.file.folder / document)
    listed = oci.measure(config, files)
    bom = ml_bom(config, listed, spec.model_card, skerry_version=__version__)
    try:
        require_valid_bom(bom)
        bundle = oci.build(config, {**files, ML_BOM_PATH: MemoryBlob(bom)})
    except SchemaError as error:  # of all that is in the BOM, only the model card is the author's free choice
        raise bench.file.error(("spec", "model_card"), f"{error.fields['where']}: {error.fields['problem']}") from error
    except ManifestError as error:
        raise bench.file.error(*_blamed(bench.project, str(error.fields["problem"]))) from error
    _require_tested(bench, {file.path: file.digest for file in bundle.config.files})
    return bundle


def _blamed(project: Project, problem: str) -> tuple[tuple[str | int, ...], str]:
    """Where in the project file stands what a rule of the bundle found: `egress: ...`, `variant int8: ...`."""
    subject, _, text = problem.partition(": ")
    if subject in ModelSpec.__struct_fields__:
        return ("spec", subject), text
    names = [f"variant {variant.name}" for variant in project.spec.variants]
    if subject in names:
        return ("spec", "variants", names.index(subject)), text
    return ("spec",), problem


def _file_blob(path: Path) -> FileBlob:
    if not path.is_file():
        raise InputMissing(path=str(path))
    return FileBlob(path, 0, path.stat().st_size)


def _require_tested(bench: _Bench, packed: Mapping[str, str]) -> None:
    """What was run is what is packed, even if a model file changed meanwhile."""
    for variant in bench.project.spec.variants:
        expected = {_bundle_path(bench, variant): bench.tested[variant.name]}
        beside = bench.weights.get(variant.name, {})
        expected |= {f"models/{variant.name}/{name}": digest for name, digest in beside.items()}
        for path, digest in expected.items():
            if packed[path] != digest:
                raise DigestMismatch(name=path, actual=packed[path], expected=digest)
