package org.tongxing.node;

import com.google.protobuf.ByteString;
import io.grpc.stub.ServerCallStreamObserver;
import io.grpc.stub.StreamObserver;
import java.util.ArrayDeque;
import java.util.Arrays;
import java.util.HashSet;
import java.util.List;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.tongxing.error.v1.ErrorReason;
import org.tongxing.province.v1.Change;
import org.tongxing.province.v1.ChangeBatch;
import org.tongxing.province.v1.LogPosition;
import org.tongxing.province.v1.Opening;
import org.tongxing.province.v1.ProbeEcho;
import org.tongxing.province.v1.Resumption;
import org.tongxing.province.v1.WatchChangesRequest;
import org.tongxing.province.v1.WatchChangesResponse;
import org.tongxing.province.v1.WatchStart;

/**
 * The change stream. One thread reads the log and writes all streams, so that the order of things is the order of its
 * steps: a probe came, the head is read, every event up to it is sent, then the echo. Whoever has the echo has all that
 * was acknowledged before the probe was sent; a gateway answers from what it holds on the strength of that alone.
 */
final class Watchers implements AutoCloseable {
  private static final Logger LOG = Logger.getLogger(Watchers.class.getName());
  private static final int MAX_STREAMS = 64, MAX_PROBES = 32, MAX_BATCH = 1000;
  private static final long SLOW_SECONDS = 2;

  private final Store store;
  private final ScheduledExecutorService worker = Executors.newSingleThreadScheduledExecutor();
  private final Set<Stream> streams = new HashSet<>(); // The worker's.
  private final AtomicInteger places = new AtomicInteger(MAX_STREAMS);
  private final AtomicBoolean told = new AtomicBoolean();

  Watchers(Store store) {
    this.store = store;
    store.onAppend(() -> { // Events leave as they are committed; echoes do not depend on that.
      if (!told.getAndSet(true)) {
        worker.execute(() -> {
          told.set(false);
          List.copyOf(streams).forEach(Stream::pump);
        });
      }
    });
  }

  StreamObserver<WatchChangesRequest> open(StreamObserver<WatchChangesResponse> observer) {
    var stream = new Stream((ServerCallStreamObserver<WatchChangesResponse>) observer);
    if (places.getAndDecrement() <= 0) {
      places.incrementAndGet();
      observer.onError(overloaded("watchers").toStatus(stream.trace));
    } else {
      worker.execute(() -> streams.add(stream));
    }
    return stream;
  }

  /** Ends all streams: whoever follows goes on elsewhere, or here when the node is back. */
  @Override
  public void close() {
    worker.execute(() -> List.copyOf(streams).forEach(Stream::complete));
    worker.shutdown();
  }

  private static Refusal overloaded(String limit) {
    return new Refusal(ErrorReason.ERROR_REASON_OVERLOADED).with("limit", limit);
  }

  private final class Stream implements StreamObserver<WatchChangesRequest> {
    private final ServerCallStreamObserver<WatchChangesResponse> responses;
    private final String trace = Edge.TRACE.get();
    private final AtomicInteger unanswered = new AtomicInteger();
    private boolean started; // Requests come one after the other.

    // All below is the worker's.
    private final Queue<Long> probes = new ArrayDeque<>();
    private Store.Head position; // Null before the opening.
    private long turns; // How often there was room for more.
    private boolean waits;

    Stream(ServerCallStreamObserver<WatchChangesResponse> responses) {
      this.responses = responses;
      responses.setOnCancelHandler(() -> run(this::leave));
      responses.setOnCloseHandler(() -> run(this::leave));
      responses.setOnReadyHandler(() -> run(() -> {
        turns++;
        pump();
      }));
    }

    @Override
    public void onNext(WatchChangesRequest request) {
      try {
        if (!started) {
          started = true;
          var after = after(request);
          run(() -> begin(after));
        } else if (request.hasProbe() && unanswered.incrementAndGet() <= MAX_PROBES) {
          run(() -> {
            probes.add(request.getProbe().getNumber());
            pump();
          });
        } else {
          throw new Refusal(ErrorReason.ERROR_REASON_REQUEST_MALFORMED);
        }
      } catch (Refusal refusal) {
        run(() -> refuse(refusal));
      }
    }

    @Override
    public void onError(Throwable gone) {
      run(this::leave);
    }

    @Override
    public void onCompleted() {
      run(this::complete);
    }

    /** The position to begin at; null is the head. */
    private Store.Head after(WatchChangesRequest request) {
      if (!request.hasStart()) {
        throw Refusal.missing("start");
      }
      WatchStart start = request.getStart();
      if (start.hasAfter() && start.getAfter().getEpoch().size() != 16) {
        throw Refusal.invalid("start.after.epoch", "16 bytes");
      }
      var after = start.getAfter();
      return start.hasAfter() ? new Store.Head(after.getEpoch().toByteArray(), after.getSeq()) : null;
    }

    /** A step of the worker, while the stream lasts. */
    private void run(Runnable step) {
      if (worker.isShutdown()) {
        return;
      }
      worker.execute(() -> {
        if (streams.contains(this)) {
          step.run();
        }
      });
    }

    private void begin(Store.Head after) {
      guard(() -> {
        record Beginning(Store.Head position, Resumption resumption) {}
        var beginning = store.transaction(() -> {
          var head = store.head();
          if (after == null) {
            return new Beginning(head, Resumption.RESUMPTION_AT_HEAD);
          }
          if (!Arrays.equals(after.epoch(), head.epoch()) || Long.compareUnsigned(after.seq(), head.seq()) > 0) {
            return new Beginning(head, Resumption.RESUMPTION_OTHER_LOG);
          }
          // What has the next event has all later ones.
          boolean whole = after.seq() == head.seq() || !store.changes(after.seq(), after.seq() + 1, 1).isEmpty();
          return whole
              ? new Beginning(after, Resumption.RESUMPTION_RESUMED)
              : new Beginning(head, Resumption.RESUMPTION_TOO_OLD);
        });
        position = beginning.position;
        var opening = Opening.newBuilder().setAfter(wire(position)).setResumption(beginning.resumption);
        responses.onNext(WatchChangesResponse.newBuilder().setOpening(opening).build());
        pump();
      });
    }

    /** Sends what there is to say: all events up to a head that is read now, then the echoes of probes before it. */
    private void pump() {
      guard(() -> {
        if (position == null || !ready()) {
          return;
        }
        int came = probes.size();
        var head = store.transaction(store::head);
        while (position.seq() < head.seq()) {
          if (!ready()) {
            return;
          }
          long last = position.seq();
          var changes = store.transaction(() -> store.changes(last, head.seq(), MAX_BATCH));
          if (changes.isEmpty() || changes.get(0).seq() != last + 1) {
            throw overloaded("slow_reader"); // What it waits for was forgotten meanwhile: it begins anew.
          }
          responses.onNext(WatchChangesResponse.newBuilder().setBatch(batch(changes)).build());
          position = new Store.Head(head.epoch(), last + changes.size());
        }
        for (; came > 0 && ready(); came--) {
          var echo = ProbeEcho.newBuilder().setNumber(probes.remove()).setHead(wire(head));
          responses.onNext(WatchChangesResponse.newBuilder().setEcho(echo).build());
          unanswered.decrementAndGet();
        }
      });
    }

    /** Whether the reader takes more. One that takes nothing for a while is cut off, and resumes where it stood. */
    private boolean ready() {
      if (responses.isReady()) {
        return true;
      }
      if (!waits) {
        waits = true;
        long before = turns;
        worker.schedule(() -> run(() -> {
          waits = false;
          if (turns == before && !responses.isReady()) {
            refuse(overloaded("slow_reader"));
          }
        }), SLOW_SECONDS, TimeUnit.SECONDS);
      }
      return false;
    }

    private void guard(Step step) {
      try {
        step.run();
      } catch (Refusal refusal) {
        refuse(refusal);
      } catch (Exception e) {
        LOG.log(Level.SEVERE, "a defect, trace " + trace, e);
        refuse(new Refusal(ErrorReason.ERROR_REASON_INTERNAL).with("trace", trace));
      }
    }

    private void refuse(Refusal refusal) {
      leave();
      responses.onError(refusal.toStatus(trace));
    }

    private void complete() {
      leave();
      responses.onCompleted();
    }

    private void leave() {
      if (streams.remove(this)) {
        places.incrementAndGet();
      }
    }
  }

  private interface Step {
    void run() throws Exception;
  }

  private static LogPosition wire(Store.Head head) {
    return LogPosition.newBuilder().setEpoch(ByteString.copyFrom(head.epoch())).setSeq(head.seq()).build();
  }

  private static ChangeBatch.Builder batch(List<Store.Change> changes) {
    var batch = ChangeBatch.newBuilder().setFirstSeq(changes.get(0).seq());
    for (var change : changes) {
      batch.addChanges(Change.newBuilder().setCti(ByteString.copyFrom(change.cti())).setKind(change.kind()));
    }
    return batch;
  }
}
