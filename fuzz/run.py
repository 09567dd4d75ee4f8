# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: INP001 - a script, not a package
"""Fuzz one target, or each in turn, with coverage feedback (atheris). See fuzz/README.md.

    python fuzz/run.py --runs 1000000 --corpus /tmp/corpus [TARGET ...]

Each target runs in a process of its own; exit code 0 = nothing found.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HANG_SECONDS = 10
MEMORY_MIB = 2048
MAX_BYTES = 1024
_DONE = re.compile(r"Done (\d+) (?:runs )?in (\d+) second")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="*", help="names in tests/support/fuzz_*.py; default: all")
    parser.add_argument("--runs", type=int, default=100_000, help="executions per target")
    parser.add_argument("--corpus", type=Path, required=True, help="a folder outside the checkout; kept between runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    return parser.parse_args()


def import_targets() -> dict[str, object]:
    """With every branch of ours reported to the fuzzer."""
    import atheris

    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
    with atheris.instrument_imports(include=["skerry"]):
        from support import fuzz_grpc, fuzz_messages, fuzz_targets
    return {**fuzz_targets.TARGETS, **fuzz_grpc.TARGETS, **fuzz_messages.TARGETS}


def seed(name: str, folder: Path) -> Path:
    """Write the first inputs and the dictionary; the path of the latter."""
    sys.path[:0] = [str(ROOT / "src"), str(ROOT / "tests")]
    from support import fuzz_messages
    from support.fuzz_seeds import SEEDS, WORDS

    corpus = folder / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, data in enumerate({**SEEDS, **fuzz_messages.SEEDS}[name]()):
        (corpus / f"seed-{number}").write_bytes(data)
    words = folder / "words"
    quoted = ["".join(f"\\x{byte:02x}" for byte in word.encode()) for word in WORDS]
    words.write_text("\n".join(f'"{word}"' for word in quoted) + "\n")
    return words


def child(name: str, arguments: Sequence[str]) -> None:
    import atheris

    atheris.Setup([sys.argv[0], *arguments], import_targets()[name])
    atheris.Fuzz()


def fuzz(name: str, options: argparse.Namespace) -> tuple[int, float, bool]:
    """(executions, seconds, whether nothing was found)."""
    words = seed(name, options.corpus)
    found = options.corpus / "found"
    found.mkdir(exist_ok=True)
    flags = [
        f"-runs={options.runs}",
        f"-seed={options.seed}",
        f"-timeout={HANG_SECONDS}",
        f"-rss_limit_mb={MEMORY_MIB}",
        f"-max_len={MAX_BYTES}",
        f"-dict={words}",
        f"-artifact_prefix={found}/{name}-",
        "-print_final_stats=1",
        str(options.corpus / name),
    ]
    begun = time.monotonic()
    command = [sys.executable, __file__, "--corpus", str(options.corpus), "--child", name, "--", *flags]
    result = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    seconds = time.monotonic() - begun
    executed = re.search(r"number_of_executed_units: (\d+)", result.stderr)
    if result.returncode:
        sys.stderr.write(result.stderr[-6000:])
    return int(executed[1]) if executed else 0, seconds, result.returncode == 0


def main() -> int:
    options = parse()
    if options.child:
        child(options.child, options.targets)
    names = options.targets or list(import_targets())
    total, clean = 0, True
    for name in names:
        executed, seconds, passed = fuzz(name, options)
        total += executed
        clean = clean and passed
        verdict = "nothing found" if passed else "FOUND SOMETHING"
        sys.stdout.write(f"{name:18} {executed:>9} executions, {executed / seconds:>7.0f}/s, {verdict}\n")
        sys.stdout.flush()
    sys.stdout.write(f"{'together':18} {total:>9} executions\n")
    return 0 if clean else 1


if __name__ == "__main__":
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.exit(main())
