# SPDX-License-Identifier: Apache-2.0
import json
import sys
import types

import click
import pytest

from skerry import errors
from skerry.cli import program, verbs
from skerry.cli.exit_codes import ExitCode


@pytest.fixture
def verb(monkeypatch):
    """Puts a command made of one function into the table as `skerry probe`."""

    def install(function):
        module = types.ModuleType("skerry.cli.probe")
        command = click.command("probe")(click.option("-o", "--output")(lambda output: function()))
        monkeypatch.setattr(module, "command", command, raising=False)
        monkeypatch.setitem(sys.modules, "skerry.cli.probe", module)
        monkeypatch.setitem(verbs.VERBS, "probe", verbs.Verb("probe", verbs.BUILD, "Probe", "skerry.cli.probe"))

    return install


def failing(error):
    def function():
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.NotFound(kind="device", name="d1"), 1),
        (errors.HubNotChosen(), 2),
        (errors.GateFailed(what="rollout r1", detail="too slow"), 3),
        (errors.WaitTimedOut(what="rollout r1", seconds=5), 4),
        (errors.PartialResult(what="rollout r1", done=3, total=5), 5),
    ],
)
def test_our_errors_say_code_message_and_hint_on_stderr(verb, capsys, error, code):
    verb(failing(error))
    assert program.run(["probe"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert lines[0] == f"error {error.code}: {error}"
    assert lines[1:] == ([f"hint: {error.hint()}"] if error.hint() else [])


def test_with_json_the_error_is_one_object(verb, capsys):
    verb(failing(errors.NotFound(kind="device", name="d1")))
    assert program.run(["probe", "-o", "json"]) == 1
    body = json.loads(capsys.readouterr().err)
    assert body["code"] == "SKY-5004"
    assert body["fields"] == {"kind": "device", "name": "d1"}
    assert body["message"] == "there is no device d1"
    assert "skerry get devices" in body["hint"]


def test_an_unexpected_error_is_one_line_and_a_traceback_only_with_debug(verb, capsys):
    verb(failing(ZeroDivisionError("oh")))
    assert program.run(["probe"]) == ExitCode.ERROR
    err = capsys.readouterr().err
    assert "unexpected ZeroDivisionError: oh" in err
    assert "--debug" in err
    assert "Traceback" not in err
    program.run(["probe"], debug=True)
    assert "Traceback" in capsys.readouterr().err


def test_interrupt_is_130(verb, capsys):
    verb(failing(KeyboardInterrupt()))
    assert program.run(["probe"]) == 130
    assert capsys.readouterr().err.strip() == "interrupted"


def test_a_command_may_return_its_exit_code(verb):
    verb(lambda: ExitCode.ERROR)
    assert program.run(["probe"]) == 1
    verb(lambda: None)
    assert program.run(["probe"]) == 0


def test_wrong_usage_is_2_and_names_the_help_of_that_verb(capsys):
    assert program.run(["get", "devices", "--colour"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("error SKY-7000: ")
    assert "skerry get --help" in err


def test_wrong_usage_with_json_is_json(capsys):
    assert program.run(["get", "devices", "--colour", "-o", "json"]) == 2
    assert json.loads(capsys.readouterr().err)["code"] == "SKY-7000"


@pytest.mark.parametrize(("package", "extra"), [("litestar.di", "hub"), ("onnxruntime", "ort"), ("rich", "cli")])
def test_a_missing_package_says_what_to_install(verb, capsys, package, extra):
    verb(failing(ModuleNotFoundError(name=package)))
    assert program.run(["probe"]) == 1
    err = capsys.readouterr().err
    assert "SKY-7001" in err
    assert f'pip install "skerry[{extra}]"' in err


def test_a_broken_import_of_our_own_is_a_defect(verb, capsys):
    verb(failing(ModuleNotFoundError(name="skerry.cli.gone")))
    assert program.run(["probe"]) == 1
    assert "defect in Skerry" in capsys.readouterr().err


def test_version(capsys):
    assert program.run(["--version"]) == 0
    assert capsys.readouterr().out.startswith("skerry ")
