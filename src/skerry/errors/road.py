# SPDX-License-Identifier: Apache-2.0
"""The way to the other side is bad; trying again may help: SKY-3xxx."""

from __future__ import annotations

from skerry.errors.root import SkerryError


class RoadError(SkerryError):
    code = "SKY-3000"
    advice = "Check the network and the hub's address, then try again; a device keeps working meanwhile."


class HubUnreachable(RoadError):
    code = "SKY-3001"
    template = "cannot reach {url}: {problem}"
    advice = (
        "Is the hub running and the address right? Start one with `skerry up`, choose one with --hub or SKERRY_HUB."
    )


class DownloadBroken(RoadError):
    code = "SKY-3002"
    template = "download of {name} broke off after {received} of {expected} bytes"


class UnexpectedReply(RoadError):
    code = "SKY-3003"
    template = "{url} answered {status} with something this version does not understand: {problem}"
    advice = "Is this address a Skerry hub, and not more than two minor versions away?"


class TooMuchData(RoadError):
    code = "SKY-3004"
    template = "{name}: the other side sent more than the {limit} bytes agreed"


class InsecureTransport(RoadError):
    code = "SKY-3005"
    template = "{url} is not HTTPS and not on this machine"
    advice = "Use https://; plain HTTP is only accepted on loopback."
