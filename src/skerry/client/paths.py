# SPDX-License-Identifier: Apache-2.0
"""Paths of the protocol, and what their documents look like. Pure."""

from __future__ import annotations

from typing import Any, Final

from skerry.client.answer import Answers
from skerry.client.request import model_path

LIVE: Final = "/v2/health/live"
MODELS: Final = "/v2/models"


def ready(model: str, version: str) -> str:
    return f"{model_path(model, version)}/ready" if model else "/v2/health/ready"


def metadata(model: str, version: str) -> str:
    return model_path(model, version) if model else "/v2"


def config(model: str, version: str) -> str:
    return f"{model_path(model, version)}/config"


def statistics(model: str, version: str) -> str:
    return f"{model_path(model, version)}/stats" if model else "/v2/models/stats"


def an_object(document: object, answers: Answers) -> dict[str, Any]:
    """Raises AnswerNotUnderstood for any other JSON."""
    if not isinstance(document, dict):
        raise answers.bad("it is no JSON object")
    return document


def names(document: dict[str, Any], answers: Answers) -> list[str]:
    found = document.get("models")
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise answers.bad("it is no list of models")
    return found
