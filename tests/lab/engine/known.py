# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Requests, elements and refusals that nobody recorded at a real engine.

Each comes with the upstream class that it was read from.
"""

from __future__ import annotations

import re

_MEMBER = r"clusters/\{\}/affinitygroups/\{\}"
_ACTION = "DELETE clusters/{}/affinitygroups/{}/hosts/{}"
_GROUP = "GET clusters/{}/affinitygroups/{}"

# Kinds of request (regular expression): the recorded kind whose answer it has, perhaps one element
# of it after ` > `, and the status, which was seen at a real engine unless the class is named.
KINDS = {
    re.compile(r"POST clusters/\{\}/affinitygroups affinity_group.*"): (_GROUP, 201),
    re.compile(rf"PUT {_MEMBER} affinity_group.*"): (_GROUP, 200),
    re.compile(rf"DELETE {_MEMBER}(/(vms|hostlabels|vmlabels)/\{{\}})?"): (_ACTION, 200),
    re.compile(rf"POST {_MEMBER}/hostlabels affinity_label"): (_ACTION, 200),
    # BackendAffinityGroupVmsResource.add
    re.compile(rf"POST {_MEMBER}/vms vm"): ("GET clusters/{}/affinitygroups/{}/vms > vm", 200),
    # BackendAffinityGroupVmLabelsResource.list, the same as for hosts.
    re.compile(rf"GET {_MEMBER}/vmlabels"): ("GET clusters/{}/affinitygroups/{}/hostlabels", 200),
    re.compile(r"GET events(\?.*)?"): ("GET events?from&max", 200),
    re.compile(r"POST events event\(.*"): ("GET events?from&max > event", 201),
    # BackendAffinityLabelHostsResource, BackendAffinityLabelVmsResource
    re.compile(r"GET affinitylabels/\{\}/hosts"): (f"{_GROUP} > hosts", 200),
    re.compile(r"GET affinitylabels/\{\}/vms"): (f"{_GROUP} > vms", 200),
    re.compile(r"GET hosts(\?.*)?"): ("GET hosts", 200),
    re.compile(r"GET vms(\?.*)?"): ("GET vms", 200),
    re.compile(r"GET vms/\{\}\?.*"): ("GET vms/{}", 200),
    # BackendActionableResource: an action says back what it was given.
    re.compile(r"POST hosts/\{\}/(activate|deactivate|refresh) action.*"): (
        "POST hosts/{}/deactivate action(async,reason)",
        200,
    ),
    re.compile(r"POST vms/\{\}/(migrate|start|stop|shutdown|suspend) action.*"): (
        "POST vms/{}/start action",
        200,
    ),
    re.compile(r"PUT schedulingpolicies/\{\} .*"): (
        "PUT schedulingpolicies/{} scheduling_policy(properties(property(name,value)))",
        200,
    ),
    re.compile(r"POST schedulingpolicies scheduling_policy.*"): (
        "POST schedulingpolicies scheduling_policy(description,name)",
        201,
    ),
    re.compile(r"POST schedulingpolicies/\{\}/filters filter.*"): (
        "POST schedulingpolicies/{}/filters filter(position,scheduling_policy_unit)",
        200,
    ),
    re.compile(r"PUT clusters/\{\} cluster.*"): (
        (
            "PUT clusters/{} "
            "cluster(custom_scheduling_policy_properties(property(name,value)),scheduling_policy)"
        ),
        200,
    ),
    # BackendSchedulingPolicyUnitResource, BackendFilterResource, BackendRoleResource,
    # BackendPermissionResource
    re.compile(
        r"DELETE (schedulingpolicyunits|roles|permissions|schedulingpolicies/\{\}/filters)/\{\}"
    ): (_ACTION, 200),
    # BackendRolesResource, BackendRoleResource, BackendSystemPermissionsResource
    re.compile(r"POST roles role.*"): ("GET roles > role", 201),
    re.compile(r"GET roles/\{\}"): ("GET roles > role", 200),
    re.compile(r"POST permissions permission.*"): ("GET permissions > permission", 201),
}

_ONLY_HERE = "not there at the real engine"
_EITHER = f"({_ONLY_HERE}|missing)"
# Differences (regular expression) that are right, because the recorded engine had no such thing.
ELEMENTS = [
    # HostMapper: only where the host has one; all recorded hosts were Up.
    re.compile(rf".*/host/status_detail: {_ONLY_HERE}"),
    # HostMapper, seen with all_content on all hosts.
    re.compile(rf".*/host/hosted_engine: {_ONLY_HERE}"),
    # VmMapper: guests without an agent report nothing.
    re.compile(rf".*/vm/(fqdn|custom_properties): {_ONLY_HERE}"),
    re.compile(rf".*/reported_devices/reported_device: {_ONLY_HERE}"),
    # VmMapper: hosts that a VM is pinned to; start and host of one that runs.
    re.compile(rf".*/placement_policy/hosts: {_ONLY_HERE}"),
    re.compile(rf".*/vm/(host|run_once|start_time): {_EITHER}"),
    re.compile(rf".*/vm/display/certificate: {_EITHER}"),
    # BackendHostHooksResource: the recorded hosts had no hook.
    re.compile(rf"/hooks/hook: {_ONLY_HERE}"),
    # AffinityGroupMapper: only with an enabled rule between VMs; labels of a group that has some.
    re.compile(rf".*/affinity_group/(positive|description): {_EITHER}"),
    re.compile(rf".*/(host_labels|vm_labels|affinity_labels)/affinity_label: {_ONLY_HERE}"),
    re.compile(rf".*/affinity_group/(hosts/host|vms/vm): {_ONLY_HERE}"),
    # ClusterMapper: a policy without properties leaves a cluster without.
    re.compile(r".*/cluster/custom_scheduling_policy_properties: missing"),
    # EventMapper: what an event is about differs from code to code; the common ones are compared.
    re.compile(rf".*/event/(correlation_id|cluster|data_center|host|template|user|vm): {_EITHER}"),
    re.compile(rf".*/event/(cluster|host|vm|user)/@(href|id): {_ONLY_HERE}"),
    # BackendUserResource: who a permission is for, and on what.
    re.compile(rf".*/permission/(user|group|template): {_EITHER}"),
    # SchedulingPolicyMapper, ClusterMapper, RoleMapper: an empty one is left out.
    re.compile(rf".*/(scheduling_policy|role)/(description|properties): {_EITHER}"),
    # MaintenanceNumberOfVdssCommand and its like: what the client gave.
    re.compile(r"/action/(async|reason): missing"),
]

# Refusals by the engine's name of the message (`AppErrors.properties`), with `{}` for what differs.
TEXTS = {
    "USER_NOT_AUTHORIZED_TO_PERFORM_ACTION": "[User is not authorized to perform this action.]",
    "ACTION_TYPE_FAILED_AFFINITY_HOSTS_RULES_COLLISION": (
        "[The following affinity groups, containing the indicated hosts and VMs, have VM to host "
        "conflicts between positive and negative enforcing affinity groups., Affinity Groups: {}, "
        "Hosts: {}, VMs: {}]"
    ),
    "ACTION_TYPE_FAILED_INVALID_CUSTOM_PROPERTIES_INVALID_KEYS": (
        "[Cannot edit Scheduling Policy if some of the specified custom properties are not "
        "configured by the system. The keys are: {}]"
    ),
    "ACTION_TYPE_FAILED_INVALID_CUSTOM_PROPERTIES_INVALID_VALUES": (
        "[Cannot edit Scheduling Policy if some of the specified custom properties have illegal "
        "values. The keys are: {}]"
    ),
    "ACTION_TYPE_FAILED_CLUSTER_POLICY_UNKNOWN_POLICY_UNIT": (
        "[Cannot edit Scheduling Policy. Policy unit is unknown.]"
    ),
    "ERROR_CANNOT_REMOVE_ROLE_ATTACHED_TO_PERMISSION": (
        "[One or more Permissions is still associated with Role.\n- Please remove all Permissions "
        "first.]"
    ),
    "SCHEDULING_ALL_HOSTS_FILTERED_OUT": (
        "[Cannot migrate VM. There is no host that satisfies current scheduling constraints. See "
        "below for details:{}"
    ),
    "VDS_INVALID_SERVER_ID": "[Cannot activate Host. Invalid Host Id.]",
    "VDS_CANNOT_MAINTENANCE_VDS_IS_IN_MAINTENANCE": (
        "[Cannot switch Host to Maintenance mode. Host is already in Maintenance mode.]"
    ),
    "VDS_CANNOT_MAINTENANCE_VDS_IS_NOT_OPERATIONAL": (
        "[Cannot switch Host to Maintenance mode, Host is not operational.]"
    ),
    "VDS_CANNOT_MAINTENANCE_IT_INCLUDES_NON_MIGRATABLE_VM": (
        "[Cannot switch the following Hosts to Maintenance mode: {}.\nOne or more running VMs are "
        "indicated as non-migratable. The non-migratable VMs are: {}.]"
    ),
    "VDS_CANNOT_MAINTENANCE_NO_ALTERNATE_HOST_FOR_HOSTED_ENGINE": (
        "[Cannot switch the Host(s) to Maintenance mode.\nNone of the hosts capable of running the "
        "engine VM has score more than 0 and is in Up state.]"
    ),
    "CANNOT_MAINTENANCE_VDS_RUN_VMS_NO_OTHER_RUNNING_VDS": (
        "[The following Hosts have running VMs and cannot be switched to maintenance mode: "
        "{}.\nPlease ensure that the following Clusters have at least one Host in UP state: {}"
    ),
    "ACTION_TYPE_FAILED_VDS_STATUS_ILLEGAL": (
        "[Cannot activate Host. Operation can be performed only when Host status is one of "
        "Maintenance, Non Operational.]"
    ),
}
