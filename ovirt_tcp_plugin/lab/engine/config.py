# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What a simulated engine begins with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any


@dataclasses.dataclass(frozen=True)
class Config:
    """A simulated engine.

    Attributes:
        certificate, key: PEM files of the HTTPS server.
        users: password by user name. They are super users.
        directory: password by user name, of users without any role.
        clusters: names.
        hosts: mappings with name, address, cluster (a name) and optionally status, hosted_engine,
            features, and hook_directory: that of the VDSM hooks which decide there.
        vms: mappings with name, cluster and optionally host, high_availability, priority,
            custom_properties, origin, affinity and pinned_to (host names).
        external_scheduler: URL, empty if ExternalSchedulerEnabled is false.
        attestation_server: AttestationServer, of which only the existence counts.
        vm_properties: UserDefinedVMProperties, name -> regular expression of the whole value.
        options: file of the lab's `engine-config`, read at each start; it then counts instead of
            external_scheduler, vm_properties and the timings external_response and ha_long_retry.
        up_mark: file that is there while the engine runs and is written at each start
            (ENGINE_UP_MARK, on a real machine /var/lib/ovirt-engine/engine.up), empty for none.
        seed: of the engine's races.
        port, control_port: 0 for any.
    """

    certificate: str
    key: str
    users: Mapping[str, str]
    directory: Mapping[str, str] = dataclasses.field(default_factory=dict)
    clusters: Sequence[str] = ("Default",)
    hosts: Sequence[Mapping[str, Any]] = ()
    vms: Sequence[Mapping[str, Any]] = ()
    external_scheduler: str = ""
    attestation_server: str = ""
    vm_properties: Mapping[str, str] = dataclasses.field(
        default_factory=lambda: {"trusted_host_flag": "^(true|false)$"}
    )
    options: str = ""
    timings: Mapping[str, float] = dataclasses.field(default_factory=dict)
    up_mark: str = ""
    seed: int = 0
    port: int = 0
    control_port: int = 0
