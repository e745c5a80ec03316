package org.tongxing.node;

import io.grpc.Context;
import io.grpc.Contexts;
import io.grpc.Deadline;
import io.grpc.ForwardingServerCall.SimpleForwardingServerCall;
import io.grpc.ForwardingServerCallListener.SimpleForwardingServerCallListener;
import io.grpc.Grpc;
import io.grpc.Metadata;
import io.grpc.ServerCall;
import io.grpc.ServerCallHandler;
import io.grpc.ServerInterceptor;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.io.InputStream;
import java.security.cert.CertificateException;
import java.security.cert.X509Certificate;
import java.util.Arrays;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;
import javax.net.ssl.SSLPeerUnverifiedException;
import org.tongxing.error.v1.ErrorReason;

/**
 * Around every call, outermost first: whatever status leaves, leaves with a documented reason; who calls, and may that
 * role call this; is there room; the deadline, which a stream has not; the size of each message, and whether its sender
 * is still believed.
 */
final class Edge implements ServerInterceptor {
  static final Context.Key<Peer> CALLER = Context.key("caller");
  static final Context.Key<String> TRACE = Context.key("trace");

  /** The largest request, in bytes: an object of 1,024 and what goes with it, many times; a thousand access records. */
  private static final int MAX_REQUEST_BYTES = 16 * 1024, MAX_DELIVERY_BYTES = 256 * 1024;

  private static final long MAX_SECONDS = 2;
  private static final int MAX_IN_FLIGHT = 1024, MAX_IN_FLIGHT_PER_CALLER = 512;
  private static final String HEALTH = "grpc.health.v1.Health";
  private static final Metadata.Key<byte[]> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);

  /** Who may call a service: a role, of this member or of the gateway. And how large its messages are at most. */
  private record Rule(String role, int maxBytes) {}

  private static final Map<String, Rule> RULES =
      Map.of(
          "tongxing.province.v1.ProvinceService", new Rule(Peer.GATEWAY, MAX_REQUEST_BYTES),
          "tongxing.access.v1.AccessLogService", new Rule(Peer.GATEWAY, MAX_DELIVERY_BYTES),
          "tongxing.traveler.v1.TravelerService", new Rule("backend", MAX_REQUEST_BYTES),
          "tongxing.assignment.v1.AssignmentService", new Rule("operator", MAX_REQUEST_BYTES));

  static final Set<String> SERVICES = RULES.keySet();

  /**
   * Methods of these services that this node does not serve: how its member's own data comes to it is its own affair, and
   * these are province-stub's doors for it.
   */
  private static final Set<String> NOT_SERVED =
      Set.of("ClearCode", "ExplainCode", "PutCodes", "GetCode", "ExportTraveler");

  private final String member;
  private final Peers peers;
  private final ScheduledExecutorService timer;
  private final Map<String, AtomicInteger> inFlight = new ConcurrentHashMap<>();
  private final AtomicInteger allInFlight = new AtomicInteger();

  Edge(String member, Peers peers, ScheduledExecutorService timer) {
    this.member = member;
    this.peers = peers;
    this.timer = timer;
  }

  @Override
  public <Q, A> ServerCall.Listener<Q> interceptCall(
      ServerCall<Q, A> bare, Metadata headers, ServerCallHandler<Q, A> next) {
    var call = new Guarded<>(bare, Trace.of(headers));
    try {
      var peer = identify(call);
      var method = call.getMethodDescriptor();
      if (HEALTH.equals(method.getServiceName())) {
        return next.startCall(call, headers);
      }
      var rule = authorize(peer, method.getServiceName(), method.getBareMethodName());
      return admit(peer, rule, call, headers, next);
    } catch (Refusal refusal) {
      call.refuse(refusal);
      return new ServerCall.Listener<>() {};
    }
  }

  private Peer identify(ServerCall<?, ?> call) {
    var session = call.getAttributes().get(Grpc.TRANSPORT_ATTR_SSL_SESSION);
    try {
      var chain = session.getPeerCertificates();
      return peers.verify(Arrays.copyOf(chain, chain.length, X509Certificate[].class));
    } catch (CertificateException | SSLPeerUnverifiedException e) { // It was believed at the handshake, and is no more.
      throw new Refusal(ErrorReason.ERROR_REASON_ROLE_NOT_ALLOWED)
          .with("role", "none").with("method", call.getMethodDescriptor().getBareMethodName());
    }
  }

  private Rule authorize(Peer peer, String service, String method) {
    var rule = RULES.get(String.valueOf(service));
    if (rule == null || NOT_SERVED.contains(method)) {
      throw new Refusal(ErrorReason.ERROR_REASON_METHOD_UNKNOWN);
    }
    String role = rule.role;
    if (!peer.role().equals(role)) {
      throw new Refusal(ErrorReason.ERROR_REASON_ROLE_NOT_ALLOWED).with("role", peer.role()).with("method", method);
    }
    if (!role.equals(Peer.GATEWAY) && !peer.realm().equals(member)) {
      throw new Refusal(ErrorReason.ERROR_REASON_MEMBER_NOT_ALLOWED).with("member", member);
    }
    return rule;
  }

  /** Takes a place among the calls under way, which the end of the call gives back, and starts the clock. */
  private <Q, A> ServerCall.Listener<Q> admit(
      Peer peer, Rule rule, Guarded<Q, A> call, Metadata headers, ServerCallHandler<Q, A> next) {
    var own = inFlight.computeIfAbsent(peer.uri(), uri -> new AtomicInteger());
    boolean ownFits = own.incrementAndGet() <= MAX_IN_FLIGHT_PER_CALLER;
    boolean fits = allInFlight.incrementAndGet() <= MAX_IN_FLIGHT;
    Runnable leave = () -> {
      own.decrementAndGet();
      allInFlight.decrementAndGet();
    };
    if (!ownFits || !fits) {
      leave.run();
      throw new Refusal(ErrorReason.ERROR_REASON_OVERLOADED).with("limit", fits ? "caller" : "all");
    }
    var known = Context.current().withValues(CALLER, peer, TRACE, call.trace);
    // The earlier of the caller's deadline and ours.
    var deadline = Deadline.after(MAX_SECONDS, TimeUnit.SECONDS);
    boolean streams = !call.getMethodDescriptor().getType().clientSendsOneMessage();
    var context = streams ? known.withCancellation() : known.withDeadline(deadline, timer);
    context.addListener(
        ended -> {
          if (ended.cancellationCause() instanceof TimeoutException) {
            call.refuse(new Refusal(ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED));
          }
        },
        Runnable::run);
    var listener = new Bounded<>(Contexts.interceptCall(context, call, headers, next), call, rule.maxBytes);
    call.onEnd = () -> {
      leave.run();
      context.cancel(null);
    };
    return listener;
  }

  /** A call that is closed once, with a documented reason: the deadline and the answer may race for it. */
  private static final class Guarded<Q, A> extends SimpleForwardingServerCall<Q, A> {
    private final String trace;
    private boolean closed;
    private Runnable onEnd = () -> {};

    Guarded(ServerCall<Q, A> call, String trace) {
      super(call);
      this.trace = trace;
    }

    void refuse(Refusal refusal) {
      var status = refusal.toStatus(trace);
      close(status.getStatus(), status.getTrailers());
    }

    @Override
    public synchronized void sendHeaders(Metadata headers) {
      if (!closed) {
        super.sendHeaders(headers);
      }
    }

    @Override
    public synchronized void sendMessage(A message) {
      if (!closed) {
        super.sendMessage(message);
      }
    }

    @Override
    public synchronized void close(Status status, Metadata trailers) {
      if (closed) {
        return;
      }
      closed = true;
      if (status.isOk() || trailers.containsKey(DETAILS)) {
        super.close(status, trailers);
        return;
      }
      // A bare status is the library's word on the request: no message, two of them, or a method that is not there.
      boolean unknown = status.getCode() == Status.Code.UNIMPLEMENTED;
      var reason = unknown ? ErrorReason.ERROR_REASON_METHOD_UNKNOWN : ErrorReason.ERROR_REASON_REQUEST_MALFORMED;
      var documented = new Refusal(reason).toStatus(trace);
      super.close(documented.getStatus(), documented.getTrailers());
    }
  }

  /** Messages are of their documented size, decode, and come from whom the trust list still vouches for. */
  private final class Bounded<Q> extends SimpleForwardingServerCallListener<Q> {
    private final Guarded<Q, ?> call;
    private final int maxBytes;

    Bounded(ServerCall.Listener<Q> listener, Guarded<Q, ?> call, int maxBytes) {
      super(listener);
      this.call = call;
      this.maxBytes = maxBytes;
    }

    @Override
    public void onMessage(Q message) {
      try {
        if (message instanceof InputStream bytes && bytes.available() > maxBytes) {
          call.refuse(new Refusal(ErrorReason.ERROR_REASON_REQUEST_TOO_LARGE).with("max_bytes", maxBytes));
          return;
        }
        identify(call);
        super.onMessage(message);
      } catch (Refusal refusal) {
        call.refuse(refusal);
      } catch (StatusRuntimeException | IOException e) {
        call.refuse(new Refusal(ErrorReason.ERROR_REASON_REQUEST_MALFORMED));
      }
    }

    @Override
    public void onComplete() {
      call.onEnd.run();
      super.onComplete();
    }

    @Override
    public void onCancel() {
      call.onEnd.run();
      super.onCancel();
    }
  }
}
