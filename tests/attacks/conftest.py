# SPDX-License-Identifier: Apache-2.0
import pytest

from support.victim import Owner, Victim


@pytest.fixture
def owner():
    return Owner()


@pytest.fixture
def victim(tmp_path, owner):
    return Victim(tmp_path / "device", owner)
