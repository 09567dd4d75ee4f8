# SPDX-License-Identifier: Apache-2.0
"""The command line answers at once: an edge gateway's core is several times slower than the machine this runs on."""

import json
import os
import subprocess
import sys

import pytest

HELP_CPU_SECONDS = 0.060
RUNS = 7

PROBE = """
import json, resource, sys
sys.argv = ["skerry", *{arguments!r}]
from skerry.cli.main import main
try:
    main()
except SystemExit:
    pass
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({{"cpu": used.ru_utime + used.ru_stime, "modules": sorted(sys.modules)}}))
"""


def probe(*arguments):
    environ = {key: value for key, value in os.environ.items() if not key.startswith("COV")}
    code = PROBE.format(arguments=list(arguments))
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environ)
    return json.loads(ran.stdout.splitlines()[-1])


def loaded(*arguments):
    return set(probe(*arguments)["modules"])


def test_help_stays_under_its_cpu_budget():
    cpu = min(probe("--help")["cpu"] for _ in range(RUNS))
    sys.stdout.write(f"skerry --help: {cpu * 1000:.0f} ms CPU\n")
    assert cpu < HELP_CPU_SECONDS


def test_help_imports_nothing_but_the_table():
    modules = loaded("--help")
    ours = {name for name in modules if name.startswith("skerry")}
    assert ours == {"skerry", "skerry.cli", "skerry.cli.main", "skerry.cli.verbs"}
    assert modules.isdisjoint({"click", "msgspec", "rich", "urllib3", "cryptography", "importlib.metadata"})


HEAVY = {
    "litestar",
    "sqlalchemy",
    "uvicorn",
    "onnxruntime",
    "onnx",
    "sklearn",
    "numpy",
    "rich",
    "ruamel.yaml",
    "cyclonedx",
}


@pytest.mark.parametrize("verb", ["get", "deploy", "rollout", "fleet", "login", "logs", "audit", "push", "doctor"])
def test_a_verb_that_talks_to_a_hub_loads_no_hub_and_no_engine(verb):
    assert loaded(verb, "--help").isdisjoint(HEAVY)


def test_a_verb_does_not_load_the_other_verbs():
    verbs = {
        "skerry.cli.push",
        "skerry.cli.up",
        "skerry.cli.pack",
        "skerry.cli.keys",
        "skerry.cli.audit",
        "skerry.cli.demo",
    }
    assert loaded("get", "--help").isdisjoint(verbs)


def test_completing_a_verb_loads_none():
    environ = {**os.environ, "_SKERRY_COMPLETE": "bash_complete", "COMP_WORDS": "skerry de", "COMP_CWORD": "1"}
    command = [sys.executable, "-X", "importtime", "-m", "skerry.cli.main"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    assert ran.stdout.split() == ["plain,deploy", "plain,describe", "plain,delete", "plain,demo"]
    assert "skerry.cli.deploy" not in ran.stderr


def test_a_mistyped_verb_is_refused_without_loading_any():
    assert not {name for name in loaded("gte") if name.startswith("skerry.cli.get")}
