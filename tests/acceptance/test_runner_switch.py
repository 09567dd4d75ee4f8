# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from acceptance.runner_harness import listen, write_bundle
from acceptance.switch_load import switch_under_load
from contracts.engine.models import affine, classifier

pytestmark = pytest.mark.slow


@pytest.mark.timeout(120)
def test_20_switches_under_load_drop_no_request(tmp_path):
    x = np.ones((2, 4), np.float32)
    first = write_bundle(tmp_path / "a", affine(), {"x": x})
    second = write_bundle(tmp_path / "b", classifier(), {"x": x}, version="2.0.0")
    with listen() as listener:
        tally = switch_under_load((first, second), listener, switches=20)
    assert tally.problems == ()
    assert tally.dropped == 0
    assert tally.asked > 1000
    assert tally.reconnects > 20
