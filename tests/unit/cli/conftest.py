# SPDX-License-Identifier: Apache-2.0
import pytest

from unit.cli.scripted import Shell


@pytest.fixture
def shell(tmp_path, capsys):
    return Shell(tmp_path, capsys)
