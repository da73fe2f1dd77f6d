# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Unfinished bodies fill no memory, and no good report has to make room for bad ones."""

from __future__ import annotations

from ovirt_tcp_plugin.messages.evidence import MAX_EVIDENCE_SIZE
from ovirt_tcp_plugin.verifier.web.bodies import MAX_HELD, MAX_HELD_IN_ALL, Bodies

CHUNK = 64 * 1024
REPORT = 200 * 1024
LARGEST = MAX_EVIDENCE_SIZE


class Request:
    """A request whose body is held."""

    def __init__(self, bodies: Bodies, peer: str) -> None:
        self.bodies, self.peer = bodies, peer
        self.put_off = False

    def give_up(self) -> None:
        self.put_off = True
        self.bodies.release(self.peer, self)

    def send(self, size: int) -> bool:
        while size > 0 and not self.put_off:
            if not self.bodies.hold(self.peer, self, min(size, CHUNK)):
                self.give_up()
            size -= CHUNK
        return not self.put_off


def test_one_peers_bodies_are_bounded() -> None:
    bodies = Bodies()
    kept = [Request(bodies, "host").send(LARGEST) for _ in range(5)]
    assert kept == [True, True, False, False, False]
    assert bodies.in_all <= MAX_HELD


def test_two_hundred_good_reports_are_all_kept_among_those_of_forty_bad_hosts() -> None:
    bodies = Bodies()
    bad = [Request(bodies, f"bad-{number}") for number in range(40)] * 2
    good = [Request(bodies, f"good-{number}") for number in range(200)]
    for number, report in enumerate(good):
        bad[number % 80].send(LARGEST)
        assert report.send(REPORT)
        assert bodies.in_all <= MAX_HELD_IN_ALL
    assert not any(report.put_off for report in good)
    assert any(request.put_off for request in bad)


def test_who_holds_most_makes_room_with_its_newest_body() -> None:
    bodies = Bodies(most=10 * CHUNK, most_in_all=12 * CHUNK)
    first = Request(bodies, "most")
    newest = Request(bodies, "most")
    assert first.send(4 * CHUNK)
    assert newest.send(4 * CHUNK)
    assert Request(bodies, "less").send(5 * CHUNK)
    assert (first.put_off, newest.put_off) == (False, True)


def test_what_is_released_counts_no_more() -> None:
    bodies = Bodies()
    request = Request(bodies, "host")
    request.send(LARGEST)
    bodies.release("host", request)
    bodies.release("host", request)
    assert bodies.in_all == 0
    assert not bodies._bodies
    assert not bodies._by_peer
