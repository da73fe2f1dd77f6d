# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The steps from measured boots to a pool that places VMs."""

from __future__ import annotations

from ovirt_tcp_plugin.lab import launch
from ovirt_tcp_plugin.lab.site import CLUSTER
from ovirt_tcp_plugin.lab.story.scene import (
    BAD,
    FORGED_LOG,
    GOLDEN,
    NO_LAUNCH,
    TAMPERED_TBOOT,
    TIMINGS,
    Scene,
    vms,
)
from ovirt_tcp_plugin.lab.story.site_view import UNTRUSTED_EVENT


def boot(scene: Scene) -> None:
    """Hosts boot, the attestation server starts. Raises StepFailed."""
    site = scene.site
    tell = scene.tell
    tell.step("Hosts boot", "measured by their TPMs; 4-6 boot what they should not")
    count = len(site.names)
    tell.say(f"making {count} software TPMs, each with an EK certificate of its vendor")
    site.make_hosts()
    tell.say("booting: firmware, TXT launch at localities 4, 3 and 2, tboot, kernel, initrd")
    _boot_all(scene)
    site.install_verifier()
    site.start_verifier()
    tell.say(f"the attestation server answers at {site.verifier_url}")


def enrol(scene: Scene) -> None:
    """Hosts enrol, host 1 becomes golden. Raises StepFailed."""
    site = scene.site
    tell = scene.tell
    expected = "EK chains verified, AKs bound, reference values stored"
    tell.step("Hosts enrol; host-1 is golden", expected)
    tokens = site.enrolment_tokens()
    for name, token in tokens.items():
        tell.pulse()
        site.enrol(name, token)
    count = len(site.names)
    enrolled = scene.view.enrolled_hosts() == {f"{name}.lab" for name in site.names}
    tell.check(f"{count} hosts enrolled: EK chain good, AK in the same TPM", enrolled)
    _make_golden(scene)


def _boot_all(scene: Scene) -> None:
    hosts = scene.site.hosts
    directory = scene.site.directory / "boot"
    kernel = launch.tamper_kernel(hosts[GOLDEN].images, directory)
    tboot = launch.tamper_tboot(hosts[GOLDEN].images, directory)
    good_log = hosts[GOLDEN].good_log()
    for name, host in hosts.items():
        if name == TAMPERED_TBOOT:
            host.boot(tboot)
        elif name == FORGED_LOG:
            host.boot(kernel, forged_log=good_log)
        elif name == NO_LAUNCH:
            host.boot(measured_launch=False, forged_log=good_log)
        else:
            host.boot()


def _make_golden(scene: Scene) -> None:
    request = {"name": "golden", "host": f"{GOLDEN}.lab"}
    golden = scene.site.verifier.call("POST", "/v1/reference-values", request)
    values = golden["values"]
    pcrs = {value["pcr"] for value in values}
    sentence = f"reference values of {GOLDEN}: {len(values)} steps of PCR 17 and 18"
    scene.tell.check(sentence, pcrs == {17, 18})


def start_pool(scene: Scene) -> None:
    """The engine starts with a trusted pool. Raises StepFailed."""
    site = scene.site
    tell = scene.tell
    expected = "good hosts trusted, 4-6 untrusted, each with its own reason"
    tell.step("The engine starts with a trusted pool", expected)
    site.start_filterd()
    site.start_engine(vms(), TIMINGS)
    scene.administrator.make_pool()
    pool = f"cluster {CLUSTER} has a policy with TrustedHosts"
    tell.say(f"the engine answers at {site.engine_url}; {pool}")
    site.start_broker()
    scene.wait_trusted(scene.good)
    for name, (code, lie) in BAD.items():
        _wait_untrusted(scene, name, code, lie)
    _check_stages(scene)


def _wait_untrusted(scene: Scene, name: str, code: str, lie: str) -> None:
    sentence = f"{name} is untrusted ({code}): {lie}"
    scene.wait(sentence, lambda: scene.view.is_untrusted(name, code))


def _check_stages(scene: Scene) -> None:
    entries = scene.view.history("stage")
    stages = [_hosts_of_stage(entry["text"]) for entry in entries]
    sizes = " + ".join(str(len(stage)) for stage in stages)
    sentence = f"startup attestation in {len(stages)} stages: {sizes}"
    scene.tell.check(sentence, len(stages) >= 2)
    verdicts = scene.view.history("trusted", "untrusted")
    second = entries[1]["id"]
    attested = {verdict["host"] for verdict in verdicts if verdict["id"] < second}
    sentence = "the first stage's verdicts were there before the second stage began"
    scene.tell.check(sentence, attested.issuperset(stages[0]))


def _hosts_of_stage(text: str) -> list[str]:
    names = text.partition(": ")[2].rstrip(".")
    return names.split(", ")


def place(scene: Scene) -> None:
    """A VM is started, another migrated. Raises StepFailed."""
    expected = "only trusted hosts are offered; the untrusted leave, their VMs move"
    scene.tell.step("A VM is started, another migrated", expected)
    _release(scene)
    for name in BAD:
        _wait_maintenance(scene, name)
    for name in BAD:
        scene.wait_on_good_host(f"vm-{name}", f"the VM of {name} moved to a trusted host")
    scene.start("web")
    scene.wait_on_good_host("web", "VM web was started on a trusted host")
    _migrate(scene, "vm-host-4")
    _check_filter(scene)
    _check_events(scene)


def _release(scene: Scene) -> None:
    """Release the hosts that the guard holds: of so few hosts they are many."""
    host_names = scene.site.broker.call("POST", "/v1/guard/release")["hosts"]
    if host_names:
        released = ", ".join(host_names)
        scene.tell.say(f"ovirt-tcp guard release: {released} may leave service")


def _wait_maintenance(scene: Scene, name: str) -> None:
    scene.wait_status(name, "maintenance", f"{name} is in maintenance")
    reason = scene.view.host(name).status_detail
    code, _lie = BAD[name]
    start = reason.partition(";")[0]
    scene.tell.check(f"the engine shows why: {start}", code in reason, reason)


def _migrate(scene: Scene, vm: str) -> None:
    left = scene.view.place_of(vm)
    scene.wait_silently(f"moving {vm}", lambda: scene.administrator.migrate(vm))
    scene.wait_silently("the migration", lambda: scene.view.place_of(vm) != left)
    sentence = f"VM {vm} migrated to another trusted host"
    scene.tell.check(sentence, scene.is_on_good_host(vm))


def _check_filter(scene: Scene) -> None:
    entries = [entry for entry in scene.view.journal() if entry["external"] == "answer"]
    offered: set[str] = set()
    for entry in entries:
        offered.update(entry["left"])
    clean = bool(entries) and offered.isdisjoint(BAD)
    sentence = f"the filter was asked {len(entries)} times and let no untrusted host pass"
    scene.tell.check(sentence, clean, str(offered))


def _check_events(scene: Scene) -> None:
    texts = scene.view.texts_of_events(UNTRUSTED_EVENT)
    for name, (code, _lie) in BAD.items():
        start = f"{name} is untrusted ({code})"
        reported = any(start in text for text in texts)
        scene.tell.check(f"an event tells of {name} ({code})", reported)
