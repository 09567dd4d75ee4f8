# SPDX-License-Identifier: Apache-2.0
"""`skerry init`: a project file for a model one has, filled in with what the model says of itself."""

from __future__ import annotations

import json
import os
import re
import unicodedata
from pathlib import Path

import click

from skerry.bundle.manifest import Io, TensorSpec
from skerry.cli.project_file import PROJECT_FILE
from skerry.effects.disk import DiskFiles
from skerry.errors import FileExists
from skerry.runtime import engines

_TEMPLATE = """\
# A Skerry project: `skerry pack` turns it into a bundle. Every key: docs/reference/project-file.md
apiVersion: skerry/v1alpha1
kind: Model
metadata:
  name: {name}
  version: "0.1.0"
  line: default             # product line: whose release key signs it
spec:
  release_seq: 1            # raise it with every release; a device never goes back below its floor
  task: ""                  # image-classification, anomaly-detection ...
  description: ""
  # latency_budget_ms: 10   # what a caller may wait; pack warns about a variant that takes longer
  variants:                 # the first is the reference; a device runs the last one that fits it
    - name: {variant}
      file: {file}
      runtime: {runtime}
      precision: {variant}
    # - name: int8
    #   file: model-int8.{suffix}
    #   runtime: {runtime}
    #   precision: int8
    #   needs: {{arch: [x86_64], memory_mib: 256}}
    #   tolerance: {{top1: true, agreement: 0.98}}   # how close to the reference it must answer
  io:                       # as in the model; add what it cannot say: range, layout, labels
    inputs:
{inputs}
    outputs:
{outputs}
  # self_test:              # run on every device before a model is activated; without samples they are made up
  #   samples: samples.npz  # real inputs: one array per input, first axis = sample
  egress:
    results: []             # names of outputs that may leave the device; nothing else ever does
  licenses: []              # SPDX, e.g. [Apache-2.0]
  # model_card:             # goes into the ML-BOM
  #   learning: supervised
  #   use_cases: ["what it is for"]
  #   limitations: ["what it must not be used for"]
  #   metrics: [{{type: accuracy, value: 0.97, slice: hold-out}}]
"""


@click.command(epilog="\b\n  skerry init model.onnx\n  skerry init exports/model.tflite -o digits/\n")
@click.argument("model", type=click.Path(path_type=Path), metavar="MODEL")
@click.option(
    "-o",
    "--output",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Folder to write skerry.yaml to [default: here].",
)
@click.option("--force", is_flag=True, help="Replace a skerry.yaml that is there.")
def command(*, model: Path, folder: Path, force: bool) -> None:
    """Write a project file skerry.yaml for a model."""
    target = folder / PROJECT_FILE
    if target.exists() and not force:
        raise FileExists(path=str(target))
    runtime, io = engines.inspect(model)
    relative = os.path.relpath(model.resolve(), folder.resolve())
    DiskFiles().write(target, scaffold(io, name=project_name(model.stem), file=relative, runtime=runtime).encode())
    click.echo(f"wrote {target}: {_names(io.inputs)} -> {_names(io.outputs)}")
    click.echo(f"next: skerry pack {folder}" if folder != Path() else "next: skerry pack", err=True)


def scaffold(io: Io, *, name: str, file: str, runtime: str = engines.ONNXRUNTIME) -> str:
    """Text of a project file that packs as it is."""
    whole = {"INT8", "UINT8"} & {spec.dtype for spec in (*io.inputs, *io.outputs)} and runtime == engines.LITERT
    return _TEMPLATE.format(
        name=quoted(name),
        file=quoted(file),
        variant="int8" if whole else "fp32",
        runtime=runtime,
        suffix=engines.SUFFIXES[runtime],
        inputs="\n".join(map(_tensor, io.inputs)) or "      []",
        outputs="\n".join(map(_tensor, io.outputs)),
    )


def project_name(stem: str) -> str:
    """The nearest allowed name: `My Modèle_v2` -> my-modele-v2."""
    ascii_stem = unicodedata.normalize("NFKD", stem).encode("ascii", "ignore").decode()
    name = re.sub(r"[^a-z0-9]+", "-", ascii_stem.lower()).strip("-")[:63].strip("-")
    return name or "model"


def quoted(text: str) -> str:
    """In quotes where YAML might take it for something else. JSON strings are YAML strings."""
    plain = re.fullmatch(r"[A-Za-z_./][A-Za-z0-9_./-]*", text) and text.lower() not in {"true", "false", "null", "."}
    return text if plain else json.dumps(text, ensure_ascii=not text.isprintable())


def _tensor(spec: TensorSpec) -> str:
    return f"      - {{name: {quoted(spec.name)}, dtype: {spec.dtype}, shape: {list(spec.shape)}}}"


def _names(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(spec.name for spec in specs) or "nothing"
