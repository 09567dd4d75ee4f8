# SPDX-License-Identifier: Apache-2.0
"""The runner process: composes runtime, serve and observe. Started by the agent as `python -m skerry.runner`."""
