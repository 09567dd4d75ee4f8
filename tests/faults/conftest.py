# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest

from support.agent_bench import Bench


@pytest.fixture
def bench(tmp_path):
    made = Bench(tmp_path)
    yield made
    made.close()
