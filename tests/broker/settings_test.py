# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Which options of `broker.yaml` go together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from ovirt_tcp_plugin import config, errors
from ovirt_tcp_plugin.broker.settings import Settings, VerifierOptions

URL = "https://attest.example.com:8443"
OAT_KINDS = ("oat-1.0", "oat-1.5", "oat-2")


def load(directory: Path, **verifier: Any) -> VerifierOptions:
    """Return the section `verifier` of a file with these options."""
    engine = {
        "url": "https://engine.example.com/ovirt-engine/api",
        "username": "ovirt-tcp@internal",
    }
    sections = {"engine": engine, "verifier": {"urls": [URL], **verifier}}
    (directory / "broker.yaml").write_text(yaml.safe_dump(sections))
    return config.load(Settings, "broker", directory).verifier


class TestVerifier:
    @pytest.mark.parametrize(("name", "value"), [("auth_blob", "blob"), ("path", "/somewhere")])
    def test_an_option_of_openattestation_is_refused_for_our_own_server(
        self, tmp_path: Path, name: str, value: str
    ) -> None:
        with pytest.raises(
            errors.InvalidConfig, match=f"verifier: {name} is an option of OpenAttestation"
        ):
            load(tmp_path, **{name: value})

    @pytest.mark.parametrize("kind", OAT_KINDS)
    @pytest.mark.parametrize("file", ["/etc/ovirt-tcp/verifier.token", "/etc/other.token"])
    def test_a_token_file_is_refused_for_openattestation(
        self, tmp_path: Path, kind: str, file: str
    ) -> None:
        with pytest.raises(
            errors.InvalidConfig, match="verifier: token_file is an option of kind ovirt-tcp"
        ):
            load(tmp_path, kind=kind, token_file=file)

    @pytest.mark.parametrize("kind", OAT_KINDS)
    def test_a_default_that_nobody_wrote_is_not_refused(self, tmp_path: Path, kind: str) -> None:
        options = load(tmp_path, kind=kind, auth_blob="blob", path="/somewhere").openattestation()
        assert (options.urls, options.release) == ((URL,), kind)
        assert (options.auth_blob, options.path) == ("blob", "/somewhere")

    def test_empty_options_of_openattestation_are_not_refused_as_the_sample_has_them(
        self, tmp_path: Path
    ) -> None:
        options = load(
            tmp_path, kind="ovirt-tcp", auth_blob="", path="", token_file="/a/token", wait_s=7
        )
        servers = options.ovirt_tcp()
        assert (servers.urls, servers.token_file, servers.wait_s) == ((URL,), Path("/a/token"), 7.0)

    @pytest.mark.parametrize(
        ("changes", "fault"),
        [
            ({"kind": "oat-3"}, "kind 'oat-3' is not one of"),
            ({"urls": ["http://attest.example.com"]}, "urls"),
            ({"wait_s": 61.0, "deadline_s": 90.0}, "wait_s is not between 0 and 60"),
            ({"wait_s": 5.0, "deadline_s": 5.0}, "deadline_s is not above wait_s"),
            ({"connect_timeout_s": 0.0}, "connect_timeout_s is not above 0"),
            ({"batch_size": 0}, "batch_size"),
        ],
    )
    def test_what_cannot_work_is_refused(
        self, tmp_path: Path, changes: dict[str, Any], fault: str
    ) -> None:
        with pytest.raises(errors.InvalidConfig, match=fault):
            load(tmp_path, **changes)
