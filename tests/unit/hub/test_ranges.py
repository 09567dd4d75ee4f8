# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.hub.api.ranges import Part, Unsatisfiable, Whole, choose_range, none_match

ETAG = '"sha256:aa"'


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, Whole()),
        ("bytes=0-0", Part(start=0, stop=1)),
        ("bytes=0-", Part(start=0, stop=100)),
        ("bytes=40-49", Part(start=40, stop=50)),
        ("Bytes=99-", Part(start=99, stop=100)),
        ("bytes=90-1000", Part(start=90, stop=100)),
        ("bytes=-10", Part(start=90, stop=100)),
        ("bytes=-1000", Part(start=0, stop=100)),
        ("bytes=100-", Unsatisfiable()),
        ("bytes=100-120", Unsatisfiable()),
        ("bytes=-0", Unsatisfiable()),
        ("bytes=50-40", Whole()),
        ("bytes=500-40", Whole()),
        ("bytes=-", Whole()),
        ("bytes=1-2,4-5", Whole()),
        ("rows=1-2", Whole()),
        ("bytes=a-b", Whole()),
        ("bytes=" + "9" * 40 + "-", Whole()),
    ],
)
def test_range_of_a_hundred_bytes(header, expected):
    assert choose_range(header, None, etag=ETAG, size=100) == expected


def test_no_range_of_an_empty_blob_can_be_met():
    assert choose_range("bytes=0-", None, etag=ETAG, size=0) == Unsatisfiable()
    assert choose_range("bytes=-5", None, etag=ETAG, size=0) == Unsatisfiable()


@pytest.mark.parametrize("validator", ['"other"', f"W/{ETAG}", "Wed, 21 Oct 2026 07:28:00 GMT", ""])
def test_if_range_that_is_not_this_blob_gives_the_whole(validator):
    assert choose_range("bytes=5-", validator, etag=ETAG, size=100) == Whole()


def test_if_range_that_is_this_blob_gives_the_part():
    assert choose_range("bytes=5-", ETAG, etag=ETAG, size=100) == Part(start=5, stop=100)


@given(
    header=st.one_of(st.text(max_size=40), st.from_regex(r"bytes=\d{0,25}-\d{0,25}", fullmatch=True)),
    size=st.integers(0, 10**6),
)
def test_a_part_is_never_empty_and_never_outside(header, size):
    decision = choose_range(header, None, etag=ETAG, size=size)
    if isinstance(decision, Part):
        assert 0 <= decision.start < decision.stop <= size


def test_if_none_match():
    assert none_match(None, ETAG)
    assert none_match('"sha256:bb"', ETAG)
    assert not none_match(f'"x", W/{ETAG}', ETAG)
    assert not none_match("*", ETAG)
