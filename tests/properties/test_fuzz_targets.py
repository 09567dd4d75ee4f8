# SPDX-License-Identifier: Apache-2.0
"""A slice of the fuzzing of fuzz/run.py that costs seconds: the same targets, fed with damaged good inputs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support import fuzz_grpc, fuzz_messages, fuzz_seeds, fuzz_targets
from support.fuzz_seeds import WORDS

TARGETS = {**fuzz_targets.TARGETS, **fuzz_grpc.TARGETS, **fuzz_messages.TARGETS}
SEEDS = {**fuzz_seeds.SEEDS, **fuzz_messages.SEEDS}

words = st.sampled_from([word.encode() for word in WORDS])
changes = st.lists(st.tuples(st.floats(0, 1), st.integers(0, 8), words | st.binary(max_size=6)), min_size=0, max_size=4)


def changed(data, edits):
    """Each edit: where, how many bytes go, what comes in."""
    for at, gone, new in edits:
        start = int(at * len(data))
        data = data[:start] + new + data[start + gone :]
    return data


def inputs(name):
    seeds = SEEDS[name]()
    return st.one_of(
        st.tuples(st.sampled_from(seeds), changes).map(lambda pair: changed(*pair)),
        st.tuples(st.sampled_from(seeds), st.sampled_from(seeds)).map(b"".join),
        st.binary(max_size=64),
    )


@pytest.mark.parametrize("name", TARGETS)
def test_no_bytes_break_an_invariant(name):
    @settings(max_examples=600, deadline=None)
    @given(inputs(name))
    def run(data):
        TARGETS[name](data)

    run()


@pytest.mark.parametrize("name", TARGETS)
def test_every_target_has_first_inputs_that_pass(name):
    for data in SEEDS[name]():
        TARGETS[name](data)
