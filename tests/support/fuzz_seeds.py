# SPDX-License-Identifier: Apache-2.0
"""First inputs and words for the fuzzers: made here, never stored."""

from __future__ import annotations

import gzip
import json
import zlib

from skerry.runtime.datatypes import NUMPY
from support.fuzz_targets import MODELS

_VALUES: dict[str, list[object]] = {"BOOL": [True, False, True, True], "BYTES": ["a", "", "grüße", "z"]}


def _documents() -> list[bytes]:
    """A body per model, JSON first, then binary with NUL NUL NUL NUL | between JSON and tensors."""
    bodies = []
    for index, chosen in enumerate(MODELS):
        inputs, binary, tail = [], [], b""
        for spec in chosen.io.inputs:
            shape = [2 if axis == -1 else axis for axis in spec.shape]
            count = 1
            for axis in shape:
                count *= axis
            head = {"name": spec.name, "shape": shape, "datatype": spec.dtype}
            inputs.append({**head, "data": (_VALUES.get(spec.dtype) or [1, 2, 3, 4])[:count]})
            size = 4 * count if spec.dtype == "BYTES" else count * NUMPY[spec.dtype].itemsize
            binary.append({**head, "parameters": {"binary_data_size": size}})
            tail += bytes(size)
        outputs = [{"name": spec.name, "parameters": {"binary_data": True}} for spec in chosen.io.outputs]
        first = bytes([index])
        bodies.append(first + json.dumps({"id": "1", "inputs": inputs, "outputs": outputs}).encode())
        head_text = json.dumps({"inputs": binary, "parameters": {"binary_data_output": True, "timeout": 5}}).encode()
        bodies.append(first + b"\0\0" + head_text + b"\0\0\0\0|" + tail)
    return bodies


def _tensors() -> list[bytes]:
    texts = [b"[1,2,3,4]", b"[[1,2],[3,4]]", b"[true]", b'["a","b"]', b"[]", b"[1.5]", b"[[],[]]", b"\0" * 16]
    return [bytes([kind, shape]) + text for kind in range(len(NUMPY)) for shape in range(8) for text in texts]


_LIVE = b"GET /v2/health/live HTTP/1.1\r\nHost: h\r\n\r\n"
_POST = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\n"
_MESSAGES = [
    _LIVE,
    _LIVE * 3,
    _POST + b"Content-Length: 2\r\n\r\n{}" + _LIVE,
    _POST + b"Transfer-Encoding: chunked\r\n\r\n2;a=b\r\n{}\r\n0\r\nX: y\r\n\r\n" + _LIVE,
    _POST + b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n{}",
    b"GET /v2 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    _POST + b"Connection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\n{}" + _LIVE,
    _POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"CONNECT h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET http://h/v2?q HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
]


def _messages() -> list[bytes]:
    return [
        pieces + message for message in _MESSAGES for pieces in (b"\0", b"\x03\x05\x11\x20", b"\x0f" + b"\x01" * 15)
    ]


def _targets() -> list[bytes]:
    paths = [
        "",
        "/health/live",
        "/models/m/infer",
        "/models/a%20b/versions/1/stats",
        "/repository/index",
        "/models/%ff",
    ]
    return [f"{method} /v2{path}".encode() for method in ("GET", "POST", "HEAD") for path in paths]


def _squeezed() -> list[bytes]:
    plain = b"abc" * 3000
    return [
        b"\0" + gzip.compress(b"ab", mtime=0),
        b"\1" + zlib.compress(b"ab"),
        b"\0" + gzip.compress(plain, mtime=0),
        b"\3ab",
    ]


SEEDS = {
    "request_json": lambda: [each for each in _documents() if b"|" not in each],
    "request_binary": lambda: [each for each in _documents() if b"|" in each],
    "tensor_json": _tensors,
    "tensor_binary": _tensors,
    "http_connection": _messages,
    "http_target": _targets,
    "inflate": _squeezed,
}

WORDS = [
    *(f'"{key}":' for key in ("inputs", "outputs", "parameters", "id", "name", "shape", "datatype", "data")),
    *(f'"{name}"' for name in sorted(NUMPY)),
    *('"binary_data_size":', '"binary_data":', '"binary_data_output":', '"timeout":', '"priority":', '"x"', '"y"'),
    *("true", "false", "null", "NaN", "1e400", "-1", "18446744073709551616", "2147483648", "[[", "]]", "{}", "[]"),
    *(
        "\r\n",
        "\r\n\r\n",
        "GET ",
        "POST ",
        "HEAD ",
        " HTTP/1.1\r\n",
        " HTTP/1.0\r\n",
        "Host: h\r\n",
        "/v2/models/m/infer",
    ),
    *("Content-Length: ", "Transfer-Encoding: chunked\r\n", "Connection: close\r\n", "Upgrade: h2c\r\n", "0\r\n\r\n"),
    *("Expect: 100-continue\r\n", "Connection: Upgrade\r\n", "\0\0\0\0|"),
]
"""Tokens a mutator may put in."""
