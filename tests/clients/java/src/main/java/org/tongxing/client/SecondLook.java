package org.tongxing.client;

import static org.tongxing.client.Signed.check;

import com.google.protobuf.ByteString;
import java.util.concurrent.TimeUnit;
import org.tongxing.recognition.v1.RecognitionServiceGrpc;
import org.tongxing.recognition.v1.RecognitionServiceGrpc.RecognitionServiceBlockingStub;
import org.tongxing.recognition.v1.RecognizeRequest;
import org.tongxing.recognition.v1.RecognizeResponse;
import org.tongxing.recognition.v1.Source;
import org.tongxing.types.v1.Level;
import org.tongxing.types.v1.Purpose;

/**
 * Whether the gateway follows the home member's change log, as a gate sees it: a second look at a traveler is answered
 * from what is held, and a second after home acknowledged another code nobody is shown the old one. No example to copy,
 * but a check of a node; it takes the options of Client.
 */
final class SecondLook {
  private static final long SECOND = TimeUnit.SECONDS.toNanos(1);

  private SecondLook() {}

  public static void main(String[] arguments) throws Exception {
    var client = new Client(arguments);
    var shown = Client.Presentation.read(client.atHome());
    var request =
        RecognizeRequest.newBuilder()
            .setToken(ByteString.copyFrom(shown.token()))
            .setProof(ByteString.copyFrom(shown.proof()))
            .setVenue(client.venue)
            .setPurpose(Purpose.PURPOSE_ENTRY)
            .build();
    var channel = client.federation.gateway(client.venue);
    try {
      var gateway = RecognitionServiceGrpc.newBlockingStub(channel);
      var first = ask(gateway, request);
      check(first.getSource() == Source.SOURCE_HOME, "the first look is from " + first.getSource());
      long began = System.nanoTime();
      while (ask(gateway, request).getSource() != Source.SOURCE_CACHE) { // The gateway may have to connect anew.
        check(System.nanoTime() - began < 10 * SECOND, "no look is from the cache");
        Thread.sleep(100);
      }
      var green = ask(gateway, request);
      check(green.getLevel() == Level.LEVEL_GREEN, "not green");
      client.setCode("红码");
      long acknowledged = System.nanoTime();
      while (ask(gateway, request).getLevel() != Level.LEVEL_RED) {
        check(System.nanoTime() - acknowledged < SECOND, "an old green a second after it was none");
      }
      long seen = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - acknowledged);
      System.out.printf("ok second look from %s, another code seen after %d ms%n", green.getSource(), seen);
    } finally {
      channel.shutdownNow();
    }
  }

  private static RecognizeResponse ask(
      RecognitionServiceBlockingStub gateway, RecognizeRequest request) {
    return gateway.withDeadlineAfter(3, TimeUnit.SECONDS).recognize(request);
  }
}
