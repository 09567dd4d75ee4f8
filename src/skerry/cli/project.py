# SPDX-License-Identifier: Apache-2.0
"""What `skerry.yaml` (kind Model) may say. Unknown keys are errors; docs/reference/project-file.md explains each one."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from skerry.bundle.manifest import Egress, Needs, State, TensorSpec, Tolerance
from skerry.bundle.mlbom import ModelCard


class ProjectTensor(TensorSpec, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ProjectNeeds(Needs, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ProjectTolerance(Tolerance, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ProjectEgress(Egress, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ProjectState(State, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


class ProjectIo(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Must name the model's own inputs and outputs; adds what a model file cannot say. Left out: as in the model."""

    inputs: tuple[ProjectTensor, ...] = ()
    outputs: tuple[ProjectTensor, ...] = ()
    state: tuple[
        ProjectState, ...
    ] = ()  # tensors carried from one request of a sequence to the next, hidden from clients


class ProjectVariant(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    file: str  # relative to the project file
    runtime: Literal["onnxruntime", "litert"] = "onnxruntime"
    precision: str = "fp32"
    needs: ProjectNeeds = ProjectNeeds()
    tolerance: ProjectTolerance = ProjectTolerance()


class ProjectSelfTest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    samples: str = ""  # an .npz with one array per input, first axis = sample; empty: made up from the io's ranges
    count: int | None = None  # use the first so many of `samples`, or make up so many


class Metadata(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    version: str
    line: str = "default"
    labels: dict[str, str] = {}


class ModelSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    release_seq: int
    variants: tuple[ProjectVariant, ...]
    floor_seq: int = 0
    task: str = ""
    description: str = ""
    reference: str = ""  # the variant whose answers are golden; empty: the first
    io: ProjectIo = ProjectIo()
    self_test: ProjectSelfTest = ProjectSelfTest()
    preprocess: tuple[dict[str, Any], ...] = ()
    latency_budget_ms: float | None = None
    egress: ProjectEgress = ProjectEgress()
    licenses: tuple[str, ...] = ()
    docs: tuple[str, ...] = ()  # further files to ship, relative to the project file
    model_card: ModelCard = ModelCard()


class Project(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    apiVersion: Literal["skerry/v1alpha1"]  # noqa: N815 - the name people know from Kubernetes
    kind: Literal["Model"]
    metadata: Metadata
    spec: ModelSpec

    @property
    def reference(self) -> ProjectVariant:
        """The variant whose answers are golden; `project_file.parse` has checked that it exists."""
        wanted = self.spec.reference or self.spec.variants[0].name
        return next(variant for variant in self.spec.variants if variant.name == wanted)
