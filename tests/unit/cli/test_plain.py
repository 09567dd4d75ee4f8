# SPDX-License-Identifier: Apache-2.0
from skerry.cli.plain import plain
from skerry.wire.v1.report import HistoryEntry, HistoryReport, Report
from unit.cli.scripted import device


def test_instants_are_iso_and_the_rest_is_as_on_the_wire():
    value = plain(device(labels={"at": "home", "created": "5"}))
    assert value["last_seen"] == "2027-01-15T07:59:30.000Z"
    assert value["labels"] == {"at": "home", "created": "5"}
    assert value["workloads"][0]["state"] == "committed"
    assert value["workloads"][0]["latency_p95_ms"] == 3.25


def test_a_missing_instant_stays_missing():
    assert plain(device(last_seen=None))["last_seen"] is None


def test_tags_are_kept_and_free_fields_are_left_alone():
    entry = HistoryEntry(n=1, at=0.0, kind="x", fields={"at": 5.0}, previous="", hash="h", signature=b"\0")
    value = plain(Report(seq=1, at=0.0, body=HistoryReport(entry=entry)))
    assert value["body"]["type"] == "history"
    assert value["body"]["entry"]["fields"] == {"at": 5.0}
    assert value["body"]["entry"]["at"] == "1970-01-01T00:00:00.000Z"
    assert value["body"]["entry"]["signature"] == "AA=="
