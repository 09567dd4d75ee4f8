# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server of our own: from the installed binaries, on a unix socket only, gone when the tests end."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

_PLACES = ("/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/16/bin", "/usr/lib/postgresql/17/bin")


def binaries() -> Path | None:
    """Where `initdb` and `postgres` are; None when PostgreSQL is not installed."""
    found = shutil.which("pg_config")
    asked = []
    if found:
        answer = subprocess.run([found, "--bindir"], capture_output=True, text=True, check=False)
        asked = [answer.stdout.strip()]
    for place in (*_PLACES, *asked):
        if place and Path(place, "postgres").exists() and Path(place, "initdb").exists():
            return Path(place)
    return None


class PrivatePostgres:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._admin = self._url("postgres")

    def _url(self, database: str) -> str:
        return f"postgresql://skerry@/{database}?host={self.folder}"

    def database(self, template: str = "template1") -> str:
        """A new database, a copy of `template`; its URL."""
        name = f"t{secrets.token_hex(6)}"
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return self._url(name)

    def name_of(self, url: str) -> str:
        return url.removeprefix("postgresql://skerry@/").split("?")[0]

    def drop(self, url: str) -> None:
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {self.name_of(url)} WITH (FORCE)")

    def wait(self, process: subprocess.Popen[bytes]) -> None:
        pause = threading.Event()
        for _ in range(300):
            assert process.poll() is None, (self.folder / "log").read_text()
            try:
                psycopg.connect(self._admin).close()
            except psycopg.OperationalError:
                pause.wait(0.1)
            else:
                return
        raise AssertionError("PostgreSQL does not answer")


@contextmanager
def private_postgres(place: Path) -> Iterator[PrivatePostgres]:
    folder = Path(tempfile.mkdtemp(prefix="skpg-", dir="/tmp"))  # short: a socket path has 107 characters at most
    someone = _unprivileged(folder)
    data = folder / "data"
    subprocess.run(
        [place / "initdb", "-D", data, "-U", "skerry", "-A", "trust", "--locale=C.UTF-8", "-E", "UTF8", "--no-sync"],
        check=True,
        capture_output=True,
        cwd=folder,
        **someone,
    )
    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(folder),
        "fsync": "off",
        "max_connections": "200",
    }
    options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [place / "postgres", "-D", data, *options], stdout=log, stderr=log, cwd=folder, **someone
        )
    try:
        server = PrivatePostgres(folder)
        server.wait(process)
        yield server
    finally:
        process.send_signal(signal.SIGINT)  # fast shutdown
        process.wait(timeout=30)
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged(folder: Path) -> dict[str, Any]:
    """PostgreSQL refuses root: hand the folder to somebody else and run as them."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        try:
            someone = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, someone.pw_uid, someone.pw_gid)
        return {"user": someone.pw_uid, "group": someone.pw_gid, "extra_groups": []}
    raise AssertionError("run as root, but there is no unprivileged user to start PostgreSQL as")
