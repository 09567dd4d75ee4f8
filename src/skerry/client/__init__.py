# SPDX-License-Identifier: Apache-2.0
"""Clients of the Open Inference Protocol: synchronous and asyncio, over TCP, a unix socket or shared memory."""
