# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import importlib.util
import re
from http import HTTPStatus
from pathlib import Path

import pytest

from skerry import errors
from skerry.hub.api.status import REACHABLE, STATUS, http_status

ROOT = Path(__file__).parents[2]


def generator():
    spec = importlib.util.spec_from_file_location("error_table", ROOT / "scripts" / "error_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


TABLE = generator()
EVERY = list(TABLE.tree(errors.SkerryError))


def test_the_page_is_up_to_date():
    page = TABLE.PAGE.read_text(encoding="utf-8")
    assert page == TABLE.render(), "run: python scripts/error_table.py"


def test_the_page_has_one_row_per_code():
    rows = re.findall(r"^\| (SKY-\d{4}) ", TABLE.PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert sorted(rows) == sorted(kind.code for kind in EVERY if kind is not errors.SkerryError)


@pytest.mark.parametrize(
    "kind", [kind for kind in EVERY if issubclass(kind, REACHABLE)], ids=lambda kind: kind.__name__
)
def test_every_error_a_caller_may_see_has_a_row_of_its_own_or_of_its_branch(kind):
    status = http_status(kind.__new__(kind))
    assert HTTPStatus(status) >= HTTPStatus.BAD_REQUEST
    assert any(cls in STATUS for cls in kind.__mro__)


@pytest.mark.parametrize("kind", errors.HubError.__subclasses__(), ids=lambda kind: kind.__name__)
def test_every_error_of_the_hub_was_given_a_status_on_purpose(kind):
    assert kind in STATUS


@pytest.mark.parametrize(
    "kind",
    [errors.RunnerFailed, errors.UnknownModel, errors.HubUnreachable, errors.ConfigError],
    ids=lambda kind: kind.__name__,
)
def test_what_is_not_meant_for_callers_is_an_internal_error(kind):
    assert not issubclass(kind, REACHABLE)
    assert http_status(kind.__new__(kind)) == HTTPStatus.INTERNAL_SERVER_ERROR
