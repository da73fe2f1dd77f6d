# SPDX-FileCopyrightText: The ovirt_tcp_plugin developers
# SPDX-License-Identifier: Apache-2.0
"""Does a path of certificates lead from a TPM to an authority that the administrator believes?

OpenSSL checks the path on the original bytes; what it calls good must be strong, too. Whatever the
administrator believes is an anchor, an intermediate as well (partial chain): no vendor's root says
more of its chips than that.

Sources: RFC 5280, 6.1; NIST SP 800-131A (hashes and RSA sizes); CVE-2017-15361 and M. Nemec et al.,
"The Return of Coppersmith's Attack", 2.2 (keys that can be factored, and how they show).
"""

from __future__ import annotations

import datetime
import functools
from collections.abc import Collection, Iterable, Sequence

from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import crypto

from ovirt_tcp_plugin import errors
from ovirt_tcp_plugin.messages import vendor_certificate
from ovirt_tcp_plugin.messages.public_keys import VerifyingKey
from ovirt_tcp_plugin.messages.vendor_certificate import VendorCertificate

STRONG_HASHES = frozenset({"sha256", "sha384", "sha512"})
# All vendors signed with it at the time of TPM 1.2.
TPM12_HASHES = STRONG_HASHES | {"sha1"}
# Some makers' intermediates still are; who puts one into the store believes it by itself.
ANCHOR_HASHES = STRONG_HASHES | {"sha1"}
LEAST_RSA_BITS = 2048

# The way out where no certificate helps.
BELIEVE_THIS_CHIP = "`ovirt-tcp-verifier ek add` believes this one chip"
# X509_V_FLAG_PARTIAL_CHAIN; EL9's pyOpenSSL has no name for it.
_PARTIAL_CHAIN = 0x80000
# X509_V_ERR_*
_NO_ISSUER = (2, 20, 21)
_NOT_YET_VALID = 9
_EXPIRED = 10

# The primes of such keys are powers of this modulo a product of small primes.
_ROCA_GENERATOR = 65537
_ROCA_LARGEST_PRIME = 701  # of moduli of 2,048 bits, the only ones that TPMs have
_ROCA_LEAST_BITS = 1984


def check(
    certificate: crypto.X509,
    authorities: Iterable[crypto.X509],
    now: datetime.datetime,
    good_hashes: Collection[str] = STRONG_HASHES,
    intermediates: Sequence[crypto.X509] = (),
) -> tuple[bytes, ...]:
    """Return the DER of a good path to one of the authorities, valid at `now`, that one last.

    Args:
        good_hashes: what a certificate on the path may be signed with, unless it is an anchor.
        intermediates: what the TPM sent along: the path may lead over them, and never ends there.

    Raises:
        Refused: ek_untrusted; ek_expired when that is all that is wrong with it, as far as OpenSSL
            looked; ek_weak.
    """
    store = crypto.X509Store()
    store.set_flags(_PARTIAL_CHAIN)
    anchors = set()
    for authority in authorities:
        store.add_cert(authority)
        anchors.add(crypto.dump_certificate(crypto.FILETYPE_ASN1, authority))
    store.set_time(now)
    context = crypto.X509StoreContext(store, certificate, list(intermediates))
    try:
        chain = context.get_verified_chain()
    except crypto.X509StoreContextError as e:
        raise _refused(e) from e
    _check_strength(chain, anchors, good_hashes)
    return tuple(crypto.dump_certificate(crypto.FILETYPE_ASN1, part) for part in chain)


def check_key(key: VerifyingKey, owner: str) -> None:
    """Return if a key cannot be computed from its public part.

    Raises:
        Refused: ek_weak.
    """
    if not isinstance(key, rsa.RSAPublicKey):
        return
    if key.key_size < LEAST_RSA_BITS:
        reason = f"{owner} has {key.key_size} bits, at least {LEAST_RSA_BITS} are needed"
        raise errors.Refused("ek_weak", reason)
    if is_roca(key.public_numbers().n):
        reason = (
            f"{owner} is one of those that can be computed from their public part "
            "(ROCA, CVE-2017-15361): update the TPM's firmware and make a new key there, "
            "or replace the TPM"
        )
        raise errors.Refused("ek_weak", reason)


def is_roca(modulus: int) -> bool:
    """Return whether an RSA modulus of 2,048 bits or more has the mark of the faulty library.

    A good key has it by chance once in 2**150.
    """
    if modulus.bit_length() < _ROCA_LEAST_BITS:
        return False
    return all(modulus % prime in residues for prime, residues in _roca_residues())


@functools.lru_cache(1)
def _roca_residues() -> Sequence[tuple[int, frozenset[int]]]:
    """Return what such a modulus may leave after division by each small odd prime."""
    primes = [
        number
        for number in range(3, _ROCA_LARGEST_PRIME + 1, 2)
        if all(number % divisor for divisor in range(3, int(number**0.5) + 1, 2))
    ]
    residues = []
    for prime in primes:
        powers = {1}
        power = _ROCA_GENERATOR % prime
        while power not in powers:
            powers.add(power)
            power = power * _ROCA_GENERATOR % prime
        residues.append((prime, frozenset(powers)))
    return residues


def load(certificates: Iterable[bytes]) -> list[crypto.X509]:
    """Return those of a TPM's own authorities (DER) that OpenSSL can read.

    The others are passed over: if the path needs one, its issuer is missing.
    """
    loaded = []
    for certificate in certificates:
        try:
            loaded.append(crypto.load_certificate(crypto.FILETYPE_ASN1, certificate))
        except crypto.Error:
            continue
    return loaded


def read(certificate: crypto.X509) -> VendorCertificate:
    """Return the fields of a certificate that OpenSSL has read. Raises InvalidMessage."""
    encoded = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
    return vendor_certificate.read(encoded)


def _check_strength(
    chain: Sequence[crypto.X509], anchors: Collection[bytes], good_hashes: Collection[str]
) -> None:
    """Return if a path is strong.

    Args:
        chain: from the TPM's certificate to a root or anchor.
        anchors: DER of what the administrator believes.

    Raises:
        Refused: ek_weak; ek_untrusted if a certificate cannot be judged.
    """
    for position, certificate in enumerate(chain):
        encoded = crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate)
        try:
            fields = vendor_certificate.read(encoded)
            owner = f"the certificate of {fields.subject_text or 'the TPM'}"
            if not fields.is_self_issued:
                is_anchor = encoded in anchors
                _check_signature(fields, owner, ANCHOR_HASHES if is_anchor else good_hashes)
            if position:
                check_key(fields.key(), f"the key in {owner}")
        except errors.InvalidMessage as e:
            reason = f"a certificate on its path cannot be judged: {e}"
            raise errors.Refused("ek_untrusted", reason) from e


def _check_signature(
    certificate: VendorCertificate, owner: str, good_hashes: Collection[str]
) -> None:
    if certificate.signature_hash in good_hashes:
        return
    signed = certificate.signature_hash or "an unknown hash"
    reason = f"{owner} is signed with {signed}, which proves nothing any more"
    raise errors.Refused("ek_weak", reason)


def _refused(error: crypto.X509StoreContextError) -> errors.Refused:
    """Return the refusal with what OpenSSL says, and what to do about it."""
    # EL9's pyOpenSSL gives code, depth and text as the message.
    details = error.args[0] if isinstance(error.args[0], list) else error.errors
    number, _, text = details
    begin = f"no EK authority vouches for this TPM: {text}"
    try:
        fields = read(error.certificate)
    except errors.InvalidMessage as e:
        return errors.Refused("ek_untrusted", f"{begin} ({e})")
    if number == _EXPIRED:
        subject = fields.subject_text or "the TPM"
        reason = f"{begin}: that of {subject}, on {fields.end:%Y-%m-%d}; {BELIEVE_THIS_CHIP}"
        return errors.Refused("ek_expired", reason)
    if number == _NOT_YET_VALID:
        subject = fields.subject_text or "the TPM"
        reason = f"{begin}: that of {subject} is from {fields.begin:%Y-%m-%d} on"
        return errors.Refused("ek_untrusted", f"{reason}; is this server's clock right?")
    if number in _NO_ISSUER:
        return errors.Refused("ek_untrusted", f"{begin}; {_missing(fields)}")
    return errors.Refused("ek_untrusted", begin)


def _missing(certificate: VendorCertificate) -> str:
    """Return which authority is missing, and where the certificate says that it is."""
    name = certificate.issuer_text
    text = f"put the certificate of '{name}' into ek-ca.d once you know that it is the maker's"
    if not certificate.issuer_urls:
        return text
    url = certificate.issuer_urls[0]
    command = f"curl -so issuer.cer '{url}' && openssl x509 -in issuer.cer -out issuer.pem"
    return f"{text}: {command}"
