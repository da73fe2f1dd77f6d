# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Did the maker of a TPM revoke its certificate, or one above it?

The lists are what an administrator put onto the machine. There need be none: where a list of the
issuer is, it counts, and one past its next update still revokes what it names. Who signed the
certificate signs the list; it is checked with that very key.

Source: RFC 5280, 5 and 6.3. Lists of changes (5.2.4) and lists of other issuers (5.2.5) are not
used.
"""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from typing import Optional

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import crypto

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import der, vendor_certificate
from ovirt_tcp_plugin.messages.vendor_certificate import VendorCertificate
from ovirt_tcp_plugin.verifier import vendor_path
from ovirt_tcp_plugin.verifier.upkeep import Duty

MAX_BLOCKS = 100
_WHAT = "revocation list"
_PEM_BEGIN = b"-----BEGIN X509 CRL-----"
_PEM_END = b"-----END X509 CRL-----"
_FETCH = "fetch the newest list of that maker into ek-crl.d and reload the server"


@dataclasses.dataclass(frozen=True)
class RevocationList:
    """A list of what an issuer revoked.

    Attributes:
        file: where it lies.
        issuer: Name as it is encoded.
        serials: of the certificates that it revokes.
        next_update: when the next one was to come, UTC; None if it does not say.
        is_of_authority: whether an authority of that name that is believed has signed it.
    """

    file: str
    issuer: bytes
    serials: frozenset[int]
    next_update: Optional[datetime.datetime]
    crl: x509.CertificateRevocationList
    is_of_authority: bool = False

    def is_signed_by(self, issuer: VendorCertificate) -> bool:
        """Return whether this issuer signed it."""
        try:
            return self.crl.is_signature_valid(issuer.key())
        except (errors.InvalidMessage, UnsupportedAlgorithm, TypeError, ValueError):
            return False


@dataclasses.dataclass(frozen=True)
class Revocations:
    """What makers revoked.

    Attributes:
        faults: why a file is of no use, by its path.
    """

    lists: Sequence[RevocationList] = ()
    faults: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class VendorTrust:
    """Which makers of TPMs are believed, and what they took back."""

    authorities: Sequence[crypto.X509]
    revocations: Revocations = Revocations()


def parse(untrusted: bytes, file: str) -> list[RevocationList]:
    """Return the lists in a file, DER or PEM.

    Raises:
        InvalidMessage: it holds none, or one that cannot be read.
    """
    blocks = _blocks(untrusted)
    if len(blocks) > MAX_BLOCKS:
        raise errors.InvalidMessage(_WHAT, f"more than {MAX_BLOCKS} lists, split the file")
    return [_parse_block(block, file) for block in blocks]


def check(path: Sequence[bytes], revocations: Revocations) -> None:
    """Return if no certificate of a path was revoked by the one above it.

    An authority at which the path ends counts, too, if another one that is believed revoked it.

    Args:
        path: DER, from the TPM's certificate to an authority.

    Raises:
        Refused: ek_revoked.
    """
    if not revocations.lists:
        return
    certificates = [vendor_certificate.read(encoded) for encoded in path]
    for position, certificate in enumerate(certificates):
        above = certificates[position + 1 : position + 2]
        for revocation_list in revocations.lists:
            if _revokes(revocation_list, certificate, above):
                raise _revoked(certificate, revocation_list)


def compared(lists: Sequence[RevocationList], authorities: Sequence[crypto.X509]) -> Revocations:
    """Return the lists; those in the name of an authority that did not sign them as faults."""
    by_subject: dict[bytes, list[VendorCertificate]] = {}
    for authority in authorities:
        try:
            fields = vendor_path.read(authority)
        except errors.InvalidMessage:
            continue
        by_subject.setdefault(fields.subject, []).append(fields)
    good = []
    faults = {}
    for revocation_list in lists:
        named = by_subject.get(revocation_list.issuer, [])
        is_signed = any(map(revocation_list.is_signed_by, named))
        if named and not is_signed:
            issuer = named[0].subject_text
            faults[revocation_list.file] = f"it is not signed by its issuer '{issuer}'"
        else:
            good.append(dataclasses.replace(revocation_list, is_of_authority=is_signed))
    return Revocations(tuple(good), faults)


def duties(revocations: Revocations, now: datetime.datetime) -> list[Duty]:
    """Return what an administrator has to do about the lists."""
    found = []
    for file, reason in sorted(revocations.faults.items()):
        text = f"the revocation list {file} is of no use: {reason}"
        found.append(Duty(text, "remove the file, or " + _FETCH))
    for revocation_list in revocations.lists:
        end = revocation_list.next_update
        if end is not None and end < now:
            days = (now - end).days
            text = f"the revocation list {revocation_list.file} is out of date since {days} days"
            found.append(Duty(f"{text}: it still revokes what it names, and nothing newer", _FETCH))
    return found


def _blocks(untrusted: bytes) -> list[bytes]:
    if _PEM_BEGIN not in untrusted:
        return [untrusted]
    blocks = []
    for part in untrusted.split(_PEM_BEGIN)[1 : MAX_BLOCKS + 2]:
        body, end, _ = part.partition(_PEM_END)
        blocks.append(_PEM_BEGIN + body + end)
    return blocks


def _parse_block(untrusted: bytes, file: str) -> RevocationList:
    try:
        if untrusted.startswith(_PEM_BEGIN):
            crl = x509.load_pem_x509_crl(untrusted)
        else:
            crl = x509.load_der_x509_crl(untrusted)
        if _is_of_changes(crl):
            raise errors.InvalidMessage(_WHAT, "it lists changes only, the whole list is needed")
        serials = frozenset(entry.serial_number for entry in crl)
        issuer = _issuer(crl.public_bytes(Encoding.DER))
        return RevocationList(file, issuer, serials, _next_update(crl), crl)
    except (ValueError, TypeError, x509.DuplicateExtension, UnsupportedAlgorithm) as e:
        raise errors.InvalidMessage(_WHAT, f"it cannot be read: {str(e)[:200]}") from e


def _is_of_changes(crl: x509.CertificateRevocationList) -> bool:
    try:
        crl.extensions.get_extension_for_class(x509.DeltaCRLIndicator)
    except x509.ExtensionNotFound:
        return False
    return True


def _next_update(crl: x509.CertificateRevocationList) -> Optional[datetime.datetime]:
    if hasattr(crl, "next_update_utc"):
        return crl.next_update_utc
    end = crl.next_update  # EL9's cryptography: UTC without saying so
    return None if end is None else end.replace(tzinfo=datetime.timezone.utc)


def _issuer(encoded: bytes) -> bytes:
    """Return the issuer's Name as it is encoded (RFC 5280, 5.1.2)."""
    parts = der.children(der.read(encoded, _WHAT), der.SEQUENCE, _WHAT)
    fields = der.children(parts[0], der.SEQUENCE, _WHAT)
    if fields and fields[0].tag == der.INTEGER:  # version
        fields = fields[1:]
    if len(fields) < 2:
        raise errors.InvalidMessage(_WHAT, "it has no issuer")
    return fields[1].encoded


def _revokes(
    revocation_list: RevocationList,
    certificate: VendorCertificate,
    above: Sequence[VendorCertificate],
) -> bool:
    """Return whether a list revokes a certificate.

    Args:
        above: what signed it, nothing at the end of the path.
    """
    is_named = (
        revocation_list.issuer == certificate.issuer
        and certificate.serial in revocation_list.serials
    )
    if not is_named:
        return False
    return revocation_list.is_of_authority or any(map(revocation_list.is_signed_by, above))


def _revoked(certificate: VendorCertificate, revocation_list: RevocationList) -> errors.Refused:
    subject = certificate.subject_text or "the TPM"
    reason = (
        f"the certificate of {subject} was revoked by its issuer '{certificate.issuer_text}' "
        f"({revocation_list.file}): ask the maker why, and replace the TPM; if its key is good "
        f"nevertheless, {vendor_path.BELIEVE_THIS_CHIP}"
    )
    return errors.Refused("ek_revoked", reason)
