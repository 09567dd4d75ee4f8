# SPDX-License-Identifier: Apache-2.0
"""What both clients are before they have a connection: where to, how, and what a call without words of its own means."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from skerry.client import address as addresses
from skerry.client.answer import Answers
from skerry.client.request import Options, Parameter, Requests


class Caller:
    """Raises CallInvalid for a URL that is none."""

    def __init__(
        self,
        url: str,
        *,
        timeout: float = 30.0,
        binary: bool = True,
        keep: int = 8,
        headers: Mapping[str, str] | None = None,
        max_answer_bytes: int = 1 << 30,
    ) -> None:
        self._address = addresses.parse(url)
        self._timeout = timeout
        self._binary = binary
        self._keep = keep
        self._requests = Requests(address=self._address, headers=headers or {})
        self._answers = Answers(url, max_bytes=max_answer_bytes)
        self._closed = False

    def _options(
        self,
        model: str,
        version: str,
        outputs: Sequence[str],
        *,
        timeout: float | None,
        binary: bool | None,
        parameters: Mapping[str, Parameter] | None,
    ) -> Options:
        return Options(
            model=model,
            version=version,
            outputs=tuple(outputs),
            binary=self._binary if binary is None else binary,
            seconds=self._timeout if timeout is None else timeout,
            parameters=tuple(parameters.items()) if parameters else (),
        )
