# SPDX-License-Identifier: Apache-2.0
"""The machine itself failed: SKY-4xxx."""

from __future__ import annotations

from skerry.errors.root import SkerryError


class DeviceError(SkerryError):
    code = "SKY-4000"


class StorageError(DeviceError):
    code = "SKY-4001"
    template = "storage failed at {path}: {problem}"
    advice = "Check the path, its permissions and the free space; what was there before is untouched."


class StateDamaged(DeviceError):
    code = "SKY-4002"
    template = "{path} is damaged: {problem}"
    advice = "Run `skerry doctor --state DIR`; the last committed workload goes on serving."


class RunnerFailed(DeviceError):
    code = "SKY-4003"
    template = "runner of {workload} failed: {problem}"
    advice = "See `skerry logs` for the runner's last lines."


class NoVariantFits(DeviceError):
    code = "SKY-4004"
    template = "no variant of {bundle} fits this device: {problem}"
    advice = "Pack a variant for this kind of device, or aim the rollout at devices that can run it."


class NotEnrolled(DeviceError):
    code = "SKY-4005"
    template = "{state} holds no enrolled device"
    advice = "Join first: skerry agent join --hub URL --token TOKEN --state DIR"


class AlreadyEnrolled(DeviceError):
    code = "SKY-4006"
    template = "{state} already belongs to device {device}"
    advice = "Use another --state folder; an identity is never overwritten."


class StateLocked(DeviceError):
    code = "SKY-4007"
    template = "{path} is in use by another agent"
    advice = "Stop the other agent, or give this one its own --state folder."


class StepContractBroken(DeviceError):
    code = "SKY-4008"
    template = "update step {step} broke its contract: {problem}"
    advice = "This is a defect in Skerry: please report it with the agent's log."


class AddressTaken(DeviceError):
    code = "SKY-4009"
    template = "cannot listen on {address}: {problem}"
    advice = "See who listens there with `ss -ltnp`; stop it, or choose another address."
