# SPDX-License-Identifier: Apache-2.0
import runpy
from pathlib import Path
from types import SimpleNamespace

SCRIPT = Path(__file__).resolve().parents[3] / "scripts" / "cli_reference.py"


def script():
    return SimpleNamespace(**runpy.run_path(str(SCRIPT)))


def test_the_reference_is_what_the_commands_say():
    reference = script()
    assert reference.TARGET.read_text() == reference.render(), "run: python scripts/cli_reference.py"


def test_every_exit_code_is_explained():
    reference = script()
    assert set(reference._CODES) == set(reference.ExitCode)
