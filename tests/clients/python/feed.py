"""A laboratory's results flow in by themselves: a feed brings evidence, and the code follows by the national rules.

A traveler without a code tests negative, positive, and negative again; GetCode shows each time which code they have and
why. What the feed may not bring is refused, record by record.
"""

import datetime
import secrets

import client
from signed import check
from tongxing.error.v1 import error_reason_pb2
from tongxing.evidence.v1 import evidence_pb2 as evidence, evidence_pb2_grpc
from tongxing.traveler.v1 import traveler_pb2, traveler_pb2_grpc


def main():
    options = client.parse_options()
    home = options.member
    federation = client.Federation(options.dir, options.venue)
    with federation.node(home, "backend") as backend, federation.feed(home, "lab-1") as channel:
        traveler = traveler_pb2_grpc.TravelerServiceStub(backend)
        lab = Feed(evidence_pb2_grpc.EvidenceServiceStub(channel), f"{home}/health-commission", options.document)
        phone = client.Phone(traveler, options.document, options.name)
        check(code(traveler, phone) is None, "there is a code without evidence")

        check(lab.bring(lab.test(hours_ago=24, positive=False)) == ["ACCEPTED"], "not taken in")
        green = code(traveler, phone)
        check((green.label, green.rule) == (options.label, ""), "not green after a negative test")

        positive = lab.test(hours_ago=2, positive=True)
        check(lab.bring(positive) == ["ACCEPTED"], "not taken in")
        yellow = code(traveler, phone)
        check((yellow.rule, yellow.evidence[0].record_id) == ("R-TEST", positive.record_id), "another rule, or evidence")
        # The same again is no news: a feed that does not know whether it was heard says it again.
        check(lab.bring(positive) == ["UNCHANGED"], "what is on file was not unchanged")

        # Each record has a verdict of its own: what is wrong with one holds up no other.
        tomorrow, stay = lab.test(hours_ago=-24, positive=False), lab.stay(area=519999)
        verdicts = lab.bring(tomorrow, stay, lab.test(hours_ago=1, positive=False))
        check(verdicts == ["FIELD_INVALID", "EVIDENCE_NOT_ADMITTED", "ACCEPTED"], f"the verdicts are {verdicts}")
        check(code(traveler, phone).label == options.label, "a later negative test did not lift it")
    print(f"ok python feed {green.label} {yellow.label} {yellow.rule} {green.label}")


class Feed:
    """A source of evidence, by a name that node.toml has in `feeds`, with what it may bring and in whose name."""

    def __init__(self, node, authority, document):
        self.node, self.authority = node, authority
        self.person = evidence.Person(document=document)  # Or by the platform's reference.

    def test(self, hours_ago, positive):
        return self.record(test=evidence.Test(sample_time=ago(hours_ago), positive=positive))

    def stay(self, area):
        return self.record(stay=evidence.Stay(area=area, enter_time=ago(48), leave_time=ago(24)))

    def record(self, **content):
        # The source's own id, by which a record is corrected (a higher `revision`) or withdrawn later.
        record_id = f"test-{secrets.token_hex(6)}"
        return evidence.EvidenceRecord(
            record_id=record_id, person=self.person, authority=self.authority, **content
        )

    def bring(self, *records):
        """Brings a batch. When it is answered, the codes that follow from it have changed. Returns a word a record.

        A feed with more to bring sends up to 8 batches ahead and goes on after a stream broke, as push.py does.
        """
        batch = evidence.PutEvidenceRequest(batch=1, records=records)  # dry_run=True would keep nothing.
        (answer,) = self.node.PutEvidence(iter([batch]), timeout=client.DEADLINE)
        for record, verdict in zip(records, answer.verdicts, strict=True):
            print(f"brought       {record.record_id}: {word(verdict)} {verdict.field} {verdict.detail}".rstrip())
        return [word(verdict) for verdict in answer.verdicts]


def word(verdict):
    if verdict.verdict == evidence.VERDICT_REFUSED:
        return error_reason_pb2.ErrorReason.Name(verdict.reason).removeprefix("ERROR_REASON_")
    return evidence.Verdict.Name(verdict.verdict).removeprefix("VERDICT_")


def code(traveler, phone):
    """What the traveler reads on the phone: the code, and why it is so."""
    request = traveler_pb2.GetCodeRequest(device_id=phone.device_id)
    answer = traveler.GetCode(request, timeout=client.DEADLINE)
    if not answer.HasField("code"):
        print("code          none")
        return None
    told = answer.code
    because = f", {told.rule_zh} ({told.rule}), {told.authority}" if told.rule else ""
    until = f", until {told.end_time.ToJsonString()}" if told.HasField("end_time") else ""
    print(f"code          {told.label}{because}{until}")
    return told


def ago(hours):
    return datetime.datetime.now(datetime.UTC) - datetime.timedelta(hours=hours)


if __name__ == "__main__":
    main()
