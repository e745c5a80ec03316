"""The layouts of proto/*.cddl: payload to claims, and claims, as the vectors have them, to payload."""

import re

from cryptography.hazmat.primitives.asymmetric import ec

from signed import ED25519, ESP256, encode
from vectors.cose import kid_of
from vectors.profile import MEMBERS, Fields, is_int64, is_text, is_uint, require

CATEGORIES = "checkpoint residential station airport port terminal ferry hospital park school workplace other".split()
PURPOSES = ["entry", "travel", "medical", "school", "work", "lodging"]
OWN, DEPENDENT, PAPER, ASSISTED = 1, 2, 3, 4
NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def is_venue(text):
    parts = text.split("/")
    if len(parts) != 3 or len(text.encode()) > 40 or re.search("[0-9]{11}", text):
        return False
    return parts[0] in MEMBERS and parts[1] in CATEGORIES and NAME.fullmatch(parts[2]) is not None


def is_audience(text):
    return text == "*" or text in CATEGORIES or is_venue(text)


def ascending(numbers, last):
    """Known numbers from 1 on, none twice."""
    return all(is_uint(n) and 1 <= n <= last for n in numbers) and all(a < b for a, b in zip(numbers, numbers[1:]))


def member_of(fields, key):
    code = fields.text(key, 2)
    require(code in MEMBERS, fields.of, "MEMBER_UNKNOWN")
    return code


def _audience(fields):
    audience = fields.text(3, 40)
    require(is_audience(audience), fields.of)
    return audience


def _purposes(fields, key):
    purposes = fields.array(key, 6)
    require(purposes and ascending(purposes, 6), fields.of)
    return purposes


def _device_key(fields):
    """The compressed point of claim 8, if there is one."""
    if 8 not in fields:
        return None
    cnf = fields.map(8)
    key = cnf.map(1)
    require(key.uint(1) == 2 and key.uint(-1) == 1, fields.of)
    x, sign = key.bytes(-2, 32), key.take(-3)
    require(type(sign) is bool, fields.of)
    key.finish()
    cnf.finish()
    point = bytes([3 if sign else 2]) + x
    try:
        ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
    except ValueError:
        require(False, fields.of)
    return point


# --- Reading ----------------------------------------------------------------------------------------------------------


def read_token(fields):
    claims = {"iss": member_of(fields, 1), "aud": _audience(fields), "exp": fields.time(4), "iat": fields.time(6)}
    claims |= {"cti": fields.bytes(7, 16), "device_key": _device_key(fields)}
    consent = fields.map(-65537)
    claims |= {"purposes": _purposes(consent, 1), "scope": consent.uint(2), "kind": consent.uint(4)}
    consent.finish()
    fields.finish()
    scope, kind = claims["scope"], claims["kind"]
    require(1 <= scope <= 63 and scope % 2 == 1 and 1 <= kind <= 4, fields.of)
    require(claims["iat"] < claims["exp"], fields.of)
    require((claims["device_key"] is not None) == (kind in (OWN, DEPENDENT)), fields.of)
    require(kind != PAPER or scope == 1, fields.of)
    require(kind != ASSISTED or is_venue(claims["aud"]), fields.of)
    return claims


def read_proof(fields):
    aud = fields.optional(3, lambda key: fields.text(key, 40))
    require(aud is None or is_venue(aud), fields.of)
    claims = {"aud": aud, "exp": fields.time(4), "iat": fields.time(6), "nonce": fields.bytes(10, 8)}
    fields.finish()
    require(claims["iat"] < claims["exp"], fields.of)
    return claims


def read_request(fields):
    claims = {"aud": _audience(fields), "iat": fields.time(6), "cti": fields.bytes(7, 16)}
    claims["device_key"] = _device_key(fields)
    wish = fields.map(-65539)
    claims |= {"device_id": wish.bytes(1, 16), "purposes": _purposes(wish, 2), "scope": wish.uint(3)}
    claims |= {"kind": wish.uint(4), "life": wish.uint(5)}
    wish.finish()
    fields.finish()
    require(1 <= claims["scope"] <= 63 and 1 <= claims["kind"] <= 4, fields.of)
    return claims


def read_statement(fields):
    claims = {"iss": member_of(fields, 1), "exp": fields.time(4), "iat": fields.time(6)}
    status = fields.map(-65538)
    claims["token"], head = status.bytes(1, 16), status.array(2, 2)
    require(len(head) == 2 and isinstance(head[0], bytes) and len(head[0]) == 16 and is_uint(head[1]), fields.of)
    claims |= {"epoch": head[0], "seq": head[1], "label": status.text(3, 48)}
    claims["rule"] = status.optional(4, lambda key: status.text(key, 32))
    claims["authority"] = status.optional(5, lambda key: status.text(key, 27))
    if claims["authority"] is not None:
        member, _, kind = claims["authority"].partition("/")
        require(member in MEMBERS and NAME.fullmatch(kind), fields.of)
    claims["assigned_at"] = status.optional(6, status.time)
    claims["tests"] = _list(status, 7, 4, lambda at, result: result <= 1)
    claims["doses"] = _list(status, 8, 4, lambda number, at: 1 <= number <= 9)
    claims["visits"] = _list(status, 9, 8, lambda area, grade, at: area <= 999_999 and 1 <= grade <= 2)
    claims["hint"] = status.optional(10, lambda key: status.bytes(key, 92))
    claims["offline_until"] = status.time(11)
    status.finish()
    fields.finish()
    iat, exp, offline = claims["iat"], claims["exp"], claims["offline_until"]
    require(iat <= exp and iat <= offline <= min(exp, iat + 600), fields.of)
    return claims


def _list(fields, key, longest, holds):
    """Left out when it is empty."""
    if key not in fields:
        return []
    items, width = fields.array(key, longest), holds.__code__.co_argcount
    for item in items:
        require(isinstance(item, list) and len(item) == width and all(map(is_uint, item)) and holds(*item), fields.of)
    require(items, fields.of)
    return items


LONGEST_SUSPENSION = 366 * 24 * 3600


def _read_suspension(fields):
    require(fields.text(1, 200), fields.of)
    begin, end = fields.time(2), fields.time(3)
    require(begin < end <= begin + LONGEST_SUSPENSION, fields.of)
    fields.finish()


def read_trust_list(content):
    of = "trust_list"
    fields = Fields(of, content)
    domain = fields.text(1, 200)
    require(all(NAME.fullmatch(label) and len(label) <= 63 for label in domain.split(".")), of)
    threshold, roots = fields.uint(2), _keys(fields, 3)
    require(1 <= threshold <= len(roots), of)
    gateway = fields.map(4)
    _bundle(gateway, 1)
    log_keys, members = _keys(gateway, 2), {}
    used = roots + log_keys
    gateway.finish()
    for entry in fields.array(5, 100):
        member = Fields(of, entry)
        code = member_of(member, 1)
        _bundle(member, 2)
        require(all(is_text(endpoint, 261) and _is_endpoint(endpoint) for endpoint in member.array(3, 8)), of)
        consent, statement = _keys(member, 4), _keys(member, 5)
        member.bytes(6, 32)
        require(ascending(member.array(7, 12), 12), of)
        if 8 in member:
            _read_suspension(member.map(8))
        member.finish()
        require(code not in members, of)
        members[code] = {"consent": {kid_of(k): k for k in consent}, "statement": {kid_of(k): k for k in statement}}
        used += consent + statement
    fields.finish()
    require(len(set(used)) == len(used), of)  # One key, one use.
    return {"domain": domain, "members": members, "log_keys": {kid_of(key): key for key in log_keys}}


def _bundle(fields, key):
    bundle = fields.array(key, 4)
    require(bundle and all(isinstance(der, bytes) and 1 <= len(der) <= 4096 for der in bundle), fields.of)


def _keys(fields, key):
    keys = []
    for item in fields.array(key, 16):
        require(isinstance(item, list) and len(item) == 2, fields.of)
        alg, public = item
        require(is_int64(alg) and isinstance(public, bytes), fields.of)
        require(alg in (ED25519, ESP256), fields.of, "ALGORITHM_NOT_ALLOWED")
        require(alg == ED25519 and len(public) == 32, fields.of)
        keys.append(public)
    return keys


def _is_endpoint(text):
    host, _, port = text.rpartition(":")
    return bool(host) and re.fullmatch("[1-9][0-9]{0,4}", port) is not None and int(port) <= 65_535


# --- Writing ----------------------------------------------------------------------------------------------------------


def _without_none(entries):
    return {key: value for key, value in entries.items() if value is not None}


def _cnf(point):
    if point is None:
        return None
    point = bytes.fromhex(point)
    return {1: {1: 2, -1: 1, -2: point[1:], -3: point[0] == 3}}


def write_token(c):
    consent = {1: c["purposes"], 2: c["scope"], 4: c["kind"]}
    entries = {1: c["iss"], 3: c["aud"], 4: c["exp"], 6: c["iat"], 7: bytes.fromhex(c["cti"])}
    return encode(_without_none(entries | {8: _cnf(c["device_key"]), -65537: consent}))


def write_proof(c):
    return encode(_without_none({3: c["aud"], 4: c["exp"], 6: c["iat"], 10: bytes.fromhex(c["nonce"])}))


def write_request(c):
    wish = {1: bytes.fromhex(c["device_id"]), 2: c["purposes"], 3: c["scope"], 4: c["kind"], 5: int(c["life"])}
    entries = {3: c["aud"], 6: c["iat"], 7: bytes.fromhex(c["cti"]), 8: _cnf(c["device_key"]), -65539: wish}
    return encode(_without_none(entries))


def write_statement(c):
    status = {1: bytes.fromhex(c["token"]), 2: [bytes.fromhex(c["epoch"]), int(c["seq"])], 3: c["label"]}
    status |= {4: c["rule"], 5: c["authority"], 6: c["assigned_at"]}
    status |= {7: c["tests"] or None, 8: c["doses"] or None, 9: c["visits"] or None}
    status |= {10: bytes.fromhex(c["hint"]) if c["hint"] else None, 11: c["offline_until"]}
    return encode({1: c["iss"], 4: c["exp"], 6: c["iat"], -65538: _without_none(status)})


def write_edition(c, content):
    return encode({1: int(c["version"]), 2: content, 4: c["exp"], 6: c["iat"]})


def trust_list_content(c):
    def keys(encoded):
        return [[ED25519, bytes.fromhex(key)] for key in encoded]

    def bundle(ders):
        return [bytes.fromhex(der) for der in ders]

    members = []
    for m in c["members"]:
        entry = {1: m["code"], 2: bundle(m["bundle"]), 3: m["endpoints"], 4: keys(m["consent_keys"])}
        entry |= {5: keys(m["statement_keys"]), 6: bytes.fromhex(m["sealing_key"]), 7: m["categories"]}
        if out := m.get("suspension"):
            entry[8] = {1: out["reason"], 2: out["from"], 3: out["until"]}
        members.append(entry)
    gateway = {1: bundle(c["gateway"]["bundle"]), 2: keys(c["gateway"]["log_keys"])}
    return {1: c["domain"], 2: c["threshold"], 3: keys(c["roots"]), 4: gateway, 5: members}
