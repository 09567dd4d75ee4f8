# SPDX-License-Identifier: Apache-2.0
import pytest

from contracts.store.values import history, report, result, workload
from skerry.hub.domain import matches
from skerry.hub.store.digestion import Digest, following
from skerry.wire.v1.report import WorkloadState


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        ({}, {}, True),
        ({}, {"a": "1"}, True),
        ({"a": "1"}, {"a": "1", "b": "2"}, True),
        ({"a": "1"}, {"a": "2"}, False),
        ({"a": "1"}, {}, False),
        ({"a": ""}, {}, False),
        ({"a": "1", "b": "2"}, {"a": "1"}, False),
    ],
)
def test_selector(selector, labels, expected):
    assert matches(selector, labels) is expected


@pytest.mark.parametrize(
    ("seqs", "through", "expected"),
    [
        ([], 0, []),
        ([1, 2, 3], 0, [1, 2, 3]),
        ([3, 1, 2], 0, [1, 2, 3]),
        ([1, 2, 3], 2, [3]),
        ([1, 2], 5, []),
        ([2, 3], 0, []),
        ([1, 3], 0, [1]),
        ([0, -1, 1], 0, [1]),
    ],
)
def test_only_what_follows_without_a_gap_is_taken(seqs, through, expected):
    taken = following([report(seq, result(f"e{seq}")) for seq in seqs], through)
    assert [one.seq for one in taken] == expected


def test_a_digest_keeps_the_last_word_and_one_chain():
    said = [
        report(1, workload(WorkloadState.FETCHING, sequence=3)),
        report(2, workload(WorkloadState.COMMITTED, sequence=2)),
        report(3, history(5)),
        report(4, history(5)),
        report(5, history(7)),
        report(6, history(6)),
    ]
    digest = Digest(said, head_n=4, head_hash="h4")
    assert digest.workloads["digits"][1].state is WorkloadState.COMMITTED
    assert digest.applied_sequence == 3
    assert [entry.n for entry in digest.entries] == [5, 6]
    assert digest.doubts == ["history-fork at 5", "history-gap at 7 after 5"]
