"""COSE with pycose 1.1, which does not know the fully specified algorithms of RFC 9864: they are registered here.

What pycose is not asked: whether headers are as documented (it knows no strict profile), so they are read first.
"""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from pycose.algorithms import CoseAlgorithm
from pycose.headers import KID, Algorithm
from pycose.keys import EC2Key, OKPKey
from pycose.keys.curves import P256, Ed25519
from pycose.messages import Sign1Message, SignMessage
from pycose.messages.signer import CoseSignature

from signed import ED25519, ESP256, sha256
from vectors.profile import MAX_DOCUMENT, Fields, decode, is_int64, require

TYPES = {
    "token": 65001,
    "proof": 65002,
    "statement": 65003,
    "trust_list": 65004,
    "policy": 65005,
    "log_commit": 65006,
    "consent_request": 65007,
    "delivery_receipt": 65008,
}
TYP = 16


@CoseAlgorithm.register_attribute()
class FullyEd25519(CoseAlgorithm):
    identifier, fullname = ED25519, "ED25519"

    @classmethod
    def sign(cls, key, data):
        return Ed25519PrivateKey.from_private_bytes(key.d).sign(data)

    @classmethod
    def verify(cls, key, data, signature):
        try:
            Ed25519PublicKey.from_public_bytes(key.x).verify(signature, data)
        except InvalidSignature:
            return False
        return True


@CoseAlgorithm.register_attribute()
class FullyEsp256(CoseAlgorithm):
    identifier, fullname = ESP256, "ESP256"

    @classmethod
    def sign(cls, key, data):
        private = ec.derive_private_key(int.from_bytes(key.d, "big"), ec.SECP256R1())
        r, s = decode_dss_signature(private.sign(data, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    @classmethod
    def verify(cls, key, data, signature):
        if len(signature) != 64:  # COSE wants r ‖ s, not DER (RFC 9053 §2.1).
            return False
        r, s = int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big")
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + key.x + key.y)
        try:
            point.verify(encode_dss_signature(r, s), data, ec.ECDSA(SHA256()))
        except InvalidSignature:
            return False
        return True


def public_key(alg, encoded):
    """A key of pycose's from 32 bytes (Ed25519) or a compressed point (P-256)."""
    if alg == ED25519:
        return OKPKey(crv=Ed25519, x=encoded)
    numbers = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), encoded).public_numbers()
    return EC2Key(crv=P256, x=numbers.x.to_bytes(32, "big"), y=numbers.y.to_bytes(32, "big"))


def private_key(test_key):
    """A key of a file's test_keys, its private half with it."""
    key = public_key(test_key["alg"], bytes.fromhex(test_key["public"]))
    key.d = bytes.fromhex(test_key["private"])
    return key


def kid_of(encoded):
    return sha256(encoded)[:8]


# --- COSE_Sign1 -------------------------------------------------------------------------------------------------------


class Object:
    """A COSE_Sign1 whose layout is right and whose signature nobody has checked yet."""

    def __init__(self, of, data):
        parts = decode(of, data)
        require(isinstance(parts, list) and len(parts) == 4, of)
        protected, unprotected, payload, signature = parts
        require(all(isinstance(part, bytes) for part in (protected, payload, signature)), of)
        require(unprotected == {}, of)
        self.of, self.alg, self.kid = of, *read_header(of, protected)
        self.payload, self.claims = payload, Fields(of, decode(of, payload))
        self._message = Sign1Message.from_cose_obj(parts, allow_unknown_attributes=True)

    def verify(self, alg, encoded, external_aad=b""):
        """The header does not choose the algorithm: it must name the key's."""
        require(self.alg == alg, self.of, "ALGORITHM_MISMATCH")
        self._message.key, self._message.external_aad = public_key(alg, encoded), external_aad
        require(self._message.verify_signature(), self.of, "SIGNATURE_INVALID")


def read_header(of, protected):
    """Algorithm and kid. Refuses in this order: crit, typ, alg, all else."""
    header = Fields(of, decode(of, protected))
    require(2 not in header, of, "CRITICAL_HEADER_UNKNOWN")
    require(header.uint(TYP) == TYPES[of], of, "TYPE_MISMATCH")
    alg = header.take(1)
    require(is_int64(alg), of)
    require(alg in (ED25519, ESP256), of, "ALGORITHM_NOT_ALLOWED")
    kid = header.bytes(4, 8)
    header.finish()
    return alg, kid


def _header(of, alg, kid):
    return {Algorithm: CoseAlgorithm.from_id(alg), KID: kid, TYP: TYPES[of]}


def sign1(of, test_key, payload, kid=None, external_aad=b""):
    kid = kid or kid_of(bytes.fromhex(test_key["public"]))
    message = Sign1Message(phdr=_header(of, test_key["alg"], kid), payload=payload, external_aad=external_aad)
    message.key = private_key(test_key)
    return message.encode(tag=False)


# --- COSE_Sign: documents by N of M roots -----------------------------------------------------------------------------


def open_document(of, data, threshold, roots):
    """The edition in a document that enough of these roots signed."""
    parts = decode(of, data, MAX_DOCUMENT)
    require(isinstance(parts, list) and len(parts) == 4, of)
    protected, unprotected, payload, signatures = parts
    require(isinstance(protected, bytes) and isinstance(payload, bytes) and isinstance(signatures, list), of)
    require(unprotected == {}, of)
    require(protected == b"\xa1\x10\x19" + TYPES[of].to_bytes(2, "big"), of, "TYPE_MISMATCH")
    require(len(signatures) <= 16, of)
    headers = []
    for signature in signatures:
        require(isinstance(signature, list) and len(signature) == 3 and signature[1] == {}, of)
        require(isinstance(signature[0], bytes) and isinstance(signature[2], bytes), of)
        headers.append(read_header(of, signature[0]))
    message = SignMessage.from_cose_obj([protected, {}, payload, [list(by) for by in signatures]], True)
    signed, by_kid = set(), {kid_of(root): root for root in roots}
    for (alg, kid), by in zip(headers, message.signers):
        if kid not in by_kid:  # Passed over: when roots change, old and new ones sign.
            continue
        by.key = public_key(ED25519, by_kid[kid])
        require(alg == ED25519 and by.verify_signature(), of, "SIGNATURE_INVALID")
        signed.add(kid)
    require(len(signed) >= threshold, of, "THRESHOLD_NOT_MET")
    return read_edition(of, payload)


def read_edition(of, payload):
    fields = Fields(of, decode(of, payload, MAX_DOCUMENT))
    version, content, exp, iat = fields.uint(1), fields.take(2), fields.time(4), fields.time(6)
    fields.finish()
    require(iat < exp, of)
    require(exp - iat <= 7 * 86_400, of, "LIFE_TOO_LONG")
    return {"version": version, "content": content, "exp": exp, "iat": iat}


def sign_document(of, test_keys, payload):
    signers = []
    for key in test_keys:
        header = _header(of, ED25519, kid_of(bytes.fromhex(key["public"])))
        signers.append(CoseSignature(phdr=header, key=private_key(key)))
    return SignMessage(phdr={TYP: TYPES[of]}, payload=payload, signers=signers).encode(tag=False)
