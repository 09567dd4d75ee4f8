# SPDX-License-Identifier: Apache-2.0
"""The supervisor on a device. It never loads a model itself."""
