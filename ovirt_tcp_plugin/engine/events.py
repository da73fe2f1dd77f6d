# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The events of the engine's audit log that the broker goes by, and what each of them means to it.

Names and numbers are the engine's (`AuditLogType`). Above each stands the class that writes it, and
when. An event comes in a transaction of its own (`AuditLogDirector`), before or after lists show
what it tells of. "Limited": dropped if the same event of the same host, VM, cluster and user was
written within that time (`EventFloodRegulator`). Rows of any kind may be deleted, too. So nothing
may hang on an event alone: it makes the broker faster, and complete lists are the truth.
"""

from __future__ import annotations

import enum


class EngineEvent(enum.IntEnum):
    """An event by its name in the engine."""

    # ovirt-engine-notifier, a service of its own that is off by default (`EngineMonitorService`).
    # It looks every 300 s, three times with 30 s between, and writes only what changed since its
    # last look. The engine writes neither.
    VDC_START = 1

    # `AffinityRulesEnforcementManager`, once at each start of the engine and before the engine
    # answers anybody. Not if AffinityRulesEnforcementManagerEnabled is false (true by default).
    AFFINITY_RULES_ENFORCEMENT_MANAGER_START = 10780

    # `MaintenanceVdsCommand`, at once after a host was set to PreparingForMaintenance. By a person:
    USER_VDS_MAINTENANCE = 600
    USER_VDS_MAINTENANCE_WITHOUT_REASON = 620
    USER_VDS_MAINTENANCE_MANUAL_HA = 10453
    USER_VDS_MAINTENANCE_MIGRATION_FAILED = 602
    # By the engine itself:
    VDS_MAINTENANCE = 15
    VDS_MAINTENANCE_MANUAL_HA = 10452  # limited: 60 s
    # `ActivateVdsCommand`, after it set the host to Unassigned. By a person, and by
    # `AutoRecoveryManager`:
    VDS_ACTIVATE = 16
    VDS_ACTIVATE_ASYNC = 9502  # limited: 3 h
    # `VdsManager`, when a host does not answer: Connecting (with and without power management),
    # then NonResponsive.
    VDS_HOST_NOT_RESPONDING_CONNECTING = 9008
    VDS_HOST_NOT_RESPONDING = 9027  # limited: 180 s
    VDS_FAILURE = 12
    VDS_UNKNOWN_HOST = 10804
    # `VdsManager`, when VDSM says that it recovers from a restart: Initializing.
    VDS_INITIALIZING = 514  # limited: 30 s
    # `VdsNotRespondingTreatmentCommand`, of a host that is NonResponsive or was fenced. The second
    # also comes from `SetNonOperationalVdsCommand`, for a VDSM that recovers for too long.
    VDS_RECOVER = 14
    VDS_RECOVER_FAILED = 19  # limited: 60 s
    # `VdsKdumpDetectionCommand`: the host writes its crash dump.
    KDUMP_FLOW_DETECTED_ON_VDS = 614
    # `StartVdsCommand`, `StopVdsCommand` and `VdsPowerDownCommand`, `RestartVdsCommand` by a person
    # and by the engine, `SshHostRebootCommand`: Reboot or Down.
    USER_VDS_START = 20
    USER_VDS_STOP = 21
    USER_VDS_RESTART = 41
    SYSTEM_VDS_RESTART = 121  # limited: 60 s
    SYSTEM_SSH_HOST_RESTART = 197  # limited: 60 s
    # `SetNonOperationalVdsCommand`, one for each reason, after it set the status, whatever failed
    # later on.
    VDS_SET_NONOPERATIONAL = 517  # limited: 60 s
    VDS_SET_NONOPERATIONAL_FAILED = 518  # limited: 60 s
    VDS_SET_NONOPERATIONAL_NETWORK = 519  # limited: 60 s
    VDS_SET_NONOPERATIONAL_DOMAIN = 522  # limited: 60 s
    VDS_SET_NONOPERATIONAL_DOMAIN_FAILED = 523  # limited: 60 s
    VDS_RUN_IN_NO_KVM_MODE = 127
    VDS_VERSION_NOT_SUPPORTED_FOR_CLUSTER = 141
    VDS_CLUSTER_VERSION_NOT_SUPPORTED = 154
    CPU_TYPE_UNSUPPORTED_IN_THIS_CLUSTER_VERSION = 156
    GLUSTER_COMMAND_FAILED = 4035
    GLUSTER_HOST_UUID_NOT_FOUND = 4075
    GLUSTER_HOST_UUID_ALREADY_EXISTS = 4095
    HOST_FEATURES_INCOMPATIBILE_WITH_CLUSTER = 4149
    VDS_SET_NON_OPERATIONAL_VM_NETWORK_IS_BRIDGELESS = 9601  # limited: 60 s
    EMULATED_MACHINES_INCOMPATIBLE_WITH_CLUSTER = 9604  # limited: 60 s
    RNG_SOURCES_INCOMPATIBLE_WITH_CLUSTER = 9608  # limited: 60 s
    EMULATED_MACHINES_INCOMPATIBLE_WITH_CLUSTER_LEVEL = 9609  # limited: 60 s
    MIXING_RHEL_VERSIONS_IN_CLUSTER = 9610  # limited: 60 s
    VDS_UNTRUSTED = 10000  # limited: 60 s
    # `HostMonitoring`, after it set a host with a dead interface to NonOperational.
    VDS_SET_NONOPERATIONAL_IFACE_DOWN = 603  # limited: 60 s

    # `InitVdsOnUpCommand`, seconds after the host's status became Up and only if all of that
    # command succeeded; and `HostMonitoring`, of a host in any other state at its first look after
    # the engine's start.
    VDS_DETECTED = 13

    # `AddVdsCommand`, `UpdateVdsCommand` and `ChangeVDSClusterCommand`, `RemoveVdsCommand`.
    USER_ADD_VDS = 42
    USER_UPDATE_VDS = 43
    USER_REMOVE_VDS = 44
    # `AddClusterCommand`, `UpdateClusterCommand` (the engine's own updates, 835, change the CPU
    # type only), `RemoveClusterCommand`.
    USER_ADD_CLUSTER = 809
    USER_UPDATE_CLUSTER = 811
    USER_REMOVE_CLUSTER = 813
    # `AddClusterPolicyCommand`, `EditClusterPolicyCommand`, `RemoveClusterPolicyCommand`.
    USER_ADD_CLUSTER_POLICY = 9910
    USER_UPDATE_CLUSTER_POLICY = 9912
    USER_REMOVE_CLUSTER_POLICY = 9914
    # `AddAffinityGroupCommand`, `EditAffinityGroupCommand` (also of members and labels, whose
    # commands extend it), `RemoveAffinityGroupCommand`. Of the broker's own edits, too.
    USER_ADDED_AFFINITY_GROUP = 10350
    USER_UPDATED_AFFINITY_GROUP = 10352
    USER_REMOVED_AFFINITY_GROUP = 10354

    # `AddExternalEventCommand`, whatever a client wrote: the broker itself, by its severity.
    EXTERNAL_EVENT_NORMAL = 9801
    EXTERNAL_EVENT_WARNING = 9802
    EXTERNAL_EVENT_ERROR = 9803

    # `AddVmCommand`: without disks to copy; when copying begins (the VM is listed already), and
    # when it has ended.
    USER_ADD_VM = 34
    USER_ADD_VM_STARTED = 37
    USER_ADD_VM_FINISHED_SUCCESS = 53
    # `AddVmPoolCommand` and `UpdateVmPoolCommand`, which make the VMs of a VM pool.
    USER_ADD_VM_POOL_WITH_VMS = 302
    USER_ADD_VM_POOL_WITH_VMS_ADD_VDS_FAILED = 320
    USER_UPDATE_VM_POOL_WITH_VMS = 344
    # `UpdateVmCommand` by a person and by the engine (a next-run configuration that is applied),
    # and `ChangeVMClusterCommand`, with the first of them or with the last.
    USER_UPDATE_VM = 35
    SYSTEM_UPDATE_VM = 253
    USER_UPDATE_VM_CLUSTER_DEFAULT_HOST_CLEARED = 250
    # `TryBackToAllSnapshotsOfVmCommand` and `RestoreAllSnapshotsCommand`: the VM's configuration,
    # with its custom properties, becomes that of a snapshot, or what it was before.
    USER_TRY_BACK_TO_SNAPSHOT = 46
    USER_TRY_BACK_TO_SNAPSHOT_FINISH_SUCCESS = 71
    USER_COMMIT_RESTORE_FROM_SNAPSHOT_FINISH_SUCCESS = 95
    USER_UNDO_RESTORE_FROM_SNAPSHOT_FINISH_SUCCESS = 651
    # `ImportVmCommandBase`: when copying begins (the VM is listed already), and when it has ended.
    IMPORTEXPORT_STARTING_IMPORT_VM = 1165
    IMPORTEXPORT_IMPORT_VM = 1152
    # `ImportVmFromConfigurationCommand`; the second if some disk could not be attached.
    VM_IMPORT_FROM_CONFIGURATION_EXECUTED_SUCCESSFULLY = 174
    VM_IMPORT_FROM_CONFIGURATION_ATTACH_DISKS_FAILED = 175
    # `HostedEngineImporter`, without a VM id: the engine's own VM became known to it.
    HOSTED_ENGINE_VM_IMPORT_SUCCEEDED = 10456
    # `ImportVmTemplateCommandBase`, `ImportVmTemplateFromConfigurationCommand`.
    IMPORTEXPORT_IMPORT_TEMPLATE = 1158
    TEMPLATE_IMPORT_FROM_CONFIGURATION_SUCCESS = 180

    # `RunVmCommand`: once its host runs it (three of them), when its host was told to, and if the
    # engine itself starts it, as after a host was lost. USER_RESUME_VM, the end of a pause, is
    # none: it stays where it is.
    USER_RUN_VM = 32
    USER_RUN_VM_ON_NON_DEFAULT_VDS = 152
    USER_RUN_VM_AS_STATELESS = 538
    USER_STARTED_VM = 153
    USER_INITIATED_RUN_VM_AND_PAUSE = 179
    VDS_INITIATED_RUN_VM = 506
    VDS_INITIATED_RUN_VM_AS_STATELESS = 537
    # `MigrateVmCommand`, once it runs there.
    VM_MIGRATION_DONE = 63

    # The engine's own warnings of the feature of 2013. They hang on its flag `trusted_service`,
    # which no pool of ours has: `UpdateVmCommand`, `ImportVmCommand`, `AddVmFromTemplateCommand`,
    # and without a VM id `ImportVmTemplateCommandBase`, `AddVmTemplateCommand` and
    # `UpdateVmTemplateCommand`.
    USER_UPDATE_VM_FROM_TRUSTED_TO_UNTRUSTED = 10001
    USER_UPDATE_VM_FROM_UNTRUSTED_TO_TRUSTED = 10002
    IMPORTEXPORT_IMPORT_VM_FROM_TRUSTED_TO_UNTRUSTED = 10003
    IMPORTEXPORT_IMPORT_VM_FROM_UNTRUSTED_TO_TRUSTED = 10004
    USER_ADD_VM_FROM_TRUSTED_TO_UNTRUSTED = 10005
    USER_ADD_VM_FROM_UNTRUSTED_TO_TRUSTED = 10006
    IMPORTEXPORT_IMPORT_TEMPLATE_FROM_TRUSTED_TO_UNTRUSTED = 10007
    IMPORTEXPORT_IMPORT_TEMPLATE_FROM_UNTRUSTED_TO_TRUSTED = 10008
    USER_ADD_VM_TEMPLATE_FROM_TRUSTED_TO_UNTRUSTED = 10009
    USER_ADD_VM_TEMPLATE_FROM_UNTRUSTED_TO_TRUSTED = 10010
    USER_UPDATE_VM_TEMPLATE_FROM_TRUSTED_TO_UNTRUSTED = 10011
    USER_UPDATE_VM_TEMPLATE_FROM_UNTRUSTED_TO_TRUSTED = 10012


# Each of these is one start of the engine.
ENGINE_STARTED = frozenset({EngineEvent.AFFINITY_RULES_ENFORCEMENT_MANAGER_START})

# Somebody saw the engine away and back: perhaps a start, some minutes ago.
ENGINE_ANSWERS_AGAIN = frozenset({EngineEvent.VDC_START})

# A host that has one of these left Up, even if every list shows it Up.
HOST_LEFT_UP = frozenset(
    {
        EngineEvent.USER_VDS_MAINTENANCE,
        EngineEvent.USER_VDS_MAINTENANCE_WITHOUT_REASON,
        EngineEvent.USER_VDS_MAINTENANCE_MANUAL_HA,
        EngineEvent.USER_VDS_MAINTENANCE_MIGRATION_FAILED,
        EngineEvent.VDS_MAINTENANCE,
        EngineEvent.VDS_MAINTENANCE_MANUAL_HA,
        EngineEvent.VDS_ACTIVATE,
        EngineEvent.VDS_ACTIVATE_ASYNC,
        EngineEvent.VDS_HOST_NOT_RESPONDING_CONNECTING,
        EngineEvent.VDS_HOST_NOT_RESPONDING,
        EngineEvent.VDS_FAILURE,
        EngineEvent.VDS_UNKNOWN_HOST,
        EngineEvent.VDS_INITIALIZING,
        EngineEvent.VDS_RECOVER,
        EngineEvent.VDS_RECOVER_FAILED,
        EngineEvent.KDUMP_FLOW_DETECTED_ON_VDS,
        EngineEvent.USER_VDS_START,
        EngineEvent.USER_VDS_STOP,
        EngineEvent.USER_VDS_RESTART,
        EngineEvent.SYSTEM_VDS_RESTART,
        EngineEvent.SYSTEM_SSH_HOST_RESTART,
        EngineEvent.VDS_SET_NONOPERATIONAL,
        EngineEvent.VDS_SET_NONOPERATIONAL_FAILED,
        EngineEvent.VDS_SET_NONOPERATIONAL_NETWORK,
        EngineEvent.VDS_SET_NONOPERATIONAL_DOMAIN,
        EngineEvent.VDS_SET_NONOPERATIONAL_DOMAIN_FAILED,
        EngineEvent.VDS_SET_NONOPERATIONAL_IFACE_DOWN,
        EngineEvent.VDS_RUN_IN_NO_KVM_MODE,
        EngineEvent.VDS_VERSION_NOT_SUPPORTED_FOR_CLUSTER,
        EngineEvent.VDS_CLUSTER_VERSION_NOT_SUPPORTED,
        EngineEvent.CPU_TYPE_UNSUPPORTED_IN_THIS_CLUSTER_VERSION,
        EngineEvent.GLUSTER_COMMAND_FAILED,
        EngineEvent.GLUSTER_HOST_UUID_NOT_FOUND,
        EngineEvent.GLUSTER_HOST_UUID_ALREADY_EXISTS,
        EngineEvent.HOST_FEATURES_INCOMPATIBILE_WITH_CLUSTER,
        EngineEvent.VDS_SET_NON_OPERATIONAL_VM_NETWORK_IS_BRIDGELESS,
        EngineEvent.EMULATED_MACHINES_INCOMPATIBLE_WITH_CLUSTER,
        EngineEvent.RNG_SOURCES_INCOMPATIBLE_WITH_CLUSTER,
        EngineEvent.EMULATED_MACHINES_INCOMPATIBLE_WITH_CLUSTER_LEVEL,
        EngineEvent.MIXING_RHEL_VERSIONS_IN_CLUSTER,
        EngineEvent.VDS_UNTRUSTED,
    }
)

# The engine looked at a host anew: it came Up, or is in the state that the text names. So it is no
# proof that the host is Up, but that it was not Up all the time. Never limited. Of a host that was
# seen to come Up it is old news.
HOST_CAME_UP = frozenset({EngineEvent.VDS_DETECTED})

# An import of a VM has ended.
VM_IMPORTED = frozenset(
    {
        EngineEvent.IMPORTEXPORT_IMPORT_VM,
        EngineEvent.VM_IMPORT_FROM_CONFIGURATION_EXECUTED_SUCCESSFULLY,
        EngineEvent.VM_IMPORT_FROM_CONFIGURATION_ATTACH_DISKS_FAILED,
    }
)

# A VM was made from the disks of another one or of a template.
VM_CLONED = frozenset({EngineEvent.USER_ADD_VM_FINISHED_SUCCESS})

TEMPLATE_IMPORTED = frozenset(
    {
        EngineEvent.IMPORTEXPORT_IMPORT_TEMPLATE,
        EngineEvent.TEMPLATE_IMPORT_FROM_CONFIGURATION_SUCCESS,
    }
)

# The engine warns that a VM or template left a trusted cluster, or came into one.
TRUST_LOST = frozenset(
    {
        EngineEvent.USER_UPDATE_VM_FROM_TRUSTED_TO_UNTRUSTED,
        EngineEvent.IMPORTEXPORT_IMPORT_VM_FROM_TRUSTED_TO_UNTRUSTED,
        EngineEvent.USER_ADD_VM_FROM_TRUSTED_TO_UNTRUSTED,
        EngineEvent.IMPORTEXPORT_IMPORT_TEMPLATE_FROM_TRUSTED_TO_UNTRUSTED,
        EngineEvent.USER_ADD_VM_TEMPLATE_FROM_TRUSTED_TO_UNTRUSTED,
        EngineEvent.USER_UPDATE_VM_TEMPLATE_FROM_TRUSTED_TO_UNTRUSTED,
    }
)
TRUST_GAINED = frozenset(
    {
        EngineEvent.USER_UPDATE_VM_FROM_UNTRUSTED_TO_TRUSTED,
        EngineEvent.IMPORTEXPORT_IMPORT_VM_FROM_UNTRUSTED_TO_TRUSTED,
        EngineEvent.USER_ADD_VM_FROM_UNTRUSTED_TO_TRUSTED,
        EngineEvent.IMPORTEXPORT_IMPORT_TEMPLATE_FROM_UNTRUSTED_TO_TRUSTED,
        EngineEvent.USER_ADD_VM_TEMPLATE_FROM_UNTRUSTED_TO_TRUSTED,
        EngineEvent.USER_UPDATE_VM_TEMPLATE_FROM_UNTRUSTED_TO_TRUSTED,
    }
)
TRUST_MISMATCH = TRUST_LOST | TRUST_GAINED

# A VM is new or changed: perhaps its mark, its cluster, or who carries the engine. The event names
# it, but where it says otherwise above. One that is still being made counts, too: so it is behind
# the wall before anybody can start it.
VM_CHANGED = (
    frozenset(
        {
            EngineEvent.USER_ADD_VM,
            EngineEvent.USER_ADD_VM_STARTED,
            EngineEvent.USER_UPDATE_VM,
            EngineEvent.SYSTEM_UPDATE_VM,
            EngineEvent.USER_UPDATE_VM_CLUSTER_DEFAULT_HOST_CLEARED,
            EngineEvent.USER_TRY_BACK_TO_SNAPSHOT,
            EngineEvent.USER_TRY_BACK_TO_SNAPSHOT_FINISH_SUCCESS,
            EngineEvent.USER_COMMIT_RESTORE_FROM_SNAPSHOT_FINISH_SUCCESS,
            EngineEvent.USER_UNDO_RESTORE_FROM_SNAPSHOT_FINISH_SUCCESS,
            EngineEvent.IMPORTEXPORT_STARTING_IMPORT_VM,
            EngineEvent.HOSTED_ENGINE_VM_IMPORT_SUCCEEDED,
        }
    )
    | VM_IMPORTED
    | VM_CLONED
    | TRUST_MISMATCH
)

# Hosts, clusters, policies or VMs changed in a way that the short list of hosts does not show, and
# no event names all of them.
LISTING_DUE = (
    frozenset(
        {
            EngineEvent.USER_ADD_VDS,
            EngineEvent.USER_UPDATE_VDS,
            EngineEvent.USER_REMOVE_VDS,
            EngineEvent.USER_ADD_CLUSTER,
            EngineEvent.USER_UPDATE_CLUSTER,
            EngineEvent.USER_REMOVE_CLUSTER,
            EngineEvent.USER_ADD_CLUSTER_POLICY,
            EngineEvent.USER_UPDATE_CLUSTER_POLICY,
            EngineEvent.USER_REMOVE_CLUSTER_POLICY,
            EngineEvent.USER_ADD_VM_POOL_WITH_VMS,
            EngineEvent.USER_ADD_VM_POOL_WITH_VMS_ADD_VDS_FAILED,
            EngineEvent.USER_UPDATE_VM_POOL_WITH_VMS,
        }
    )
    | TEMPLATE_IMPORTED
)

# An affinity group changed, perhaps a wall, and perhaps by ourselves.
GROUP_EDITED = frozenset(
    {
        EngineEvent.USER_ADDED_AFFINITY_GROUP,
        EngineEvent.USER_UPDATED_AFFINITY_GROUP,
        EngineEvent.USER_REMOVED_AFFINITY_GROUP,
    }
)

# Clients wrote them; among them are the brokers' messages to each other.
EXTERNAL = frozenset(
    {
        EngineEvent.EXTERNAL_EVENT_NORMAL,
        EngineEvent.EXTERNAL_EVENT_WARNING,
        EngineEvent.EXTERNAL_EVENT_ERROR,
    }
)

# A VM runs on a host where it did not run before.
VM_ARRIVED = frozenset(
    {
        EngineEvent.USER_RUN_VM,
        EngineEvent.USER_RUN_VM_ON_NON_DEFAULT_VDS,
        EngineEvent.USER_RUN_VM_AS_STATELESS,
        EngineEvent.USER_STARTED_VM,
        EngineEvent.USER_INITIATED_RUN_VM_AND_PAUSE,
        EngineEvent.VDS_INITIATED_RUN_VM,
        EngineEvent.VDS_INITIATED_RUN_VM_AS_STATELESS,
        EngineEvent.VM_MIGRATION_DONE,
    }
)
