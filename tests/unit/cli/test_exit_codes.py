# SPDX-License-Identifier: Apache-2.0
import pytest

from skerry import errors
from skerry.cli.exit_codes import TABLE, ExitCode, exit_code


def tree(root=errors.SkerryError):
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def bare(kind):
    """An instance whatever its template asks for."""
    error = kind.__new__(kind)
    Exception.__init__(error)
    return error


@pytest.mark.parametrize("kind", list(tree()), ids=lambda kind: kind.__name__)
def test_every_error_has_one_of_the_documented_codes(kind):
    assert exit_code(bare(kind)) in {1, 2, 3, 4, 5}


def test_the_nearest_class_counts():
    assert exit_code(bare(errors.InputMissing)) is ExitCode.USAGE
    assert exit_code(bare(errors.FileExists)) is ExitCode.ERROR
    assert exit_code(bare(errors.GateFailed)) is ExitCode.GATE_FAILED
    assert exit_code(bare(errors.SelfTestFailed)) is ExitCode.GATE_FAILED
    assert exit_code(bare(errors.WaitTimedOut)) is ExitCode.TIMEOUT
    assert exit_code(bare(errors.PartialResult)) is ExitCode.PARTIAL
    assert exit_code(bare(errors.HubUnreachable)) is ExitCode.ERROR


def test_the_table_has_no_success():
    assert ExitCode.OK not in TABLE.values()
