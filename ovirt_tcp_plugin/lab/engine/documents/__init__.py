# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The answers of the REST API, as an engine 4.5.8 writes them, for what the simulator has.

What a mapper of the engine (`VmMapper`, `HostMapper`, ...) leaves out, an answer here leaves out,
too.
"""
