"""The strict CBOR profile at the head of proto/cose.cddl, and reading a map entry by entry."""

import io
import unicodedata

import cbor2

from signed import encode

MAX_OBJECT, MAX_DOCUMENT, MAX_DEPTH = 1024, 512 * 1024, 12
MAX_TIME = 253_402_300_799  # The end of the year 9999.
MEMBERS = {"00", "66"} | {
    str(code)
    for first, last in ((11, 15), (21, 23), (31, 37), (41, 46), (50, 54), (61, 65))
    for code in range(first, last + 1)
}


class Refused(Exception):
    """A refusal: its reason as ErrorInfo has it, and the object it speaks of."""

    def __init__(self, reason, of=None):
        super().__init__(reason)
        self.reason, self.of = reason, of


def require(holds, of, reason="OBJECT_MALFORMED"):
    if not holds:
        raise Refused(reason, of)


def decode(of, data, max_size=MAX_OBJECT):
    """One meaning has one encoding: decode, encode again, compare."""
    require(len(data) <= max_size, of, "OBJECT_TOO_LARGE")
    stream = io.BytesIO(data)
    try:
        value = cbor2.CBORDecoder(stream).decode()
    except (cbor2.CBORError, ValueError, OverflowError, RecursionError) as error:
        raise Refused("NOT_CBOR", of) from error
    require(_depth(value) <= MAX_DEPTH, of, "NOT_CBOR")
    require(stream.tell() == len(data), of, "TRAILING_BYTES")
    # Of two entries with one key cbor2 keeps the last: encoded again they are fewer bytes.
    require(_is_plain(value) and encode(value) == data, of, "NOT_DETERMINISTIC")
    return value


def _depth(value):
    if isinstance(value, dict):
        return 1 + max((max(_depth(key), _depth(item)) for key, item in value.items()), default=0)
    if isinstance(value, (list, tuple)):
        return 1 + max(map(_depth, value), default=0)
    return 0


def _is_plain(value):
    """No tags, which cbor2 makes datetime and others of, no floats, no `undefined`."""
    if isinstance(value, dict):
        return all(_is_plain(key) and _is_plain(item) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, bytes, str)


def is_uint(value):
    return type(value) is int and 0 <= value < 2**64  # A bool is an int too.


def is_int64(value):
    return type(value) is int and -(2**63) <= value < 2**63


def is_text(value, longest):
    """Lengths are in bytes of UTF-8."""
    if not isinstance(value, str) or not 1 <= len(value.encode()) <= longest:
        return False
    return all(unicodedata.category(character) != "Cc" for character in value)


class Fields:
    """A map whose entries are taken one by one; what nobody took refuses the whole."""

    def __init__(self, of, value):
        require(isinstance(value, dict) and all(map(is_int64, value)), of)
        self.of, self.entries = of, dict(value)

    def __contains__(self, key):
        return key in self.entries

    def take(self, key):
        require(key in self.entries, self.of)
        return self.entries.pop(key)

    def _such(self, key, holds):
        value = self.take(key)
        require(holds(value), self.of)
        return value

    def uint(self, key):
        return self._such(key, is_uint)

    def time(self, key):
        return self._such(key, lambda value: is_uint(value) and value <= MAX_TIME)

    def text(self, key, longest):
        return self._such(key, lambda value: is_text(value, longest))

    def bytes(self, key, size):
        return self._such(key, lambda value: isinstance(value, bytes) and len(value) == size)

    def array(self, key, longest):
        return list(self._such(key, lambda value: isinstance(value, list) and len(value) <= longest))

    def map(self, key):
        return Fields(self.of, self.take(key))

    def optional(self, key, read):
        """What may be left out: None if it is."""
        return read(key) if key in self.entries else None

    def finish(self):
        require(not self.entries, self.of)
