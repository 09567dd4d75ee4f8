# SPDX-License-Identifier: Apache-2.0
"""A model in this very process: `skerry.Model(path).infer({...})`, with nothing between caller and engine but checks."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import numpy as np

from skerry import __version__
from skerry.bundle.archive import SUFFIX, open_archive
from skerry.bundle.manifest import BundleConfig, Io, TensorSpec
from skerry.bundle.oci import Bundle
from skerry.bundle.rules import CONFIG_PATH
from skerry.bundle.select import NoneFits, choose_variant
from skerry.errors import InferenceFailed, InferenceRequestInvalid, ManifestError, NoVariantFits, SelfTestFailed
from skerry.runtime import bundle_dir, engines, machine, memory, variant
from skerry.runtime.datatypes import NUMPY, Array, fits
from skerry.runtime.engine import Engine
from skerry.runtime.selftest import SelfTestOutcome
from skerry.runtime.variant import LoadedVariant

_MAX_SHAPES: Final = 64
_Run = Callable[[Mapping[str, Array]], dict[str, Array]]


class Model:
    """A bundle (an unpacked folder or a `.skb`) or a bare model file, loaded to be run here.

    - Of a bundle every byte used is checked against its digest, and the variant is the one this machine would choose as a
      device; `variant` names another.
    - Threads may share a model. `infer` takes arrays of exactly the declared datatypes and gives arrays that are the caller's.
    - What it leaves out is what a runner is for: signatures, limits, deadlines, metrics, a process of its own.
    """

    def __init__(self, path: str | Path, variant: str = "", *, self_test: bool = False) -> None:
        """Raises InputMissing, ArtefactError for what is wrong with the file, NoVariantFits, MissingExtra, SelfTestFailed."""
        self._loaded: LoadedVariant | None = None
        source = Path(path)
        if source.is_dir():
            self._take(_load(source, variant))
        elif source.suffix == SUFFIX:
            self._take(_load_archive(source, variant))
        else:
            self._open(source, variant)
        self._slots = [(spec.name, spec, NUMPY[spec.dtype]) for spec in self.io.inputs]
        self._known: set[tuple[tuple[int, ...], ...]] = set()  # shapes that were checked; never with BYTES among them
        self._run: _Run = self._engine.run
        if self_test:
            self.self_test()

    @property
    def engine(self) -> str:
        """Name and version of the engine."""
        return self._engine.description

    def infer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Every output by name. Raises InferenceRequestInvalid for what the model does not take, InferenceFailed."""
        try:
            arrays = [inputs[name] for name, _, _ in self._slots]
            fit = tuple([array.shape for array in arrays]) in self._known and len(inputs) == len(arrays)
            for array, (_, _, dtype) in zip(arrays, self._slots, strict=True):
                fit = fit and array.dtype == dtype
        except (KeyError, AttributeError, TypeError):
            fit = False
        if not fit:
            self._check(inputs)
        return self._run(inputs)

    def self_test(self) -> SelfTestOutcome:
        """Run the bundle's golden samples here. Raises SelfTestFailed; ManifestError for a file without a bundle."""
        if self._loaded is None:
            raise ManifestError(problem="a bare model file has no self-test")
        outcome = variant.self_test(self._loaded)
        if not outcome.passed:
            raise SelfTestFailed(variant=self.variant, problem=outcome.problem)
        return outcome

    def close(self) -> None:
        """Give the memory back. `infer` raises InferenceFailed afterwards."""
        self._run = self._refuse
        self._engine.close()
        memory.give_back()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # --- opening

    def _take(self, loaded: LoadedVariant) -> None:
        self._loaded = loaded
        self._engine: Engine = loaded.engine
        self.name = loaded.config.name
        self.version = loaded.config.version
        self.variant = loaded.variant.name
        self.io: Io = loaded.io

    def _open(self, path: Path, name: str) -> None:
        if name:
            raise ManifestError(problem=f"{path} is a bare model file: it has no variant {name}")
        data = engines.read_model(path)
        self._engine = engines.load(engines.runtime_of(data), data, name=path.stem, path=str(path))
        self.name, self.version, self.variant = path.stem, "", ""
        self.io = self._engine.io

    # --- inputs

    def _check(self, inputs: Mapping[str, Any]) -> None:
        for name, spec, dtype in self._slots:
            if name not in inputs:
                raise InferenceRequestInvalid(problem=f"input {name} is missing")
            _require(name, inputs[name], spec, dtype)
        for name in inputs.keys() - {name for name, _, _ in self._slots}:
            raise InferenceRequestInvalid(problem=f"the model has no input {name}")
        if len(self._known) < _MAX_SHAPES and all(spec.dtype != "BYTES" for _, spec, _ in self._slots):
            self._known.add(tuple([inputs[name].shape for name, _, _ in self._slots]))

    def _refuse(self, _: Mapping[str, Array]) -> dict[str, Array]:
        raise InferenceFailed(name=self.name, problem="the model is closed")


def _require(name: str, value: object, spec: TensorSpec, dtype: np.dtype[Any]) -> None:
    if not isinstance(value, np.ndarray):
        raise InferenceRequestInvalid(problem=f"input {name}: a {type(value).__name__} is no numpy array")
    if value.dtype != dtype:
        raise InferenceRequestInvalid(problem=f"input {name}: an array of {value.dtype}, the model takes {dtype}")
    if not fits(value.shape, spec):
        raise InferenceRequestInvalid(
            problem=f"input {name}: shape is {list(value.shape)}, the model takes {list(spec.shape)}"
        )
    if spec.dtype == "BYTES" and not all(isinstance(element, bytes) for element in value.flat):
        raise InferenceRequestInvalid(problem=f"input {name}: the elements of BYTES are bytes")


def _load(folder: Path, name: str) -> LoadedVariant:
    return variant.load(folder, name or chosen_here(bundle_dir.read_config(folder)))


def _load_archive(path: Path, name: str) -> LoadedVariant:
    """Through a folder with the files of the one variant: the loader hashes what it reads there."""
    bundle = open_archive(path)
    name = name or chosen_here(bundle.config)
    wanted = bundle_dir.find_variant(bundle.config, name)
    with tempfile.TemporaryDirectory(prefix="skerry-") as folder:
        for file in {CONFIG_PATH, bundle.config.self_test.file, *wanted.files}:
            _lay_out(bundle, file, Path(folder))
        return variant.load(Path(folder), name, config_digest=bundle.manifest.config.digest)


def _lay_out(bundle: Bundle, file: str, folder: Path) -> None:
    """The reader of the archive has checked that no path leaves the folder."""
    blob = bundle.blobs[bundle.manifest.config.digest] if file == CONFIG_PATH else bundle.file(file)
    target = folder / file
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as out:
        out.writelines(blob.chunks())


def chosen_here(config: BundleConfig) -> str:
    """Name of the variant this machine would run as a device. Raises NoVariantFits."""
    here = machine.measure(version=__version__)
    chosen = choose_variant(
        config,
        arch=here.arch,
        memory_mib=here.memory_mib,
        runtimes=here.runtimes,
        instructions=here.instructions,
        accelerators=tuple(accelerator.kind for accelerator in here.accelerators),
    )
    if isinstance(chosen, NoneFits):
        raise NoVariantFits(bundle=config.name, problem=chosen.problem)
    return chosen.variant.name
