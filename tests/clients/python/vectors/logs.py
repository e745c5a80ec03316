"""Access logs: records, the receipt that one is on record, a log's signed head, and the member's receipt for a log."""

import base64
import re

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from signed import CLOCK_LEEWAY, ED25519, encode, sha256
from vectors import merkle
from vectors.claims import NAME, is_venue, member_of
from vectors.cose import Object, sign1
from vectors.profile import MEMBERS, Fields, Refused, decode, is_uint, require

MAX_RECORD, MAX_RECEIPT, MAX_NOTE = 512, 2048, 1024
MAX_COMMIT_RECORDS = 65_536
STATUS, UNDETERMINED = 1, 3
DASH = "\u2014 "

# --- Records ----------------------------------------------------------------------------------------------------------


def read_record(data):
    of = "access_record"
    fields = Fields(of, decode(of, data, MAX_RECORD))
    fields.time(1)
    require(is_venue(fields.text(2, 40)), of)
    _caller(fields)
    if 4 in fields:
        require(re.fullmatch("[A-Za-z0-9._-]+", fields.text(4, 32)) is not None, of)
    _number(fields, 5, 1, 6)
    scope = fields.optional(6, lambda key: _number(fields, key, 1, 63))
    fields.bytes(7, 16)
    _number(fields, 8, 1, 4)
    outcome = fields.optional(9, lambda key: _number(fields, key, 1, 5))
    if outcome is None:
        _reason(fields)
    else:
        _number(fields, 10, 0, 3)
        fields.optional(11, lambda key: fields.bytes(key, 16))
    fields.uint(12)
    exchange = fields.bytes(13, 16)
    fields.bytes(15, 16)
    fields.finish()
    return exchange, scope if outcome in (STATUS, UNDETERMINED) else None


def read_refusal_record(data):
    of = "access_record"
    fields = Fields(of, decode(of, data, MAX_RECORD))
    fields.time(1)
    _caller(fields)
    _reason(fields)
    fields.finish()


def _number(fields, key, first, last):
    number = fields.uint(key)
    require(first <= number <= last, fields.of)
    return number


def _caller(fields):
    realm, *names = fields.text(3, 96).split("/")
    require(realm == "gateway" or re.fullmatch("[0-9]{2}", realm), fields.of)
    require(len(names) in (2, 3) and all(map(NAME.fullmatch, names)), fields.of)


def _reason(fields):
    require(re.fullmatch("[A-Z0-9_]+", fields.text(14, 40)) is not None, fields.of)


def write_record(c):
    """Of an exchange, or of a refusal, which has no venue."""
    if "venue" not in c:
        return encode({1: c["time"], 3: c["caller"], 14: c["reason"]})
    entries = {1: c["time"], 2: c["venue"], 3: c["caller"], 4: c["staff"], 5: c["purpose"], 6: c["scope"]}
    entries |= {7: bytes.fromhex(c["cti"]), 8: c["kind"], 9: c["outcome"], 10: c["source"]}
    entries |= {11: c["statement"] and bytes.fromhex(c["statement"]), 12: int(c["policy"])}
    entries |= {13: bytes.fromhex(c["exchange"]), 14: c["reason"], 15: bytes.fromhex(c["trace"])}
    return encode({key: value for key, value in entries.items() if value is not None})


# --- The receipt ------------------------------------------------------------------------------------------------------


def verify_receipt(data, log_keys):
    of = "access_receipt"
    parts = decode(of, data, MAX_RECEIPT)
    require(isinstance(parts, list) and len(parts) == 7, of)
    version, log, index, record, position, path, commit = parts
    require(is_uint(version) and version == 1 and _is_owner(log) and is_uint(index) and is_uint(position), of)
    require(isinstance(record, bytes) and 1 <= len(record) <= MAX_RECORD, of)
    require(isinstance(commit, bytes) and 1 <= len(commit) <= 1024, of)
    require(isinstance(path, list) and len(path) <= 16, of)
    require(all(isinstance(item, bytes) and len(item) == 32 for item in path), of)
    key, root, count, iat = _open_commit(commit, log_keys)
    leaf = merkle.leaf_hash(_owner_number(log) + index.to_bytes(8, "big") + merkle.leaf_hash(record))
    require(merkle.root_of_path(leaf, position, count, path) == root, of, "SIGNATURE_INVALID")
    exchange, _ = read_record(record)
    return {"log_id": sha256(key).hex(), "exchange": exchange.hex(), "committed_at": iat}


def _open_commit(data, log_keys):
    commit = Object("log_commit", data)
    claims = commit.claims
    claims.uint(1)
    root, count = claims.bytes(2, 32), claims.uint(3)
    claims.bytes(4, 32)
    iat = claims.time(6)
    claims.finish()
    require(count <= MAX_COMMIT_RECORDS, commit.of)
    require(commit.kid in log_keys, commit.of, "KEY_UNKNOWN")
    key = log_keys[commit.kid]
    commit.verify(ED25519, key)
    return key, root, count, iat


def _is_owner(log):
    return isinstance(log, str) and (log == "gateway" or log in MEMBERS)


def _owner_number(log):
    return bytes([0xFF if log == "gateway" else int(log)])


def write_receipt(c, test_key):
    commit = {1: int(c["commit"]["number"]), 2: bytes.fromhex(c["commit"]["root"]), 3: int(c["commit"]["count"])}
    commit |= {4: bytes.fromhex(c["commit"]["heads"]), 6: c["commit"]["iat"]}
    record, path = bytes.fromhex(c["record"]), [bytes.fromhex(item) for item in c["path"]]
    signed = sign1("log_commit", test_key, encode(commit))
    return encode([1, c["log"], int(c["index"]), record, int(c["position"]), path, signed])


# --- The checkpoint, a signed note ------------------------------------------------------------------------------------


def open_checkpoint(note, domain, log_keys):
    of = "checkpoint"
    require(len(note.encode()) <= MAX_NOTE, of, "OBJECT_TOO_LARGE")
    text, empty, signatures = note.partition("\n\n")
    lines = text.split("\n")  # Not splitlines, which splits at more.
    require(empty and len(lines) == 3, of)
    origin, size, root = lines
    require(origin.startswith(f"{domain}/access-log/"), of)
    log, _, log_id = origin.removeprefix(f"{domain}/access-log/").partition("/")
    require(_is_owner(log) and re.fullmatch("[0-9a-f]{64}", log_id) is not None, of)
    require(re.fullmatch("0|[1-9][0-9]*", size) is not None and int(size) < 2**64, of)
    root = _base64(root)
    require(root is not None and len(root) == 32, of)
    require(signatures.endswith("\n"), of)
    signed = [_signature(of, line) for line in signatures[:-1].split("\n")]
    require(len(signed) <= 8, of)
    key = log_keys.get(bytes.fromhex(log_id)[:8])
    require(key is not None and sha256(key).hex() == log_id, of, "KEY_UNKNOWN")
    own = [by for name, by in signed if name == origin and by[:4] == _key_hash(origin, key)]
    require(own, of, "SIGNATURE_INVALID")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(own[0][4:], f"{text}\n".encode())
    except InvalidSignature:
        raise Refused("SIGNATURE_INVALID", of) from None
    return {"log_id": log_id, "log": log, "size": size, "root": root.hex()}


def _signature(of, line):
    name, space, encoded = line.removeprefix(DASH).partition(" ")
    signature = _base64(encoded)
    require(line.startswith(DASH) and name and space and signature is not None and len(signature) > 4, of)
    return name, signature


def _base64(text):
    """One meaning has one encoding; Python takes bits behind the end."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError:
        return None
    return data if base64.b64encode(data).decode() == text else None


def _key_hash(name, key):
    return sha256(name.encode() + b"\n\x01" + key)[:4]


def write_checkpoint(c, domain, test_key):
    public, private = (bytes.fromhex(test_key[half]) for half in ("public", "private"))
    origin = f"{domain}/access-log/{c['log']}/{sha256(public).hex()}"
    text = f"{origin}\n{c['size']}\n{base64.b64encode(bytes.fromhex(c['root'])).decode()}\n"
    signature = Ed25519PrivateKey.from_private_bytes(private).sign(text.encode())
    return f"{text}\n{DASH}{origin} {base64.b64encode(_key_hash(origin, public) + signature).decode()}\n"


# --- The member's receipt ---------------------------------------------------------------------------------------------


def open_delivery_receipt(data, member, members, now):
    receipt = Object("delivery_receipt", data)
    claims = receipt.claims
    issuer = member_of(claims, 1)
    claims.bytes(2, 32)
    claims.uint(3)
    claims.bytes(4, 32)
    iat = claims.time(6)
    claims.finish()
    require(issuer == member, receipt.of)
    keys = members.get(member, {"statement": {}})["statement"]
    require(receipt.kid in keys, receipt.of, "KEY_UNKNOWN")
    receipt.verify(ED25519, keys[receipt.kid])
    require(iat <= now + CLOCK_LEEWAY, receipt.of, "NOT_YET_VALID")


def write_delivery_receipt(c):
    root, log_id = bytes.fromhex(c["root"]), bytes.fromhex(c["log_id"])
    return encode({1: c["iss"], 2: log_id, 3: int(c["size"]), 4: root, 6: c["iat"]})
