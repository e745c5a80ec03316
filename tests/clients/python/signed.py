"""Signed objects: COSE in deterministic CBOR, as proto/*.cddl lays them out.

By hand on cbor2 and cryptography: the COSE libraries do not know the fully specified algorithms −9 and −19 of RFC 9864
yet, and what is left of COSE without them is the array that gets signed.
"""

import hashlib

import cbor2
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

# `typ`, which keeps a signature over one kind of object from being taken for another.
TOKEN, PROOF, STATEMENT, TRUST_LIST, POLICY, LOG_COMMIT, CONSENT_REQUEST = range(65001, 65008)
# `alg`: issuers and roots sign with Ed25519, devices with ECDSA on P-256.
ED25519, ESP256 = -19, -9
# Header labels (RFC 9052 §3.1, RFC 9596).
ALG, KID, TYP = 1, 4, 16

CLOCK_LEEWAY = 30
WEEK = 7 * 24 * 3600


class Invalid(Exception):
    """A signed object that must not be believed."""


def check(holds, otherwise):
    if not holds:
        raise Invalid(otherwise)


def sha256(data):
    return hashlib.sha256(data).digest()


# --- Deterministic CBOR (RFC 8949 §4.2.1) -----------------------------------------------------------------------------


def encode(value):
    return cbor2.dumps(_sorted(value))


def decode(data):
    """One meaning has one encoding. Encoding again also finds trailing bytes and keys that are there twice."""
    value = cbor2.loads(data)
    check(encode(value) == data, "not deterministic CBOR")
    return value


def _sorted(value):
    """Map keys in bytewise order of their encodings; cbor2's canonical=True has RFC 7049's order, shorter first."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value, key=cbor2.dumps)}
    if isinstance(value, (list, tuple)):
        return [_sorted(item) for item in value]
    return value


# --- What a device signs: COSE_Sign1 with ESP256 ---------------------------------------------------------------------


def sign1(typ, key, kid, claims, external_aad=b""):
    header, payload = encode({ALG: ESP256, KID: kid, TYP: typ}), encode(claims)
    der = key.sign(encode(["Signature1", header, external_aad, payload]), ec.ECDSA(SHA256()))
    r, s = decode_dss_signature(der)  # COSE wants r ‖ s, not DER (RFC 9053 §2.1).
    return encode([header, {}, payload, r.to_bytes(32, "big") + s.to_bytes(32, "big")])


def _compressed(key):
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def cose_key(key):
    """The public half as a COSE_Key: 02 or 03, the sign of y, stands before x in the compressed point."""
    point = _compressed(key)
    return {1: 2, -1: 1, -2: point[1:], -3: point[0] == 3}


def device_kid(key):
    return sha256(_compressed(key))[:8]


# --- What issuers sign: COSE_Sign1 with Ed25519 -----------------------------------------------------------------------


def read1(data):
    """Splits an object into its parts and its claims. Believes nothing yet."""
    header, unprotected, payload, signature = decode(data)
    check(unprotected == {}, "the unprotected header is not empty")
    return header, payload, signature, decode(payload)


def verify1(typ, data, keys_of):
    """The claims of an object that one of its issuer's keys signed; `keys_of(issuer)` has them by kid."""
    header, payload, signature, claims = read1(data)
    kid = _kid(typ, header)
    key = keys_of(claims[1]).get(kid)
    check(key, f"{claims[1]} has no key {kid.hex()} for this use")
    key.verify(signature, encode(["Signature1", header, b"", payload]))
    return claims


def _kid(typ, header):
    """The header has exactly alg, kid and typ. It never chooses the algorithm: it must name the one that we expect."""
    header = decode(header)
    check(header == {ALG: ED25519, KID: header.get(KID), TYP: typ}, f"not the header of a {typ}")
    return header[KID]


def public_keys(keys):
    """Ed25519 keys of the trust list by their kid, which is computed and not carried."""
    check(all(alg == ED25519 for alg, _ in keys), "a key of an unknown algorithm")
    return {sha256(public)[:8]: Ed25519PublicKey.from_public_bytes(public) for _, public in keys}


# --- What the roots sign: COSE_Sign by N of M -------------------------------------------------------------------------


def open_document(typ, data, roots, threshold, now):
    """The content of the trust list or the policy."""
    header, unprotected, payload, signatures = decode(data)
    check(decode(header) == {TYP: typ} and unprotected == {}, f"not a document of type {typ}")
    signers = set()
    for signature_header, unprotected, signature in signatures:
        kid = _kid(typ, signature_header)
        check(unprotected == {}, "the unprotected header is not empty")
        if kid in roots:  # Others are passed over: when roots change, old and new ones sign.
            roots[kid].verify(signature, encode(["Signature", header, signature_header, b"", payload]))
            signers.add(kid)
    check(len(signers) >= threshold, f"{len(signers)} roots signed, {threshold} must")
    edition = decode(payload)
    content, expires, issued = edition[2], edition[4], edition[6]
    check(issued < expires <= issued + WEEK, "a document lives a week at most")
    check(issued - CLOCK_LEEWAY <= now < expires, "the document does not hold now")
    return content


# --- The sealed identity hint -----------------------------------------------------------------------------------------


def open_hint(sealed, k):
    """Masked name and document tail: nonce ‖ ciphertext ‖ tag, 92 bytes for everybody."""
    check(len(sealed) == 92, "not a sealed hint")
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"tongxing/1/hint").derive(k)
    plain = AESGCM(key).decrypt(sealed[:12], sealed[12:], None)
    check(plain[0] <= 48 and plain[1] <= 8, "not a sealed hint")
    name_end = 2 + plain[0]
    return plain[2:name_end].decode(), plain[name_end : name_end + plain[1]].decode()
