# SPDX-License-Identifier: Apache-2.0
"""The protocol's gRPC messages as bytes to tensors to bytes. Loads protobuf, so whoever meets no gRPC does not import it."""
