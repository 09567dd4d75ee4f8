# SPDX-License-Identifier: Apache-2.0
"""A request that waits for its run, the run of one or several, and how several become one. Any thread; touches no counter."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import cast

import numpy as np
from msgspec import Struct

from skerry.errors import ClientGone, DeadlineExceeded, InferenceFailed, SkerryError
from skerry.oip import classification, ranges
from skerry.oip.messages import InferRequest
from skerry.runtime.datatypes import Array
from skerry.runtime.sequences import Stateful
from skerry.serve.calls import Answered, Call, Crashed, Outcome, Refused
from skerry.serve.served import Served

Monotonic = Callable[[], float]

_logger = logging.getLogger(__name__)


class Ticket(Struct, frozen=True, kw_only=True, gc=False):
    """`deadline` in monotonic seconds, 0 = none; `read` is what reading the request took, in seconds."""

    call: Call
    request: InferRequest
    deadline: float
    rows: int
    read: float


Result = tuple[Call, Outcome]


def admit(served: Served, call: Call, now: Monotonic) -> Ticket:
    """Reads the request. Raises SkerryError."""
    if call.gone:  # while it waited to be read
        raise ClientGone
    begun = now()
    signature = served.signature
    request = call.decode(signature)
    if signature.bounds:
        ranges.check(request.inputs, signature.bounds)
    read = now()
    deadline = call.deadline
    if request.timeout:
        own = call.received + request.timeout
        deadline = min(deadline, own) if deadline else own
    if deadline and read > deadline:
        raise DeadlineExceeded
    return Ticket(call=call, request=request, deadline=deadline, rows=rows_of(request.inputs), read=read - begun)


def rows_of(inputs: Mapping[str, Array]) -> int:
    """Length of the first axis of the first input: what a batch counts; 1 for scalars and models without inputs, 0 for nothing."""
    for first in inputs.values():
        return (first.shape[0] if first.size else 0) if first.ndim else 1
    return 1


def run(served: Served, tickets: Sequence[Ticket], now: Monotonic) -> list[Result]:
    """An outcome for every ticket, from one run of the engine; never raises."""
    if len(tickets) == 1:
        return [(tickets[0].call, run_one(served, tickets[0], now))]
    try:
        return list(_run(served, tickets, now))
    except Exception as error:  # the outermost frame of every run: a defect must not end the thread that answers all
        _logger.exception("run failed")
        return [(ticket.call, Crashed(problem=type(error).__name__, name=served.signature.name)) for ticket in tickets]


def in_vain(ticket: Ticket, now: float) -> SkerryError | None:
    """Why it should not be run any more, at `now` in monotonic seconds."""
    if ticket.call.gone:
        return ClientGone()
    return DeadlineExceeded() if ticket.deadline and now > ticket.deadline else None


def run_one(served: Served, ticket: Ticket, now: Monotonic) -> Outcome:
    """Never raises: an expected error is an outcome, and a defect in one request is no other's."""
    begun = now()
    if (ticket.deadline or ticket.call.gone) and (vain := in_vain(ticket, begun)) is not None:
        return Refused(error=vain)
    try:
        request = ticket.request
        if request.sequence is None:
            outputs = served.engine.run(request.inputs)
        else:  # set for models that carry state only
            outputs = cast("Stateful", served.engine).run_in(request.sequence, request.inputs)
        return _answer(served, ticket, outputs, (begun, now()), now=now)
    except SkerryError as error:
        return Refused(error=error)
    except Exception as error:  # the outermost frame of every request
        _logger.exception("request failed")
        return Crashed(problem=type(error).__name__, name=served.signature.name)


def _run(served: Served, tickets: Sequence[Ticket], now: Monotonic) -> Iterator[Result]:
    """When a joint run fails, one for each, so that nobody pays for another's request."""
    begun = now()
    if any(ticket.deadline or ticket.call.gone for ticket in tickets):
        left: list[Ticket] = []
        for ticket in tickets:
            if (vain := in_vain(ticket, begun)) is None:
                left.append(ticket)
            else:
                yield ticket.call, Refused(error=vain)
        tickets = left
    if len(tickets) == 1:
        yield tickets[0].call, run_one(served, tickets[0], now)
    elif tickets:
        yield from _together(served, tickets, begun, now)


def _together(served: Served, tickets: Sequence[Ticket], begun: float, now: Monotonic) -> Iterator[Result]:
    try:
        parts = list(_split(served.engine.run(_joined(tickets)), tickets))
    except SkerryError:
        for ticket in tickets:
            yield ticket.call, run_one(served, ticket, now)
        return
    span = (begun, now())
    for ticket, outputs in zip(tickets, parts, strict=True):
        try:
            yield ticket.call, _answer(served, ticket, outputs, span, now=now, batch=len(tickets))
        except SkerryError as error:
            yield ticket.call, Refused(error=error)


def _answer(
    served: Served,
    ticket: Ticket,
    outputs: Mapping[str, Array],
    span: tuple[float, float],
    *,
    now: Monotonic,
    batch: int = 1,
) -> Answered:
    """`span` is when the engine began and ended."""
    begun, ended = span
    call, request, read = ticket.call, ticket.request, ticket.read
    shown = classification.presented(outputs, request.wanted, served.signature)
    answer = call.encode(request, shown, served.signature)
    return Answered(
        answer=answer,
        outputs=outputs,
        request_id=request.id or "",
        rows=ticket.rows,
        queue=begun - call.received - read,
        compute=ended - begun,
        codec=read + now() - ended,
        batch=batch,
    )


# --- several in one ------------------------------------------------------------------------------------------------------


def groups(tickets: Sequence[Ticket], limit: int) -> Iterator[Sequence[Ticket]]:
    """In the order they came, as many as fit together: equal trailing shapes, at most `limit` rows, none without rows."""
    group: list[Ticket] = []
    rows = 0
    for ticket in tickets:
        if group and (rows + ticket.rows > limit or not ticket.rows or not _alike(group[0], ticket)):
            yield group
            group, rows = [], 0
        group.append(ticket)
        rows = rows + ticket.rows if ticket.rows else limit
    if group:
        yield group


def _alike(first: Ticket, other: Ticket) -> bool:
    """Datatypes and names are the model's, so shapes behind the first axis decide, and one count of rows in all inputs."""
    inputs, others = first.request.inputs, other.request.inputs
    return all(
        array.shape[1:] == others[name].shape[1:]
        and array.shape[0] == first.rows
        and others[name].shape[0] == other.rows
        for name, array in inputs.items()
    )


def _joined(tickets: Sequence[Ticket]) -> dict[str, Array]:
    return {
        name: np.concatenate([ticket.request.inputs[name] for ticket in tickets]) for name in tickets[0].request.inputs
    }


def _split(outputs: Mapping[str, Array], tickets: Sequence[Ticket]) -> Iterator[dict[str, Array]]:
    """Rows of contiguous arrays are contiguous, so nothing is copied. Raises InferenceFailed where rows do not add up."""
    ends = np.cumsum([0, *(ticket.rows for ticket in tickets)]).tolist()
    for name, array in outputs.items():
        if array.shape[:1] != (ends[-1],):
            raise InferenceFailed(name=name, problem=f"{ends[-1]} rows gave an answer of shape {list(array.shape)}")
    for begin, end in pairwise(ends):
        yield {name: array[begin:end] for name, array in outputs.items()}
