# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""An oVirt engine simulator.

The real SDK drives it over HTTPS, and it calls the real external scheduler.

`model` and `audit_log` hold what the engine knows, `builtin` what it is born with, `config` and
`population` what a lab adds. `scheduling` and `affinity` choose hosts, `external_scheduler` is the
engine's XML-RPC client, `discovery` asks it for its units. `vms` and `hosts` are commands and the
passing of time, `rounds` the engine's own periodic jobs. `rest` is the REST API, `sessions` its
log-in, `permits` what a role allows, `web` serves them. `request_documents` reads what a client
sends, `documents` are the answers; `elements`, `xml_text` and `shapes` write them. `notifier` is
the service beside the engine that tells of its starts. `faults` is the only place where a test says
what goes wrong, `clock` the time that it may move.

It was written after the sources of oVirt 4.5. What our programs ask is compared with the answers of
a running engine 4.5.8 (`tests/lab/engine/real_engine_test.py`): status, text of a refusal,
elements, attributes and order. It has no storage, network, memory or CPU, no templates, OVA files
or jobs, no rights on single objects, and no scores or balancing by external units.
"""
