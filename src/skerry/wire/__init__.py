# SPDX-License-Identifier: Apache-2.0
"""Every message between agent, runner and hub, versioned by package.

- a field is only ever added, with a default; unknown fields are ignored, so versions two minors apart understand each other;
- times are seconds since the epoch in UTC (float); durations are seconds; digests are `sha256:<64 hex>`;
- binary values travel as base64 strings (msgspec's encoding of `bytes`).
"""
