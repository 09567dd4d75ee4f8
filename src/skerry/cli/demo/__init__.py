# SPDX-License-Identifier: Apache-2.0
"""`skerry demo`: the main job on real input."""
