"""From keys and claims to bytes: every vector that has claims, made anew."""

import base45
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from signed import encode, read1, sha256
from vectors import claims as layouts
from vectors import logs, merkle
from vectors.cose import sign1, sign_document
from vectors.operations import derive_k


def produce(vector, test_keys, verifier):
    """The object of a vector, and its text if it has one."""
    claims, keys = vector["claims"], [test_keys[name] for name in vector.get("signed_by", [])]
    match vector["operation"]:
        case "open_trust_list":
            content = layouts.trust_list_content(claims["content"])
            data = sign_document("trust_list", keys, layouts.write_edition(claims, content))
        case "open_policy":
            data = sign_document("policy", keys, layouts.write_edition(claims, claims["toml"]))
        case "verify_request":
            data = sign1("consent_request", keys[0], layouts.write_request(claims))
        case "verify_token" | "use_consent":
            data = sign1("token", keys[0], layouts.write_token(claims))
        case "verify_proof":
            token = bytes.fromhex(vector["context"]["token"])
            cti = read1(token)[3][7]
            data = sign1("proof", keys[0], layouts.write_proof(claims), kid=cti[:8], external_aad=sha256(token))
        case "verify_statement":
            data = sign1("statement", keys[0], layouts.write_statement(claims))
        case "read_presentation":
            proof = claims["proof"] and bytes.fromhex(claims["proof"])
            data = encode([1, bytes.fromhex(claims["token"]), proof, bytes.fromhex(claims["k"])])
            return {"bytes": data.hex(), "text": "TX1:" + base45.b45encode(data).decode()}
        case "open_hint":
            data = seal_hint(claims, vector["context"])
        case "merkle_root":
            data = merkle.root(_leaves(claims))
        case "verify_inclusion":
            data = b"".join(merkle.path(_leaves(claims), int(claims["index"])))
        case "verify_consistency":
            data = b"".join(merkle.consistency(_leaves(claims), int(claims["old_size"])))
        case "read_record" | "read_refusal_record":
            data = logs.write_record(claims)
        case "verify_access_receipt":
            data = logs.write_receipt(claims, keys[0])
        case "open_checkpoint":
            text = logs.write_checkpoint(claims, verifier.domain(vector["context"]), keys[0])
            return {"bytes": text.encode().hex(), "text": text}
        case "open_delivery_receipt":
            data = sign1("delivery_receipt", keys[0], logs.write_delivery_receipt(claims))
    return {"bytes": data.hex()}


def _leaves(claims):
    return [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in claims["leaves"]]


def seal_hint(claims, context):
    secret, cti, nonce = (bytes.fromhex(context[name]) for name in ("node_secret", "cti", "nonce"))
    name, tail = claims["name"], claims["document_number"][-4:].encode()
    masked = (name[0] + "*" * min(max(len(name) - 1, 1), 8)).encode()  # Python counts characters as proto does.
    plain = (bytes([len(masked), len(tail)]) + masked + tail).ljust(64, b"\0")
    key = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"tongxing/1/hint").derive(derive_k(secret, cti))
    return nonce + AESGCM(key).encrypt(nonce, plain, None)
