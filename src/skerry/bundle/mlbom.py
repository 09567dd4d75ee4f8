# SPDX-License-Identifier: Apache-2.0
"""The ML-BOM of a bundle: CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/) with a modelCard, as canonical JSON.

We write the JSON ourselves: the cyclonedx library has no modelCard and drops it when it reads one. Equal inputs give equal
bytes, so there is no serial number, and a date only where the author gave one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, Literal

from msgspec import Struct

from skerry.bundle import canonical
from skerry.bundle.digest import hex_of
from skerry.bundle.manifest import BundleConfig, File, TensorSpec, Variant
from skerry.errors import ManifestError

ML_BOM_PATH: Final = "ml-bom.cdx.json"
_SPEC: Final = "1.6"

Json = dict[str, Any]


class Metric(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One measured figure, `slice` of the data it was measured on."""

    type: str
    value: float | str
    slice: str = ""


class Risk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    mitigation: str = ""


class Fairness(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    group_at_risk: str
    benefits: str = ""
    harms: str = ""
    mitigation: str = ""


class Dataset(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Data the model was made from; `classification` is the owner's word for who may see it."""

    name: str
    url: str = ""
    classification: str = ""
    sensitive: tuple[str, ...] = ()


class ModelCard(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What only a person knows about the model. Everything is optional; what is missing stays visibly missing."""

    learning: Literal[
        "", "supervised", "unsupervised", "reinforcement-learning", "semi-supervised", "self-supervised"
    ] = ""
    architecture_family: str = ""
    architecture: str = ""
    authors: tuple[str, ...] = ()
    supplier: str = ""
    created: str = ""  # RFC 3339 date and time
    datasets: tuple[Dataset, ...] = ()
    metrics: tuple[Metric, ...] = ()
    users: tuple[str, ...] = ()
    use_cases: tuple[str, ...] = ()
    limitations: tuple[str, ...] = ()
    trade_offs: tuple[str, ...] = ()
    ethical_risks: tuple[Risk, ...] = ()
    fairness: tuple[Fairness, ...] = ()


def ml_bom(config: BundleConfig, files: Sequence[File], card: ModelCard, *, skerry_version: str) -> bytes:
    """`files` are those of the bundle except the ML-BOM itself, which cannot contain its own digest."""
    by_path = {file.path: file for file in files}
    model = _model(config, card)
    parts = [_variant(variant, by_path) for variant in config.variants]
    document: Json = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": _SPEC,
        "version": 1,
        "metadata": _filled(
            timestamp=card.created,
            lifecycles=[{"phase": "build"}],
            tools={"components": [{"type": "application", "name": "skerry", "version": skerry_version}]},
            component=model,
        ),
        "components": [*parts, *(_file(file) for file in files)],
        "dependencies": [
            {"ref": model["bom-ref"], "dependsOn": [part["bom-ref"] for part in parts]},
            *(
                {"ref": _variant_ref(variant), "dependsOn": sorted({_file_ref(path) for path in variant.files})}
                for variant in config.variants
            ),
        ],
    }
    return canonical.encode(document)


def check_ml_bom(data: bytes, config: BundleConfig) -> None:
    """Raises ManifestError unless the ML-BOM speaks of this bundle: its name, its version, every other file with its digest.

    Whether it follows the CycloneDX schema is checked where that library is: `cli.evidence`.
    """
    document = canonical.decode(data, dict[str, Any], document="ML-BOM")
    try:
        component = document["metadata"]["component"]
        named = (document["bomFormat"], document["specVersion"], component["name"], component["version"])
        digests = {
            part["name"]: part["hashes"][0]["content"] for part in document["components"] if part["type"] == "file"
        }
    except (KeyError, TypeError, IndexError) as error:
        raise ManifestError(problem=f"ML-BOM lacks {error}") from error
    if named != ("CycloneDX", _SPEC, config.name, config.version):
        raise ManifestError(problem=f"ML-BOM is about {named}")
    expected = {file.path: hex_of(file.digest) for file in config.files if file.path != config.ml_bom}
    if digests != expected:
        odd = sorted(dict(digests.items() ^ expected.items()))
        raise ManifestError(problem=f"ML-BOM and bundle differ on {', '.join(odd)}")


def _model(config: BundleConfig, card: ModelCard) -> Json:
    return _filled(
        **{"type": "machine-learning-model", "bom-ref": f"model:{config.name}@{config.version}", "name": config.name},
        version=config.version,
        description=config.description,
        supplier={"name": card.supplier} if card.supplier else None,
        authors=[{"name": author} for author in card.authors],
        licenses=_licences(config.licenses),
        modelCard=_filled(
            modelParameters=_parameters(config, card),
            quantitativeAnalysis=_filled(performanceMetrics=[_metric(metric) for metric in card.metrics]),
            considerations=_considerations(card),
        ),
        properties=_properties(
            {
                "skerry:line": config.line,
                "skerry:release_seq": str(config.release_seq),
                "skerry:egress": ", ".join(config.egress.results) or "nothing",
                "skerry:unsafe": ", ".join(config.unsafe),
            }
        ),
    )


def _parameters(config: BundleConfig, card: ModelCard) -> Json:
    return _filled(
        approach={"type": card.learning} if card.learning else None,
        task=config.task,
        architectureFamily=card.architecture_family,
        modelArchitecture=card.architecture,
        datasets=[_dataset(dataset) for dataset in card.datasets],
        inputs=[{"format": _format(spec)} for spec in config.io.inputs],
        outputs=[{"format": _format(spec)} for spec in config.io.outputs],
    )


def _considerations(card: ModelCard) -> Json:
    return _filled(
        users=list(card.users),
        useCases=list(card.use_cases),
        technicalLimitations=list(card.limitations),
        performanceTradeoffs=list(card.trade_offs),
        ethicalConsiderations=[
            _filled(name=risk.name, mitigationStrategy=risk.mitigation) for risk in card.ethical_risks
        ],
        fairnessAssessments=[
            _filled(
                groupAtRisk=case.group_at_risk,
                benefits=case.benefits,
                harms=case.harms,
                mitigationStrategy=case.mitigation,
            )
            for case in card.fairness
        ],
    )


def _dataset(dataset: Dataset) -> Json:
    return _filled(
        type="dataset",
        name=dataset.name,
        contents={"url": dataset.url} if dataset.url else None,
        classification=dataset.classification,
        sensitiveData=list(dataset.sensitive),
    )


def _metric(metric: Metric) -> Json:
    value = metric.value if isinstance(metric.value, str) else f"{metric.value:g}"
    return _filled(type=metric.type, value=value, slice=metric.slice)


def _format(spec: TensorSpec) -> str:
    axes = ", ".join("any" if axis < 0 else str(axis) for axis in spec.shape)
    return f"{spec.name}: {spec.dtype}[{axes}]{' ' + spec.layout if spec.layout else ''}"


def _variant(variant: Variant, files: Mapping[str, File]) -> Json:
    model = files.get(variant.model)
    return _filled(
        **{"type": "machine-learning-model", "bom-ref": _variant_ref(variant), "name": variant.name},
        hashes=_hashes(model) if model else None,
        properties=_properties(
            {
                "skerry:runtime": variant.runtime,
                "skerry:precision": variant.precision,
                "skerry:model": variant.model,
            }
        ),
    )


def _file(file: File) -> Json:
    return {
        "type": "file",
        "bom-ref": _file_ref(file.path),
        "name": file.path,
        "hashes": _hashes(file),
        "properties": _properties({"skerry:kind": file.kind, "skerry:size": str(file.size)}),
    }


def _variant_ref(variant: Variant) -> str:
    return f"variant:{variant.name}"


def _file_ref(path: str) -> str:
    return f"file:{path}"


def _hashes(file: File) -> list[Json]:
    return [{"alg": "SHA-256", "content": hex_of(file.digest)}]


def _licences(licences: Sequence[str]) -> list[Json]:
    """One SPDX expression: a list of expressions is not a form of CycloneDX 1.6."""
    if not licences:
        return []
    terms = [f"({licence})" if " " in licence and len(licences) > 1 else licence for licence in licences]
    return [{"expression": " AND ".join(terms)}]


def _properties(values: Mapping[str, str]) -> list[Json]:
    return [{"name": name, "value": value} for name, value in values.items() if value]


def _filled(**fields: object) -> Json:
    """Without what nobody said: an empty list in a BOM claims that there is nothing."""
    return {name: value for name, value in fields.items() if value not in ("", None, [], {})}
