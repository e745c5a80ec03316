package org.tongxing.client;

import java.io.ByteArrayOutputStream;

/** Base45 (RFC 9285): the bytes of a presentation in the alphanumeric characters of a QR. */
final class Base45 {
  private static final String ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:";

  private Base45() {}

  /** Two bytes become three characters, the lowest digit first; a last single byte two. */
  static String encode(byte[] data) {
    var text = new StringBuilder();
    for (int i = 0; i < data.length; i += 2) {
      boolean pair = i + 1 < data.length;
      int value = pair ? (data[i] & 0xff) << 8 | data[i + 1] & 0xff : data[i] & 0xff;
      for (int digit = 0; digit < (pair ? 3 : 2); digit++) {
        text.append(ALPHABET.charAt(value % 45));
        value /= 45;
      }
    }
    return text.toString();
  }

  static byte[] decode(String text) {
    var data = new ByteArrayOutputStream();
    for (int i = 0; i < text.length(); i += 3) {
      int digits = Math.min(3, text.length() - i);
      int value = 0;
      for (int digit = digits - 1; digit >= 0; digit--) {
        int number = ALPHABET.indexOf(text.charAt(i + digit));
        Signed.check(number >= 0, "not base45");
        value = value * 45 + number;
      }
      Signed.check(digits > 1 && value <= (digits == 3 ? 0xffff : 0xff), "not base45");
      if (digits == 3) {
        data.write(value >> 8);
      }
      data.write(value);
    }
    return data.toByteArray();
  }
}
