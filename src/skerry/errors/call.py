# SPDX-License-Identifier: Apache-2.0
"""A call of `skerry.client` did not bring an answer: SKY-8xxx."""

from __future__ import annotations

from skerry.errors.root import SkerryError


class CallError(SkerryError):
    code = "SKY-8000"


class CallRefused(CallError):
    """`status` is that of HTTP, `server_code` the server's own error code (empty when it named none)."""

    code = "SKY-8001"
    template = "{url} refused with {status}: {problem}"
    advice = "4xx: change the request. 503: try again a little later. 504: give it more time."


class ServerUnreachable(CallError):
    code = "SKY-8002"
    template = "cannot reach {url}: {problem}"
    advice = "Is the workload running, and the address right? `skerry agent status` shows it."


class CallTimedOut(CallError):
    code = "SKY-8003"
    template = "{url} gave no answer within {seconds} s"
    advice = "The server was told the same deadline; it may have run the request all the same."


class AnswerNotUnderstood(CallError):
    code = "SKY-8004"
    template = "{url} gave an answer that cannot be used: {problem}"
    advice = "Is it a server of the Open Inference Protocol v2?"


class CallInvalid(CallError):
    code = "SKY-8005"
    template = "{problem}"
    advice = "Nothing was sent."


class ConnectionBroken(CallError):
    """The request may have been run: the connection ended before the answer was whole."""

    code = "SKY-8006"
    template = "{url} closed the connection before its answer was whole"
    advice = "Send the request again when running it twice does no harm."
