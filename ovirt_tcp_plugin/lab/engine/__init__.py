# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""An oVirt engine simulator: the real SDK drives it over HTTPS, and it calls the real external scheduler.

`model` holds what the engine knows, `scheduling` chooses hosts, `external_scheduler` is the engine's XML-RPC client,
`lifecycle` moves hosts and VMs, `documents` and `rest` are the REST API, `control` is the lab's hand on the power
switches.
"""
