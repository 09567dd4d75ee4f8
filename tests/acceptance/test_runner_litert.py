# SPDX-License-Identifier: Apache-2.0
"""A LiteRT model from file to answer: `skerry init`, `pack`, a real runner, and files that must not get that far."""

import http.client
import json
from pathlib import Path

import numpy as np
import pytest

from acceptance.runner_harness import RunnerProcess, listen
from contracts.engine import litert_models
from contracts.engine.models import affine_answer
from skerry.bundle.digest import digest_of
from skerry.bundle.unpacked import unpack
from skerry.cli.init import scaffold
from skerry.cli.packing import pack_project
from skerry.cli.project_file import load
from skerry.runtime import engines
from skerry.wire.v1.runner import Failed, Loaded, SelfTested

pytestmark = pytest.mark.slow
KWS = Path(__file__).resolve().parents[3] / "shared" / "data" / "models" / "mlperf_tiny" / "kws_ref_model_int8.tflite"


@pytest.fixture
def listener():
    with listen() as listener:
        yield listener


def packed(folder, model):
    """The unpacked bundle of a project as `skerry init` writes it, and the variant's name."""
    project = folder / "project"
    project.mkdir()
    (project / "model.tflite").write_bytes(model)
    runtime, io = engines.inspect(project / "model.tflite")
    (project / "skerry.yaml").write_text(scaffold(io, name="net", file="model.tflite", runtime=runtime))
    bundle = pack_project(load(project)).bundle
    unpack(bundle, folder / "bundle")
    return folder / "bundle", bundle.config.variants[0].name


def infer(runner, name, datatype, array):
    connection = http.client.HTTPConnection(runner.url, timeout=20)
    tensor = {"name": name, "shape": list(array.shape), "datatype": datatype, "data": array.ravel().tolist()}
    connection.request("POST", "/v2/models/net/infer", json.dumps({"inputs": [tensor]}))
    answer = connection.getresponse()
    document = json.loads(answer.read())
    connection.request("GET", "/v2/models/net")
    platform = json.loads(connection.getresponse().read())["platform"]
    connection.close()
    return answer.status, document["outputs"][0], platform


def serve(bundle, variant, listener):
    runner = RunnerProcess(bundle, listener, variant=variant)
    assert runner.expect(Loaded).engine.startswith("litert ")
    assert runner.expect(SelfTested).passed
    return runner.serve_now()


def test_a_litert_model_is_packed_and_served(tmp_path, listener):
    bundle, variant = packed(tmp_path, litert_models.affine())
    with serve(bundle, variant, listener) as runner:
        for rows in (1, 3):
            x = np.arange(rows * 4, dtype=np.float32).reshape(rows, 4)
            status, output, platform = infer(runner, "x", "FP32", x)
            assert (status, platform) == (200, "tflite_litert")
            assert output["shape"] == [rows, 3]
            assert output["data"] == affine_answer(x).ravel().tolist()


@pytest.mark.skipif(not KWS.is_file(), reason="no shared data here")
def test_a_quantised_model_takes_and_gives_its_raw_integers(tmp_path, listener):
    bundle, variant = packed(tmp_path, KWS.read_bytes())
    assert variant == "int8"
    with serve(bundle, variant, listener) as runner:
        status, output, _ = infer(runner, "input_1", "INT8", np.zeros((1, 49, 10, 1), np.int8))
        assert (status, output["datatype"], output["shape"]) == (200, "INT8", [1, 12])


def test_a_file_that_would_end_the_interpreter_is_refused_by_code(tmp_path, listener):
    """The bundle's digests are right: whoever signed it packed with a tool that did not look."""
    bundle, variant = packed(tmp_path, litert_models.quantized())
    bad = litert_models.quantized(dimension=9)
    replace_model(bundle, variant, bad)
    with RunnerProcess(bundle, listener, variant=variant) as runner:
        failed = runner.expect(Failed)
        assert failed.code == "SKY-1002"
        assert "quantised along dimension 9" in failed.message
        assert runner.wait() == 1


def replace_model(bundle, variant, content):
    path = bundle / "models" / f"{variant}.tflite"
    document = (bundle / "skerry.json").read_text()
    old = digest_of(path.read_bytes())
    assert old in document
    path.unlink()
    path.write_bytes(content)
    (bundle / "skerry.json").write_text(document.replace(old, digest_of(content)))
