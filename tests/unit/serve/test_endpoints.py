# SPDX-License-Identifier: Apache-2.0
import json

import pytest

from contracts.engine.models import affine, classifier
from skerry.serve.http.message import refusal
from skerry.serve.status import STATUS
from unit.serve.rig import Rig, post

X = {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4]}]}


@pytest.fixture
def rig():
    return Rig({"m": classifier(), "a model/ü": affine()})


@pytest.mark.parametrize(
    ("path", "document"),
    [
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"ready": True}),
        ("/v2/models/m/ready", {"name": "m", "ready": True}),
        ("/v2/models/m/versions/1/ready", {"name": "m", "ready": True}),
        ("/v2/models", {"models": ["m", "a model/ü"]}),
        (
            "/v2",
            {
                "name": "skerry",
                "version": "9",
                "extensions": [
                    "binary_tensor_data",
                    "classification",
                    "model_configuration",
                    "statistics",
                    "parameters",
                ],
            },
        ),
    ],
)
def test_small_documents(rig, path, document):
    answer = rig.get(path)
    assert (answer.status, answer.json) == (200, document)
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/v2/models/m", "/v2/models/m/versions/1", "/v2/models/%6d", "/v2/models/m?a=b"])
def test_metadata(rig, path):
    assert rig.get(path).json == {
        "name": "m",
        "versions": ["1"],
        "platform": "onnx_onnxruntime",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [
            {"name": "scores", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "label", "datatype": "INT64", "shape": [-1]},
        ],
    }


def test_a_name_is_decoded_once(rig):
    assert rig.get("/v2/models/a%20model%2F%C3%BC").json["name"] == "a model/ü"
    assert rig.get("/v2/models/a%2520model%252F%25C3%25BC").status == 404


def test_config(rig):
    document = rig.get("/v2/models/m/config").json
    parameters = document.pop("parameters")
    assert parameters["variant"] == {"string_value": "fp32"}
    assert parameters["engine"]["string_value"].startswith("onnxruntime ")
    assert parameters["scheduling"]["string_value"].startswith("inline (a run takes 0.000 ms")
    assert document == {
        "name": "m",
        "platform": "onnx_onnxruntime",
        "backend": "onnxruntime",
        "max_batch_size": 0,
        "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": [-1, 4]}],
        "output": [
            {"name": "scores", "data_type": "TYPE_FP32", "dims": [-1, 3]},
            {"name": "label", "data_type": "TYPE_INT64", "dims": [-1]},
        ],
    }


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 404),
        ("/v2/", 404),
        ("/v2/health/live/", 404),
        ("/v2/models/m/", 404),
        ("/v2/models//ready", 404),
        ("/v2/models/m/versions", 404),
        ("/v2/models/m/versions//ready", 404),
        ("/v2/models/nobody", 404),
        ("/v2/models/nobody/ready", 404),
        ("/v2/models/m/versions/9", 404),
        ("/v2/models/%ff", 400),
        ("ftp://elsewhere/v2", 404),
        ("/v2/repository/models/m/load", 404),
        ("/v2/models/" + "a" * 5000, 404),
    ],
)
def test_what_is_not_there(rig, path, status):
    answer = rig.get(path)
    assert answer.status == status
    assert list(answer.json) == ["error", "code"]
    assert len(answer.body) < 6000


def test_infer_of_an_unknown_model_or_version(rig):
    assert rig.infer(X, path="/v2/models/z/infer").json == {"error": "unknown model z", "code": "SKY-6002"}
    assert rig.infer(X, path="/v2/models/m/versions/2/infer").status == 404
    assert rig.infer(X, path="/v2/models/m/versions/1/infer").status == 200


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("POST", "/v2/health/live", "GET, HEAD"),
        ("DELETE", "/v2/models/m", "GET, HEAD"),
        ("GET", "/v2/models/m/infer", "POST"),
        ("PUT", "/v2/models/m/infer", "POST"),
    ],
)
def test_a_wrong_method_is_told_the_right_ones(rig, method, path, allow):
    answer = rig.get(path, method)
    assert (answer.status, answer.headers["allow"]) == (405, allow)


def test_head_is_get_without_the_body(rig):
    get, head = rig.get("/v2/models/m"), rig.get("/v2/models/m", "HEAD")
    assert (head.status, head.headers, head.body) == (get.status, get.headers, b"")


def test_repository_index(rig):
    assert rig.post("/v2/repository/index").json[0] == {"name": "m", "version": "1", "state": "READY", "reason": ""}


def test_a_model_that_is_not_ready(rig):
    rig.served["m"].ready = False
    assert rig.get("/v2/models/m/ready").status == 503
    assert rig.get("/v2/health/ready").json == {"ready": False}
    assert rig.get("/v2/health/live").status == 200
    assert rig.infer(X).status == 503
    assert rig.post("/v2/repository/index").json[0]["state"] == "UNAVAILABLE"


def test_statistics_and_metrics_count_what_happened(rig):
    rig.infer(X)
    rig.infer({"inputs": [{**X["inputs"][0], "shape": [2, 4], "data": [0] * 8}]})
    rig.infer({})
    [stats] = rig.get("/v2/models/m/stats").json["model_stats"]
    assert (stats["inference_count"], stats["execution_count"]) == (3, 2)
    counts = {name: each["count"] for name, each in stats["inference_stats"].items()}
    assert counts["success"] == counts["queue"] == 2
    # perf_analyzer ends itself ("compute counts must be the same") when these differ
    assert counts["compute_input"] == counts["compute_infer"] == counts["compute_output"] == 2
    assert len(rig.get("/v2/models/stats").json["model_stats"]) == 2
    text = rig.get("/metrics")
    assert text.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = text.body.decode().splitlines()
    labels = '{model="m",version="1",variant="fp32"}'
    assert f"skerry_inference_requests_total{labels} 2" in lines
    assert f"skerry_inference_rows_total{labels} 3" in lines
    assert f"skerry_inference_duration_seconds_count{labels} 2" in lines
    assert 'skerry_inference_refused_total{model="m",version="1",variant="fp32",code="SKY-6001"} 1' in lines
    assert "process_resident_memory_bytes 7" in lines


def test_a_slow_model_goes_to_a_worker_and_health_does_not_wait():
    rig = Rig(cost=0.01, hold=True)
    from_client = rig.transport
    body = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}'
    assert (
        rig.send(b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body) == []
    )
    rig.connect()
    assert rig.get("/v2/health/live").status == 200
    rig.pool.release()
    assert from_client.sent.startswith(b"HTTP/1.1 200 OK")


def test_a_request_that_waited_longer_than_its_timeout_is_not_run():
    rig = Rig(cost=0.01, hold=True)
    rig.connection.data_received(request({**X, "parameters": {"timeout": 1_000_000}}))
    rig.clock.advance(1.5)
    rig.pool.release()
    [answer] = rig.take()
    assert answer.status == 504
    assert rig.served["m"].counters.failed == {"SKY-6010": 1}


def request(document):
    body = json.dumps(document).encode()
    return b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body


def test_too_many_waiting_are_told_when_to_come_back():
    rig = Rig(cost=0.01, queue=0)
    answer = rig.infer(X)
    assert (answer.status, answer.headers["retry-after"]) == (503, "1")
    assert rig.served["m"].counters.take_window().errors == 1


def test_a_defect_in_the_engine_is_a_500_and_the_server_goes_on(rig, caplog):
    class Broken:
        io = rig.served["m"].engine.io

        def run(self, inputs):
            raise KeyError("defect")

    rig.served["m"].engine = Broken()
    answer = rig.infer(X)
    assert answer.status == 500
    assert "defect" not in answer.json["error"]
    assert "defect" in caplog.text
    assert rig.get("/v2/health/live").status == 200


def test_the_witness_sees_outputs_of_answered_requests_only():
    seen = []

    class Witness:
        def answered(self, served, call, answer):
            seen.append((answer.request_id, answer.outputs["scores"].shape))

    rig = Rig(witness=Witness())
    rig.infer({**X, "id": "a"})
    rig.infer({})
    assert seen == [("a", (1, 3))]


@pytest.mark.parametrize("error", [error for error, status in STATUS.items() if status == 503])
def test_every_503_says_when_to_come_back(error):
    said = refusal(error(**dict.fromkeys(("name", "workload", "limit"), "x"), retry_after=3))
    assert dict(said.headers) == {"Retry-After": "3"}


def test_what_is_not_ready_says_when_to_come_back():
    rig = Rig()
    rig.served["m"].ready = False
    answers = [rig.get("/v2/health/ready"), rig.get("/v2/models/m/ready"), rig.infer({"inputs": []})]
    assert [(answer.status, answer.headers["retry-after"]) for answer in answers] == [(503, "1")] * 3


# --- deadlines -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "status"),
    [
        *((value, 200) for value in ("0", "1", "999999999999999")),
        *((value, 400) for value in ("9" * 16, "-1", "1.5", "1e3", "", "+1", "1_0", "0x1", "\xb2")),
    ],
)
def test_a_deadline_in_the_header(value, status):
    rig = Rig()
    for _ in range(2):  # the second time the head is remembered
        assert rig.infer(X, Inference_Timeout_Ms=value).status == status
    assert rig.infer(X).status == 200
    counters = rig.served["m"].counters
    assert counters.answered + sum(counters.refused.values()) == 3


@pytest.mark.parametrize("value", [-1, 0.5, True, "1", 1 << 54, 1e400])
def test_a_deadline_in_the_request_that_is_none(value):
    rig = Rig()
    document = json.dumps({**X, "parameters": {"timeout": value}}).replace("Infinity", "1e400").encode()
    for _ in range(2):
        assert rig.infer(document).status == 400
    assert rig.infer(X).status == 200


@pytest.mark.parametrize(("header", "parameter"), [("10000", 1_000), ("1", 10_000_000), ("1", 0), ("0", 1_000)])
def test_the_shorter_of_both_deadlines_holds_and_the_connection_goes_on(header, parameter):
    rig = Rig(cost=0.0005, hold=True)
    for _ in range(2):
        document = {**X, "parameters": {"timeout": parameter}}
        assert rig.send(post("/v2/models/m/infer", json.dumps(document).encode(), Inference_Timeout_Ms=header)) == []
        rig.clock.advance(0.005)
        rig.pool.release()
        [answer] = rig.take()
        assert (answer.status, answer.json["code"]) == (504, "SKY-6010")
    assert not rig.transport.eof
    assert rig.send(post("/v2/models/m/infer", json.dumps(X).encode())) == []
    rig.pool.release()
    assert [answer.status for answer in rig.take()] == [200]
    counters = rig.served["m"].counters
    assert (counters.answered, counters.failed, counters.refused) == (1, {"SKY-6010": 2}, {})
