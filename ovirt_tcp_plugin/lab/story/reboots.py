# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The steps in which a host reboots: into something tampered, and back."""

from __future__ import annotations

from ovirt_tcp_plugin.lab import launch
from ovirt_tcp_plugin.lab.story.scene import GOLDEN, REBOOTING, Scene


def reboot_tampered(scene: Scene) -> None:
    """A host reboots into a tampered tboot. Raises StepFailed."""
    site = scene.site
    tell = scene.tell
    expected = "not used for a single VM in between; untrusted"
    tell.step(f"{REBOOTING} reboots into a tampered tboot", expected)
    scene.move("ha", REBOOTING)
    tell.say(f"the highly available VM ha runs on {REBOOTING}; {REBOOTING} loses power")
    since = len(scene.view.journal())
    host = site.hosts[REBOOTING]
    images = launch.tamper_tboot(site.hosts[GOLDEN].images, site.directory / REBOOTING)
    scene.reboot(REBOOTING, lambda: host.reboot(images))
    _wait_out_of_service(scene)
    scene.wait_on_good_host("ha", "VM ha was restarted on a trusted host")
    chosen = [entry["chosen"] for entry in scene.view.journal(since)]
    sentence = f"{len(chosen)} placements meanwhile, none on {REBOOTING}"
    tell.check(sentence, bool(chosen) and REBOOTING not in chosen)
    _check_event(scene)


def _wait_out_of_service(scene: Scene) -> None:
    untrusted = scene.probing(lambda: scene.view.is_untrusted(REBOOTING, "mle_differs"))
    scene.wait(f"{REBOOTING} came Up and is untrusted (mle_differs)", untrusted)
    in_maintenance = scene.probing(lambda: scene.view.status(REBOOTING) == "maintenance")
    scene.wait(f"{REBOOTING} is in maintenance", in_maintenance)


def _check_event(scene: Scene) -> None:
    start = f"Host {REBOOTING} is untrusted (mle_differs): PCR 17, event"
    texts = [text for text in scene.view.texts_of_events() if start in text]
    named = any("tboot" in text for text in texts)
    scene.tell.check("an event tells the reason: tboot differs", named)


def reboot_good(scene: Scene) -> None:
    """It reboots into the good one. Raises StepFailed."""
    scene.tell.step(f"{REBOOTING} reboots into the good one", "returns by itself")
    host = scene.site.hosts[REBOOTING]
    scene.reboot(REBOOTING, host.reboot)
    scene.wait_status(REBOOTING, "up", f"{REBOOTING} is Up again, without a hand")
    scene.wait_trusted([REBOOTING])
    sentence = f"{REBOOTING} is inside the wall"
    scene.wait(sentence, lambda: REBOOTING in scene.view.hosts_inside())
    scene.move("ha", REBOOTING)
    runs = scene.view.place_of("ha") == REBOOTING
    scene.tell.check(f"VM ha runs on {REBOOTING} again", runs)
