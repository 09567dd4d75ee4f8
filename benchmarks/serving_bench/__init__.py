# SPDX-License-Identifier: Apache-2.0
"""Parts of benchmarks/serving.py: models, requests, load, servers, rounds, verdicts."""
