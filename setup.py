# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A shim: the metadata is in setup.cfg."""

from setuptools import setup

setup()
