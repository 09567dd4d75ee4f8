# SPDX-License-Identifier: Apache-2.0
import sys

import pytest

from skerry.cli import main
from skerry.cli.verbs import help_text


@pytest.mark.parametrize(
    ("given", "arguments", "debug"),
    [
        (["get", "devices"], ["get", "devices"], False),
        (["--debug", "get"], ["get"], True),
        (["get", "--debug"], ["get"], True),
        (["agent", "--", "--debug"], ["agent", "--", "--debug"], False),
        (["--debug", "x", "--", "--debug"], ["x", "--", "--debug"], True),
    ],
)
def test_debug_may_stand_anywhere_before_a_double_dash(given, arguments, debug):
    assert main.split_debug(given) == (arguments, debug)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"], ["help"]])
def test_help_is_answered_from_the_table(arguments, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["skerry", *arguments])
    main.main()
    assert capsys.readouterr().out == help_text()


def test_an_error_becomes_an_exit_code(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["skerry", "gte"])
    with pytest.raises(SystemExit) as exit_:
        main.main()
    assert exit_.value.code == 2
    assert "did you mean get?" in capsys.readouterr().err
