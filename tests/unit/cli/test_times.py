# SPDX-License-Identifier: Apache-2.0
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skerry.cli.times import ago, brief, iso, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("10m", 600),
        ("2h", 7200),
        ("1h30m", 5400),
        ("500ms", 0.5),
        ("45", 45),
        ("1.5h", 5400),
        ("1d", 86400),
    ],
)
def test_durations(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "10 parsecs", "-5s", "5s!", "s", "1h-2m"])
def test_what_is_no_duration(text):
    with pytest.raises(ValueError, match=re.escape(text) + r"$"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0s"), (45, "45s"), (90, "1m30s"), (180, "3m"), (720, "12m"), (3700, "1h1m"), (50_000, "13h"), (9e5, "10d")],
)
def test_brief(seconds, text):
    assert brief(seconds) == text


@given(st.integers(min_value=0, max_value=10**7))
def test_brief_loses_less_than_the_unit_it_leaves_out(seconds):
    assert 0 <= seconds - parse_duration(brief(seconds)) < max(1, seconds / 9)


def test_ago():
    assert ago(None, 100.0) == "never"
    assert ago(40.0, 100.0) == "1m ago"
    assert ago(400.0, 100.0) == "in 5m"
    assert ago(100.4, 100.0) == "0s ago"


def test_iso():
    assert iso(1_800_000_000.25) == "2027-01-15T08:00:00.250Z"
