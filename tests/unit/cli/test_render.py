# SPDX-License-Identifier: Apache-2.0
import io
import json
import sys

import click
import pytest
from ruamel.yaml import YAML

from skerry.cli.listings import DEVICES
from skerry.cli.render import Output, aligned, clean, colourful, pairs, show_list, yaml_text
from unit.cli.scripted import NOW, device


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(capsys, output, *items):
    show_list(items, DEVICES, output=output, now=NOW)
    return capsys.readouterr()


def test_a_table_in_a_pipe_is_plain_aligned_ascii(capsys):
    out = shown(capsys, Output.TABLE, device(), device("press-200")).out
    header, first, second = out.splitlines()
    assert out.isascii()
    assert "\x1b" not in out
    assert header.split() == ["NAME", "STATUS", "SEEN", "RUNS", "STATE", "LABELS"]
    assert first.index("online") == second.index("online") == header.index("STATUS")
    assert "30s ago" in first
    assert "weld=weld-defect:1.5.1" in first


def test_wide_has_more_columns(capsys):
    header = shown(capsys, Output.WIDE, device()).out.splitlines()[0]
    assert {"ARCH", "AGENT", "ID"} <= set(header.split())


def test_names_can_be_fed_to_the_next_command(capsys):
    assert shown(capsys, Output.NAME, device(), device("b")).out == "device/press-1\ndevice/b\n"


def test_json_and_yaml_say_the_same(capsys):
    from_json = json.loads(shown(capsys, Output.JSON, device()).out)
    from_yaml = YAML(typ="safe").load(shown(capsys, Output.YAML, device()).out)
    assert from_json == from_yaml
    assert from_json[0]["enrolled"] == "2027-01-14T08:00:00.000Z"


def test_an_empty_list_says_what_to_do_on_stderr_and_nothing_on_stdout(capsys):
    out, err = shown(capsys, Output.TABLE)
    assert out == ""
    assert "skerry enroll-token" in err


def test_an_empty_json_list_is_a_list(capsys):
    assert json.loads(shown(capsys, Output.JSON).out) == []


def test_a_device_cannot_drive_the_terminal():
    assert clean("\x1b[2Jpress\x07\x9b1\u202e") == "?[2Jpress??1?"
    assert clean("Straße 你\n\t") == "Straße 你\n\t"


def test_a_cell_is_one_line():
    assert aligned([["a\nb\r\nforged  row", "c"]]) == ["a b forged  row  c"]


def test_on_a_terminal_the_table_has_colours_and_the_same_columns(monkeypatch, capsys):
    plain = shown(capsys, Output.WIDE, device(), device("press-200")).out
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    show_list((device(), device("press-200")), DEVICES, output=Output.WIDE, now=NOW)
    assert "\x1b[32monline\x1b[0m" in terminal.getvalue()
    assert click.unstyle(terminal.getvalue()) == plain


@pytest.mark.parametrize(("environ", "expected"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colour_only_on_a_willing_terminal(monkeypatch, environ, expected):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert colourful(Terminal()) is expected
    assert colourful(io.StringIO()) is False


def test_aligned_and_pairs():
    assert aligned([["a", "bb"], ["ccc", "d"]]) == ["a    bb", "ccc  d"]
    assert pairs({"Name": "x", "Empty": "", "Longer": "y"}) == ["Name:    x", "Longer:  y"]


def test_yaml_keeps_the_order_of_the_fields():
    assert yaml_text({"b": 1, "a": [True, None]}).splitlines()[0] == "b: 1"
