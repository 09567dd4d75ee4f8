# SPDX-License-Identifier: Apache-2.0
import os
import socket
from types import SimpleNamespace
from typing import Any, cast

import click
import pytest

from skerry.cli import bench
from skerry.cli.bench import _applied, _paired
from skerry.cli.benching import processes, report
from skerry.cli.benching.load import Timing
from skerry.cli.benching.report import Measured, Report
from skerry.cli.benching.statistics import paired, quantile
from skerry.cli.benching.subjects import Form, Settings, Via
from skerry.cli.benching.trial import Difference, Figures, Plan, Round, Sample, differences


def timing(p50=100.0, requests=1000, seconds=1.0):
    return Timing(
        requests=requests,
        asked=requests,
        changed=0,
        seconds=seconds,
        p10=p50 * 0.9,
        p50=p50,
        p90=p50 * 1.5,
        p99=p50 * 3,
        cpu=20,
    )


def figures(**changes):
    plain = dict.fromkeys(Figures.__struct_fields__, 10.0) | {"changed_answers": 0} | changes
    return Figures(**plain)


# --- statistics ----------------------------------------------------------------------------------------------------------


def test_a_steady_difference_is_seen_and_noise_around_nothing_is_not():
    assert paired([-10.0, -12.0, -9.0, -11.0, -10.5]).sees_a_difference
    assert not paired([-10.0, 12.0, -9.0, 11.0, 0.5]).sees_a_difference


def test_one_wild_round_does_not_make_a_difference():
    assert not paired([0.1, -0.2, 0.1, -0.1, 500.0]).sees_a_difference


def test_an_interval_is_the_same_every_time():
    values = [3.0, -1.0, 4.0, -1.5, 5.0]
    assert paired(values) == paired(values)


@pytest.mark.parametrize("values", [[], [5.0]])
def test_one_round_proves_nothing(values):
    assert not paired(values).sees_a_difference


def test_quantiles_of_sorted_values():
    assert quantile([1.0, 2.0, 3.0, 4.0], 0.5) == 2.0
    assert quantile([], 0.5) == 0.0


# --- command line --------------------------------------------------------------------------------------------------------


def test_settings_are_changed_one_by_one():
    changed = _applied(Settings(), {"via": "unix", "form": "json", "variant": "int8", "env.A": "1", "env.B": "2"})
    assert changed == Settings(variant="int8", via=Via.UNIX, form=Form.JSON, environment={"A": "1", "B": "2"})
    assert changed.words() == "int8, unix, json, A=1, B=2"


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        ({"via": "carrier-pigeon"}, "tcp, unix, shm, in-process"),
        ({"form": "xml"}, "binary, json"),
        ({"colour": "red"}, "no setting"),
    ],
)
def test_a_setting_that_is_none_is_named(pairs, said):
    with pytest.raises(click.BadParameter, match=said):
        _applied(Settings(), pairs)


def test_one_target_is_compared_with_itself_or_with_another():
    assert _paired(("a",), Settings(), {}) == (("a",), [Settings()])
    assert _paired(("a", "b"), Settings(), {}) == (("a", "b"), [Settings(), Settings()])
    assert _paired(("a",), Settings(), {"form": "json"}) == (("a", "a"), [Settings(), Settings(form=Form.JSON)])


@pytest.mark.parametrize(
    ("targets", "versus"),
    [(("a", "b", "c"), {}), (("a", "b"), {"form": "json"}), (("http://h:1",), {"via": "unix"})],
)
def test_what_cannot_be_compared_is_refused(targets, versus):
    with pytest.raises(click.UsageError):
        _paired(targets, Settings(), versus)


def test_targets_of_one_name_can_be_told_apart():
    pair = [SimpleNamespace(name="digits"), SimpleNamespace(name="digits")]
    bench._tell_apart(cast("list[Any]", pair))
    assert [each.name for each in pair] == ["digits (1)", "digits (2)"]


@pytest.mark.parametrize("seconds", [0.5, 2.0, 10.0, 600.0])
def test_a_plan_takes_the_time_it_was_given(seconds):
    plan = Plan(seconds=seconds, connections=8)
    assert plan.rounds * plan.slice * 2 == pytest.approx(seconds)
    assert 5 <= plan.rounds <= 20


# --- results -------------------------------------------------------------------------------------------------------------


def rounds(pairs):
    def sample(p50):
        return Sample(timing=timing(p50), cpu_us=p50 / 2, joules=None)

    return [
        Round(one={"a": sample(a), "b": sample(b)}, many={"a": sample(a), "b": sample(b)}, pressure=5.0)
        for a, b in pairs
    ]


def test_differences_are_paired_by_round():
    found = {each.figure: each for each in differences("a", "b", rounds([(100, 90), (200, 190), (300, 290)] * 3))}
    difference = found["p50, 1 connection"]
    assert (difference.interval.middle, difference.verdict) == (-10.0, "better")
    assert found["CPU per request, 1 connection"].interval.middle == -5.0
    assert found["requests/s, many connections"].verdict == "no difference seen"


def test_more_requests_are_better_and_more_time_is_worse():
    def judged(middle, *, less_is_better):
        interval = paired([middle] * 6)
        return Difference(
            figure="f", unit="us", first=1, second=1, interval=interval, share=0, less_is_better=less_is_better
        ).verdict

    assert judged(5.0, less_is_better=True) == "worse"
    assert judged(5.0, less_is_better=False) == "better"


def text(**changes):
    plain = {
        "connections": 8,
        "rounds": 10,
        "seconds": 10.0,
        "subjects": (Measured(name="digits", figures=figures(), unseen=""),),
        "differences": (),
        "pressure": 3.0,
        "pressure_highest": 7.0,
    }
    return "\n".join(report.lines(Report(**{**plain, **changes})))


def test_what_cannot_be_measured_is_not_made_up():
    unknown = figures(one_cpu_us=None, many_cpu_us=None, rss_mib=None, pss_mib=None, energy_mj=None, cold_start_s=None)
    said = text(subjects=(Measured(name="digits", figures=unknown, unseen="the server is on another machine"),))
    assert said.count("not measurable") >= 5
    assert "it ran already" in said
    assert "digits: CPU and memory not measurable: the server is on another machine" in said


def test_answers_that_change_are_told():
    said = text(subjects=(Measured(name="digits", figures=figures(changed_answers=3), unseen=""),))
    assert "3 answers were unlike the first one" in said


def test_a_busy_machine_is_called_one():
    assert "compare only" in text(pressure=60.0, pressure_highest=80.0)
    assert "compare only" not in text()
    assert "does not tell" in text(pressure=None, pressure_highest=None)


# --- processes -----------------------------------------------------------------------------------------------------------


def test_the_processes_of_a_socket_are_found(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        path = str(tmp_path / "s")
        unix.bind(path)
        unix.listen()
        assert processes.listener_of(tcp.getsockname()[1]) == os.getpid()
        assert processes.unix_listener(path) == os.getpid()
    assert processes.unix_listener(path) is None


def test_a_socket_that_got_its_name_after_it_was_bound_is_found(tmp_path):
    with socket.socket(socket.AF_UNIX) as unix:
        fresh = tmp_path / ".eye.sock.new"  # as an agent does
        unix.bind(str(fresh))
        unix.listen()
        path = fresh.rename(tmp_path / "eye.sock")
        assert processes.unix_listener(str(path)) == os.getpid()


def test_this_process_costs_something():
    pids = processes.tree(os.getpid())
    assert os.getpid() in pids
    before = processes.cpu_seconds(pids)
    assert sum(range(2_000_000))
    assert processes.cpu_seconds(pids) > before
    memory = processes.memory([os.getpid()])
    assert 1 < memory.pss <= memory.rss


def test_a_process_that_ended_costs_nothing():
    assert processes.cpu_seconds([2**22 - 1]) == 0
    assert processes.memory([2**22 - 1]).rss == 0


def test_energy_adds_the_packages_and_not_their_parts(tmp_path):
    assert processes.energy(tmp_path) is None
    for name, value in (("intel-rapl:0", "2000000"), ("intel-rapl:1", "3000000"), ("intel-rapl:0:0", "900000")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(value)
    assert processes.energy(tmp_path) == pytest.approx(5.0)
