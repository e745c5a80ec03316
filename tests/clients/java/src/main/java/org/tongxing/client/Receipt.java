package org.tongxing.client;

import static org.tongxing.client.Signed.sha256;

import com.upokecenter.cbor.CBORObject;
import com.upokecenter.cbor.CBORType;
import java.nio.ByteBuffer;
import java.security.GeneralSecurityException;
import java.security.PublicKey;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.tongxing.recognition.v1.RecognizeRequest;
import org.tongxing.recognition.v1.RecognizeResponse;

/**
 * The access receipt: that an exchange is on record, as proto/access-receipt.cddl and access-record.cddl lay it out.
 *
 * @param log whose log the record is on
 * @param index its index there, 64 bits without a sign
 * @param record what it says
 */
record Receipt(String log, String index, CBORObject record) {
  private static final int MAX_BYTES = 2048, MAX_COUNT = 65_536;
  private static final long MAX_TIME = 253_402_300_799L; // The end of the year 9999.
  private static final int VENUE = 2, PURPOSE = 5, CTI = 7, OUTCOME = 9, STATEMENT = 11, EXCHANGE = 13; // Of a record.
  private static final byte[] LEAF = {0}, NODE = {1};

  /** Reads a receipt and verifies it by the gateway's own keys. */
  static Receipt verify(byte[] data, Map<String, PublicKey> logKeys) throws GeneralSecurityException {
    Signed.check(0 < data.length && data.length <= MAX_BYTES, "no receipt");
    var receipt = Signed.decode(data);
    Signed.check(receipt.getType() == CBORType.Array && receipt.size() == 7, "not a receipt");
    Signed.check(uint(receipt.get(0), 1) == 1, "not a receipt of version 1");
    String log = receipt.get(1).AsString();
    Signed.check(log.matches("[0-9]{2}|gateway"), "not a log");
    var index = receipt.get(2).AsEIntegerValue();
    Signed.check(index.signum() >= 0, "not an index");
    byte[] record = receipt.get(3).GetByteString();
    Signed.check(receipt.get(5).getType() == CBORType.Array, "not a path");
    var path = receipt.get(5).getValues().stream().map(Receipt::hash).toList();

    var claims = Signed.verify1(Signed.LOG_COMMIT, Signed.read1(receipt.get(6).GetByteString()), logKeys);
    Signed.checkKeys(claims, Set.of(1, 2, 3, 4, 6), Set.of());
    Signed.check(claims.get(1).AsEIntegerValue().signum() >= 0, "a commit's number is not negative");
    int count = (int) uint(claims.get(3), MAX_COUNT);
    hash(claims.get(4));
    uint(claims.get(6), MAX_TIME);
    byte owner = (byte) (log.equals("gateway") ? 0xff : Integer.parseInt(log));
    byte[] place = ByteBuffer.allocate(9).put(owner).putLong(index.ToInt64Unchecked()).array();
    byte[] leaf = sha256(LEAF, place, sha256(LEAF, record));
    byte[] root = root(leaf, (int) uint(receipt.get(4), count - 1L), count, path);
    Signed.check(Arrays.equals(root, hash(claims.get(2))), "the record is not at its place in the commit");

    var entry = Signed.decode(record);
    Signed.checkKeys(entry, Set.of(1, 2, 3, 5, 7, 8, 12, 13, 15), Set.of(4, 6, 9, 10, 11, 14));
    return new Receipt(log, index.toString(), entry);
  }

  static boolean isBelieved(byte[] data, Map<String, PublicKey> logKeys) {
    try {
      verify(data, logKeys);
      return true;
    } catch (RuntimeException | GeneralSecurityException e) {
      return false; // Whatever it is refused for.
    }
  }

  /** A receipt is worth nothing unless it is of our own exchange: any other one verifies as well. */
  void check(CBORObject consent, RecognizeRequest asked, RecognizeResponse answer) throws GeneralSecurityException {
    Signed.check(log.equals(consent.get(1).AsString()), "on the log of " + log + ", where home does not look");
    Signed.check(has(EXCHANGE, answer.getExchangeId().toByteArray()), "the record is of another exchange");
    Signed.check(has(CTI, consent.get(7).GetByteString()), "the record is of another consent");
    boolean sameQuestion = record.get(VENUE).AsString().equals(asked.getVenue())
        && record.get(PURPOSE).AsInt32Value() == asked.getPurposeValue();
    Signed.check(sameQuestion, "the record has another question");
    boolean sameOutcome =
        record.ContainsKey(OUTCOME) && record.get(OUTCOME).AsInt32Value() == answer.getOutcomeValue();
    Signed.check(sameOutcome, "the record has another outcome");
    byte[] statement = Arrays.copyOf(sha256(answer.getStatement().toByteArray()), 16);
    Signed.check(record.ContainsKey(STATEMENT) && has(STATEMENT, statement), "the record has another statement");
  }

  private boolean has(int key, byte[] bytes) {
    return Arrays.equals(record.get(key).GetByteString(), bytes);
  }

  private static long uint(CBORObject value, long max) {
    var number = value.AsEIntegerValue(); // AsInt64Value would take what has no sign for what has one.
    Signed.check(number.signum() >= 0 && number.CanFitInInt64() && number.ToInt64Checked() <= max, "out of bounds");
    return number.ToInt64Checked();
  }

  private static byte[] hash(CBORObject value) {
    byte[] hash = value.GetByteString();
    Signed.check(hash.length == 32, "not a hash");
    return hash;
  }

  /** Where a leaf's path leads to in a tree of {@code count} leaves (RFC 9162 §2.1.3.2). */
  private static byte[] root(byte[] leaf, int position, int count, List<byte[]> path) throws GeneralSecurityException {
    byte[] node = leaf;
    int at = position, last = count - 1;
    for (byte[] sister : path) {
      Signed.check(last > 0, "the path is too long");
      if (at % 2 == 1 || at == last) {
        node = sha256(NODE, sister, node);
        while (at % 2 == 0 && at > 0) { // Odd last nodes go up as they are.
          at /= 2;
          last /= 2;
        }
      } else {
        node = sha256(NODE, node, sister);
      }
      at /= 2;
      last /= 2;
    }
    Signed.check(last == 0, "the path is too short");
    return node;
  }
}
