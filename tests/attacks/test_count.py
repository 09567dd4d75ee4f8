# SPDX-License-Identifier: Apache-2.0
"""The promise is a number: at least this many named attacks, and the ones every updater must name."""

import ast
from pathlib import Path

AT_LEAST = 150
MUST_BE_THERE = (
    "rollback",
    "freeze",
    "mix_and_match",
    "endless",
    "slow_retrieval",
    "wrong_target",
    "stolen_online_keys",
    "stolen_line_key",
    "stolen_hub_key",
    "republished",
    "clock_set_back",
    "wiped",
    "another_device",
    "replayed",
    "unsigned",
    "threshold_zero",
    "key_file_missing",
    "swapped_blob",
    "truncated_blob",
    "zeroed",
    "one_of_two",
    "dropped",
    "climbs_out",
    "fast_forward",
    "two_ids",
    "algorithm_confusion",
)


def named():
    folder = Path(__file__).parent
    trees = [ast.parse(path.read_text()) for path in folder.glob("test_*.py") if path.name != Path(__file__).name]
    return {
        node.name
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_enough_attacks_are_tried():
    assert len(named()) >= AT_LEAST


def test_the_known_attacks_are_among_them():
    names = " ".join(named())
    assert [word for word in MUST_BE_THERE if word not in names] == []
