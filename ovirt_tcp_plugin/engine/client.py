# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""What the broker asks of the engine, by the oVirt SDK.

Values in, values out, and only this package's errors (`sdk`).
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

import ovirtsdk4
from ovirtsdk4 import types

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.engine import affinity_groups
from ovirt_tcp_plugin.engine.large_lists import ListedHost, list_hosts, list_vms
from ovirt_tcp_plugin.engine.pages import Pages, read_or_none
from ovirt_tcp_plugin.engine.sdk import Access, Sdk, properties
from ovirt_tcp_plugin.placement.affinity_rules import EnforcingGroup
from ovirt_tcp_plugin.placement.inventory import (
    HOSTED_ENGINE_ORIGINS,
    MARK_PROPERTY,
    WALL_DESCRIPTION,
    Cluster,
    Event,
    Group,
    Host,
    Listing,
    Notice,
    Policy,
    Unit,
    Vm,
    bears_wall_name,
    wall_name,
)

log = logging.getLogger("broker.engine")

ORIGIN = "ovirt-tcp"
# The quarantine of 500 hosts is some thousand events.
MAX_EVENTS = 10_000
MAX_EVENT_TEXT = 1000
# The engine holds a whole list in memory, and a VM is large there.
VMS_IN_A_LIST = 2048
# All hosts are one list, unless the engine cannot show one of them.
HOSTS_IN_A_LIST = 1024


class Engine:
    """The engine's REST API. Thread-safe.

    Every method raises Unavailable when the engine does not answer, or its answer cannot be parsed;
    AccessRefused when it does not let us in, or not do this; Conflict when it refuses (HTTP 400,
    409); NotFound (404); and InvalidConfig when the password file cannot be read.
    """

    def __init__(self, access: Access) -> None:
        self._call = Sdk(access).call

    def hosts(self) -> tuple[Host, ...]:
        """Return all hosts that the engine can show."""
        return self._call("list hosts", _read_hosts)

    def hosts_not_up(self) -> tuple[Host, ...]:
        """Return the hosts that are not Up: few, where all of them are many."""
        return self._call("list hosts", _read_hosts_not_up)

    def listing(self, next_runs: bool = True) -> Listing:
        """Return everything; what the engine cannot show is named or counted in it.

        Args:
            next_runs: with the marks of next-run configurations, one call for each VM that has one.
        """
        return self._call("list everything", lambda system: read_listing(system, next_runs))

    def vm(self, vm_id: str) -> Vm:
        """Return a VM with the mark of its next-run configuration."""
        return self._call("read a VM", lambda system: _read_vm(system, vm_id))

    def listing_without_vms(self) -> Listing:
        """Return everything but VMs, of which there may be many.

        It is enough to know which hosts are to be attested.
        """
        return self._call("list all but VMs", _read_listing_without_vms)

    def units(self) -> tuple[Unit, ...]:
        """Return all scheduling policy units."""
        return self._call("list policy units", read_units)

    def answers(self) -> bool:
        """Return whether the engine answers: what fails while it does fails for itself.

        It is asked for two things, since one of them may be what fails.
        """
        return _succeeds(self.last_event_id) or _succeeds(self.user_id)

    def deactivate(self, host_id: str, reason: str) -> None:
        """Ask for maintenance; it is reached later."""
        self._act("deactivate", host_id, lambda host: host.deactivate(reason=reason, async_=True))

    def activate(self, host_id: str) -> None:
        """Ask for activation; the host is Up later."""
        self._act("activate", host_id, lambda host: host.activate(async_=True))

    def create_wall(
        self,
        cluster_id: str,
        host_ids: Collection[str] = (),
        vm_ids: Collection[str] = (),
        spare: bool = False,
    ) -> str:
        """Make a wall with these members; without hosts it lets no member start. Return its id.

        All members in one call (`AffinityGroupMapper`); the engine refuses the whole of it when a
        single member is gone.

        Args:
            spare: under a name that nobody has yet. The engine has no two groups of one name, so
                the usual one may be taken.

        Raises:
            Conflict: it is refused, or the engine made one that stops nobody.
        """
        group = types.AffinityGroup(
            name=_spare_name(cluster_id) if spare else wall_name(cluster_id),
            description=WALL_DESCRIPTION,
            hosts_rule=_ENFORCING,
            vms_rule=types.AffinityRule(enabled=False),
            hosts=_hosts(host_ids),
            vms=_vms_of(vm_ids),
        )
        made = self._call("create the wall", lambda system: _groups(system, cluster_id).add(group))
        if not _enforces(made):
            # Kept, it would be taken for a good one until the next listing, and replaced then.
            self.remove_wall(cluster_id, made.id)
            raise errors.Conflict("the engine made a wall without the rules that were asked for")
        return str(made.id)

    def repair_wall(
        self, cluster_id: str, group_id: str, emptied: bool = False, name: str = ""
    ) -> None:
        """Make the group an enforcing positive one again, of its name and without host labels.

        Host labels go by an empty list only: a DELETE of one is refused for ever, since the engine
        looks for its id among those of VMs (`RemoveHostLabelFromAffinityGroupCommand`).

        Args:
            emptied: put all hosts out, too. The engine validates the whole group against the rules
                of the others, and one without hosts contradicts none (`AffinityRulesUtils`).
            name: its name now. One that shows whose wall it is stays; else it gets the usual one,
                or a spare one.

        Raises:
            Conflict: it is refused, or the engine accepts it and does not do it.
        """
        names = [name]
        if not bears_wall_name(name, cluster_id):
            names = [wall_name(cluster_id), _spare_name(cluster_id)]
        for chosen in names:
            group = types.AffinityGroup(
                name=chosen,
                description=WALL_DESCRIPTION,
                hosts_rule=_ENFORCING,
                vms_rule=types.AffinityRule(enabled=False),
                host_labels=[],
                hosts=[] if emptied else None,
            )
            try:
                self._update("repair the wall", cluster_id, group_id, group)
            except errors.Conflict:
                if chosen == names[-1]:
                    raise
            else:
                break
        repaired = self._call(
            "read the wall", lambda system: _group(system, cluster_id, group_id).get()
        )
        _check_repaired(repaired, emptied)

    def set_hosts(self, cluster_id: str, group_id: str, host_ids: Collection[str]) -> None:
        """List exactly these hosts, in one call; all else stays (`AffinityGroupMapper`)."""
        group = types.AffinityGroup(hosts=_hosts(host_ids))
        self._update("list hosts of the wall", cluster_id, group_id, group)

    def change_vms(
        self, cluster_id: str, group_id: str, added: Collection[str], removed: Collection[str]
    ) -> frozenset[str]:
        """Put VMs behind the wall and let others out, in one call; return all members.

        The list is made from the members as they are now: a VM that somebody else put behind it
        meanwhile stays.
        """
        what = "list VMs of the wall"
        members = self._call(what, lambda system: _member_vms(system, cluster_id, group_id))
        vm_ids = (members | set(added)) - set(removed)
        self._update(what, cluster_id, group_id, types.AffinityGroup(vms=_vms_of(vm_ids)))
        return vm_ids

    def remove_wall(self, cluster_id: str, group_id: str) -> None:
        """Remove the group: the cluster is no pool any more. It may be gone already."""
        try:
            self._call(
                "remove the wall", lambda system: _group(system, cluster_id, group_id).remove()
            )
        except (errors.NotFound, errors.Conflict):
            if self.has_group(cluster_id, group_id):
                raise
            log.info("gone already group=%s", group_id)

    def has_group(self, cluster_id: str, group_id: str) -> bool:
        """Return whether an affinity group is there.

        The engine says so only in its list: it answers 400 for one that is gone, with the text of
        an error of its own (`BackendAffinityGroupResource`).
        """
        try:
            return self._call(
                "list affinity groups", lambda system: is_group_listed(system, cluster_id, group_id)
            )
        except errors.NotFound:  # the cluster is gone
            return False

    def walls(self, cluster_id: str) -> list[Group]:
        """Return the walls of a cluster, the best one first."""

        def read(system: Any) -> list[Group]:
            return _walls(system, cluster_id, _groups(system, cluster_id).list())

        return self._call("list walls", read)

    def add_host(self, cluster_id: str, group_id: str, host_id: str) -> None:
        """Let a host in. It may be inside already."""

        def add(system: Any) -> None:
            _group(system, cluster_id, group_id).hosts_service().add(types.Host(id=host_id))

        def is_done(system: Any) -> bool:
            return host_id in _member_hosts(system, cluster_id, group_id)

        self._edit("add a host", add, is_done)

    def remove_host(self, cluster_id: str, group_id: str, host_id: str) -> None:
        """Put a host out. It may be outside already."""

        def remove(system: Any) -> None:
            _group(system, cluster_id, group_id).hosts_service().host_service(host_id).remove()

        def is_done(system: Any) -> bool:
            return host_id not in _member_hosts(system, cluster_id, group_id)

        self._edit("remove a host", remove, is_done)

    def add_vm(self, cluster_id: str, group_id: str, vm_id: str) -> None:
        """Put a VM behind the wall. It may be there already."""

        def add(system: Any) -> None:
            _group(system, cluster_id, group_id).vms_service().add(types.Vm(id=vm_id))

        def is_done(system: Any) -> bool:
            return vm_id in _member_vms(system, cluster_id, group_id)

        self._edit("add a VM", add, is_done)

    def remove_vm(self, cluster_id: str, group_id: str, vm_id: str) -> None:
        """Let a VM out that needs no trust any more."""

        def remove(system: Any) -> None:
            _group(system, cluster_id, group_id).vms_service().vm_service(vm_id).remove()

        def is_done(system: Any) -> bool:
            return vm_id not in _member_vms(system, cluster_id, group_id)

        self._edit("remove a VM", remove, is_done)

    def add_event(self, notice: Notice, custom_id: int) -> None:
        """Write an event.

        (origin, custom_id) is unique at the engine: so a second try of the same is done already.
        """
        event = types.Event(
            origin=ORIGIN,
            custom_id=custom_id,
            severity=types.LogSeverity(notice.severity),
            description=notice.text,
            host=types.Host(id=notice.host_id) if notice.host_id else None,
            vm=types.Vm(id=notice.vm_id) if notice.vm_id else None,
            cluster=types.Cluster(id=notice.cluster_id) if notice.cluster_id else None,
        )
        try:
            self._call("add an event", lambda system: system.events_service().add(event))
        except errors.Conflict as e:
            # ACTION_TYPE_FAILED_EXTERNAL_EVENT_DUPLICATE_CUSTOM_ID, in the engine's words.
            if "with this custom id already exists" not in str(e):
                raise

    def events(self, after: int) -> tuple[Event, ...]:
        """Return events with a greater id, the oldest first; of more than MAX_EVENTS the newest."""

        def read(system: Any) -> Any:
            return system.events_service().list(from_=after, max=MAX_EVENTS)

        listed = self._call("list events", read)
        readable = [_event(event) for event in listed if event.id is not None]
        return tuple(sorted(readable, key=lambda event: event.id))

    def last_event_id(self) -> int:
        """Return the id of the newest event, 0 if there is none."""
        listed = self._call("list events", lambda system: system.events_service().list(max=1))
        return max((int(event.id) for event in listed), default=0)

    def user_id(self) -> str:
        """Return the id of our own user, as events name it (`BackendApiResource`)."""
        return self._call("read who we are", lambda system: str(system.get().authenticated_user.id))

    def _act(self, what: str, host_id: str, action: Callable[[Any], object]) -> None:
        """Run an action on a host. Raises NotFound for one that is gone: the engine answers 400."""
        try:
            self._call(what, lambda system: action(_host_service(system, host_id)))
        except errors.Conflict:
            self._call(what, lambda system: _host_service(system, host_id).get())
            raise

    def _update(
        self, what: str, cluster_id: str, group_id: str, group: types.AffinityGroup
    ) -> None:
        self._call(what, lambda system: _group(system, cluster_id, group_id).update(group))

    def _edit(
        self, what: str, action: Callable[[Any], object], is_done: Callable[[Any], bool]
    ) -> None:
        """Run an edit of a membership. After a refusal it is no fault if it is so already."""
        try:
            self._call(what, action)
        except (errors.NotFound, errors.Conflict):
            if not self._call(what, is_done):
                raise
            log.info("already so what=%s", what)


_ENFORCING = types.AffinityRule(enabled=True, enforcing=True, positive=True)


def _succeeds(question: Callable[[], object]) -> bool:
    """Return whether the engine gives any answer."""
    try:
        question()
    except errors.RequestFailed:
        return True
    except errors.Error:
        return False
    return True


def read_clusters(system: Any) -> tuple[Cluster, ...]:
    """Return all clusters, by the SDK's system service; for `Sdk.call`."""
    return tuple(map(_cluster, system.clusters_service().list()))


def read_units(system: Any) -> tuple[Unit, ...]:
    """Return all scheduling policy units, in the same way."""
    return tuple(map(_unit, system.scheduling_policy_units_service().list()))


def read_listing(system: Any, next_runs: bool = True) -> Listing:
    """Return everything, in the same way. `next_runs`: see `Engine.listing`."""
    vms, bad_vms = _vms(system)
    unreadable = frozenset[str]()
    if next_runs:
        vms, unreadable = _with_next_runs(system, vms)
    # The engine asks its database for each host's part in hosted engine: only for whom it matters.
    hosts, bad_hosts = _all_hosts(system, any(vm.hosted_engine for vm in vms))
    return dataclasses.replace(
        _without_vms(system, hosts),
        vms=vms,
        unreadable_vms=unreadable,
        nameless_vms=bad_vms,
        nameless_hosts=bad_hosts,
    )


def _read_listing_without_vms(system: Any) -> Listing:
    hosts, bad_hosts = _all_hosts(system)
    return dataclasses.replace(_without_vms(system, hosts), nameless_hosts=bad_hosts)


def _read_hosts(system: Any) -> tuple[Host, ...]:
    hosts, _ = _all_hosts(system)
    return tuple(listed.host for listed in hosts)


def _read_hosts_not_up(system: Any) -> tuple[Host, ...]:
    listed = system.hosts_service().list(search="status != up")
    return tuple(map(_host, listed))


def _read_vm(system: Any, vm_id: str) -> Vm:
    vm = _vm(system.vms_service().vm_service(vm_id).get())
    if vm.marked or not vm.next_run:
        return vm
    return dataclasses.replace(vm, marked=_is_marked_next_run(system, vm_id))


def is_group_listed(system: Any, cluster_id: str, group_id: str) -> bool:
    """Return whether an affinity group is there, in the same way (see `Engine.has_group`)."""
    return any(group.id == group_id for group in _groups(system, cluster_id).list())


def _without_vms(system: Any, hosts: Collection[ListedHost]) -> Listing:
    """Return everything else in few calls: the engine itself follows the links."""
    clusters, unreadable_walls = _clusters_with_groups(system)
    listed_policies = system.scheduling_policies_service().list(follow="filters")
    policies = tuple(_policy(system, policy) for policy in listed_policies)
    first_walls: dict[str, Group] = {}
    surplus: dict[str, frozenset[str]] = {}
    groups: list[EnforcingGroup] = []
    for cluster in clusters:
        groups += affinity_groups.with_rules_that_bind(cluster.id, cluster.affinity_groups or ())
        read = functools.partial(_walls, system, cluster.id, cluster.affinity_groups or ())
        walls = read_or_none(read)
        if walls is None:
            unreadable_walls |= {cluster.id}
        elif walls:
            first_walls[cluster.id] = walls[0]
            surplus[cluster.id] = frozenset(wall.id for wall in walls[1:])
    return Listing(
        clusters=tuple(map(_cluster, clusters)),
        policies=policies,
        units=read_units(system),
        hosts=tuple(listed.host for listed in hosts),
        vms=(),
        walls=first_walls,
        engine_hosts=frozenset(listed.id for listed in hosts if listed.takes_engine),
        surplus_walls=surplus,
        unreadable_walls=unreadable_walls,
        groups=tuple(groups),
    )


def _clusters_with_groups(system: Any) -> tuple[list[Any], frozenset[str]]:
    """Return all clusters with their affinity groups, and the ids of those without, for a fault."""
    service = system.clusters_service()
    followed = read_or_none(lambda: list(service.list(follow="affinity_groups")))
    if followed is not None:
        return followed, frozenset()
    clusters = list(service.list())
    unreadable: set[str] = set()
    for cluster in clusters:
        cluster.affinity_groups = read_or_none(_groups(system, cluster.id).list)
        if cluster.affinity_groups is None:
            unreadable.add(cluster.id)
    return clusters, frozenset(unreadable)


def _vms(system: Any) -> tuple[tuple[Vm, ...], int]:
    """Return all VMs that the engine can show, and the number of those that it cannot."""
    pages = Pages(functools.partial(list_vms, system))
    vms = tuple(pages.rows(VMS_IN_A_LIST))
    return vms, pages.bad_rows


def _all_hosts(system: Any, all_content: bool = False) -> tuple[Sequence[ListedHost], int]:
    """Return all hosts that the engine can show, and the number of those that it cannot."""
    read = functools.partial(list_hosts, system, all_content)
    hosts = read_or_none(read)
    if hosts is not None:
        return hosts, 0
    pages = Pages(read)
    return list(pages.rows(HOSTS_IN_A_LIST)), pages.bad_rows


def _next_run(system: Any, vm_id: str) -> Any:
    """Return the VM as configured for its next start, None if it was removed since it was listed.

    Lists do not show it.
    """
    try:
        return system.vms_service().vm_service(vm_id).get(next_run=True)
    except ovirtsdk4.NotFoundError:
        return None


def _is_marked_next_run(system: Any, vm_id: str) -> bool:
    return _marked(_next_run(system, vm_id))


def _with_next_runs(system: Any, vms: Iterable[Vm]) -> tuple[tuple[Vm, ...], frozenset[str]]:
    """Return VMs with their marks for the next start, and the ids of those it cannot be read of.

    These count as marked.
    """
    read: list[Vm] = []
    unreadable: set[str] = set()
    for vm in vms:
        if not vm.next_run or vm.marked:
            read.append(vm)
            continue
        marked = read_or_none(functools.partial(_is_marked_next_run, system, vm.id))
        if marked is None:
            unreadable.add(vm.id)
        read.append(dataclasses.replace(vm, marked=marked is not False))
    return tuple(read), frozenset(unreadable)


def _member_hosts(system: Any, cluster_id: str, group_id: str) -> frozenset[str]:
    service = _group(system, cluster_id, group_id).hosts_service()
    return frozenset(host.id for host in service.list())


def _member_vms(system: Any, cluster_id: str, group_id: str) -> frozenset[str]:
    service = _group(system, cluster_id, group_id).vms_service()
    return frozenset(vm.id for vm in service.list())


def _labels(system: Any, cluster_id: str, group_id: str) -> frozenset[str]:
    service = _group(system, cluster_id, group_id).host_labels_service()
    return frozenset(label.id for label in service.list())


def _check_repaired(group: Any, emptied: bool) -> None:
    """Raise Conflict if the engine did not do what it accepted: its answer alone is no proof."""
    if not _enforces(group) or group.host_labels or (emptied and group.hosts):
        raise errors.Conflict("the engine accepted the repair of the wall and did not do it")


def _hosts(host_ids: Collection[str]) -> list[types.Host]:
    return [types.Host(id=host_id) for host_id in sorted(host_ids)]


def _vms_of(vm_ids: Collection[str]) -> list[types.Vm]:
    return [types.Vm(id=vm_id) for vm_id in sorted(vm_ids)]


def _spare_name(cluster_id: str) -> str:
    return f"{wall_name(cluster_id)}-{secrets.token_hex(4)}"


def _walls(system: Any, cluster_id: str, groups: Iterable[Any]) -> list[Group]:
    """Return the walls among a cluster's groups, the best one first.

    A new one is better than that which it replaces.
    """
    walls = []
    for group in groups:
        named = bears_wall_name(group.name or "", cluster_id)
        if affinity_groups.is_wall(cluster_id, group):
            hosts, vms, labels = _members(system, cluster_id, group)
            intact = named and _enforces(group)
            walls.append(Group(group.id, group.name or "", hosts, vms, intact, labels))
    usual = wall_name(cluster_id)

    def fault(wall: Group) -> tuple[bool, bool, bool, str]:
        return not wall.enforcing, bool(wall.host_label_ids), wall.name != usual, wall.id

    walls.sort(key=fault)
    return walls


def _members(
    system: Any, cluster_id: str, group: Any
) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return the ids of a group's hosts, VMs and host labels. It shows them unless it has none.

    Labels of VMs are left alone: whoever bears one is bound to trusted hosts, too, which is no harm
    to trust.
    """
    if group.hosts or group.vms:
        return _ids(group.hosts), _ids(group.vms), _ids(group.host_labels)
    return (
        _member_hosts(system, cluster_id, group.id),
        _member_vms(system, cluster_id, group.id),
        _labels(system, cluster_id, group.id),
    )


def _ids(objects: Any) -> frozenset[str]:
    """Return the ids of the SDK's objects in a list, which may be None."""
    return frozenset(str(item.id) for item in objects or ())


def _enforces(group: Any) -> bool:
    """Return whether a group binds its VMs to its hosts, and does nothing else."""
    vms_rule = group.vms_rule
    if vms_rule and vms_rule.enabled:
        return False
    hosts_rule = group.hosts_rule
    if not hosts_rule:
        return False
    return bool(hosts_rule.enabled and hosts_rule.enforcing and hosts_rule.positive)


def _policy(system: Any, policy: Any) -> Policy:
    filters = policy.filters
    if not filters:
        service = system.scheduling_policies_service().policy_service(policy.id)
        filters = service.filters_service().list()
    unit_ids = frozenset(map(_unit_id, filters))
    return Policy(policy.id, policy.name, properties(policy.properties), unit_ids)


def _unit_id(listed: Any) -> str:
    """Return the id of the unit that a filter of a policy stands for."""
    unit = listed.scheduling_policy_unit
    return str(unit.id if unit else listed.id)


def _cluster(cluster: Any) -> Cluster:
    return Cluster(
        id=cluster.id,
        name=cluster.name,
        policy_id=cluster.scheduling_policy.id if cluster.scheduling_policy else "",
        properties=properties(cluster.custom_scheduling_policy_properties),
        trusted_service=bool(cluster.trusted_service),
    )


def _unit(unit: Any) -> Unit:
    return Unit(unit.id, unit.name, bool(unit.enabled), unit.description or "")


def _host(host: Any) -> Host:
    status = host.status.value if host.status else ""
    detail = host.status_detail or ""
    name = host.name or host.id
    return Host(host.id, name, host.address or "", _linked_id(host.cluster), status, detail)


def _vm(vm: Any) -> Vm:
    """Return a VM, without the mark of its next-run configuration."""
    origin = getattr(vm, "origin", None) or ""
    return Vm(
        id=vm.id,
        name=vm.name or vm.id,
        cluster_id=_linked_id(vm.cluster),
        status=vm.status.value if vm.status else "",
        host_id=_linked_id(vm.host),
        marked=_marked(vm),
        hosted_engine=origin in HOSTED_ENGINE_ORIGINS,
        next_run=bool(vm.next_run_configuration_exists),
    )


def _marked(vm: Any) -> bool:
    """Return whether a VM is marked in one of its configurations; one that is gone is not."""
    return vm is not None and properties(vm.custom_properties).get(MARK_PROPERTY) == "true"


def _event(event: Any) -> Event:
    return Event(
        id=int(event.id),
        code=int(event.code or 0),
        host_id=_linked_id(event.host),
        vm_id=_linked_id(event.vm),
        cluster_id=_linked_id(event.cluster),
        text=(event.description or "")[:MAX_EVENT_TEXT],
        user_id=_linked_id(event.user),
    )


def _linked_id(link: Any) -> str:
    """Return the id of a linked object, empty where there is none, or one that was removed."""
    return link.id or "" if link else ""


def _host_service(system: Any, host_id: str) -> Any:
    return system.hosts_service().host_service(host_id)


def _groups(system: Any, cluster_id: str) -> Any:
    return system.clusters_service().cluster_service(cluster_id).affinity_groups_service()


def _group(system: Any, cluster_id: str, group_id: str) -> Any:
    return _groups(system, cluster_id).group_service(group_id)
