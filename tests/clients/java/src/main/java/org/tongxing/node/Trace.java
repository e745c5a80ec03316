package org.tongxing.node;

import io.grpc.Metadata;
import java.util.HexFormat;
import java.util.regex.Pattern;

/** Which trace a call belongs to: the caller's (W3C Trace Context), or one of its own. Every refusal names it. */
final class Trace {
  private static final Metadata.Key<String> TRACEPARENT =
      Metadata.Key.of("traceparent", Metadata.ASCII_STRING_MARSHALLER);
  private static final Pattern FORM =
      Pattern.compile("(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(-.{0,200})?");

  // So many digits could be a person's number.
  private static final Pattern NUMBER = Pattern.compile("[0-9]{16}");

  private Trace() {}

  /** 32 lower-case hexadecimal digits. */
  static String of(Metadata headers) {
    var values = headers.getAll(TRACEPARENT);
    String value = values == null ? "" : String.join("\n", values); // Two are none.
    var matcher = FORM.matcher(value);
    boolean whole = matcher.matches() && !(value.startsWith("00") && matcher.group(3) != null);
    if (whole && !NUMBER.matcher(matcher.group(1)).find() && !NUMBER.matcher(matcher.group(2)).find()) {
      return matcher.group(1);
    }
    String own;
    do {
      own = HexFormat.of().formatHex(Home.random(16));
    } while (NUMBER.matcher(own).find());
    return own;
  }
}
