# SPDX-License-Identifier: Apache-2.0
"""Ours against MLServer, KServe, LitServe, BentoML and Triton's front end: the figures of local serving, and whether they meet
their goals. `benchmarks/serving.py --quick` takes some minutes; see docs/how-to/measure-serving.md.

Random nets (a 30 us one, MobileNetV2-96, ResNet18-224), the same onnxruntime with one thread everywhere, a client in C. Each
number is the median over randomly interleaved rounds; overheads and ratios are to a bare `session.run` measured right before
the sample. A way that answers wrongly, even once, is left out and named.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import sys
import tempfile
import time
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import msgspec
from serving_bench import environments, figures, models
from serving_bench.load import Bare, Loader
from serving_bench.models import Model
from serving_bench.rounds import Plan, Rounds, Session
from serving_bench.servers import KINDS, Ours, Server

from skerry.cli.render import aligned

FULL = {
    "mlp": Plan(rounds=7, one=1.0, eight=1.0),
    "mbv2": Plan(rounds=5, one=1.0, slow=3.0, starts=3),
    "rn18": Plan(rounds=5, one=3.0, probe=3.0, floor=0.6),
}
QUICK = {
    "mlp": Plan(rounds=2, one=0.5, eight=0.5, floor=0.2),
    "mbv2": Plan(rounds=2, one=0.5, slow=2.0, floor=0.2),
    "rn18": Plan(rounds=2, one=1.0, probe=1.5, floor=0.4),
}


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def parse() -> argparse.Namespace:
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "skerry" / "peers"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peers", default=",".join(KINDS), help=f"which to install and measure, or none (default: {','.join(KINDS)})"
    )
    parser.add_argument("--peers-dir", type=Path, default=cache, help=f"where their environments are kept ({cache})")
    parser.add_argument("--models", default=",".join(models.NAMES), help="default: all three")
    parser.add_argument("--rounds", type=int, help="instead of the plan's")
    parser.add_argument("--quick", action="store_true", help="short samples, two rounds: a look, not a figure")
    parser.add_argument(
        "--no-install-sizes", action="store_true", help="do not make the two environments whose sizes are compared"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="every sample and verdict")
    return parser.parse_args()


def pythons(names: list[str], cache: Path) -> dict[str, Path]:
    cache.mkdir(parents=True, exist_ok=True)
    found = {name: environments.peer(name, cache, say) for name in names}
    return {name: python for name, python in found.items() if python is not None}


def measure(model: Model, plan: Plan, peers: dict[str, Path], folder: Path) -> Rounds:
    loader = Loader(folder)
    bare = Bare(sys.executable, model.file, model.x, folder)
    servers: list[Server] = [Ours(model, folder)]
    servers += [KINDS[name](model, folder, python=python) for name, python in peers.items()]
    try:
        return Session(model, servers, loader, bare, say).run(plan)
    finally:
        bare.stop()


def install_sizes(peers: dict[str, Path], cache: Path) -> dict[str, float]:
    all_pythons = {"engine": environments.engine_alone(cache, say), "skerry": environments.ours(cache, say), **peers}
    sizes = {name: environments.size_mb(python) for name, python in all_pythons.items() if python is not None}
    runner = all_pythons["skerry"]
    if runner is not None and "engine" in sizes:
        sizes["skerry, serving"] = sizes["engine"] + environments.size_mb(runner, environments.SERVES)
    return sizes


def show(name: str, rounds: Rounds) -> None:
    for title, samples in (
        ("1 client", rounds.one),
        ("8 clients, server on one core, client on the other", rounds.eight),
        ("1 client, 10 requests/s (floor: the bare engine at that pace)", rounds.slow),
        (
            "health endpoint every 5 ms while another client keeps the model busy (its floor means nothing)",
            rounds.probe,
        ),
    ):
        if samples:
            print(f"\n{name}: {title}\n" + "\n".join(aligned(figures.way_rows(samples))))
    print(f"\n{name}: footprint\n" + "\n".join(aligned(figures.footprint_rows(rounds))))
    for way, problem in rounds.void.items():
        print(f"{name}: {way} is void: {problem[-200:]}")
    sys.stdout.flush()


def show_installs(installs: dict[str, float]) -> None:
    if "engine" in installs:
        sizes = [[name, f"{size:.0f}", f"{size - installs['engine']:+.0f}"] for name, size in installs.items()]
        print("\n" + "\n".join(aligned([["INSTALL", "MB", "OVER ENGINE + NUMPY"], *sizes])))


def main() -> None:
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # also where a shell had SIGINT ignored: frozen servers must not stay behind
        signal.signal(number, lambda received, _: sys.exit(128 + received))
    given = parse()
    names = [] if given.peers == "none" else given.peers.split(",")
    if unknown := set(names) - KINDS.keys():
        raise SystemExit(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(KINDS)}")
    peers = pythons(names, given.peers_dir)
    plans = QUICK if given.quick else FULL
    found: dict[str, Rounds] = {}
    with tempfile.TemporaryDirectory(prefix="serving-") as folder:
        for name in given.models.split(","):
            plan = plans[name]
            if given.rounds:
                plan = Plan(**{**vars(plan), "rounds": given.rounds})
            found[name] = measure(models.make(name, Path(folder)), plan, peers, Path(folder))
            show(name, found[name])
    installs = {} if given.no_install_sizes else install_sizes(peers, given.peers_dir)
    show_installs(installs)
    verdicts = figures.verdicts(found, installs)
    busy = figures.pressure(found)
    doubtful = busy is not None and busy > figures.QUIET
    print(f"\n{platform.machine()}, {os.cpu_count()} cores, CPU pressure {busy} % (median while measuring)")
    print("\n".join(aligned(figures.verdict_rows(verdicts, doubtful=doubtful))))
    if doubtful:
        print(
            f"Above {figures.QUIET:g} % of pressure something else had the CPUs: these are no verdicts. Run it on a quiet machine."
        )
    if given.json:
        words = [{**msgspec.to_builtins(each), "verdict": each.word} for each in verdicts]
        everything = {
            "verdicts": words,
            "pressure": busy,
            "models": {name: vars(each) for name, each in found.items()},
            "installs": installs,
        }
        given.json.write_bytes(msgspec.json.encode(everything))


if __name__ == "__main__":
    main()
