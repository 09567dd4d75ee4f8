# SPDX-License-Identifier: Apache-2.0
"""The README's ten lines, run as they stand; only the ports are swapped for free ones."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from support.stack import free_port

ROOT = Path(__file__).resolve().parents[2]
ENDS_WHAT_IT_STARTED = "trap 'kill $(jobs -p); wait' EXIT\n"
READY = """until curl -sf http://127.0.0.1:{port}/readyz >/dev/null; do :; done
"""


def tour() -> str:
    section = (ROOT / "README.md").read_text().partition("## Ten lines")[2]
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found
    return found.group(1)


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_the_ten_lines_work_as_printed(tmp_path):
    hub, device = str(free_port()), str(free_port())
    script = tour().replace("8443", hub).replace("9000", device).replace("--data hub &", f"--data hub --port {hub} &")
    script = script.replace(". .venv/bin/activate\n", "").replace("examples/", f"{ROOT}/examples/")
    before_push = READY.format(port=hub) + "skerry push"  # a person takes longer to type than the hub to start
    script = ENDS_WHAT_IT_STARTED + script.replace("skerry push", before_push, 1)
    bin_folder = str(Path(sys.executable).parent)
    environment = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "HOME": str(tmp_path), "ORT_DISABLE_TELEMETRY": "1"}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"name":"digits"' in done.stdout
    assert "1/1 committed" in done.stdout
