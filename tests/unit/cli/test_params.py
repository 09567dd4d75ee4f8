# SPDX-License-Identifier: Apache-2.0
import click
import pytest

from skerry.cli.params import confirm, parse_labels, parse_references
from skerry.errors import NotConfirmed


def test_labels():
    assert parse_labels(["line=a,cell=3", "site=x=y"]) == {"line": "a", "cell": "3", "site": "x=y"}
    assert parse_labels([]) == {}


@pytest.mark.parametrize("text", ["line", "=a", "line=a,b"])
def test_what_is_no_label(text):
    with pytest.raises(click.BadParameter):
        parse_labels([text])


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["devices"], ("device", [])),
        (["device", "a"], ("device", ["a"])),
        (["device/a"], ("device", ["a"])),
        (["devices/a", "device/b"], ("device", ["a", "b"])),
        (["device", "device/a"], ("device", ["a"])),
        (["model/body-shop/weld:1.5"], ("model", ["body-shop/weld:1.5"])),
        (["models", "body-shop/weld:1.5"], ("model", ["body-shop/weld:1.5"])),
        (["device/"], ("device", [])),
        (["Rollouts"], ("rollout", [])),
    ],
)
def test_type_and_name_in_either_form(words, expected):
    assert parse_references(words) == expected


@pytest.mark.parametrize("words", [[], ["gadgets"], ["gadget/a"], ["device/a", "fleet/b"]])
def test_unknown_or_mixed_types(words):
    with pytest.raises(click.UsageError):
        parse_references(words)


def test_without_a_terminal_there_is_no_prompt():
    confirm("Sure?", what="it", yes=True)
    with pytest.raises(NotConfirmed):
        confirm("Sure?", what="it", yes=False)
