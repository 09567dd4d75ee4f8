# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from skerry.trust.chain import Intact, verify_chain
from support.mini_hub import DEVICE


def test_installs_serves_and_proves_it(bench):
    v1 = bench.owner.release("1.0.0", 1, labels={"results": "3"})
    bench.join()
    bench.hub.assign(bench.spec(v1))
    bench.start()
    bench.committed(v1)
    assert bench.ask() == "digits:1.0.0"
    assert bench.hub.states(v1) == ["fetching", "self-testing", "switching", "soaking", "committed"]
    bench.until("results", lambda: len(bench.hub.results()) >= 6)
    bench.stop()
    intact = verify_chain(bench.hub.history(), device_id=DEVICE, public_key=bench.hub.public_key)
    assert isinstance(intact, Intact)
    kinds = [entry.kind for entry in bench.hub.history()]
    assert kinds == ["agent-started", "assignment-accepted", "update-began", "committed"]
