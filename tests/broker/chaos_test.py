# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""A pool of 20 hosts whose processes are killed, stopped and cut off at random, while VMs start,
move and die.

Broker, filterd and attestation server are processes that a supervisor starts again; the engine is
the simulated one in this process, whose death is a restart with its tables kept, as a database
keeps them. What is true of a host is what the attestation server told of it last, with its end.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import random
import sys
import threading
import time
import xmlrpc.client
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ovirtsdk4
import pytest

from ovirt_tcp_plugin.lab.engine import audit_log, faults, model
from ovirt_tcp_plugin.lab.engine.faults import AnswerFault
from ovirt_tcp_plugin.lab.processes import free_ports
from ovirt_tcp_plugin.messages.result import Level
from tests import soak
from tests.broker import attestation_server, filterd
from tests.broker.administrator_acts import Acts
from tests.broker.oracle import Oracle, Records
from tests.broker.site import ADMINISTRATOR, HOOKS, PASSWORD, Site, until
from tests.broker.units import Absences, Unit

ROUNDS = soak.part(50)
ROUND_S = 10.0 if soak.WHOLE else 5.0
HOSTS = 20
NAMES = [f"h{n}" for n in range(1, HOSTS + 1)]
VMS = [
    {"name": f"vm{n}", "host": f"h{n % HOSTS + 1}", "high_availability": n % 2 == 0}
    for n in range(40)
]
LIFE_S = attestation_server.LIFE_MS / 1000
HEALED_WITHIN_S = 60.0
# RestartSec of the units, and what a start takes on a busy machine.
EXPOSED_AT_MOST_S = 15.0


class Pool:
    """The processes of a site of 20 hosts."""

    def __init__(self, directory: Path, pki: Path, stack: contextlib.ExitStack) -> None:
        self.directory = directory
        broker_port, filterd_port, self.verifier_port = free_ports(3)
        self.filterd_url = f"http://127.0.0.1:{filterd_port}/"
        self.write_levels({})
        server = [
            sys.executable,
            "-m",
            "tests.broker.attestation_server",
            str(directory),
            str(self.verifier_port),
            str(pki),
        ]
        self.verifier = Unit("verifier", server, self.verifier_port, 0.5, directory)
        stack.callback(self.verifier.stop)
        self.filterd = Unit(
            "filterd", filterd.configure(directory, filterd_port), filterd_port, 0.1, directory
        )
        stack.callback(self.filterd.stop)
        until(lambda: self.filterd.serving and self.verifier.serving)
        self.site = Site(directory, pki, HOSTS, VMS, self.filterd_url)
        stack.callback(self.site.engine.stop)
        tables = self.site.engine.model
        short = {
            "ha_long_retry": 1.0,
            "enforcer": 2.0,
            "evacuation_retry": 1.0,
            "auto_recovery": 5.0,
            "balancing": 5.0,
        }
        tables.timings = dataclasses.replace(tables.timings, **short)
        self.site.engine.rounds.restart()
        self._configure(pki, broker_port)
        broker = [
            sys.executable,
            "-m",
            "tests.broker.quick_broker",
            "--config-dir",
            str(directory),
            "run",
        ]
        self.broker = Unit("broker", broker, broker_port, 1.0, directory)
        stack.callback(self.broker.stop)
        self.units = [self.broker, self.filterd, self.verifier]

    def write_levels(self, levels: dict[str, Level]) -> None:
        fresh = self.directory / "levels.new"
        fresh.write_text(json.dumps({f"{name}.lab": level.value for name, level in levels.items()}))
        fresh.replace(self.directory / "levels.json")

    def _configure(self, pki: Path, port: int) -> None:
        (self.directory / "verifier.token").write_text("of the viewer")
        options = {
            "engine": {
                "url": self.site.engine.url,
                "username": "broker@internal",
                "password_file": str(pki / "password"),
                "ca_file": str(pki / "ca.pem"),
                "timeout_s": 5.0,
            },
            "verifier": {
                "urls": [f"https://127.0.0.1:{self.verifier_port}"],
                "ca_file": str(pki / "ca.pem"),
                "token_file": str(self.directory / "verifier.token"),
                "connect_timeout_s": 1.0,
                "wait_s": 1.0,
            },
            "guard": {"series_s": 0},
            "verdicts": {"lifetime_s": LIFE_S, "untrusted_refresh_s": 0.5},
            "intervals": {"poll_s": 0.3, "full_s": 2.0},
            "snapshot": {"directory": str(self.directory / "snapshot.d")},
            "api": {"port": port},
            "hooks": {"directory": str(HOOKS)},
            "state": {"directory": str(self.directory / "state")},
        }
        (self.directory / "broker.yaml").write_text(json.dumps(options))


class Administrator:
    """Starts, stops and moves VMs all the time, through the real SDK."""

    def __init__(self, pool: Pool, dice: random.Random) -> None:
        self._pool, self._dice, self._over = pool, dice, threading.Event()
        self._thread = threading.Thread(target=self._work, name="administrator")
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        site = self._pool.site
        ca_file = str(site.pki / "ca.pem")
        while not self._over.is_set():
            connection = ovirtsdk4.Connection(
                url=site.engine.url,
                username=ADMINISTRATOR,
                password=PASSWORD,
                ca_file=ca_file,
                timeout=5,
            )
            # The SDK raises whatever comes to it on half a document; then a new connection is
            # needed.
            with contextlib.suppress(Exception):
                vms = connection.system_service().vms_service()
                while not self._over.wait(0.03):
                    vm = self._dice.choice(list(site.engine.model.vms.values()))
                    with contextlib.suppress(ovirtsdk4.Error):
                        self._act(vms.vm_service(vm.id), vm)
            with contextlib.suppress(ovirtsdk4.Error):
                connection.close(logout=False)

    def _act(self, service: Any, vm: model.SimulatedVm) -> None:
        if vm.status == "down":
            service.start()
        elif vm.status == "up" and not vm.high_availability and self._dice.random() < 0.5:
            service.stop()
        elif vm.status == "up":
            service.migrate()


class Chaos:
    """One round after the other: random trouble, then a time in which all has to heal."""

    def __init__(self, pool: Pool) -> None:
        self.pool, self.site, self.dice = pool, pool.site, soak.randomness("chaos")
        self.levels: dict[str, Level] = {}
        self.off: dict[str, float] = {}
        # The broker cannot reach the engine.
        self.cut = Absences()
        # The attestation server answers nobody.
        self.cut_answers = Absences()
        # Somebody opened the wall: it may stop nobody until the broker has put it right.
        self.opened = Absences()
        self.records = Records(
            LIFE_S,
            answers=collections.defaultdict(list),
            came_up=collections.defaultdict(list),
            walls=[],
            away={
                **{unit.name: unit.away for unit in pool.units},
                "engine": self.cut,
                "answers": self.cut_answers,
                "wall": self.opened,
            },
        )
        self.done: collections.Counter[str] = collections.Counter()
        self._acts = Acts(self.site.engine, self.dice, set(NAMES))
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)
        self._watcher.start()

    def stop(self) -> None:
        self._over.set()
        self._watcher.join()

    def play(self, wall_alone: bool) -> None:
        """Play one round.

        Args:
            wall_alone: filterd stays dead, and the broker is left in peace, so that only its wall
                is there.
        """
        administrator = Administrator(self.pool, random.Random(self.dice.random()))
        if wall_alone:
            self.pool.filterd.hold()
        try:
            end = time.monotonic() + (2 if wall_alone else 1) * ROUND_S
            while time.monotonic() < end:
                trouble = self.dice.choice(PEACEFUL if wall_alone else TROUBLE)
                self.done[trouble.__name__] += 1
                trouble(self)
                self._power_on()
                time.sleep(self.dice.uniform(0.05, 0.4))
            self.calm()
            until(self.healed, HEALED_WITHIN_S)
        finally:
            self.pool.filterd.release()
            administrator.stop()

    # Trouble

    def kill(self) -> None:
        for unit in self.dice.sample(self.pool.units, self.dice.choice((1, 1, 2))):
            unit.kill()

    def kill_verifier(self) -> None:
        self.pool.verifier.kill()

    def stand_still(self) -> None:
        self.dice.choice(self.pool.units).pause(self.dice.uniform(0.2, 1.5))

    def restart_engine(self) -> None:
        self.cut.begin()
        self.site.engine.restart(self.dice.uniform(0.2, 1.0))
        until(lambda: self.site.engine.away_until == 0)
        self.cut.end()

    def cut_engine(self) -> None:
        """Connections of the broker, and of the administrator, to the engine end."""
        self.cut.begin()
        kind = self.dice.choice(
            (faults.CUT, faults.LOST, faults.HTML, faults.GARBAGE, faults.BROKEN)
        )
        self.site.engine.faults.answers = [AnswerFault(kind, times=10_000)]
        time.sleep(self.dice.uniform(0.1, 1.0))
        self.site.engine.faults.answers = []
        self.cut.end()

    def cut_verifier(self) -> None:
        self.cut_answers.begin()
        (self.pool.directory / "cut").touch()
        time.sleep(self.dice.uniform(0.1, 1.0))
        (self.pool.directory / "cut").unlink(missing_ok=True)
        self.cut_answers.end()

    def turn(self) -> None:
        """A host turns untrusted, or silent, or what it was returns."""
        name = self.dice.choice(NAMES)
        if self.levels.pop(name, None) is None:
            self.levels[name] = self.dice.choice((Level.UNTRUSTED, Level.TIMEOUT))
        self.pool.write_levels(self.levels)

    def lose_host(self) -> None:
        name = self.dice.choice(NAMES)
        if len(self.off) < 3 and self.site.host(name).status == "up":
            self.off[name] = time.monotonic() + self.dice.uniform(1.0, 3.0)
            self.site.engine.hosts.power(self.site.host(name), False)

    def crash_vm(self) -> None:
        vm = self.dice.choice(list(self.site.engine.model.vms.values()))
        if vm.status == "up":
            self.site.engine.vms.lose(vm, "it crashed.")

    def administrate(self) -> None:
        """An administrator does what administrators do."""
        self._act(self.dice.choice(self._acts.beside_vms()))

    def open_wall(self) -> None:
        self.opened.begin()
        self._act(self.dice.choice(self._acts.of_open_walls()))
        self.opened.end()

    def _act(self, act: Callable[[], None]) -> None:
        self.done[act.__name__] += 1
        with self.site.engine.model.lock:
            act()

    def _power_on(self) -> None:
        for name, due in list(self.off.items()):
            if time.monotonic() >= due:
                del self.off[name]
                self.site.engine.hosts.power(self.site.host(name), True)

    # After it

    def calm(self) -> None:
        """No more trouble, and what was broken is repaired; nothing is done for the broker."""
        self.levels.clear()
        self.pool.write_levels({})
        self.pool.filterd.release()
        self._act(self._acts.end_upgrade)
        until(lambda: self._power_on() or not self.off)

    def healed(self) -> bool:
        return not self.wounds()

    def wounds(self) -> list[str]:
        """Return what has not healed."""
        site, vms = self.site, self.site.engine.model.vms.values()
        found = [f"{unit.name} is away" for unit in self.pool.units if not unit.serving]
        found += [
            f"{name} is {status}" for name, status in site.statuses().items() if status != "up"
        ]
        # Under whatever name: somebody may have renamed or copied it.
        walls = self._acts.walls()
        wall = walls[0] if len(walls) == 1 else None
        inside = (
            {site.engine.model.hosts[host_id].name for host_id in wall.hosts} if wall else set()
        )
        found += [f"{name} is outside" for name in set(NAMES) - inside]
        found += [
            f"{vm.name} is {vm.status}" for vm in vms if vm.high_availability and vm.status != "up"
        ]
        found += [f"{vm.name} is not walled" for vm in vms if wall is None or vm.id not in wall.vms]
        if not found:
            now_ms = site.clock.now_ms()
            ends = {
                self.site.engine.model.hosts[h].name: one.end_ms
                for h, one in site.snapshot().hosts.items()
            }
            found += [
                f"{name} is not in the snapshot" for name in NAMES if ends.get(name, 0) <= now_ms
            ]
            proxy = xmlrpc.client.ServerProxy(self.pool.filterd_url)
            hosts = [host.id for host in site.engine.model.hosts.values()]
            with contextlib.suppress(OSError, xmlrpc.client.Error):
                passed = proxy.runFilters(["TrustedHosts"], hosts, next(iter(vms)).id, {})["result"]
                return found + [f"filterd lets {len(passed)} pass"] * (set(passed) != set(hosts))
            found.append("filterd does not answer")
        return found

    def _watch(self) -> None:
        before = self.site.statuses()
        inside: frozenset[str] | None = None
        while not self._over.wait(0.01):
            now = self.site.statuses()
            for name, status in now.items():
                if status == "up" and before[name] != "up":
                    self.records.came_up[name].append(time.monotonic())
            before = now
            walled = self._walled()
            if walled != inside:
                self.records.walls.append((time.monotonic(), walled))
                inside = walled

    def _walled(self) -> frozenset[str]:
        """Return the names of the hosts that all walls let in."""
        tables = self.site.engine.model
        with tables.lock:
            walls = [set(wall.hosts) for wall in self._acts.walls()]
            host_ids = set.intersection(*walls) if walls else set()
            return frozenset(tables.hosts[host_id].name for host_id in host_ids)


TROUBLE: tuple[Callable[[Chaos], None], ...] = (
    *[Chaos.kill, Chaos.turn, Chaos.crash_vm] * 3,
    *[Chaos.lose_host] * 2,
    *[Chaos.administrate] * 3,
    Chaos.open_wall,
    Chaos.stand_still,
    Chaos.restart_engine,
    Chaos.cut_engine,
    Chaos.cut_verifier,
)
PEACEFUL: tuple[Callable[[Chaos], None], ...] = (
    *[Chaos.turn, Chaos.crash_vm] * 3,
    *[Chaos.lose_host] * 2,
    *[Chaos.administrate] * 3,
    Chaos.cut_verifier,
    Chaos.kill_verifier,
)


class Judgement:
    """What the attestation server told, and whether each VM's place agrees with it."""

    def __init__(self, chaos: Chaos) -> None:
        self._pool = chaos.pool
        self._site = chaos.site
        self.oracle = Oracle(chaos.records)
        self._answers = chaos.records.answers
        self._judged = 0

    def judge(self) -> None:
        """Judge every choice of the engine since the last time."""
        self._answers.clear()
        for line in (self._pool.directory / "answers").read_text().splitlines():
            at, name, level = line.split()
            self._answers[name.split(".")[0]].append((float(at), level))
        tables = self._site.engine.model
        with tables.lock:
            journal = tables.journal[self._judged :]
            self._judged += len(journal)
        for entry in journal:
            vm = tables.vms.get(entry["vm"])
            self.oracle.judge(entry, entry["vm"] if vm is None else vm.name)

    def lost_hosts(self) -> list[str]:
        """Return the hosts that left service for our reason, though never told untrusted before."""
        names = {host.id: host.name for host in self._site.engine.model.hosts.values()}
        bad = {
            name
            for name, told in self._answers.items()
            if any(level == "untrusted" for _, level in told)
        }
        events = self._site.engine.model.events
        out = {
            names[row.host]
            for row in events
            if row.code == audit_log.HOST_TO_MAINTENANCE and "ovirt-tcp" in row.description
        }
        self.oracle.counts["quarantined hosts"] = len(out)
        return sorted(out - bad)

    def exposures(self) -> list[float]:
        """Return the spans (s) in which neither broker nor filterd was there."""
        both = [
            min(end, other_end) - max(began, other_began)
            for began, end in self._pool.broker.away.spans[1:]
            for other_began, other_end in self._pool.filterd.away.spans[1:]
        ]
        return [seconds for seconds in both if seconds > 0]


@pytest.fixture
def pool(tmp_path: Path, site_pki: Path) -> Iterator[Pool]:
    with contextlib.ExitStack() as stack:
        yield Pool(tmp_path, site_pki, stack)


@pytest.mark.soak
@pytest.mark.timeout(3000)
def test_whatever_dies_no_vm_comes_to_a_host_that_is_not_trusted(pool: Pool) -> None:
    chaos = Chaos(pool)
    judgement = Judgement(chaos)
    oracle = judgement.oracle
    try:
        until(chaos.healed, HEALED_WITHIN_S)
        for number in range(ROUNDS):
            chaos.play(wall_alone=number % 3 == 2)
            judgement.judge()
            print(f"round {number}: {dict(oracle.counts)}", flush=True)
            if oracle.wrong:
                pytest.fail(f"round {number}:\n" + "\n".join(oracle.wrong))
            assert judgement.lost_hosts() == []
    except AssertionError as e:
        raise AssertionError(f"{e}\nnot healed: {chaos.wounds()}") from e
    finally:
        chaos.stop()
    exposed = judgement.exposures()
    longest = max(exposed, default=0)
    kills = {unit.name: unit.kills for unit in pool.units}
    print(f"\n{ROUNDS} rounds of {ROUND_S:.0f} s; kills {kills}; trouble {dict(chaos.done)}")
    print(
        f"{dict(oracle.counts)}; exposed {len(exposed)} times, {sum(exposed):.1f} s, the longest "
        f"{longest:.1f} s"
    )
    assert longest <= EXPOSED_AT_MOST_S
