"""The member's own platform pushes the codes it assigns (赋码): a table becomes a stream, which goes on after it broke.

An invented table is pushed over a stream that breaks, then once more; one of its people is recognised at the venue.
"""

import datetime
import itertools
import queue
import secrets
import time
import uuid
from collections import Counter, deque

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

import client
from signed import check
from tongxing.assignment.v1 import assignment_pb2 as assignment, assignment_pb2_grpc
from tongxing.error.v1 import error_reason_pb2
from tongxing.traveler.v1 import traveler_pb2_grpc
from tongxing.types.v1 import types_pb2 as types

BATCH = 250  # Codes; 500 at most, and 256 KiB.
AHEAD = 8  # Batches sent and not answered, at most.
STREAM = 300  # Seconds. What is not answered by then goes on in another stream.
PATIENCE = 60  # Seconds without any answer, for which the node may be away.
PAUSE = 0.5  # Seconds, between two attempts.


def push(node, table):
    """Pushes a table to its end, whatever becomes of single streams. Returns how often each verdict came."""
    codes, waiting = iter(table), deque()  # Sent and not answered, in order.
    verdicts, last_answer = Counter(), time.monotonic()
    while True:
        requests = queue.SimpleQueue()
        for batch in waiting:  # The node may have it, or not: under the same request id the answer is the same.
            requests.put(batch)
        fill(requests, waiting, codes)
        if not waiting:
            return verdicts
        stream = node.PutCodes(iter(requests.get, None), timeout=STREAM)
        try:
            for answer in stream:
                settle(waiting.popleft(), answer, verdicts)
                last_answer = time.monotonic()
                fill(requests, waiting, codes)
                if not waiting:
                    requests.put(None)  # Nothing more is sent, so the node ends the stream.
        except grpc.RpcError as error:
            requests.put(None)
            if not passes(error) or time.monotonic() - last_answer > PATIENCE:
                raise
            verdicts["broken"] += 1
            time.sleep(PAUSE)


def fill(requests, waiting, codes):
    """Sends as much as may be on its way. A request id is made once, with its batch."""
    while len(waiting) < AHEAD and (batch := list(itertools.islice(codes, BATCH))):
        waiting.append(assignment.PutCodesRequest(request_id=str(uuid.uuid4()), codes=batch))
        requests.put(waiting[-1])


def settle(batch, answer, verdicts):
    """A batch is answered, so it is durable. One verdict a code, in order; a refused one holds up no other."""
    in_step = answer.request_id == batch.request_id and len(answer.verdicts) == len(batch.codes)
    check(in_step, "the answer to another batch")
    for code, verdict in zip(batch.codes, answer.verdicts):
        verdicts[assignment.CodeVerdict.Name(verdict.verdict)] += 1
        if verdict.verdict == assignment.CODE_VERDICT_REFUSED:
            reason = error_reason_pb2.ErrorReason.Name(verdict.reason)
            print(f"refused       {code.person_reference} {reason} {verdict.field} {verdict.detail}")


def passes(error):
    """Whether the same may do another time: the node, or the way to it, is away for a while."""
    status = rpc_status.from_call(error)
    for detail in status.details if status else []:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):  # The node's own word. OVERLOADED: it has not noticed that the last stream broke.
            return info.reason in ("OVERLOADED", "STORE_UNAVAILABLE", "TRUST_EXPIRED")
    away = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN)  # The network's, or the library's.
    return error.code() in (*away, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED)


# --- An invented table, pushed over a stream that breaks --------------------------------------------------------------


class Lost(grpc.RpcError):
    """What a program is told when its connection breaks."""

    def code(self):
        return grpc.StatusCode.UNAVAILABLE

    def details(self):
        return "the connection is lost"

    def trailing_metadata(self):
        return ()


class Breaking:
    """A node whose first stream breaks: one answer arrives, the next three get lost, and the connection with them."""

    def __init__(self, node):
        self.node, self.PutCodes = node, self.put_codes_and_break

    def put_codes_and_break(self, requests, timeout):
        self.PutCodes = self.node.PutCodes  # The next stream is whole.
        stream = self.node.PutCodes(requests, timeout=timeout)
        yield next(stream)
        for _ in range(3):
            next(stream)
        stream.cancel()
        raise Lost


def main():
    options = client.parse_options()
    federation = client.Federation(options.dir, options.venue)
    run, now = secrets.token_hex(6), datetime.datetime.now(datetime.UTC)
    table = [
        assignment.PushedCode(
            person_reference=f"{run}-{number}",  # What the platform knows them by; never an identity document's number.
            label=options.label,
            assign_time=now - datetime.timedelta(days=1),
        )
        for number in range(2750)
    ]
    with federation.node(options.member, "backend") as channel:  # By a name that node.toml has in `platforms`.
        node = assignment_pb2_grpc.AssignmentServiceStub(channel)
        first, again = push(Breaking(node), table), push(node, table)
        # A batch that came twice was answered as it was the first time, so that everybody is counted once.
        check(first == {"broken": 1, "CODE_VERDICT_ASSIGNED": len(table)}, f"lost or doubled: {first}")
        check(again == {"CODE_VERDICT_UNCHANGED": len(table)}, f"again: {again}")
        print(f"pushed        {dict(first)}, and again {dict(again)}")

        # The app's server says whose the reference is: one of the second batch, whose answer got lost.
        traveler = traveler_pb2_grpc.TravelerServiceStub(channel)
        phone = client.Phone(traveler, options.document, options.name, table[BATCH].person_reference)
        purposes = [types.PURPOSE_ENTRY, types.PURPOSE_TRAVEL]
        phone.consent(traveler, audience=options.venue.split("/")[1], purposes=purposes)
    client.at_the_gate(federation, options, phone.present(options.venue))


if __name__ == "__main__":
    main()
