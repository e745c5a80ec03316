"""Holds receipt.py to proto/vectors: python receipt_test.py."""

import json
import unittest
from pathlib import Path
from types import SimpleNamespace

import signed
from receipt import check_receipt, verify_receipt

VECTORS = Path(__file__).parents[3] / "proto/vectors"


def read(name):
    return json.loads((VECTORS / f"{name}.json").read_text())


class Vectors(unittest.TestCase):
    def setUp(self):
        file = read("access-receipt")
        key = bytes.fromhex(file["test_keys"]["gateway-log"]["public"])
        self.log_keys, self.vectors = signed.public_keys([[signed.ED25519, key]]), file["vectors"]

    def test_all_get_their_verdict(self):
        for vector in self.vectors:
            data = bytes.fromhex(vector["bytes"]) * vector.get("repeat", 1)
            with self.subTest(vector["id"]):
                if vector["verdict"] == "valid":
                    _, _, entry = verify_receipt(data, self.log_keys)
                    self.assertEqual(entry[13].hex(), vector["result"]["exchange"])
                else:
                    self.assertRaises(Exception, verify_receipt, data, self.log_keys)

    def test_no_flipped_bit_survives(self):
        good = bytes.fromhex(self.vectors[0]["bytes"])
        for bit in range(len(good) * 8):
            flipped = bytearray(good)
            flipped[bit // 8] ^= 1 << bit % 8
            self.assertRaises(Exception, verify_receipt, bytes(flipped), self.log_keys)

    def test_a_receipt_is_good_for_its_own_exchange_alone(self):
        said = next(v for v in read("access-record")["vectors"] if v["id"] == "access-record/answered")["claims"]
        statement = bytes.fromhex(read("statement")["vectors"][0]["bytes"])
        own = {"iss": "44", "cti": bytes.fromhex(said["cti"]), "venue": said["venue"], "purpose": said["purpose"]}
        own |= {"exchange_id": bytes.fromhex(said["exchange"]), "outcome": said["outcome"], "statement": statement}

        def checked(**changes):
            of = SimpleNamespace(**own | changes)
            consent = {1: of.iss, 7: of.cti}
            return check_receipt(bytes.fromhex(self.vectors[0]["bytes"]), self.log_keys, consent, of, of)

        self.assertEqual(checked(), ("44", 1041))
        other = {"iss": "11", "cti": bytes(16), "venue": "44/park/x", "purpose": 1, "exchange_id": b"", "outcome": 3}
        for name, value in (other | {"statement": b""}).items():
            self.assertRaises(signed.Invalid, checked, **{name: value})


if __name__ == "__main__":
    unittest.main()
