# SPDX-License-Identifier: Apache-2.0
"""A signature, a version or a date says no: SKY-2xxx."""

from __future__ import annotations

from skerry.errors.root import SkerryError


class TrustError(SkerryError):
    code = "SKY-2000"
    advice = "Nothing was installed. Find out who produced this before trying again."


class InstallRefused(TrustError):
    code = "SKY-2001"
    template = "install refused ({reason}): {detail}"


class CatalogueRefused(TrustError):
    code = "SKY-2002"
    template = "catalogue refused ({reason}): {detail}"
    advice = "Nothing was published or installed. docs/explanation/trust.md says what each reason means."


class AssignmentRefused(TrustError):
    code = "SKY-2003"
    template = "assignment refused ({reason}): {detail}"


class KeyFileError(TrustError):
    code = "SKY-2004"
    template = "key file {path}: {problem}"
    advice = "Check the path, the permissions and the passphrase (SKERRY_KEY_PASSPHRASE or the prompt)."


class CeremonyError(TrustError):
    code = "SKY-2005"
    template = "root ceremony: {problem}"
    advice = "See docs/how-to/keys.md for the order of the steps."


class ChainBroken(TrustError):
    code = "SKY-2006"
    template = "history of {device} is broken at entry {entry}: {problem}"
    advice = "The record was altered or cut. Keep both copies as evidence and compare them from this entry on."


class SignatureInvalid(TrustError):
    code = "SKY-2007"
    template = "signature of {document} is not valid: {problem}"
