package org.tongxing.client;

import static org.tongxing.client.Signed.check;

import io.grpc.CallOptions;
import io.grpc.Channel;
import io.grpc.ClientCall;
import io.grpc.ClientInterceptor;
import io.grpc.ClientInterceptors;
import io.grpc.ForwardingClientCall.SimpleForwardingClientCall;
import io.grpc.ForwardingClientCallListener.SimpleForwardingClientCallListener;
import io.grpc.Metadata;
import io.grpc.MethodDescriptor;
import io.grpc.Status;
import java.nio.file.Path;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashMap;
import java.util.List;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import org.tongxing.assignment.v1.CodeVerdict;
import org.tongxing.recognition.v1.Decision;
import org.tongxing.recognition.v1.RecognitionServiceGrpc;

/**
 * Whether what a platform pushes is federated, and only once: its stream breaks on the way, with answers lost; the same
 * table again changes nothing; a person of it is recognised in another province; and a second after home acknowledged a
 * red, nobody sees the green. No example to copy, but a check of PushCodes and of a node; it takes the options of Client.
 */
final class PushCheck {
  private static final int PEOPLE = 2750; // More batches than may be on their way at once.
  private static final int TRAVELER = 300; // In the second batch, whose answer gets lost.
  private static final long SECOND = TimeUnit.SECONDS.toNanos(1);

  private PushCheck() {}

  public static void main(String[] arguments) throws Exception {
    var options = new HashMap<String, String>();
    for (int i = 0; i + 1 < arguments.length; i += 2) {
      options.put(arguments[i], arguments[i + 1]);
    }
    var dir = Path.of(options.getOrDefault("--dir", ".tongxing"));
    String member = options.getOrDefault("--member", "44");
    var channel = Federation.node(dir, member, "backend");
    try {
      var table = people();
      String reference = table.get(TRAVELER).reference();

      // Nothing is lost and nothing doubled: a batch that comes twice is answered as it was the first time.
      var first = new PushCodes(ClientInterceptors.intercept(channel, new Breaking())).push(table.iterator());
      System.out.println(first);
      check(first.broken() > 0, "the stream did not break");
      check(first.of(CodeVerdict.CODE_VERDICT_ASSIGNED) == PEOPLE, "not everybody has a code, or somebody was doubled");
      check(first.of(CodeVerdict.CODE_VERDICT_REFUSED) == 1, "a label that the policy does not have was taken");

      // The same table again, under other request ids.
      var again = new PushCodes(channel).push(table.iterator());
      System.out.println(again);
      check(again.of(CodeVerdict.CODE_VERDICT_UNCHANGED) == PEOPLE, "what holds already was not unchanged");

      // The app's server says whose the reference is, and a venue of another province sees the code.
      var whose = new ArrayList<>(Arrays.asList(arguments));
      Collections.addAll(whose, "--reference", reference);
      var client = new Client(whose.toArray(String[]::new));
      String text = client.atHome();
      client.atTheGate(text);
      check(client.codesOnFile() == 1, "the traveler has more codes on file than were assigned");

      // The platform turns them red.
      var red = new PushCodes.Row(reference, "红码", "R-CASE", member + "/cdc", Instant.now());
      var turned = new PushCodes(channel).push(List.of(red).iterator());
      long acknowledged = System.nanoTime();
      check(turned.of(CodeVerdict.CODE_VERDICT_ASSIGNED) == 1, "the red was not taken");
      System.out.println(turned);
      long seen = stopped(client, text, acknowledged);
      check(client.codesOnFile() == 2, "the traveler has not both codes on file");
      System.out.printf("STOP          seen %d ms after home's word%n", TimeUnit.NANOSECONDS.toMillis(seen));
      System.out.println("ok java push PASS STOP");
    } finally {
      channel.shutdownNow();
    }
  }

  /** People whom nobody else has: green, without a rule, and one with a word that is not the member's. */
  private static List<PushCodes.Row> people() {
    String run = UUID.randomUUID().toString().substring(24);
    var yesterday = Instant.now().minusSeconds(24 * 3600);
    var people = new ArrayList<PushCodes.Row>();
    for (int i = 0; i < PEOPLE; i++) {
      people.add(new PushCodes.Row(run + "-" + i, "绿码", "", "", yesterday));
    }
    people.add(new PushCodes.Row(run + "-violet", "紫码", "R-CASE", "44/cdc", yesterday));
    return people;
  }

  /** Asks until the gate stops them, which must be within a second. Returns after how long it was, in nanoseconds. */
  private static long stopped(Client client, String text, long acknowledged) throws Exception {
    var request = SecondLook.request(client.venue, text);
    var channel = client.federation.gateway(client.venue);
    try {
      var gateway = RecognitionServiceGrpc.newBlockingStub(channel);
      while (SecondLook.ask(gateway, request).getDecision() != Decision.DECISION_STOP) {
        check(System.nanoTime() - acknowledged < SECOND, "an old green a second after it was none");
      }
      return System.nanoTime() - acknowledged;
    } finally {
      channel.shutdownNow();
    }
  }

  /**
   * The first call breaks: its first answer arrives, the next three get lost on the way, and the connection with them. So
   * home has what they were about, and the platform does not know.
   */
  private static final class Breaking implements ClientInterceptor {
    private static final int LOST = 3;
    private boolean broke;

    @Override
    public <Q, A> ClientCall<Q, A> interceptCall(MethodDescriptor<Q, A> method, CallOptions options, Channel next) {
      var call = next.newCall(method, options);
      if (broke) {
        return call;
      }
      broke = true;
      return new SimpleForwardingClientCall<>(call) {
        private volatile boolean gone;
        private int answers;

        @Override
        public void sendMessage(Q message) {
          if (!gone) {
            super.sendMessage(message);
          }
        }

        @Override
        public void start(Listener<A> listener, Metadata headers) {
          super.start(new SimpleForwardingClientCallListener<>(listener) {
            @Override
            public void onMessage(A answer) {
              answers++;
              if (answers == 1) {
                super.onMessage(answer);
              } else if (answers <= LOST) {
                request(1);
              } else if (!gone) {
                gone = true;
                cancel("the connection is lost", null);
              }
            }

            @Override
            public void onClose(Status status, Metadata trailers) {
              super.onClose(gone ? Status.UNAVAILABLE : status, trailers);
            }
          }, headers);
        }
      };
    }
  }
}
