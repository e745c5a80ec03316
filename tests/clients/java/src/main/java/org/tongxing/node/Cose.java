package org.tongxing.node;

import static org.tongxing.client.Signed.array;

import com.upokecenter.cbor.CBOREncodeOptions;
import com.upokecenter.cbor.CBORException;
import com.upokecenter.cbor.CBORObject;
import com.upokecenter.cbor.CBORType;
import java.io.ByteArrayInputStream;
import java.security.PublicKey;
import java.util.Arrays;
import org.tongxing.client.Signed;
import org.tongxing.error.v1.ErrorReason;

/** Reads signed objects under the strict profile of cose.cddl, and refuses in the order that it gives. */
final class Cose {
  static final int MAX_OBJECT_BYTES = 1024;

  private static final int MAX_DEPTH = 12, CRIT = 2;

  // A key that is there twice shows when the map is encoded again.
  private static final CBOREncodeOptions OPTIONS = new CBOREncodeOptions("allowduplicatekeys=true");

  private Cose() {}

  /** A COSE_Sign1 of the right layout. Nothing is believed yet. */
  record Sign1(String object, byte[] header, byte[] payload, byte[] signature, long alg, byte[] kid) {
    Fields claims() {
      return new Fields(object, decode(object, payload, MAX_OBJECT_BYTES));
    }

    void verify(PublicKey key, int keyAlg, byte[] externalAad) {
      if (alg != keyAlg) {
        throw new Refusal(object, ErrorReason.ERROR_REASON_ALGORITHM_MISMATCH);
      }
      if (!Signed.verifies(keyAlg, key, array("Signature1", header, externalAad, payload), signature)) {
        throw new Refusal(object, ErrorReason.ERROR_REASON_SIGNATURE_INVALID);
      }
    }
  }

  static Sign1 read(String object, int typ, byte[] data) {
    var parts = decode(object, data, MAX_OBJECT_BYTES);
    boolean four = parts.getType() == CBORType.Array && parts.size() == 4;
    if (!four || !isBytes(parts.get(0)) || !isBytes(parts.get(2)) || !isBytes(parts.get(3))) {
      throw Refusal.malformed(object, "not [header, {}, payload, signature]");
    }
    if (!parts.get(1).equals(Signed.map())) {
      throw Refusal.malformed(object, "the unprotected header is not empty");
    }
    byte[] header = parts.get(0).GetByteString();
    var fields = new Fields(object, decode(object, header, MAX_OBJECT_BYTES));
    if (fields.has(CRIT)) {
      throw new Refusal(object, ErrorReason.ERROR_REASON_CRITICAL_HEADER_UNKNOWN);
    }
    if (fields.uint(Signed.TYP, Long.MAX_VALUE) != typ) {
      throw new Refusal(object, ErrorReason.ERROR_REASON_TYPE_MISMATCH).with("expected", typ);
    }
    long alg = fields.integer(Signed.ALG);
    if (alg != Signed.ED25519 && alg != Signed.ESP256) {
      throw new Refusal(object, ErrorReason.ERROR_REASON_ALGORITHM_NOT_ALLOWED).with("alg", alg);
    }
    byte[] kid = fields.bytes(Signed.KID, 8);
    fields.finish();
    return new Sign1(object, header, parts.get(2).GetByteString(), parts.get(3).GetByteString(), alg, kid);
  }

  /** One meaning has one encoding: what is not encoded again to the same bytes is refused. */
  static CBORObject decode(String object, byte[] data, int maxBytes) {
    if (data.length > maxBytes) {
      throw new Refusal(object, ErrorReason.ERROR_REASON_OBJECT_TOO_LARGE).with("max_bytes", maxBytes);
    }
    var input = new ByteArrayInputStream(data);
    CBORObject value;
    try {
      value = CBORObject.Read(input, OPTIONS);
    } catch (CBORException e) {
      throw new Refusal(object, ErrorReason.ERROR_REASON_NOT_CBOR);
    }
    if (isDeeperThan(value, MAX_DEPTH)) {
      throw new Refusal(object, ErrorReason.ERROR_REASON_NOT_CBOR);
    }
    if (input.available() > 0) {
      throw new Refusal(object, ErrorReason.ERROR_REASON_TRAILING_BYTES);
    }
    if (!isPlain(value) || !Arrays.equals(value.EncodeToBytes(), data)) {
      throw new Refusal(object, ErrorReason.ERROR_REASON_NOT_DETERMINISTIC);
    }
    return value;
  }

  private static boolean isDeeperThan(CBORObject value, int depth) {
    return switch (value.getType()) {
      case Array -> depth == 0 || value.getValues().stream().anyMatch(item -> isDeeperThan(item, depth - 1));
      case Map -> depth == 0
          || value.getEntries().stream()
              .anyMatch(e -> isDeeperThan(e.getKey(), depth - 1) || isDeeperThan(e.getValue(), depth - 1));
      default -> false;
    };
  }

  /** No tags, no floats, no undefined, in no place. */
  private static boolean isPlain(CBORObject value) {
    if (value.isTagged()) {
      return false;
    }
    return switch (value.getType()) {
      case FloatingPoint -> false;
      case SimpleValue -> value.isNull();
      case Array -> value.getValues().stream().allMatch(Cose::isPlain);
      case Map -> value.getEntries().stream().allMatch(e -> isPlain(e.getKey()) && isPlain(e.getValue()));
      default -> true;
    };
  }

  private static boolean isBytes(CBORObject value) {
    return value.getType() == CBORType.ByteString;
  }
}
