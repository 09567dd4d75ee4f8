# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol v2 served: transports, scheduling, endpoints, what a server says of itself."""
