# SPDX-License-Identifier: Apache-2.0
"""Private keys for signing: the passphrase from SKERRY_KEY_PASSPHRASE, or asked for on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import click
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from skerry.errors import InputMissing
from skerry.trust import keyfile

VARIABLE = "SKERRY_KEY_PASSPHRASE"


def unlock(path: Path, environ: Mapping[str, str]) -> Ed25519PrivateKey:
    """Raises InputMissing, or KeyFileError when it cannot be opened; without a terminal nothing is asked."""
    if not path.exists():
        raise InputMissing(path=str(path))
    passphrase = environ.get(VARIABLE)
    if not passphrase and keyfile.needs_passphrase(path) and sys.stdin.isatty():
        passphrase = click.prompt(f"Passphrase of {path.name}", hide_input=True, err=True)
    return keyfile.read_private(path, passphrase=passphrase or None)
