# SPDX-License-Identifier: Apache-2.0
"""Agent <-> runner, over an inherited unix stream socket: one JSON object a line, UTF-8, at most 1 MiB.

agent                              runner
Start                        ->
                             <-    Loaded           the variant is loaded and warmed up
                             <-    SelfTested       golden samples were run; not passed => the runner exits 5
Serve                        ->                     (only now does it accept connections)
                             <-    Serving
                             <-    Figures, Result  from now on
Acked                        ->                     results up to a number are durable
BeginTrial, EndTrial         ->                     (to the one that serves) show requests to another runner
                             <-    TrialCounts      from then on, with every Figures
Rest                         ->                     stop accepting, finish what is there, stay loaded
                             <-    Resting          Serve wakes it up
Routes                       ->                     who else serves on the box's address, again whenever that changes
Drain                        ->                     stop accepting, finish what is there
                             <-    Drained          then exit 0
end of file on the socket means the agent died: the runner goes on serving until it is told or killed.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from skerry.wire.v1.device import Trial

Count = Annotated[int, Meta(ge=0, le=2**53)]
Measured = Annotated[float, Meta(ge=0, le=1e12)]
"""What a runner says of itself is not trusted: the agent calculates with these. A message out of bounds is not understood."""

LatencyBuckets = dict[Annotated[int, Meta(ge=-5000, le=5000)], Count]
ShiftBuckets = dict[Annotated[int, Meta(ge=-500, le=500)], Count]


class Start(Struct, frozen=True, kw_only=True, tag="start"):
    workload: str
    bundle_dir: str  # unpacked bundle: skerry.json, model files and self-test by their manifest paths
    variant: str
    listen_fd: int  # inherited listening TCP socket
    unix_fd: int = -1  # inherited listening unix socket; -1 = none, as below
    box_fd: int = -1  # listening TCP socket that all runners of the box share
    exchange_fd: int = -1  # unix datagram socket: others hand over connections that ask for this workload
    keeper_fd: int = -1  # unix seqpacket socket: the agent gets a copy of every connection, for when this process dies
    config_digest: str = ""  # sha256:... of skerry.json as the agent verified it; empty = not checked again
    memory_limit_mib: int = 0  # 0 = none
    figures_seconds: float = 2.0
    probe_seconds: float = 1.0  # an idle runner runs a self-test sample this often; 0 = never
    private_fd: int = -1  # inherited listening unix socket for a trial; -1 = none
    linger_seconds: float = 5.0  # how long a draining runner keeps idle keep-alive connections
    sandbox: bool = True  # give up files, network and programs before the model is opened; see runner/sandbox.py
    cache_dir: str = (
        ""  # the one folder it may write to: what an engine derives from this bundle's models; empty = none
    )
    shared_memory: bool = False  # regions in the system's shared memory may be opened, for clients that name them
    access_log: bool = False  # a line for every request, in the runner's log


class Serve(Struct, frozen=True, kw_only=True, tag="serve"):
    private: bool = False  # only on `Start.private_fd`: for the runner of the current version, in a trial


class Drain(Struct, frozen=True, kw_only=True, tag="drain"):
    pass


class Acked(Struct, frozen=True, kw_only=True, tag="acked"):
    through: int


class Rest(Struct, frozen=True, kw_only=True, tag="rest"):
    pass


class BeginTrial(Struct, frozen=True, kw_only=True, tag="begin-trial"):
    """Ask the version listening on the unix socket `path` too. A second one replaces the first and counts from zero."""

    path: str
    version: str  # what its answers say as `model_version`
    trial: Trial


class EndTrial(Struct, frozen=True, kw_only=True, tag="end-trial"):
    pass


class Route(Struct, frozen=True, kw_only=True):
    """One workload of the box. The lowest workload name serves a model for requests that name no version."""

    workload: str
    model: str
    version: str
    exchange: str = ""  # path of its exchange socket
    unix: str = ""  # path of its listening unix socket
    up: bool = False  # a runner serves it now
    port: int = 0  # its own TCP port


class Routes(Struct, frozen=True, kw_only=True, tag="routes"):
    """All workloads of the box, the receiver's own included."""

    routes: tuple[Route, ...] = ()


Command = Start | Serve | Drain | Acked | Rest | BeginTrial | EndTrial | Routes


class Loaded(Struct, frozen=True, kw_only=True, tag="loaded"):
    load_ms: Measured
    rss_mib: Measured
    engine: str
    sandbox: dict[str, str] = {}  # layer -> "on: ..." or "off: why"
    model: str = ""
    version: str = ""


class SelfTested(Struct, frozen=True, kw_only=True, tag="self-tested"):
    passed: bool
    samples: int
    problem: str = ""
    latency_p50_ms: float = 0.0


class Serving(Struct, frozen=True, kw_only=True, tag="serving"):
    pid: int


class Figures(Struct, frozen=True, kw_only=True, tag="figures"):
    window_seconds: Measured
    requests: Count
    errors: Count
    latency_p50_ms: Measured
    latency_p95_ms: Measured
    latency_p99_ms: Measured
    probes: Count
    rss_mib: Measured
    latency: LatencyBuckets = {}  # buckets of the live requests' sketch (observe.latency), while a trial needs them


class TrialCounts(Struct, frozen=True, kw_only=True, tag="trial-counts"):
    """What the runner that serves has counted since BeginTrial; observe.comparison says what each count means."""

    path: str
    asked: Count
    dropped: Count
    compared: Count
    agreed: Count
    problems: dict[str, Count] = {}
    flips: dict[str, Count] = {}
    shift_total: Annotated[float, Meta(ge=-1e300, le=1e300)] = 0.0
    shifts: ShiftBuckets = {}
    skipped: Count = 0


class Resting(Struct, frozen=True, kw_only=True, tag="resting"):
    pass


class Result(Struct, frozen=True, kw_only=True, tag="result"):
    n: int  # grows by one per runner process
    event_id: str
    at: float
    outputs: dict[str, list[float | int | str | bool]]
    request_id: str = ""


class Failed(Struct, frozen=True, kw_only=True, tag="failed"):
    code: str
    message: str


class Drained(Struct, frozen=True, kw_only=True, tag="drained"):
    unsent: int = 0


Event = Loaded | SelfTested | Serving | Figures | Result | Failed | Drained | TrialCounts | Resting
