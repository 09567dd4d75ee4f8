# SPDX-License-Identifier: Apache-2.0
"""Reads `skerry.yaml`: every mistake with its line, its path and, where one can guess, what was meant."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final

import msgspec
from msgspec import inspect

from skerry.bundle.rules import MAX_RELEASE, name_problem, version_problem
from skerry.cli import strict_yaml
from skerry.cli.project import Project
from skerry.cli.strict_yaml import Document, YamlFlaw, dotted
from skerry.errors import ConfigError, ProjectFileError

PROJECT_FILE: Final = "skerry.yaml"

_WHERE = re.compile(r"^(?P<problem>.*?)(?: - at `(?P<path>\$.*?)`)?$", re.DOTALL)
_UNKNOWN = re.compile(r"Object contains unknown field `(?P<key>.*)`", re.DOTALL)
_MISSING = re.compile(r"Object missing required field `(?P<key>.*)`")
_STEP = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[(\.\.\.)\]")

Steps = strict_yaml.Path
Flaw = tuple[Steps, str]


@dataclass(frozen=True, kw_only=True)
class ProjectFile:
    """A project and where it was read from, so that what is found wrong later still has its line."""

    project: Project
    path: Path
    document: Document

    @property
    def folder(self) -> Path:
        return self.path.parent

    def error(self, steps: Steps, problem: str) -> ProjectFileError:
        return _error(self.document, str(self.path), steps, problem)


def load(path: Path) -> ProjectFile:
    """The project file at `path`, or `skerry.yaml` in that folder. Raises ConfigError, ProjectFileError."""
    file = path / PROJECT_FILE if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        problem = "there is no such project file; `skerry init MODEL.onnx` writes one"
        raise ConfigError(where=str(file), problem=problem) from error
    except OSError as error:
        raise ProjectFileError(path=str(file), line=1, problem=error.strerror or str(error)) from error
    except UnicodeDecodeError as error:
        raise ProjectFileError(path=str(file), line=1, problem="not UTF-8 text") from error
    return parse(text, file)


def parse(text: str, path: Path) -> ProjectFile:
    """Raises ProjectFileError, for the first mistake in the order of the checks."""
    try:
        document = strict_yaml.parse(text)
    except YamlFlaw as flaw:
        raise ProjectFileError(path=str(path), line=flaw.line, problem=flaw.problem) from flaw
    read = ProjectFile(project=_convert(document, str(path)), path=path, document=document)
    for steps, problem in _flaws(read.project):
        raise read.error(steps, problem)
    return read


def _convert(document: Document, path: str) -> Project:
    try:
        return msgspec.convert(document.value, Project, strict=True)
    except msgspec.ValidationError as error:
        found = _WHERE.match(str(error))
        assert found is not None  # noqa: S101 - the pattern matches every text
        steps, problem = _explain(_steps(found["path"] or "$"), found["problem"])
        raise _error(document, path, steps, problem) from error


def _error(document: Document, path: str, steps: Steps, problem: str) -> ProjectFileError:
    where = dotted(steps)
    return ProjectFileError(path=path, line=document.line(steps), problem=f"{where}: {problem}" if where else problem)


def _steps(path: str) -> Steps:
    """From msgspec's `$.spec.variants[0]` -> ("spec", "variants", 0); it does not say which value of a free mapping it means."""
    return tuple(int(index) if index else key for key, index, any_key in _STEP.findall(path[1:]) if not any_key)


def _explain(steps: Steps, problem: str) -> Flaw:
    unknown = _UNKNOWN.fullmatch(problem)
    if unknown:
        key = unknown["key"]
        near = get_close_matches(key, known_keys(steps), n=1)
        return (*steps, key), "unknown key" + (f"; did you mean {near[0]}?" if near else "")
    missing = _MISSING.fullmatch(problem)
    if missing:
        return steps, f"{missing['key']} is missing"
    plain = problem.replace("`", "")
    quoted = plain.startswith("Expected str, got") and plain.endswith(("int", "float", "bool"))
    return steps, plain[:1].lower() + plain[1:] + (" (put it in quotes)" if quoted else "")


def known_keys(steps: Steps) -> list[str]:
    """The keys a mapping at `steps` may have."""
    kind: inspect.Type = inspect.type_info(Project)
    for step in steps:
        kind = _below(kind, step)
    return [field.encode_name for field in kind.fields] if isinstance(kind, inspect.StructType) else []


def _below(kind: inspect.Type, step: str | int) -> inspect.Type:
    if isinstance(kind, inspect.StructType):
        return next((field.type for field in kind.fields if field.encode_name == step), inspect.AnyType())
    if isinstance(kind, inspect.VarTupleType):
        return kind.item_type
    return inspect.AnyType()


# --- what types cannot say -----------------------------------------------------------------------------------------------


def _flaws(project: Project) -> Iterator[Flaw]:
    yield from _metadata_flaws(project)
    yield from _number_flaws(project)
    yield from _variant_flaws(project)
    for side, tensors in (("inputs", project.spec.io.inputs), ("outputs", project.spec.io.outputs)):
        yield from _repeated(("spec", "io", side), [tensor.name for tensor in tensors])


def _metadata_flaws(project: Project) -> Iterator[Flaw]:
    for key, problem in (
        ("name", name_problem(project.metadata.name)),
        ("line", name_problem(project.metadata.line)),
        ("version", version_problem(project.metadata.version)),
    ):
        if problem:
            yield ("metadata", key), problem


def _number_flaws(project: Project) -> Iterator[Flaw]:
    spec = project.spec
    if not 1 <= spec.release_seq <= MAX_RELEASE:
        yield ("spec", "release_seq"), f"{spec.release_seq} is not in 1..{MAX_RELEASE}"
    if not 0 <= spec.floor_seq <= spec.release_seq:
        yield ("spec", "floor_seq"), f"{spec.floor_seq} is not in 0..release_seq"
    if spec.latency_budget_ms is not None and not spec.latency_budget_ms > 0:
        yield ("spec", "latency_budget_ms"), "must be more than 0"
    if spec.self_test.count is not None and spec.self_test.count < 1:
        yield ("spec", "self_test", "count"), "must be at least 1"


def _variant_flaws(project: Project) -> Iterator[Flaw]:
    variants = project.spec.variants
    where: Steps = ("spec", "variants")
    if not variants:
        yield where, "there must be at least one"
    yield from _repeated(where, [variant.name for variant in variants])
    for index, variant in enumerate(variants):
        problem = name_problem(variant.name)
        if problem:
            yield (*where, index, "name"), problem
        if not all(math.isfinite(bound) and bound >= 0 for bound in (variant.tolerance.atol, variant.tolerance.rtol)):
            yield (*where, index, "tolerance"), "atol and rtol are finite and not negative"
        if not 0 < variant.tolerance.agreement <= 1:
            yield (*where, index, "tolerance", "agreement"), "is a share: more than 0, at most 1"
    names = [variant.name for variant in variants]
    if project.spec.reference and project.spec.reference not in names:
        yield ("spec", "reference"), f"there is no variant {project.spec.reference}"


def _repeated(where: Steps, names: list[str]) -> Iterator[Flaw]:
    for index, name in enumerate(names):
        if name in names[:index]:
            yield (*where, index, "name"), f"{name} is the name of another one already"
