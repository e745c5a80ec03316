package org.tongxing.node;

import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.PublicKey;
import java.security.Signature;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import org.tongxing.client.Signed;
import org.tongxing.error.v1.ErrorReason;

/**
 * A log's signed head (C2SP tlog-checkpoint in a signed note). Three lines of text, an empty one, and signatures:
 *
 * <pre>
 * tongxing.test/access-log/44/3f1c…     origin: the federation, whose log, the log's id
 * 1234                                  size
 * CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=
 *
 * — tongxing.test/access-log/44/3f1c… az3grlgtzPICa5OS8npVmf1Myq…
 * </pre>
 *
 * <p>What is signed is the text with the line break of its third line. Size: unsigned.
 */
record Checkpoint(String text, String origin, String owner, byte[] log, long size, byte[] root, List<Line> lines) {
  private static final int MAX_BYTES = 1024, MAX_SIGNATURES = 8, KEY_HASH = 4;
  private static final String OBJECT = Refusal.CHECKPOINT;
  private static final Pattern SIZE = Pattern.compile("0|[1-9][0-9]{0,19}");
  private static final Pattern OWNER_AND_LOG = Pattern.compile("([0-9a-z]+)/([0-9a-f]{64})");

  /** Who signed, by name, and with what: 4 bytes that find the key, then the signature. */
  private record Line(String name, byte[] signature) {}

  /** A note of the right layout. Nothing is believed yet. */
  static Checkpoint read(String note, String domain) {
    if (Forms.bytes(note) > MAX_BYTES) {
      throw new Refusal(OBJECT, ErrorReason.ERROR_REASON_OBJECT_TOO_LARGE).with("max_bytes", MAX_BYTES);
    }
    int end = note.indexOf("\n\n");
    check(end >= 0, "no empty line before a signature");
    String text = note.substring(0, end + 1);
    var parts = text.split("\n", -1);
    check(parts.length == 4, "not the three lines of origin, size and root");
    String prefix = domain + "/access-log/";
    var names = OWNER_AND_LOG.matcher(parts[0].startsWith(prefix) ? parts[0].substring(prefix.length()) : "");
    boolean owned = names.matches() && (Terms.isMember(names.group(1)) || names.group(1).equals(Peer.GATEWAY));
    check(owned, "not the origin of an access log of this federation");
    byte[] root = base64(parts[2]);
    check(root != null && root.length == 32, "not a root of 32 bytes");
    byte[] log = HexFormat.of().parseHex(names.group(2));
    var lines = lines(note.substring(end + 2));
    return new Checkpoint(text, parts[0], names.group(1), log, size(parts[1]), root, lines);
  }

  /**
   * By the key that the log's id is the hash of, if the trust list has it. The name before the signature is the origin,
   * so that no key's signature for one log can be shown for another. Others may have signed too: witnesses.
   */
  void verify(Map<String, PublicKey> logKeys) throws GeneralSecurityException {
    var key = logKeys.get(HexFormat.of().formatHex(log, 0, 8));
    if (key == null || !Arrays.equals(Signed.sha256(raw(key)), log)) {
      throw new Refusal(OBJECT, ErrorReason.ERROR_REASON_KEY_UNKNOWN);
    }
    byte[] name = (origin + "\n").getBytes(StandardCharsets.UTF_8);
    byte[] hash = Arrays.copyOf(Signed.sha256(name, new byte[] {1}, raw(key)), KEY_HASH);
    for (Line line : lines) {
      if (line.name.equals(origin) && Arrays.equals(Arrays.copyOf(line.signature, KEY_HASH), hash)) {
        byte[] signature = Arrays.copyOfRange(line.signature, KEY_HASH, line.signature.length);
        if (verifies(key, text.getBytes(StandardCharsets.UTF_8), signature)) {
          return;
        }
        break;
      }
    }
    throw new Refusal(OBJECT, ErrorReason.ERROR_REASON_SIGNATURE_INVALID);
  }

  private static boolean verifies(PublicKey key, byte[] message, byte[] signature) {
    try {
      var verifier = Signature.getInstance("Ed25519");
      verifier.initVerify(key);
      verifier.update(message);
      return verifier.verify(signature);
    } catch (GeneralSecurityException e) {
      return false; // A signature of another length.
    }
  }

  private static long size(String text) {
    check(SIZE.matcher(text).matches(), "not a size");
    try {
      return Long.parseUnsignedLong(text);
    } catch (NumberFormatException e) {
      throw Refusal.malformed(OBJECT, "not a size");
    }
  }

  private static List<Line> lines(String text) {
    check(text.endsWith("\n"), "not lines of signatures");
    var lines = new ArrayList<Line>();
    for (String line : text.substring(0, text.length() - 1).split("\n", -1)) {
      var parts = line.split(" ", 3);
      byte[] signature = parts.length == 3 ? base64(parts[2]) : null;
      boolean formed = signature != null && parts[0].equals("—") && !parts[1].isEmpty();
      check(formed && signature.length > KEY_HASH, "not lines of signatures");
      lines.add(new Line(parts[1], signature));
    }
    check(lines.size() <= MAX_SIGNATURES, "not lines of signatures");
    return lines;
  }

  /** Null if it is none. The JDK reads it without its padding too, and one meaning has one encoding. */
  private static byte[] base64(String text) {
    try {
      byte[] bytes = Base64.getDecoder().decode(text);
      return Base64.getEncoder().encodeToString(bytes).equals(text) ? bytes : null;
    } catch (IllegalArgumentException e) {
      return null;
    }
  }

  /** The last 32 bytes of SubjectPublicKeyInfo are an Ed25519 key itself (RFC 8410). */
  private static byte[] raw(PublicKey key) {
    byte[] encoded = key.getEncoded();
    return Arrays.copyOfRange(encoded, encoded.length - 32, encoded.length);
  }

  private static void check(boolean holds, String otherwise) {
    if (!holds) {
      throw Refusal.malformed(OBJECT, otherwise);
    }
  }
}
