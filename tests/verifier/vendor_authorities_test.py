# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""The vendors' certificates: from several places, in several forms, and what is no certificate."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.verifier import vendor_authorities
from tests.verifier.vendor import Vendor


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


def names(paths: list[Path]) -> list[str]:
    return [
        vendor.to_cryptography().subject.rfc4514_string()
        for vendor in vendor_authorities.read(paths)
    ]


def test_a_file_that_is_no_certificate_is_named_with_all_others(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_bytes(b"text")
    (tmp_path / "b.crt").write_bytes(b"")

    with pytest.raises(errors.InvalidConfig, match=r"a\.pem.*no PEM certificate") as fault:
        vendor_authorities.read([tmp_path])

    assert "b.crt" in str(fault.value)


def test_openssls_form_with_trust_settings_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_bytes(b"-----BEGIN TRUSTED CERTIFICATE-----\nAAAA\n")

    with pytest.raises(errors.InvalidConfig, match="openssl x509 -in FILE"):
        vendor_authorities.read([tmp_path])


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.pem").write_bytes(b"x" * (vendor_authorities.MAX_FILE_SIZE + 1))

    with pytest.raises(errors.InvalidConfig, match="split it"):
        vendor_authorities.read([tmp_path])


def test_a_bad_file_of_another_packages_store_is_left_out(
    tmp_path: Path, vendor: Vendor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(vendor_authorities, "KEYLIME_STORE", tmp_path)
    (tmp_path / "bad.pem").write_bytes(b"text")
    (tmp_path / "good.pem").write_bytes(vendor.pem)

    assert names([tmp_path]) == ["CN=vendor root"]


def test_directories_and_files_are_read_one_after_the_other(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "bundle.txt"
    first.mkdir()
    (first / "b.pem").write_bytes(Vendor("b").pem)
    (first / "a.crt").write_bytes(Vendor("a").certificate.public_bytes(serialization.Encoding.DER))
    (first / "README").write_bytes(b"no certificate")
    second.write_bytes(Vendor("c").pem + b"text between\n" + Vendor("d").pem)

    assert names([first, tmp_path / "missing", second]) == ["CN=a", "CN=b", "CN=c", "CN=d"]
