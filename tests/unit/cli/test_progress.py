# SPDX-License-Identifier: Apache-2.0
import io
import sys

import pytest

from skerry.cli.progress import PlainProgress, size_text, transfer


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (1_234_567, "1.2 MB"),
        (250_000_000, "250 MB"),
        (5e12, "5.0 TB"),
        (5e15, "5000.0 TB"),
    ],
)
def test_sizes(size, text):
    assert size_text(size) == text


def test_plain_progress_says_a_quarter_at_most_once():
    said: list[str] = []
    progress = PlainProgress("uploading x", 1000, say=said.append)
    for _ in range(100):
        progress.advance(10)
    progress.finish()
    assert said == [
        "uploading x: 25% of 1.0 kB",
        "uploading x: 50% of 1.0 kB",
        "uploading x: 75% of 1.0 kB",
        "uploading x: 1.0 kB done",
    ]


def test_nothing_to_move():
    said: list[str] = []
    progress = PlainProgress("x", 0, say=said.append)
    progress.advance(0)
    progress.finish()
    assert said == ["x: 0 B done"]


def test_progress_goes_to_stderr_only(capsys):
    with transfer("x", 10) as advance:
        advance(10)
    assert capsys.readouterr() == ("", "x: 10 B done\n")


def test_a_bar_on_a_terminal(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", terminal := Terminal())
    with transfer("uploading", 1000) as advance:
        advance(1000)
    assert "uploading" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()
