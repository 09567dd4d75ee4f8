# SPDX-License-Identifier: Apache-2.0
"""Bundles: manifest, digests, OCI layout, archive (.skb) and ML-BOM. Bytes in, values out."""
