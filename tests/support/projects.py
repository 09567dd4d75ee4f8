# SPDX-License-Identifier: Apache-2.0
"""Projects on disk with real models, for the verbs that run them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from support.models import linear_classifier

YAML = """\
apiVersion: skerry/v1alpha1
kind: Model
metadata: {{name: iris, version: "1.0.0", line: plants}}
spec:
  task: classification
  release_seq: 2
  variants:
    - name: fp32
      file: fp32.onnx
    - name: other
      file: other.onnx
      precision: int8
      needs: {{instructions: [vnni]}}
      tolerance: {tolerance}
  io:
    inputs: [{{name: x, dtype: float32, shape: [-1, 4], range: [-1, 1]}}]
    outputs: [{{name: label, dtype: INT64, shape: [-1], labels: [a, b, c]}}]
  self_test: {{{samples}count: 12}}
  egress: {{results: [label]}}
  licenses: [MIT]
  docs: [CARD.md]
  {more}
"""


def write_project(
    folder: Path,
    *,
    other: bytes | None = None,
    tolerance: str = "{}",
    samples: np.ndarray | None = None,
    more: str = "model_card: {learning: supervised}",
) -> Path:
    """A project of two variants; `other` is the second one's model, by default the same as the first."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "fp32.onnx").write_bytes(linear_classifier())
    (folder / "other.onnx").write_bytes(linear_classifier() if other is None else other)
    (folder / "CARD.md").write_text("# Iris\n")
    named = ""
    if samples is not None:
        np.savez(folder / "samples.npz", x=samples)
        named = "samples: samples.npz, "
    (folder / "skerry.yaml").write_text(YAML.format(tolerance=tolerance, samples=named, more=more))
    return folder
