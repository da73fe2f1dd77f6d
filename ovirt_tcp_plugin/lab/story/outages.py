# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The steps in which one of our services fails."""

from __future__ import annotations

import signal
from typing import Any

from ovirt_tcp_plugin.lab.story.scene import REFUSED_PROBE, TAMPERED_TBOOT, TIMINGS, Scene


def server_stops(scene: Scene) -> None:
    """The attestation server stops. Raises StepFailed."""
    expected = "verdicts run out; nothing is placed, nothing evacuated, no VM moves"
    scene.tell.step("The attestation server stops", expected)
    before = scene.view.state()
    since = len(scene.view.journal())
    scene.site.processes.stop("verifier")
    scene.tell.say(f"verdicts live {scene.site.lifetime_s:.0f} s")
    scene.wait("no host is trusted any more", lambda: not _any_trusted(scene))
    scene.wait("the wall was emptied in one step", lambda: not scene.view.hosts_inside())
    refused = not scene.administrator.start(REFUSED_PROBE)
    scene.tell.check("a VM is refused on every host", refused)
    scene.settle(2 * TIMINGS["enforcer"])
    _check_nothing_moved(scene, before, since)


def _any_trusted(scene: Scene) -> bool:
    return any(row["level"] == "trusted" for row in scene.view.verdicts())


def _check_nothing_moved(scene: Scene, before: Any, since: int) -> None:
    after = scene.view.state()
    hosts = after["hosts"]
    vms = after["vms"]
    scene.tell.check("no host changed its state", hosts == before["hosts"], str(hosts))
    scene.tell.check("no VM moved or stopped", vms == before["vms"], str(vms))
    placements = [entry for entry in scene.view.journal(since) if entry["chosen"]]
    scene.tell.check("no placement at all", not placements, str(placements))


def server_returns(scene: Scene) -> None:
    """The attestation server comes back. Raises StepFailed."""
    expected = "hosts are trusted again, and VMs start"
    scene.tell.step("The attestation server comes back", expected)
    scene.site.start_verifier()
    scene.tell.say("the attestation server is back")
    scene.wait_trusted(scene.good)
    good = set(scene.good)
    scene.wait("the wall is built again", lambda: scene.view.hosts_inside() == good)
    scene.start(REFUSED_PROBE)
    scene.wait_on_good_host(REFUSED_PROBE, "the VM starts now")


def filterd_dies(scene: Scene) -> None:
    """filterd is killed. Raises StepFailed."""
    processes = scene.site.processes
    expected = "the engine keeps all hosts, wall and gate still refuse the untrusted"
    scene.tell.step("filterd is killed", expected)
    processes.send("broker", signal.SIGSTOP)
    processes.stop("filterd", signal.SIGKILL)
    activation = f"somebody activates {TAMPERED_TBOOT} by hand"
    scene.tell.say(f"filterd is dead, the broker is frozen, and {activation}")
    scene.administrator.activate(TAMPERED_TBOOT)
    sentence = f"{TAMPERED_TBOOT} is Up, untrusted, and nobody is there to take it out"
    scene.wait_status(TAMPERED_TBOOT, "up", sentence)
    _check_wall(scene)
    _check_gate(scene, "newcomer")
    scene.site.start_filterd()
    processes.send("broker", signal.SIGCONT)
    sentence = f"the broker goes on and takes {TAMPERED_TBOOT} out again"
    scene.wait(sentence, lambda: scene.view.status(TAMPERED_TBOOT) != "up")


def _check_wall(scene: Scene) -> None:
    since = len(scene.view.journal())
    scene.start("web-2")
    scene.wait_on_good_host("web-2", "VM web-2 was started on a trusted host")
    entry = scene.view.journal(since)[0]
    external = entry["external"]
    sentence = "the engine got no answer and kept all hosts"
    scene.tell.check(sentence, external == "kept", external)
    walled = TAMPERED_TBOOT in entry["candidates"] and TAMPERED_TBOOT not in entry["internal"]
    sentence = f"{TAMPERED_TBOOT} was a candidate, and the wall took it out"
    scene.tell.check(sentence, walled, str(entry))
    refused = not scene.administrator.migrate("web-2", TAMPERED_TBOOT)
    scene.tell.check(f"nobody can migrate a VM to {TAMPERED_TBOOT} by hand", refused)


def _check_gate(scene: Scene, vm: str) -> None:
    """Start a VM that no wall knows yet: only the host itself can refuse it."""
    since = len(scene.view.journal())
    scene.administrator.add_vm(vm)
    scene.start(vm)
    sentence = f"VM {vm}, which no wall knows yet, runs on a trusted host"
    scene.wait_on_good_host(vm, sentence)
    first = scene.view.journal(since)[0]["chosen"]
    texts = scene.view.texts_of_events()
    refused = any(vm in text and "refused (not_trusted)" in text for text in texts)
    sentence = f"the engine chose {TAMPERED_TBOOT} for it first, and the gate there refused"
    scene.tell.check(sentence, first == TAMPERED_TBOOT and refused, f"{first}; {texts[:5]}")
