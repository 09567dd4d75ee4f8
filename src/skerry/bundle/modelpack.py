# SPDX-License-Identifier: Apache-2.0
"""The OCI config ModelPack prescribes, for registries and tools that know nothing of Skerry.

https://github.com/modelpack/model-spec/blob/main/docs/config.md (media type application/vnd.cncf.model.config.v1+json). Derived
from `skerry.json` alone; no date, since equal inputs give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from msgspec import Struct

from skerry.bundle import canonical
from skerry.bundle.manifest import BundleConfig
from skerry.errors import ManifestError

_PRECISION: Final = {"fp64": "float64", "fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
_FORMAT: Final = {"onnxruntime": "onnx", "litert": "tflite"}


class _ModelFs(Struct, frozen=True, kw_only=True, rename="camel"):
    type: str
    diff_ids: tuple[str, ...]


class _ModelConfig(Struct, frozen=True, kw_only=True):
    descriptor: dict[str, Any]
    config: dict[str, Any]
    modelfs: _ModelFs


def model_config_of(config: BundleConfig, config_digest: str) -> bytes:
    """Canonical JSON. `config_digest` is that of `skerry.json`, the first layer."""
    descriptor: dict[str, object] = {"name": config.name, "version": config.version}
    if config.description:
        descriptor["description"] = config.description
    if config.licenses:
        descriptor["licenses"] = list(config.licenses)
    precisions = dict.fromkeys(_PRECISION.get(variant.precision, variant.precision) for variant in config.variants)
    formats = dict.fromkeys(_FORMAT.get(variant.runtime, variant.runtime) for variant in config.variants)
    return canonical.encode(
        {
            "descriptor": descriptor,
            "config": {"format": ",".join(formats), "precision": ",".join(precisions)},
            "modelfs": {"type": "layers", "diffIds": [config_digest, *(file.digest for file in config.files)]},
        }
    )


def check_model_config(data: bytes, layers: Sequence[str]) -> None:
    """Raises ManifestError unless `data` is such a config for `layers`, the digests in the manifest's order."""
    document = canonical.decode(data, _ModelConfig, document="ModelPack config")
    if list(document.modelfs.diff_ids) != list(layers):
        raise ManifestError(problem="ModelPack config does not list the layers of the manifest")
