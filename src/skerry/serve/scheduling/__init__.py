# SPDX-License-Identifier: Apache-2.0
"""When and where a request runs: at once on the loop's thread or on a worker, alone or in a batch, or not at all."""
