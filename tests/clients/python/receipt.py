"""The access receipt: that an exchange is on record, as proto/access-receipt.cddl and access-record.cddl lay it out."""

import re

import signed
from signed import check, sha256

MAX_RECEIPT, MAX_COUNT, MAX_TIME = 2048, 65_536, 253_402_300_799
# The record's entries: those that are always there, and those that may be.
REQUIRED, ALLOWED = {1, 2, 3, 5, 7, 8, 12, 13, 15}, set(range(1, 16))
VENUE, PURPOSE, CTI, OUTCOME, STATEMENT, EXCHANGE = 2, 5, 7, 9, 11, 13


def verify_receipt(data, log_keys):
    """Whose log the record is on, its index there and the record, once the gateway's own keys have shown that."""
    check(0 < len(data) <= MAX_RECEIPT, "no receipt")
    receipt = signed.decode(data)
    check(isinstance(receipt, list) and len(receipt) == 7, "not a receipt")
    version, log, index, record, position, path, commit = receipt
    check(_is_uint(version) and version == 1, f"a receipt of version {version}")
    check(isinstance(log, str) and re.fullmatch("[0-9]{2}|gateway", log), "not a log")
    check(_is_uint(index) and _is_uint(position), "not a place on it")
    check(isinstance(record, bytes) and isinstance(commit, bytes), "no record, or no commit")
    check(isinstance(path, list) and all(_is_hash(item) for item in path), "not a path")

    claims = signed.verify1(signed.LOG_COMMIT, commit, lambda _: log_keys)
    check(claims.keys() == {1, 2, 3, 4, 6}, "an entry that access-receipt.cddl does not name")
    number, root, count, heads, committed = (claims[key] for key in (1, 2, 3, 4, 6))
    check(_is_uint(number) and _is_hash(root) and _is_hash(heads), "not a commit")
    check(_is_uint(count) and count <= MAX_COUNT and _is_uint(committed) and committed <= MAX_TIME, "not a commit")
    owner = b"\xff" if log == "gateway" else bytes([int(log)])
    leaf = _leaf(owner + index.to_bytes(8, "big") + _leaf(record))
    check(_root(leaf, position, count, path) == root, "the record is not at its place in the commit")

    entry = signed.decode(record)
    check(isinstance(entry, dict) and REQUIRED <= entry.keys() <= ALLOWED, "not an access record")
    return log, index, entry


def check_receipt(data, log_keys, consent, asked, answer):
    """A receipt is worth nothing unless it is of our own exchange: any other one verifies as well."""
    log, index, entry = verify_receipt(data, log_keys)
    check(log == consent[1], f"on the log of {log}, where home does not look")
    check(entry[EXCHANGE] == answer.exchange_id, "the record is of another exchange")
    check(entry[CTI] == consent[7], "the record is of another consent")
    check((entry[VENUE], entry[PURPOSE]) == (asked.venue, asked.purpose), "the record has another question")
    check(entry.get(OUTCOME) == answer.outcome, "the record has another outcome")
    check(entry.get(STATEMENT) == sha256(answer.statement)[:16], "the record has another statement")
    return log, index


def _is_uint(value):
    return type(value) is int and 0 <= value < 2**64  # A bool is an int too.


def _is_hash(value):
    return isinstance(value, bytes) and len(value) == 32


def _leaf(data):
    return sha256(b"\0" + data)


def _root(node, position, count, path):
    """Where a leaf's path leads to in a tree of `count` leaves (RFC 9162 §2.1.3.2)."""
    check(position < count, "no such position in the commit")
    last = count - 1
    for sister in path:
        check(last > 0, "the path is too long")
        if position % 2 == 1 or position == last:
            node = sha256(b"\1" + sister + node)
            while position % 2 == 0 and position > 0:  # Odd last nodes go up as they are.
                position, last = position // 2, last // 2
        else:
            node = sha256(b"\1" + node + sister)
        position, last = position // 2, last // 2
    check(last == 0, "the path is too short")
    return node
