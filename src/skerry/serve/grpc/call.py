# SPDX-License-Identifier: Apache-2.0
"""A ModelInfer request on its way through the desk."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from skerry.errors import InferenceRequestInvalid
from skerry.oip.grpc import answers, requests, wire
from skerry.oip.messages import InferRequest, ModelSignature
from skerry.runtime.datatypes import Array
from skerry.serve.calls import Answered, Call, Outcome
from skerry.serve.grpc.exchange import Payload, Reply, failure
from skerry.serve.http.encoding import inflate

_JOIN_BELOW: Final = 64 * 1024


class InferCall(Call, kw_only=True):
    """`parts` are None for a message that is still compressed; `limit` bounds it once it is not."""

    message: bytes | bytearray
    reply: Reply
    encoding: str = ""
    limit: int = 0
    parts: wire.Parts | None = None

    @property
    def weight(self) -> int:
        return len(self.message)

    def decode(self, model: ModelSignature) -> InferRequest:
        return requests.decode(self.unpacked(model), model)

    def unpacked(self, model: ModelSignature) -> wire.Parts:
        """Raises InferenceRequestInvalid, RequestTooLarge."""
        if self.parts is not None:
            return self.parts
        parts = wire.split(inflate(bytes(self.message), self.encoding, limit=self.limit))
        if parts.name != model.name:
            raise InferenceRequestInvalid(problem="the message names two models")
        return parts

    def encode(self, request: InferRequest, outputs: Mapping[str, Array], model: ModelSignature) -> Payload:
        """What is small enough is one piece, so that its worker joins it, not the loop."""
        payload = answers.encode(request, outputs, model)
        return [b"".join(payload)] if sum(map(len, payload)) < _JOIN_BELOW else payload

    def finish(self, outcome: Outcome) -> None:
        if isinstance(outcome, Answered):
            self.reply(cast("Payload", outcome.answer))
        else:
            self.reply(failure(outcome.error))
        if self.done is not None:
            self.done(outcome)
