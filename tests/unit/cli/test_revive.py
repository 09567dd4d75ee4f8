# SPDX-License-Identifier: Apache-2.0
from string import Formatter

import msgspec
import pytest

from skerry import errors
from skerry.cli.revive import refusal, revive
from skerry.wire.v1.device import ErrorBody


def tree(root=errors.SkerryError):
    yield root
    for child in root.__subclasses__():
        yield from tree(child)


def fields_of(kind):
    texts = (kind.template, kind.advice)
    return {name: f"<{name}>" for text in texts for _, name, _, _ in Formatter().parse(text) if name}


@pytest.mark.parametrize("kind", list(tree()), ids=lambda kind: kind.__name__)
def test_every_error_survives_the_wire(kind):
    error = kind(**fields_of(kind))
    body = ErrorBody(code=error.code, message=str(error), hint=error.hint(), fields=error.fields)
    back = revive(msgspec.json.decode(msgspec.json.encode(body), type=ErrorBody))
    assert type(back) is kind
    assert (str(back), back.hint(), back.fields) == (str(error), error.hint(), error.fields)


def test_a_code_of_a_newer_hub_still_says_what_it_said():
    back = revive(ErrorBody(code="SKY-5999", message="too modern", fields={"x": 1}))
    assert isinstance(back, errors.HubError)
    assert str(back) == "too modern (SKY-5999)"


def test_missing_fields_do_not_hide_the_message():
    back = revive(ErrorBody(code="SKY-5004", message="there is no device x", fields={}))
    assert "there is no device x" in str(back)


def test_what_is_no_refusal_of_ours():
    error = refusal("http://x/api", 502, b"<html>Bad Gateway</html>")
    assert isinstance(error, errors.UnexpectedReply)
    assert "502" in str(error)
    assert "Bad Gateway" in str(error)
    assert isinstance(refusal("http://x", 401, b""), errors.Unauthenticated)
