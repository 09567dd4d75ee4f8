# SPDX-License-Identifier: Apache-2.0
"""Nobody gets another's answer: requests of many clients that join in batches, run on workers, and are answered out of turn."""

from contextlib import ExitStack

import numpy as np
import pytest

from acceptance.runner_harness import RunnerProcess, listen, write_bundle
from contracts.engine.models import affine_answer, classifier, slow
from support.tenants import Model, crowd

pytestmark = pytest.mark.slow

QUICK = Model(name="quick", width=4, output="scores", answer=affine_answer)
SLOW = Model(name="slow", width=512, output="y", answer=lambda x: np.maximum(x, 0))


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A model that runs on the loop's thread, in batches of a turn, and one that runs on workers; in a process each."""
    folder = tmp_path_factory.mktemp("bundles")
    bundles = [
        write_bundle(folder / "quick", classifier(), {"x": np.ones((2, 4), np.float32)}, name="quick"),
        write_bundle(folder / "slow", slow(), {"x": np.ones((2, 512), np.float32)}, name="slow"),
    ]
    with ExitStack() as stack:
        listeners = [stack.enter_context(listen()) for _ in bundles]
        runners = [
            stack.enter_context(RunnerProcess(bundle, listener))
            for bundle, listener in zip(bundles, listeners, strict=True)
        ]
        for runner in runners:
            runner.serve()
        yield [listener.getsockname() for listener in listeners]


@pytest.mark.parametrize("model", [QUICK, SLOW], ids=lambda model: model.name)
def test_every_answer_belongs_to_its_question(served, model):
    address = served[0 if model is QUICK else 1]
    questions = 400 if model is QUICK else 80
    tally = crowd([address], [model], tenants=12, questions=questions)
    assert tally.wrong == []
    assert tally.counts["right"] > 12 * questions * 0.8
    assert set(tally.counts) <= {"right", "refused"}
