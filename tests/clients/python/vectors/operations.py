"""The operations of proto/vectors/README.md, each in its order, which is the order of refusals."""

import base45
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

import signed
from signed import CLOCK_LEEWAY, ED25519, ESP256, sha256
from vectors import claims as layouts
from vectors import logs, merkle
from vectors.claims import ASSISTED, DEPENDENT, OWN, PAPER, PURPOSES
from vectors.cose import Object, open_document, read_edition
from vectors.policy import read_policy
from vectors.profile import MAX_DOCUMENT, Refused, decode, is_uint, require

MAX_TEXT = 3172


class Verifier:
    """Verdicts of vectors; `vectors` has them all by their ids, for what a context refers to."""

    def __init__(self, vectors):
        self.vectors = vectors

    def verdict(self, vector):
        """Verdict, the object it is about, and what the object comes to."""
        try:
            return "valid", None, getattr(self, vector["operation"])(vector, vector["context"])
        except Refused as refused:
            return refused.reason, refused.of, None

    # --- Documents

    def open_trust_list(self, vector, context):
        edition = self._open("trust_list", vector)
        layouts.read_trust_list(edition["content"])
        return self._check_edition("trust_list", vector, edition)

    def open_policy(self, vector, context):
        edition = self._open("policy", vector)
        read_policy(edition["content"])
        return self._check_edition("policy", vector, edition)

    def _open(self, of, vector):
        roots = vector["context"]["roots"]
        return open_document(of, _bytes(vector), roots["threshold"], [bytes.fromhex(key) for key in roots["keys"]])

    def _check_edition(self, of, vector, edition):
        if held := vector["context"].get("held"):
            held_bytes = _bytes(self.vectors[held])
            version = read_edition(of, decode(of, held_bytes, MAX_DOCUMENT)[2])["version"]
            same = edition["version"] == version and _bytes(vector) == held_bytes
            require(edition["version"] > version or same, of, "VERSION_ROLLED_BACK")
        require(edition["iat"] <= vector["now"] + CLOCK_LEEWAY, of, "NOT_YET_VALID")
        require(vector["now"] < edition["exp"], of, "EXPIRED")  # No leeway: what has expired is worth nothing.
        return {"version": str(edition["version"])}

    def _trust_list(self, context):
        return layouts.read_trust_list(self._open("trust_list", self.vectors[context["trust_list"]])["content"])

    def _policy(self, context):
        return read_policy(self._open("policy", self.vectors[context["policy"]])["content"])

    def domain(self, context):
        return self._trust_list(context)["domain"]

    # --- Consent

    def verify_request(self, vector, context):
        of, key = "consent_request", bytes.fromhex(context["enrollment_key"])
        request = Object(of, _bytes(vector))
        claims = layouts.read_request(request.claims)
        require(request.kid == sha256(key)[:8], of, "SIGNATURE_INVALID")
        request.verify(ESP256, key)
        require(claims["iat"] <= vector["now"] + CLOCK_LEEWAY, of, "DEVICE_CLOCK_OFF")
        require(vector["now"] - claims["iat"] <= 300, of, "EXPIRED")

    def verify_token(self, vector, context):
        claims = self._authenticate(_bytes(vector), context)
        _check_token(claims, context, vector["now"], self._policy(context))

    def use_consent(self, vector, context):
        token, policy = _bytes(vector), self._policy(context)
        claims = self._authenticate(token, context)
        _check_token(claims, context, vector["now"], policy)
        if "proof" in context:
            _check_proof(bytes.fromhex(context["proof"]), token, claims, context, vector["now"], policy)
        else:
            require(claims["kind"] not in (OWN, DEPENDENT), "proof", "PROOF_MISSING")
        admitted = policy.grant(context["venue"], context["purpose"])
        require(admitted is not None, None, "PURPOSE_NOT_ADMITTED")
        granted = claims["scope"] & admitted
        wanted = context.get("wanted_scope", granted)
        require(wanted & ~granted == 0, None, "SCOPE_NOT_GRANTED")
        return {"granted_scope": wanted}

    def verify_proof(self, vector, context):
        token = bytes.fromhex(context["token"])
        claims = self._authenticate(token, context)
        return _check_proof(_bytes(vector), token, claims, context, vector["now"], self._policy(context))

    def _authenticate(self, token, context):
        """Whose token is it? Time, audience and purpose come after that."""
        token = Object("token", token)
        claims = layouts.read_token(token.claims)
        member = self._trust_list(context)["members"].get(claims["iss"], {"consent": {}})
        require(token.kid in member["consent"], "token", "KEY_UNKNOWN")
        token.verify(ED25519, member["consent"][token.kid])
        return claims

    # --- Presentation

    def read_presentation(self, vector, context):
        of, text = "presentation", vector["text"]
        require(len(text.encode()) <= MAX_TEXT, of, "OBJECT_TOO_LARGE")
        require(text.startswith("TX1:"), of, "PREFIX_UNKNOWN")
        try:
            data = base45.b45decode(text[4:])
        except ValueError:
            data = None
        # Decoders are lax, each in its own way: one presentation has one text.
        require(data is not None and base45.b45encode(data).decode() == text[4:], of, "NOT_BASE45")
        parts = decode(of, data, MAX_TEXT)
        require(isinstance(parts, list) and len(parts) == 4, of)
        version, token, proof, k = parts
        require(is_uint(version) and version == 1, of)
        for part in (token, proof):
            there = isinstance(part, bytes) and 1 <= len(part) <= 1024
            require(there or (part is None and part is proof and token is not None), of)
        require(isinstance(k, bytes) and len(k) == 16, of)
        read = {"token": token.hex(), "proof": proof and proof.hex(), "k": k.hex()}
        if read != vector["claims"]:
            raise AssertionError(f"{vector['id']}: read {read}")

    # --- Statement

    def verify_statement(self, vector, context):
        of, token, policy = "statement", bytes.fromhex(context["token"]), self._policy(context)
        issuer = self._authenticate(token, context)["iss"]
        statement = Object(of, _bytes(vector))
        claims = layouts.read_statement(statement.claims)
        keys = self._trust_list(context)["members"][issuer]["statement"]
        require(statement.kid in keys, of, "KEY_UNKNOWN")
        statement.verify(ED25519, keys[statement.kid])
        require(claims["iss"] == issuer and claims["token"] == sha256(token)[:16], of)
        require(claims["exp"] - claims["iat"] <= policy.lives["statement"], of, "LIFE_TOO_LONG")
        require(claims["offline_until"] - claims["iat"] <= policy.lives["offline"], of, "LIFE_TOO_LONG")
        require(claims["iat"] <= vector["now"] + CLOCK_LEEWAY, of, "NOT_YET_VALID")
        require(vector["now"] < claims["exp"] + CLOCK_LEEWAY, of, "EXPIRED")
        for field, bit in (("assigned_at", 2), ("tests", 4), ("doses", 8), ("visits", 16), ("hint", 32)):
            require(not claims[field] or context["granted_scope"] & bit, of)
        return policy.judge(claims)

    def open_hint(self, vector, context):
        k = bytes.fromhex(context["k"])
        if "node_secret" in context:
            derived = derive_k(bytes.fromhex(context["node_secret"]), bytes.fromhex(context["cti"]))
            if derived != k:
                raise AssertionError(f"{vector['id']}: k is {derived.hex()}")
        try:
            name, tail = signed.open_hint(_bytes(vector), k)
        except (InvalidTag, UnicodeDecodeError, signed.Invalid):
            raise Refused("HINT_DOES_NOT_OPEN") from None
        return {"masked_name": name, "document_tail": tail}

    # --- Access logs

    def merkle_root(self, vector, context):
        leaves = [merkle.leaf_hash(bytes.fromhex(leaf)) for leaf in vector["claims"]["leaves"]]
        require(merkle.root(leaves) == _bytes(vector), None, "NOT_PROVEN")

    def verify_inclusion(self, vector, context):
        leaf = merkle.leaf_hash(bytes.fromhex(context["leaf"]))
        root = merkle.root_of_path(leaf, int(context["index"]), int(context["size"]), _hashes(vector))
        require(root == bytes.fromhex(context["root"]), None, "NOT_PROVEN")

    def verify_consistency(self, vector, context):
        old = int(context["old_size"]), bytes.fromhex(context["old_root"])
        new = int(context["size"]), bytes.fromhex(context["root"])
        require(merkle.is_consistent(*old, *new, _hashes(vector)), None, "NOT_PROVEN")

    def read_record(self, vector, context):
        _, disclosed = logs.read_record(_bytes(vector))
        return {"disclosed": disclosed}

    def read_refusal_record(self, vector, context):
        logs.read_refusal_record(_bytes(vector))

    def verify_access_receipt(self, vector, context):
        return logs.verify_receipt(_bytes(vector), self._trust_list(context)["log_keys"])

    def open_checkpoint(self, vector, context):
        trust = self._trust_list(context)
        return logs.open_checkpoint(vector["text"], trust["domain"], trust["log_keys"])

    def open_delivery_receipt(self, vector, context):
        members = self._trust_list(context)["members"]
        logs.open_delivery_receipt(_bytes(vector), context["member"], members, vector["now"])


def derive_k(node_secret, cti):
    return HKDF(algorithm=SHA256(), length=16, salt=None, info=b"tongxing/1/k" + cti).derive(node_secret)


def _bytes(vector):
    return bytes.fromhex(vector["bytes"]) * vector.get("repeat", 1)


def _hashes(vector):
    data = _bytes(vector)
    return [data[at : at + 32] for at in range(0, len(data), 32)]


def _check_token(claims, context, now, policy):
    longest = policy.lives["paper" if claims["kind"] == PAPER else "token"]
    require(claims["exp"] - claims["iat"] <= longest, "token", "LIFE_TOO_LONG")
    require(claims["iat"] <= now + CLOCK_LEEWAY, "token", "NOT_YET_VALID")
    require(now < claims["exp"] + CLOCK_LEEWAY, "token", "EXPIRED")
    category = context["venue"].split("/")[1]
    require(claims["aud"] in ("*", category, context["venue"]), "token", "AUDIENCE_MISMATCH")
    require(PURPOSES.index(context["purpose"]) + 1 in claims["purposes"], "token", "PURPOSE_NOT_CONSENTED")


def _check_proof(data, token, consent, context, now, policy):
    of = "proof"
    require(consent["kind"] not in (PAPER, ASSISTED), of, "PROOF_UNEXPECTED")
    proof = Object(of, data)
    claims = layouts.read_proof(proof.claims)
    require(proof.kid == consent["cti"][:8], of, "SIGNATURE_INVALID")
    proof.verify(ESP256, consent["device_key"], external_aad=sha256(token))
    require(claims["exp"] - claims["iat"] <= policy.lives["proof"], of, "LIFE_TOO_LONG")
    require(claims["iat"] <= now + CLOCK_LEEWAY, of, "DEVICE_CLOCK_OFF")
    require(now < claims["exp"] + CLOCK_LEEWAY, of, "EXPIRED")
    require(claims["aud"] in (None, context["venue"]), of, "PROOF_OF_OTHER_VENUE")
    return {"proof_id": sha256(sha256(token) + proof.payload)[:16].hex()}
