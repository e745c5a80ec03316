"""One health code from its first day to the gate, over mTLS: enrol, consent, prove, be recognised, believe nobody.

Four parties that are four programs in life, top to bottom: the phone, its home member's backend and operator, the
venue. How a signed object is made and checked is in signed.py, the receipt that an exchange is on record in receipt.py.
"""

import argparse
import secrets
import time
import tomllib
import uuid
from pathlib import Path

import base45
import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from google.rpc import code_pb2, error_details_pb2
from grpc_status import rpc_status

import signed
from receipt import check_receipt, verify_receipt
from signed import check
from tongxing.assignment.v1 import assignment_pb2, assignment_pb2_grpc
from tongxing.federation.v1 import federation_pb2, federation_pb2_grpc
from tongxing.recognition.v1 import recognition_pb2 as recognition, recognition_pb2_grpc
from tongxing.traveler.v1 import traveler_pb2, traveler_pb2_grpc
from tongxing.types.v1 import types_pb2 as types

DEADLINE = 5  # Seconds. Without one a call may wait for ever.
LEVEL, IDENTITY_HINT = 1, 32  # Scope bits. Ask for what is needed: the person reads it before they agree.


def main():
    options = parse_options()
    home, venue = options.member, options.venue
    federation = Federation(options.dir, venue)

    # The phone, through its home member's backend.
    with federation.node(home, "backend") as channel:
        traveler = traveler_pb2_grpc.TravelerServiceStub(channel)
        phone = Phone(traveler, options.document, options.name)
        if not options.seeded:
            with federation.node(home, "operator") as operator:
                set_code(operator, home, options)
        phone.consent(traveler, audience=venue.split("/")[1], purposes=[types.PURPOSE_ENTRY, types.PURPOSE_TRAVEL])
    text = phone.present(venue)
    print(f"presentation  {text}")
    at_the_gate(federation, options, text)


def at_the_gate(federation, options, text):
    """The venue, through the national gateway. All it got from the phone is that text."""
    venue = options.venue
    token, proof, k = read_presentation(text)
    with federation.gateway(venue) as channel:
        gateway = recognition_pb2_grpc.RecognitionServiceStub(channel)
        # k is not in the request, and must never be: it opens what the gateway may not read (I6).
        request = recognition.RecognizeRequest(token=token, proof=proof, venue=venue, purpose=types.PURPOSE_ENTRY)
        answer = gateway.Recognize(request, timeout=DEADLINE)
        print_answer(answer)
        check(answer.outcome == recognition.OUTCOME_STATUS, "no status")
        masked_name = verify_answer(federation, token, k, answer)
        check(masked_name == options.name[0] + "*" * min(max(len(options.name) - 1, 1), 8), "another person's code")
        check(answer.decision == recognition.DECISION_PASS, "the gate stays shut")
        verify_record(federation, request, answer)

        # Errors are about the call, and are meant for programs: branch on the reason, never on the message.
        medical = recognition.RecognizeRequest(token=token, proof=proof, venue=venue, purpose=types.PURPOSE_MEDICAL)
        reason, _ = refusal(gateway, medical)  # The person did not agree to that.
        check(reason == "PURPOSE_NOT_CONSENTED", f"refused for {reason}")
        nothing = recognition.RecognizeRequest(purpose=types.PURPOSE_ENTRY)
        field_reason, fields = refusal(gateway, nothing)
        check((field_reason, fields) == ("FIELD_MISSING", ["token"]), f"refused for {field_reason} {fields}")

        # A lane asks by a stream.
        lane = recognize_all(gateway, {"gate-1": request, "gate-2": medical})
        check(lane == {"gate-1": "DECISION_PASS", "gate-2": "PURPOSE_NOT_CONSENTED"}, f"the lane had {lane}")
    print(f"ok python PASS {reason} {len(lane)} items")


def parse_options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dir", type=Path, required=True, help="a running federation's state directory")
    parser.add_argument("--member", default="44", help="the home member")
    parser.add_argument("--venue", default="11/station/beijing-west", help="who asks")
    parser.add_argument("--document", help="a seeded person's; a new person gets a green code from the operator")
    parser.add_argument("--name", default="演示旅客", help="the person's name")
    parser.add_argument("--label", default="绿码", help="the member's own word for green")
    options = parser.parse_args()
    options.seeded = options.document is not None
    number = options.document or f"DEMO-{secrets.token_hex(6).upper()}"
    kind = types.DOCUMENT_TYPE_RESIDENT_ID if options.seeded else types.DOCUMENT_TYPE_OTHER
    options.document = types.Document(type=kind, number=number)
    return options


# --- The federation: addresses, credentials, trust --------------------------------------------------------------------


class Federation:
    """What a party needs to know beforehand: its own credentials, and in life the root keys by a way it trusts.

    Trust list and policy come from the gateway, which cannot forge them: enough of the pinned roots must have signed.
    """

    def __init__(self, directory, venue):
        self.directory = directory
        self.addresses = tomllib.loads((directory / "federation.toml").read_text())["addresses"]
        pinned = tomllib.loads((directory / "trust-list.toml").read_text())
        roots = signed.public_keys([[signed.ED25519, bytes.fromhex(root)] for root in pinned["roots"]])

        with self.gateway(venue) as channel:
            gateway = federation_pb2_grpc.FederationServiceStub(channel)
            trust_list = gateway.GetTrustList(federation_pb2.GetTrustListRequest(), timeout=DEADLINE).trust_list
            policy = gateway.GetPolicy(federation_pb2.GetPolicyRequest(), timeout=DEADLINE).policy

        def open_document(typ, data):
            return signed.open_document(typ, data, roots, pinned["threshold"], time.time())

        trust = open_document(signed.TRUST_LIST, trust_list)
        self.members = {member[1]: member for member in trust[5]}
        self.log_keys = signed.public_keys(trust[4][2])
        self.policy = tomllib.loads(open_document(signed.POLICY, policy))

    def consent_keys(self, member):
        return signed.public_keys(self.members[member][4])

    def statement_keys(self, member):
        return signed.public_keys(self.members[member][5])

    def level(self, member, label):
        """转码: what a member's own word means everywhere. None is no level, and never green."""
        labels = self.policy["labels"]
        return labels.get(member, labels["default"]).get(label)

    def node(self, member, role):
        return self._channel(self.addresses["nodes"][member]["public"], member, f"{role}/{member}")

    def feed(self, member, name):
        return self._channel(self.addresses["nodes"][member]["public"], member, f"feed/{member}-{name}")

    def gateway(self, venue):
        address = self.addresses["gateways"][0]["public"]
        return self._channel(address, "gateway", f"venue/{venue.replace('/', '-')}")

    def _channel(self, address, server, own):
        """Believes the one CA of the server that is meant. Every other member's CA vouches for its own alone."""
        files = [f"ca/{server}.tongxing.test.pem", f"{own}/key.pem", f"{own}/cert.pem"]
        credentials = grpc.ssl_channel_credentials(*((self.directory / file).read_bytes() for file in files))
        return grpc.secure_channel(address, credentials)


# --- The phone, and those at home who serve it ------------------------------------------------------------------------


class Phone:
    def __init__(self, traveler, document, name, reference=""):
        self.enrollment_key = new_key()
        request = traveler_pb2.EnrollDeviceRequest(
            request_id=str(uuid.uuid4()),
            document=document,
            name=name,
            person_reference=reference,  # Empty: the platform, if there is one, has no code for this person.
            enrollment_key=signed.encode(signed.cose_key(self.enrollment_key)),
        )
        response = traveler.EnrollDevice(request, timeout=DEADLINE)
        self.device_id = response.device_id
        # Proofs live a minute, so a phone goes by home's clock and not by its own.
        self.clock_offset = response.home_time.seconds - int(time.time())
        print("enrolled      a phone")

    def now(self):
        return int(time.time()) + self.clock_offset

    def consent(self, traveler, audience, purposes):
        """Asks for a token. It names a fresh key: the enrolment key would link what the random cti unlinks (I6)."""
        self.token_key = new_key()
        claims = {
            3: audience,
            6: self.now(),
            7: secrets.token_bytes(16),
            8: {1: signed.cose_key(self.token_key)},
            -65539: {1: self.device_id, 2: purposes, 3: LEVEL | IDENTITY_HINT, 4: types.CONSENT_KIND_OWN, 5: 3600},
        }
        kid = signed.device_kid(self.enrollment_key)
        consent_request = signed.sign1(signed.CONSENT_REQUEST, self.enrollment_key, kid, claims)
        request = traveler_pb2.IssueConsentRequest(consent_request=consent_request)
        response = traveler.IssueConsent(request, timeout=DEADLINE)
        self.token, self.k = response.token, response.hint_key
        print(f"consented     a token of {len(self.token)} bytes until {response.expire_time.ToJsonString()}")

    def present(self, venue):
        """A proof for this venue alone, whose printed code the phone scanned. Good for a minute."""
        *_, token = signed.read1(self.token)
        claims = {3: venue, 4: self.now() + 60, 6: self.now(), 10: secrets.token_bytes(8)}
        token_hash = signed.sha256(self.token)  # Signed along, so that the proof is no other token's.
        proof = signed.sign1(signed.PROOF, self.token_key, token[7][:8], claims, external_aad=token_hash)
        return "TX1:" + base45.b45encode(signed.encode([1, self.token, proof, self.k])).decode()


def new_key():
    return ec.generate_private_key(ec.SECP256R1())


def set_code(operator, member, options):
    """A person whom the member did not know has no code yet. The operator assigns one and says by which rule."""
    request = assignment_pb2.SetCodeRequest(
        request_id=str(uuid.uuid4()),
        document=options.document,
        label=options.label,
        rule="R-CASE",
        authority=f"{member}/cdc",
        justification="an example",
    )
    assignment_pb2_grpc.AssignmentServiceStub(operator).SetCode(request, timeout=DEADLINE)
    print(f"assigned      {options.label}")


# --- The venue --------------------------------------------------------------------------------------------------------


def read_presentation(text):
    check(text.startswith("TX1:"), "not a presentation")
    version, token, proof, k = signed.decode(base45.b45decode(text.removeprefix("TX1:")))
    check(version == 1, f"a presentation of version {version}")
    return token, proof, k


def print_answer(answer):
    outcome = recognition.Outcome.Name(answer.outcome)
    decision = recognition.Decision.Name(answer.decision)
    source = recognition.Source.Name(answer.source)
    print(f"answer        {outcome} {decision} {source}: {answer.next_step.zh} {answer.next_step.en}")


def verify_answer(federation, token, k, answer):
    """Checks home's own words, so that nobody needs to believe the gateway (I3). Returns the masked name."""
    consent = signed.verify1(signed.TOKEN, token, federation.consent_keys)
    statement = signed.verify1(signed.STATEMENT, answer.statement, federation.statement_keys)
    issuer, expires, issued, status = (statement[key] for key in (1, 4, 6, -65538))
    label, offline_until, now = status[3], status[11], time.time()
    closed = statement.keys() == {1, 4, 6, -65538} and status.keys() <= set(range(1, 12))
    check(closed, "an entry that statement.cddl does not name")  # Refused, never skipped.

    bound = issuer == consent[1] and status[1] == signed.sha256(token)[:16]
    check(bound, "the statement answers for another token")
    lives = {name: seconds(life) for name, life in federation.policy["lives"].items()}
    check(issued <= expires <= issued + lives["statement"], "the statement claims too long a life")
    check(issued <= offline_until <= min(issued + lives["offline"], expires), "offline for too long")
    check(issued - signed.CLOCK_LEEWAY <= now < expires + signed.CLOCK_LEEWAY, "the statement does not hold now")
    disclosed = {6: 2, 7: 4, 8: 8, 9: 16, 10: 32}  # Which field needs which scope bit.
    beyond = [field for field, bit in disclosed.items() if field in status and not answer.granted_scope & bit]
    check(not beyond, f"the statement discloses {beyond}, which nobody granted")

    # The level is ours to work out. Yellow or red needs a rule and an authority of the policy too; a green, nothing.
    level = federation.level(issuer, label)
    check(level == "green" and answer.level == types.LEVEL_GREEN, f"{label} is {level}, which is not green")
    print(f"verified      {label} of {issuer}, {expires - issued} s, offline {offline_until - issued} s")
    check(10 in status, "no identity hint, although it was asked for")
    masked_name, tail = signed.open_hint(status[10], k)
    print(f"identity      {masked_name} …{tail}: compare with the document in the person's hand")
    return masked_name


def verify_record(federation, request, answer):
    """Checks that the exchange is on record, on home's log, and that the record says what the answer says (I2)."""
    consent = signed.verify1(signed.TOKEN, request.token, federation.consent_keys)
    log, index = check_receipt(answer.access_receipt, federation.log_keys, consent, request, answer)
    print(f"on record     no. {index} on a log of {log}, for this exchange, with this statement")
    flipped = answer.access_receipt[:-1] + bytes([answer.access_receipt[-1] ^ 1])
    try:
        verify_receipt(flipped, federation.log_keys)
    except Exception:  # Whatever it is refused for.
        return
    raise AssertionError("a flipped receipt was believed")


def seconds(life):
    return int(life[:-1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[life[-1]]


def refusal(gateway, request):
    """Makes a call that must fail. Returns the reason and the fields at fault."""
    try:
        gateway.Recognize(request, timeout=DEADLINE)
    except grpc.RpcError as error:
        return explain(rpc_status.from_call(error))
    raise AssertionError("a call that had to be refused was answered")


def explain(status):
    """What a google.rpc.Status says of itself: of a call, or of an item of a stream."""
    reason, fields = "", []
    for detail in status.details:
        info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if detail.Unpack(info):
            reason = info.reason
            check(info.domain == "tongxing", f"an error of {info.domain}")
            print(f"refused       {code_pb2.Code.Name(status.code)} {reason} {info.domain} {dict(info.metadata)}")
        elif detail.Unpack(bad_request):
            for violation in bad_request.field_violations:
                fields.append(violation.field)
                print(f"              {violation.field}: {violation.description}")
        elif detail.Unpack(retry):
            print(f"              try again in {retry.retry_delay.ToTimedelta().total_seconds()} s")
    return reason, fields


def recognize_all(gateway, requests):
    """Asks by a stream: answers come as they are ready, an item that fails ends nothing. Returns what each item got."""
    items = (recognition.RecognizeStreamRequest(request_id=item, request=requests[item]) for item in requests)
    got = {}
    for item in gateway.RecognizeStream(items, timeout=DEADLINE):
        print(f"item          {item.request_id}")
        if item.HasField("answer"):
            print_answer(item.answer)  # To be verified like any other: it is the same answer.
            got[item.request_id] = recognition.Decision.Name(item.answer.decision)
        else:
            got[item.request_id], _ = explain(item.error)
    return got


if __name__ == "__main__":
    main()
