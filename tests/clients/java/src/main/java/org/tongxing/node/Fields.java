package org.tongxing.node;

import com.upokecenter.cbor.CBORObject;
import com.upokecenter.cbor.CBORType;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/** A closed map of a signed object: every entry is taken once, and what nobody took is refused at the end. */
final class Fields {
  /** The end of the year 9999. */
  private static final long LAST_SECOND = 253_402_300_799L;

  private final String object;
  private final Map<Long, CBORObject> entries = new TreeMap<>();

  Fields(String object, CBORObject map) {
    this.object = object;
    if (map.getType() != CBORType.Map) {
      throw Refusal.malformed(object, "not a map");
    }
    for (CBORObject key : map.getKeys()) {
      if (!isLong(key)) {
        throw Refusal.malformed(object, "a key is not an integer");
      }
      entries.put(key.AsInt64Value(), map.get(key));
    }
  }

  boolean has(long key) {
    return entries.containsKey(key);
  }

  private CBORObject take(long key) {
    if (!has(key)) {
      throw wrong(key, "missing");
    }
    return entries.remove(key);
  }

  long integer(long key) {
    var value = take(key);
    if (!isLong(value)) {
      throw wrong(key, "not an integer of 64 bits");
    }
    return value.AsInt64Value();
  }

  /** An unsigned integer of at most {@code max}. */
  long uint(long key, long max) {
    long value = integer(key);
    if (value < 0 || value > max) {
      throw wrong(key, "not within its bounds");
    }
    return value;
  }

  /** An unsigned integer of 64 bits; one above the greatest long counts as that. */
  long count(long key) {
    if (has(key) && entries.get(key).getType() == CBORType.Integer && !isLong(entries.get(key))) {
      return take(key).AsNumber().IsNegative() ? -1 : Long.MAX_VALUE;
    }
    return uint(key, Long.MAX_VALUE);
  }

  /** Seconds since 1970. */
  long time(long key) {
    return uint(key, LAST_SECOND);
  }

  byte[] bytes(long key, int length) {
    var value = take(key);
    if (value.getType() != CBORType.ByteString || value.GetByteString().length != length) {
      throw wrong(key, "not " + length + " bytes");
    }
    return value.GetByteString();
  }

  String text(long key) {
    var value = take(key);
    if (value.getType() != CBORType.TextString) {
      throw wrong(key, "not a text");
    }
    return value.AsString();
  }

  boolean bool(long key) {
    var value = take(key);
    if (value.getType() != CBORType.Boolean) {
      throw wrong(key, "not a boolean");
    }
    return value.AsBoolean();
  }

  /** A list of {@code min} to {@code max} items. */
  List<CBORObject> list(long key, int min, int max) {
    var value = take(key);
    if (value.getType() != CBORType.Array || value.size() < min || value.size() > max) {
      throw wrong(key, "not a list of " + min + " to " + max);
    }
    return List.copyOf(value.getValues());
  }

  /** Numbers from 1 to {@code max}, at least {@code min} of them, ascending: as a set of bits. */
  int ascending(long key, int min, int max) {
    int bits = 0;
    for (CBORObject item : list(key, min, max)) {
      boolean known = isLong(item) && item.AsInt64Value() >= 1 && item.AsInt64Value() <= max;
      if (!known || bits >> item.AsInt32Value() != 0) {
        throw wrong(key, "not 1 to " + max + ", ascending");
      }
      bits |= 1 << item.AsInt32Value();
    }
    return bits;
  }

  Fields map(long key) {
    return new Fields(object, take(key));
  }

  void finish() {
    if (!entries.isEmpty()) {
      throw wrong(entries.keySet().iterator().next(), "unknown");
    }
  }

  Refusal wrong(long key, String what) {
    return Refusal.malformed(object, key + ": " + what);
  }

  private static boolean isLong(CBORObject value) {
    return value.getType() == CBORType.Integer && value.CanValueFitInInt64();
  }
}
