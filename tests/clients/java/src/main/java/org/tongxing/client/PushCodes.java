package org.tongxing.client;

import static org.tongxing.client.Signed.check;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Timestamp;
import com.google.rpc.ErrorInfo;
import io.grpc.Channel;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.StreamObserver;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.EnumMap;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.tongxing.assignment.v1.AssignmentServiceGrpc;
import org.tongxing.assignment.v1.AssignmentServiceGrpc.AssignmentServiceStub;
import org.tongxing.assignment.v1.CodeVerdict;
import org.tongxing.assignment.v1.PushedCode;
import org.tongxing.assignment.v1.PutCodesRequest;
import org.tongxing.assignment.v1.PutCodesResponse;

/**
 * A province keeps its platform, which assigns codes as before (赋码), and federates them: it pushes what it assigns to the
 * member's node, and every venue of the country sees it within a second.
 *
 * <p>This is all that such a platform adds: its table of people, a stream of batches over mTLS, an eye on each verdict, and
 * going on after the stream broke. Run it for the whole table once, and from then on for what changed: what holds already
 * is UNCHANGED and costs nothing, so that nobody need know what has been pushed before.
 *
 * <p>When a person's phone enrols, the app's server says whose it is (EnrollDeviceRequest, `person_reference`).
 */
final class PushCodes {
  private static final int BATCH = 250; // Codes; 500 at most, and 256 KiB.
  private static final int AHEAD = 8; // Batches sent and not answered, at most.
  private static final long ANSWER = 40; // Seconds. The node answers within 30, or ends the stream.
  private static final long PATIENCE = 60; // Seconds without any answer, for which the node may be away.
  private static final long PAUSE = 500; // Milliseconds, between two attempts.
  // Why a node may refuse today what it takes tomorrow. OVERLOADED: it has not noticed yet that the last stream broke.
  private static final Set<String> PASSING = Set.of("OVERLOADED", "STORE_UNAVAILABLE", "TRUST_EXPIRED");

  private final AssignmentServiceStub node;
  private final Tally tally = new Tally();

  PushCodes(Channel channel) {
    node = AssignmentServiceGrpc.newStub(channel);
  }

  /** Options: --dir, --member, and --table for a CSV file. Ends with status 1 if a code was refused. */
  public static void main(String[] arguments) throws Exception {
    var options = new HashMap<String, String>();
    for (int i = 0; i + 1 < arguments.length; i += 2) {
      options.put(arguments[i], arguments[i + 1]);
    }
    var table = read(Path.of(options.getOrDefault("--table", "tests/clients/codes.csv")));
    var dir = Path.of(options.getOrDefault("--dir", ".tongxing"));
    // The certificate is a backend's, by a name that node.toml has in `platforms`. Only the member's own CA is believed.
    var channel = Federation.node(dir, options.getOrDefault("--member", "44"), "backend");
    try {
      var tally = new PushCodes(channel).push(table.iterator());
      System.out.println(tally);
      System.exit(tally.of(CodeVerdict.CODE_VERDICT_REFUSED) == 0 ? 0 : 1);
    } finally {
      channel.shutdownNow();
    }
  }

  // --- The platform's own table --------------------------------------------------------------------------------------

  /**
   * A person's code, as the platform has it. The reference is whatever the platform knows them by, but never the number of
   * an identity document. Without a label: there is no code any more.
   */
  record Row(String reference, String label, String rule, String authority, Instant assigned) {
    PushedCode toCode() {
      return PushedCode.newBuilder()
          .setPersonReference(reference)
          .setLabel(label) // In the member's own words, as the national policy lists them for it.
          .setRule(rule) // A green may have none, and no authority either.
          .setAuthority(authority)
          .setAssignTime(Timestamp.newBuilder().setSeconds(assigned.getEpochSecond()).setNanos(assigned.getNano()))
          .build();
    }
  }

  /** In life: a query. This file has a header and no quotes. */
  static List<Row> read(Path file) throws IOException {
    return Files.readAllLines(file).stream()
        .skip(1)
        .map(line -> line.split(",", -1))
        .map(value -> new Row(value[0], value[1], value[2], value[3], Instant.parse(value[4])))
        .toList();
  }

  // --- The push ------------------------------------------------------------------------------------------------------

  /** Some rows on their way. The id is made once and stays: by it the node knows a batch that comes twice. */
  private record Batch(List<Row> rows, PutCodesRequest request) {
    static Batch of(Iterator<Row> table) {
      var rows = new ArrayList<Row>(BATCH);
      while (table.hasNext() && rows.size() < BATCH) {
        rows.add(table.next());
      }
      var request = PutCodesRequest.newBuilder().setRequestId(UUID.randomUUID().toString());
      rows.forEach(row -> request.addCodes(row.toCode()));
      return new Batch(rows, request.build());
    }
  }

  /** Pushes a table to its end, whatever becomes of single streams. An error is one that does not pass. */
  Tally push(Iterator<Row> table) throws InterruptedException {
    var waiting = new ArrayDeque<Batch>(); // Sent and not answered, in order.
    long lastAnswer = System.nanoTime();
    while (table.hasNext() || !waiting.isEmpty()) {
      var stream = new Stream(node);
      try {
        // What was not answered goes first, as it was. The node may have it, or not: the answer is the same.
        waiting.forEach(stream::send);
        fill(stream, waiting, table);
        while (!waiting.isEmpty()) {
          settle(waiting.element(), stream.answer());
          waiting.remove();
          lastAnswer = System.nanoTime();
          fill(stream, waiting, table);
        }
        stream.end();
      } catch (StatusRuntimeException broken) {
        stream.abandon();
        boolean patient = System.nanoTime() - lastAnswer < TimeUnit.SECONDS.toNanos(PATIENCE);
        if (!passes(broken) || !patient) {
          throw broken;
        }
        tally.broken++;
        Thread.sleep(PAUSE);
      }
    }
    return tally;
  }

  /** Sends as much as may be on its way. */
  private static void fill(Stream stream, Queue<Batch> waiting, Iterator<Row> table) {
    while (waiting.size() < AHEAD && table.hasNext()) {
      var batch = Batch.of(table);
      waiting.add(batch);
      stream.send(batch);
    }
  }

  /** A batch is answered: what it says is durable, and the national gateway hears of it. One verdict a code, in order. */
  private void settle(Batch batch, PutCodesResponse answer) {
    boolean inStep = answer.getRequestId().equals(batch.request.getRequestId());
    check(inStep && answer.getVerdictsCount() == batch.rows.size(), "the answer to another batch");
    for (int i = 0; i < batch.rows.size(); i++) {
      var verdict = answer.getVerdicts(i);
      tally.counts.merge(verdict.getVerdict(), 1, Integer::sum);
      if (verdict.getVerdict() == CodeVerdict.CODE_VERDICT_REFUSED) { // It holds up no other. Mend it and push it again.
        String reason = verdict.getReason().name().substring("ERROR_REASON_".length());
        String what = verdict.getField().isEmpty() ? "" : " " + verdict.getField() + ": " + verdict.getDetail();
        System.out.println("refused       " + batch.rows.get(i).reference + " " + reason + what);
      }
    }
    tally.changedConsents += answer.getChangedConsents();
  }

  /** Whether the same may do another time: the node, or the way to it, is away for a while. */
  private static boolean passes(StatusRuntimeException broken) {
    for (var detail : StatusProto.fromThrowable(broken).getDetailsList()) {
      if (detail.is(ErrorInfo.class)) { // The node's own word.
        try {
          return PASSING.contains(detail.unpack(ErrorInfo.class).getReason());
        } catch (InvalidProtocolBufferException e) {
          return false;
        }
      }
    }
    return switch (broken.getStatus().getCode()) { // The network's, or the library's.
      case UNAVAILABLE, UNKNOWN, CANCELLED, DEADLINE_EXCEEDED -> true;
      default -> false;
    };
  }

  // --- One stream ----------------------------------------------------------------------------------------------------

  /** Answers come on grpc-java's threads and are taken out by the one that pushes. No more wait than batches were sent. */
  private static final class Stream implements StreamObserver<PutCodesResponse> {
    private record Event(PutCodesResponse answer, Throwable end) {}

    private final BlockingQueue<Event> events = new LinkedBlockingQueue<>();
    private final StreamObserver<PutCodesRequest> requests;

    Stream(AssignmentServiceStub node) {
      requests = node.putCodes(this);
    }

    /** What is sent on a broken stream goes nowhere; that it is broken is told where answers are awaited. */
    void send(Batch batch) {
      requests.onNext(batch.request);
    }

    PutCodesResponse answer() throws InterruptedException {
      var event = next();
      if (event.answer == null) {
        throw Status.fromThrowable(event.end).asRuntimeException(Status.trailersFromThrowable(event.end));
      }
      return event.answer;
    }

    /** Nothing more is sent; waits for the node's own end, behind which another stream may begin. */
    void end() throws InterruptedException {
      requests.onCompleted();
      next();
    }

    void abandon() {
      requests.onError(Status.CANCELLED.asException());
    }

    private Event next() throws InterruptedException {
      var event = events.poll(ANSWER, TimeUnit.SECONDS);
      return event != null ? event : new Event(null, Status.DEADLINE_EXCEEDED.asException());
    }

    @Override
    public void onNext(PutCodesResponse answer) {
      events.add(new Event(answer, null));
    }

    @Override
    public void onError(Throwable broken) {
      events.add(new Event(null, broken));
    }

    @Override
    public void onCompleted() {
      onError(Status.UNAVAILABLE.withDescription("the node ended the stream").asException());
    }
  }

  /** What became of a table. */
  static final class Tally {
    private final Map<CodeVerdict, Integer> counts = new EnumMap<>(CodeVerdict.class);
    private int changedConsents, broken;

    int of(CodeVerdict verdict) {
      return counts.getOrDefault(verdict, 0);
    }

    /** How many times the stream broke. */
    int broken() {
      return broken;
    }

    @Override
    public String toString() {
      return String.format(
          "pushed        %d codes: %d assigned, %d unchanged, %d withdrawn, %d refused; "
              + "%d consents changed; broken %d times",
          counts.values().stream().mapToInt(Integer::intValue).sum(),
          of(CodeVerdict.CODE_VERDICT_ASSIGNED),
          of(CodeVerdict.CODE_VERDICT_UNCHANGED),
          of(CodeVerdict.CODE_VERDICT_WITHDRAWN),
          of(CodeVerdict.CODE_VERDICT_REFUSED),
          changedConsents,
          broken);
    }
  }
}
