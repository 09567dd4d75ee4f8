# SPDX-License-Identifier: Apache-2.0
"""Whatever a path on the command line turns out to be, the answer is an error of ours and nothing is left behind."""

import pytest

LINES = [
    "verify {path}",
    "describe {path}",
    "push {path} --key {path}",
    "keys show {path}",
    "keys root verify {path}",
    "keys root sign {path} --key {path}",
    "keys renew --dir {path}",
    "keys add-line x --dir {path}",
    "init {path}",
    "pack {path}",
    "agent status --state {path}",
    "up --trust {path}",
    "audit --from {path}",
]


@pytest.fixture(params=["folder", "text", "empty", "missing", "below-a-file", "not-utf8"])
def path(request, tmp_path):
    place = tmp_path / "given"
    if request.param == "folder":
        place.mkdir()
    elif request.param == "below-a-file":
        place.write_text("text")
        place /= "x"
    elif request.param != "missing":
        place.write_bytes({"text": b"text\n", "empty": b"", "not-utf8": b"\xff\xfe\x00"}[request.param])
    return place


@pytest.mark.parametrize("line", LINES)
def test_a_path_of_any_kind_is_answered(shell, tmp_path, path, line):
    before = sorted(tmp_path.rglob("*"))
    ran = shell(line.format(path=path))
    assert ran.code in {1, 2}
    assert ran.err.startswith("error SKY-")
    assert "SKY-0000" not in ran.err
    assert sorted(tmp_path.rglob("*")) == before
