# SPDX-License-Identifier: Apache-2.0
"""`skerry demo` from end to end, as `make demo` runs it."""

import json
import subprocess
import sys

import pytest

from skerry.cli.demo.report import Figures, broken_promises


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_demo_holds_every_step(tmp_path):
    report = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", "skerry.cli.main", "demo", "--report", str(report)],
        capture_output=True,
        text=True,
        check=False,
        timeout=380,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(report.read_text())
    assert set(figures) == set(Figures.__struct_fields__)
    assert broken_promises(Figures(**figures)) == []


def good_figures() -> Figures:
    return Figures(
        devices=5,
        accuracy_fp32=0.97,
        accuracy_int8=0.97,
        latency_ms_p50=1.0,
        offline_answers=300,
        results_sent=1000,
        results_received=1000,
        results_duplicated=0,
        dropped_requests_during_switch=0,
        rollbacks_expected=4,
        rollbacks_done=4,
        tamper_refused=2,
        history_verified=True,
        seconds=80.0,
    )


def test_good_figures_break_no_promise():
    assert broken_promises(good_figures()) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("devices", 4),
        ("accuracy_int8", 0.9),
        ("offline_answers", 0),
        ("results_received", 999),
        ("results_duplicated", 1),
        ("dropped_requests_during_switch", 1),
        ("rollbacks_done", 3),
        ("rollbacks_expected", 0),
        ("tamper_refused", 1),
        ("history_verified", False),
        ("seconds", None),
    ],
)
def test_one_bad_figure_is_a_broken_promise(name, value):
    figures = good_figures()
    setattr(figures, name, value)
    assert broken_promises(figures)
