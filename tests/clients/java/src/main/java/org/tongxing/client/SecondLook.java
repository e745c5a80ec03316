package org.tongxing.client;

import static org.tongxing.client.Signed.check;

import com.google.protobuf.ByteString;
import java.util.List;
import java.util.concurrent.TimeUnit;
import org.tongxing.recognition.v1.RecognitionServiceGrpc;
import org.tongxing.recognition.v1.RecognitionServiceGrpc.RecognitionServiceBlockingStub;
import org.tongxing.recognition.v1.RecognizeRequest;
import org.tongxing.recognition.v1.RecognizeResponse;
import org.tongxing.recognition.v1.Source;
import org.tongxing.traveler.v1.Access;
import org.tongxing.types.v1.Level;
import org.tongxing.types.v1.Purpose;

/**
 * Whether the gateway follows the home member's change log, as a gate sees it: a second look at a traveler is answered
 * from what is held, and a second after home acknowledged another code nobody is shown the old one. And the traveler soon
 * sees who asked, though home was not. No example to copy, but a check of a node; it takes the options of Client.
 */
final class SecondLook {
  private static final long SECOND = TimeUnit.SECONDS.toNanos(1);

  private SecondLook() {}

  public static void main(String[] arguments) throws Exception {
    var client = new Client(arguments);
    var request = request(client.venue, client.atHome());
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
      var red = ask(gateway, request);
      while (red.getLevel() != Level.LEVEL_RED) {
        check(System.nanoTime() - acknowledged < SECOND, "an old green a second after it was none");
        red = ask(gateway, request);
      }
      long asked = System.nanoTime();
      while (!isNewest(red, client.accesses())) { // Whatever the answer was from, the record of it goes home.
        check(System.nanoTime() - asked < 20 * SECOND, "the traveler does not see who asked last");
        Thread.sleep(200);
      }
      long seen = TimeUnit.NANOSECONDS.toMillis(asked - acknowledged);
      long listed = TimeUnit.NANOSECONDS.toMillis(System.nanoTime() - asked);
      String text = "ok second look from %s, another code seen after %d ms, who asked listed after %d ms%n";
      System.out.printf(text, green.getSource(), seen, listed);
    } finally {
      channel.shutdownNow();
    }
  }

  private static boolean isNewest(RecognizeResponse answer, List<Access> accesses) {
    return accesses.stream().findFirst().filter(a -> a.getExchangeId().equals(answer.getExchangeId())).isPresent();
  }

  /** What a venue asks, of the text of a QR. */
  static RecognizeRequest request(String venue, String text) {
    var shown = Client.Presentation.read(text);
    return RecognizeRequest.newBuilder()
        .setToken(ByteString.copyFrom(shown.token()))
        .setProof(ByteString.copyFrom(shown.proof()))
        .setVenue(venue)
        .setPurpose(Purpose.PURPOSE_ENTRY)
        .build();
  }

  static RecognizeResponse ask(RecognitionServiceBlockingStub gateway, RecognizeRequest request) {
    return gateway.withDeadlineAfter(3, TimeUnit.SECONDS).recognize(request);
  }
}
