package org.tongxing.node;

import com.google.protobuf.ByteString;
import java.nio.charset.StandardCharsets;
import java.time.DateTimeException;
import java.time.LocalDate;
import java.util.Locale;
import java.util.Set;
import java.util.regex.Pattern;
import org.tongxing.types.v1.Document;
import org.tongxing.types.v1.DocumentType;

/** The fields of requests, each in the form that its comment in the contract gives. Refusals never repeat a value. */
final class Forms {
  static final int MAX_RULE = 32;

  private static final int MAX_LABEL = 48, MAX_COSE_KEY = 128;
  private static final Pattern REQUEST_ID = Pattern.compile("[A-Za-z0-9-]{8,64}");
  private static final Pattern NUMBER = Pattern.compile("[A-Za-z0-9-]{1,32}");
  private static final Pattern RESIDENT_ID = Pattern.compile("[0-9]{17}[0-9X]");
  private static final int[] WEIGHTS = {7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2}; // GB 11643-1999.
  private static final Set<DocumentType> UNKNOWN =
      Set.of(DocumentType.DOCUMENT_TYPE_UNSPECIFIED, DocumentType.UNRECOGNIZED);

  private Forms() {}

  static byte[] id(String field, ByteString bytes) {
    if (bytes.isEmpty()) {
      throw Refusal.missing(field);
    }
    if (bytes.size() != 16) {
      throw Refusal.invalid(field, "16 bytes");
    }
    return bytes.toByteArray();
  }

  static String requestId(String text) {
    return required("request_id", text, REQUEST_ID.matcher(text).matches(), "8 to 64 of A-Z, a-z, 0-9 and '-'");
  }

  static String name(String text) {
    boolean fits = text.codePointCount(0, text.length()) <= 64 && Terms.isLine(text);
    return required("name", text, fits, "1 to 64 characters, no control character, no outer space");
  }

  static String label(String text) {
    return required("label", text, isLabel(text), "a label of at most 48 bytes");
  }

  static String rule(String text) {
    return required("rule", text, bytes(text) <= MAX_RULE && Terms.isLine(text), "a rule's id of at most 32 bytes");
  }

  static String authority(String text) {
    return required("authority", text, Terms.isAuthority(text), "<member>/<kind>");
  }

  static String justification(String text) {
    boolean fits = text.codePointCount(0, text.length()) <= 256 && Terms.isLine(text);
    return required("justification", text, fits, "a line of at most 256 characters");
  }

  static boolean isLabel(String text) {
    return !text.isEmpty() && bytes(text) <= MAX_LABEL && Terms.isLine(text);
  }

  static int bytes(String text) {
    return text.getBytes(StandardCharsets.UTF_8).length;
  }

  /** An identity document. Lower-case letters are taken for their upper case, as people type them. */
  static Document document(boolean present, Document document) {
    if (!present) {
      throw Refusal.missing("document");
    }
    if (document.getTypeValue() == 0) {
      throw Refusal.missing("document.type");
    }
    if (UNKNOWN.contains(document.getType())) {
      throw Refusal.invalid("document.type", "not a known type of document");
    }
    String number = document.getNumber();
    required("document.number", number, NUMBER.matcher(number).matches(), "1 to 32 of A-Z, 0-9 and '-'");
    number = number.toUpperCase(Locale.ROOT);
    if (document.getType() == DocumentType.DOCUMENT_TYPE_RESIDENT_ID && !isResidentId(number)) {
      throw Refusal.invalid("document.number", "not a resident ID with its birth date and check character");
    }
    return document.toBuilder().setNumber(number).build();
  }

  static DeviceKey enrollmentKey(ByteString bytes) {
    if (bytes.isEmpty()) {
      throw Refusal.missing("enrollment_key");
    }
    try {
      byte[] key = bytes.toByteArray();
      return DeviceKey.read(new Fields("enrollment_key", Cose.decode("enrollment_key", key, MAX_COSE_KEY)));
    } catch (Refusal e) { // The key is a field, and no signed object that a refusal could name.
      throw Refusal.invalid("enrollment_key", "a P-256 COSE_Key in deterministic CBOR");
    }
  }

  private static String required(String field, String text, boolean fits, String form) {
    if (text.isEmpty()) {
      throw Refusal.missing(field);
    }
    if (!fits) {
      throw Refusal.invalid(field, form);
    }
    return text;
  }

  private static boolean isResidentId(String number) {
    if (!RESIDENT_ID.matcher(number).matches()) {
      return false;
    }
    int sum = 0;
    for (int i = 0; i < WEIGHTS.length; i++) {
      sum += (number.charAt(i) - '0') * WEIGHTS[i];
    }
    try {
      int year = Integer.parseInt(number.substring(6, 10));
      LocalDate.of(year, Integer.parseInt(number.substring(10, 12)), Integer.parseInt(number.substring(12, 14)));
    } catch (DateTimeException e) {
      return false;
    }
    return number.charAt(17) == "10X98765432".charAt(sum % 11);
  }
}
