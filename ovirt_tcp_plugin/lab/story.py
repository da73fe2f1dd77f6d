# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The main job as a story: from measured boots to placements, with tampering, outages and returns.

It checks itself at each step against the engine's own journal and the roles' own interfaces.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping
from typing import Any

import ovirtsdk4
from ovirtsdk4 import types

from ovirt_tcp_plugin.lab import launch
from ovirt_tcp_plugin.lab.engine import builtin
from ovirt_tcp_plugin.lab.narrator import Narrator, StepFailed
from ovirt_tcp_plugin.lab.site import CLUSTER, LabSite

GOLDEN = "host-1"
TAMPERED_TBOOT = "host-4"
FORGED_LOG = "host-5"
NO_LAUNCH = "host-6"
BAD = {
    TAMPERED_TBOOT: ("mle_differs", "one flipped byte in tboot"),
    FORGED_LOG: ("log_differs", "another kernel under a log forged to look good"),
    NO_LAUNCH: ("no_launch", "no TXT launch, under a good log"),
}
REBOOTING = "host-2"
SMALLEST = 6

TIMINGS = {
    "host_initialization": 1.0,
    "event_after_up": 1.0,
    "not_responding_after": 0.5,
    "vm_start": 0.3,
    "migration": 0.3,
    "enforcer": 2.0,
    "ha_retry": 1.0,
    "external_response": 3.0,
}


class Story:
    """The steps, in order, on one site."""

    def __init__(self, site: LabSite, narrator: Narrator) -> None:
        self._site = site
        self._tell = narrator
        self._good = [name for name in site.names if name not in BAD]
        # Many hosts on one machine take their time; a wait that is too short would fail a good
        # installation.
        self._patience = 30.0 + len(site.names)
        self._last_probe = 0

    def play(self) -> None:
        """Play every step. Raises StepFailed at the first that does not hold."""
        for step in STEPS:
            step(self)
        self._tell.end()

    # Steps

    def enrol(self) -> None:
        """Hosts enrol, host 1 becomes golden. Raises StepFailed."""
        site = self._site
        tell = self._tell
        tell.step(
            "Hosts enrol; host-1 is golden",
            "EK chains verified, AKs bound, reference values stored",
        )
        tell.say(
            f"making {len(self._hosts)} software TPMs, each with an EK certificate of its vendor"
        )
        site.make_hosts()
        tell.say("booting: firmware, TXT launch at localities 4, 3 and 2, tboot, kernel, initrd")
        self._boot_all()
        site.install_verifier()
        site.start_verifier()
        tell.say(f"the attestation server answers at {site.verifier_url}")
        for name in self._hosts:
            tell.pulse()
            site.enrol(name)
        tell.check(
            f"{len(self._hosts)} hosts enrolled: EK chain good, AK in the same TPM",
            self._enrolled(),
        )
        good = site.verifier.call(
            "POST", "/v1/reference-values", {"name": "golden", "host": f"{GOLDEN}.lab"}
        )
        pcrs = sorted({value["pcr"] for value in good["values"]})
        tell.check(
            f"reference values of {GOLDEN}: {len(good['values'])} steps of PCR 17 and 18",
            pcrs == [17, 18],
        )

    def start_pool(self) -> None:
        """The engine starts with a trusted pool. Raises StepFailed."""
        site = self._site
        tell = self._tell
        tell.step(
            "The engine starts with a trusted pool",
            "good hosts trusted, 4-6 untrusted, each with its own reason",
        )
        site.start_filterd()
        site.start_engine(_vms(self._hosts), TIMINGS)
        self._make_pool()
        tell.say(
            f"the engine answers at {site.engine_url}; cluster {CLUSTER} has a policy with "
            "TrustedHosts"
        )
        site.start_broker()
        self._wait_trusted(self._good)
        for name, (code, lie) in BAD.items():
            self._wait_level(name, "untrusted", code, f"{name} is untrusted ({code}): {lie}")
        stages = [
            entry["text"].partition(": ")[2].rstrip(".").split(", ")
            for entry in self._history("stage")
        ]
        tell.check(
            f"startup attestation in {len(stages)} stages: {_counts(stages)}", len(stages) >= 2
        )
        second = self._history("stage")[1]["id"]
        judged = {
            entry["host"] for entry in self._history("trusted", "untrusted") if entry["id"] < second
        }
        tell.check(
            "the first stage's verdicts were there before the second stage began",
            judged >= set(stages[0]),
        )

    def place(self) -> None:
        """A VM is started, another migrated. Raises StepFailed."""
        tell = self._tell
        tell.step(
            "A VM is started, another migrated",
            "only trusted hosts are offered; the untrusted leave, their VMs move",
        )
        # Of so few hosts they are many.
        held = self._site.broker.call("POST", "/v1/guard/release")["hosts"]
        if held:
            tell.say(f"ovirt-tcp guard release: {', '.join(held)} may leave service")
        for name in BAD:
            self._wait_status(name, "maintenance", f"{name} is in maintenance")
            reason = self._host(name).status_detail
            told, *_ = reason.split(";")
            tell.check(f"the engine shows why: {told}", BAD[name][0] in reason, reason)
        for name in BAD:
            self._wait_on_good(f"vm-{name}", f"the VM of {name} moved to a trusted host")
        self._start("web")
        self._wait_on_good("web", "VM web was started on a trusted host")
        left = self._place_of("vm-host-4")
        self._vm_service("vm-host-4").migrate()
        self._tell_wait("the migration", lambda: self._place_of("vm-host-4") != left)
        tell.check("VM vm-host-4 migrated to another trusted host", self._on_good("vm-host-4"))
        entries = [
            entry for entry in self._site.control("journal") if entry["external"] == "answer"
        ]
        offered = {name for entry in entries for name in entry["left"]}
        clean = bool(entries) and not offered & set(BAD)
        tell.check(
            f"the filter was asked {len(entries)} times and let no untrusted host pass",
            clean,
            str(offered),
        )
        events = [
            event.description or ""
            for event in self._site.engine.events_service().list()
            if event.code == 9803
        ]
        for name, (code, _) in BAD.items():
            tell.check(
                f"an event tells of {name} ({code})",
                any(f"{name} is untrusted ({code})" in e for e in events),
            )

    def reboot_tampered(self) -> None:
        """A host reboots into a tampered tboot. Raises StepFailed."""
        site = self._site
        tell = self._tell
        tell.step(
            f"{REBOOTING} reboots into a tampered tboot",
            "not used for a single VM in between; untrusted",
        )
        self._move_to("ha", REBOOTING)
        tell.say(f"the highly available VM ha runs on {REBOOTING}; {REBOOTING} loses power")
        since = len(site.control("journal"))
        images = launch.tamper_tboot(site.hosts[GOLDEN].images, site.directory / REBOOTING)
        self._reboot(REBOOTING, lambda: site.hosts[REBOOTING].reboot(images))
        self._probe_until(lambda: self._is(REBOOTING, "untrusted", "mle_differs"))
        tell.check(f"{REBOOTING} came Up and is untrusted (mle_differs)", True)
        self._wait(
            f"{REBOOTING} is in maintenance",
            lambda: self._status(REBOOTING) == "maintenance",
            probe=True,
        )
        self._wait("VM ha was restarted on a trusted host", lambda: self._on_good("ha"))
        entries = site.control("journal")[since:]
        chosen = [entry["chosen"] for entry in entries]
        tell.check(
            f"{len(chosen)} placements meanwhile, none on {REBOOTING}",
            bool(chosen) and REBOOTING not in chosen,
        )
        events = [event.description or "" for event in site.engine.events_service().list(max=100)]
        text = f"Host {REBOOTING} is untrusted (mle_differs): PCR 17, event"
        tell.check(
            "an event tells the reason: tboot differs",
            any(text in e and "tboot" in e for e in events),
        )

    def reboot_good(self) -> None:
        """It reboots into the good one. Raises StepFailed."""
        site = self._site
        tell = self._tell
        tell.step(f"{REBOOTING} reboots into the good one", "returns by itself")
        self._reboot(REBOOTING, lambda: site.hosts[REBOOTING].reboot())
        self._wait(
            f"{REBOOTING} is Up again, without a hand", lambda: self._status(REBOOTING) == "up"
        )
        self._wait_trusted([REBOOTING])
        self._wait(
            f"{REBOOTING} is inside the wall", lambda: REBOOTING in self._pool()["hosts_inside"]
        )
        self._move_to("ha", REBOOTING)
        tell.check(f"VM ha runs on {REBOOTING} again", self._place_of("ha") == REBOOTING)

    def server_stops(self) -> None:
        """The attestation server stops, and comes back. Raises StepFailed."""
        site = self._site
        tell = self._tell
        tell.step(
            "The attestation server stops",
            "verdicts run out; nothing is placed, nothing evacuated, no VM moves",
        )
        before, since = site.control("state"), len(site.control("journal"))
        site.processes.stop("verifier")
        tell.say(f"verdicts live {site.lifetime_s:.0f} s")
        self._wait(
            "no host is trusted any more",
            lambda: not any(one["level"] == "trusted" for one in self._verdicts()),
        )
        self._wait("the wall was emptied in one step", lambda: not self._pool()["hosts_inside"])
        refused = self._refused("probe-out")
        tell.check("a VM is refused on every host", refused)
        self._settle(3.0)
        after = site.control("state")
        tell.check(
            "no host changed its state", before["hosts"] == after["hosts"], str(after["hosts"])
        )
        tell.check(
            "no VM moved or stopped",
            before["vms"] == {**after["vms"], "probe-out": None},
            str(after["vms"]),
        )
        moved = [entry for entry in site.control("journal")[since:] if entry["chosen"]]
        tell.check("no placement at all", not moved, str(moved))
        site.start_verifier()
        tell.say("the attestation server is back")
        self._wait_trusted(self._good)
        self._wait(
            "the wall is built again", lambda: set(self._pool()["hosts_inside"]) == set(self._good)
        )
        self._start("probe-out")
        self._wait("the VM starts now", lambda: self._on_good("probe-out"))

    def filterd_dies(self) -> None:
        """filterd is killed. Raises StepFailed."""
        site = self._site
        tell = self._tell
        tell.step(
            "filterd is killed",
            "the engine keeps all hosts, wall and gate still refuse the untrusted",
        )
        site.processes.send("broker", signal.SIGSTOP)
        site.processes.stop("filterd", signal.SIGKILL)
        tell.say(
            f"filterd is dead, the broker is frozen, and somebody activates {TAMPERED_TBOOT} by "
            "hand"
        )
        site.engine.hosts_service().host_service(self._host(TAMPERED_TBOOT).id).activate()
        self._wait_status(
            TAMPERED_TBOOT,
            "up",
            f"{TAMPERED_TBOOT} is Up, untrusted, and nobody is there to take it out",
        )
        since = len(site.control("journal"))
        self._start("web-2")
        self._wait("VM web-2 was started on a trusted host", lambda: self._on_good("web-2"))
        entry = site.control("journal")[since]
        tell.check(
            "the engine got no answer and kept all hosts",
            entry["external"] == "kept",
            entry["external"],
        )
        offered = TAMPERED_TBOOT in entry["candidates"] and TAMPERED_TBOOT not in entry["internal"]
        tell.check(
            f"{TAMPERED_TBOOT} was a candidate, and the wall took it out", offered, str(entry)
        )
        target = types.Host(id=self._host(TAMPERED_TBOOT).id)
        refused = self._refuses(lambda: self._vm_service("web-2").migrate(host=target))
        tell.check(f"nobody can migrate a VM to {TAMPERED_TBOOT} by hand", refused)
        self._start_unknown("newcomer")
        site.start_filterd()
        site.processes.send("broker", signal.SIGCONT)
        self._wait(
            f"the broker goes on and takes {TAMPERED_TBOOT} out again",
            lambda: self._status(TAMPERED_TBOOT) != "up",
        )

    # Parts of steps

    def _start_unknown(self, name: str) -> None:
        """Start a VM that no wall knows yet: only the host itself can refuse it."""
        since = len(self._site.control("journal"))
        cluster, template = (
            types.Cluster(id=self._host(GOLDEN).cluster.id),
            types.Template(name="Blank"),
        )
        self._site.engine.vms_service().add(types.Vm(name=name, cluster=cluster, template=template))
        self._start(name)
        self._wait(
            f"VM {name}, which no wall knows yet, runs on a trusted host",
            lambda: self._on_good(name),
        )
        first = self._site.control("journal")[since]["chosen"]
        events = [
            event.description or "" for event in self._site.engine.events_service().list(max=100)
        ]
        refused = any(name in event and "refused (not_trusted)" in event for event in events)
        text = f"the engine chose {TAMPERED_TBOOT} for it first, and the gate there refused"
        self._tell.check(text, first == TAMPERED_TBOOT and refused, f"{first}; {events[:5]}")

    def _boot_all(self) -> None:
        site = self._site
        kernel = launch.tamper_kernel(site.hosts[GOLDEN].images, site.directory / "boot")
        tboot = launch.tamper_tboot(site.hosts[GOLDEN].images, site.directory / "boot")
        good_log = site.hosts[GOLDEN].good_log()
        for name, host in site.hosts.items():
            if name == TAMPERED_TBOOT:
                host.boot(tboot)
            elif name == FORGED_LOG:
                host.boot(kernel, forged_log=good_log)
            elif name == NO_LAUNCH:
                host.boot(measured_launch=False, forged_log=good_log)
            else:
                host.boot()

    def _make_pool(self) -> None:
        """What an administrator does in the admin portal: a policy with our unit, given to the
        cluster."""
        system = self._site.engine
        unit = next(
            one
            for one in system.scheduling_policy_units_service().list()
            if one.name == "TrustedHosts"
        )
        if not unit.enabled:
            raise StepFailed("the engine discovered TrustedHosts, but it is not enabled")
        policies = system.scheduling_policies_service()
        scope = types.Property(name="trust_scope", value="all_vms")
        policy = policies.add(types.SchedulingPolicy(name="trusted"))
        filters = policies.policy_service(policy.id).filters_service()
        for uid in (builtin.AFFINITY_FILTER, builtin.MEMORY_FILTER, unit.id):
            filters.add(types.Filter(scheduling_policy_unit=types.SchedulingPolicyUnit(id=uid)))
        balance = types.SchedulingPolicyUnit(id=builtin.NO_BALANCE)
        policies.policy_service(policy.id).balances_service().add(
            types.Balance(scheduling_policy_unit=balance)
        )
        # Only now: a policy cannot have a property that none of its units understands.
        policies.policy_service(policy.id).update(types.SchedulingPolicy(properties=[scope]))
        (cluster,) = system.clusters_service().list()
        change = types.Cluster(scheduling_policy=types.SchedulingPolicy(id=policy.id))
        system.clusters_service().cluster_service(cluster.id).update(change)

    def _reboot(self, name: str, boot: Callable[[], None]) -> None:
        self._site.control("power", {"host": name, "powered": False})
        boot()
        self._site.control("power", {"host": name, "powered": True})

    def _probe_until(self, holds: Callable[[], bool]) -> None:
        """Start and stop VMs all the time: whatever the engine would choose shows in its
        journal."""
        self._tell_wait("probing", lambda: self._probe() or holds())

    def _probe(self) -> bool:
        name = f"probe-{self._last_probe % 3}"
        self._last_probe += 1
        if self._site.control("state")["vms"][name] is None:
            self._refuses(lambda: self._vm_service(name).start())
        else:
            self._vm_service(name).stop()
        return False

    def _tell_wait(self, what: str, holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + self._patience
        while not holds():
            self._tell.pulse()
            if time.monotonic() >= deadline:
                raise StepFailed(f"{what} took longer than {self._patience:.0f} s: {self._seen()}")
            time.sleep(0.1)

    def _settle(self, seconds: float) -> None:
        """Give everything that should not happen the time to happen."""
        time.sleep(seconds)

    def _wait(self, sentence: str, holds: Callable[[], bool], probe: bool = False) -> None:
        def probing() -> bool:
            if probe:
                self._probe()
            return holds()

        self._tell.wait(sentence, probing, self._patience, self._seen)

    def _wait_trusted(self, names: list[str]) -> None:
        many = f"{names[0]} to {names[-1]} ({len(names)})" if len(names) > 3 else ", ".join(names)
        self._wait(f"trusted: {many}", lambda: all(self._is(name, "trusted") for name in names))

    def _wait_level(self, name: str, level: str, code: str, sentence: str) -> None:
        self._wait(sentence, lambda: self._is(name, level, code))

    def _wait_status(self, name: str, status: str, sentence: str) -> None:
        self._wait(sentence, lambda: self._status(name) == status)

    def _wait_on_good(self, vm: str, sentence: str) -> None:
        self._wait(sentence, lambda: self._on_good(vm))

    def _start(self, vm: str) -> None:
        """Start a VM; a refusal that ends soon (a wall that is being built) is waited for."""
        self._tell_wait(
            f"starting {vm}", lambda: not self._refuses(lambda: self._vm_service(vm).start())
        )

    def _move_to(self, vm: str, host: str) -> None:
        if self._place_of(vm) is None:
            self._start(vm)
        if self._place_of(vm) != host:
            target = types.Host(id=self._host(host).id)
            self._tell_wait(
                f"moving {vm} to {host}",
                lambda: not self._refuses(lambda: self._vm_service(vm).migrate(host=target)),
            )
        self._tell_wait(f"{vm} runs on {host}", lambda: self._place_of(vm) == host)

    def _refused(self, vm: str) -> bool:
        return self._refuses(lambda: self._vm_service(vm).start())

    @staticmethod
    def _refuses(action: Callable[[], object]) -> bool:
        """Return whether the engine refuses."""
        try:
            action()
        except ovirtsdk4.Error as e:
            if e.code in (400, 409):
                return True
            raise
        return False

    # What is

    @property
    def _hosts(self) -> list[str]:
        return self._site.names

    def _enrolled(self) -> bool:
        known = {one["host_name"] for one in self._site.verifier.call("GET", "/v1/hosts")["hosts"]}
        return known == {f"{name}.lab" for name in self._hosts}

    def _verdicts(self) -> list[Mapping[str, Any]]:
        return list(self._site.broker.call("GET", "/v1/hosts")["hosts"])

    def _is(self, name: str, level: str, code: str = "") -> bool:
        return any(
            (one["name"], one["level"], one["code"]) == (name, level, code)
            for one in self._verdicts()
        )

    def _pool(self) -> Mapping[str, Any]:
        (pool,) = self._site.broker.call("GET", "/v1/pools")["pools"]
        return dict(pool)

    def _history(self, *codes: str) -> list[Mapping[str, Any]]:
        return [
            one
            for one in self._site.broker.call("GET", "/v1/history")["history"]
            if one["code"] in codes
        ]

    def _host(self, name: str) -> Any:
        return next(one for one in self._site.engine.hosts_service().list() if one.name == name)

    def _status(self, name: str) -> str:
        return str(self._host(name).status.value)

    def _vm_service(self, name: str) -> Any:
        vm = next(one for one in self._site.engine.vms_service().list() if one.name == name)
        return self._site.engine.vms_service().vm_service(vm.id)

    def _place_of(self, vm: str) -> Any:
        return self._site.control("state")["vms"][vm]

    def _on_good(self, vm: str) -> bool:
        return self._place_of(vm) in self._good

    def _seen(self) -> str:
        verdicts = {
            one["name"]: f"{one['status']} {one['level']} {one['code']}".strip()
            for one in self._verdicts()
        }
        return json.dumps({"hosts": verdicts, "vms": self._site.control("state")["vms"]})


def _vms(hosts: list[str]) -> list[Mapping[str, Any]]:
    running = [{"name": f"vm-{name}", "host": name} for name in hosts[:SMALLEST] if name in BAD]
    named = [
        {"name": name} for name in ("web", "web-2", "probe-0", "probe-1", "probe-2", "probe-out")
    ]
    return [*running, *named, {"name": "ha", "high_availability": True}]


def _counts(stages: list[list[str]]) -> str:
    return " + ".join(str(len(stage)) for stage in stages)


# In the order of the story; each needs the ones before it.
STEPS: tuple[Callable[[Story], None], ...] = (
    Story.enrol,
    Story.start_pool,
    Story.place,
    Story.reboot_tampered,
    Story.reboot_good,
    Story.server_stops,
    Story.filterd_dies,
)
