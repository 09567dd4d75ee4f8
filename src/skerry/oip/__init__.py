# SPDX-License-Identifier: Apache-2.0
"""The Open Inference Protocol v2 as pure codecs: bytes to tensors to bytes, for servers and clients alike."""
