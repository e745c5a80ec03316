package org.tongxing.node;

import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/**
 * The Merkle tree over a log's records (RFC 9162 §2.1): the hash of a leaf, the hash of two halves, the root of a tree
 * of any size, and whether one tree goes on where another ended.
 *
 * <p>Sizes are unsigned: a checkpoint may say more than a {@code long} has, and then is compared, never counted to.
 */
final class Merkle {
  private Merkle() {}

  /** The roots of perfect subtrees: of level 0 the leaves, of level n those over 2^n leaves from index · 2^n on. */
  interface Nodes {
    byte[] node(int level, long index) throws Exception;
  }

  /** The root of a log without records: the SHA-256 of nothing. */
  static byte[] emptyRoot() {
    return sha256();
  }

  /** The 0 and the 1 before what is hashed keep a record from being taken for two halves. */
  static byte[] leaf(byte[] record) {
    return sha256(new byte[] {0}, record);
  }

  static byte[] inner(byte[] left, byte[] right) {
    return sha256(new byte[] {1}, left, right);
  }

  /** The perfect subtrees that a tree of this size is made of, largest first: one for each bit that is set. */
  static List<byte[]> peaks(Nodes nodes, long size) throws Exception {
    var peaks = new ArrayList<byte[]>();
    for (int level = 62; level >= 0; level--) {
      if ((size >>> level & 1) == 1) {
        peaks.add(nodes.node(level, (size >>> level) - 1));
      }
    }
    return peaks;
  }

  /** The root over peaks: they are joined from the right, where the small ones are. */
  static byte[] root(List<byte[]> peaks) {
    if (peaks.isEmpty()) {
      return emptyRoot();
    }
    byte[] root = peaks.get(peaks.size() - 1);
    for (int i = peaks.size() - 2; i >= 0; i--) {
      root = inner(peaks.get(i), root);
    }
    return root;
  }

  /** Whether the tree of {@code newSize} leaves extends the one of {@code oldSize} (RFC 9162 §2.1.4.2). */
  static boolean isConsistent(long oldSize, byte[] oldRoot, long newSize, byte[] newRoot, List<byte[]> proof) {
    if (oldSize == newSize) {
      return Arrays.equals(oldRoot, newRoot) && proof.isEmpty();
    }
    if (oldSize == 0) { // Whatever comes extends nothing.
      return Arrays.equals(oldRoot, emptyRoot()) && proof.isEmpty();
    }
    if (Long.compareUnsigned(oldSize, newSize) > 0) {
      return false;
    }
    // What both trees share at the old one's right edge; a perfect old tree is that itself, and need not be sent.
    int next = 0;
    byte[] shared = oldRoot;
    if (Long.bitCount(oldSize) != 1) {
      if (proof.isEmpty()) {
        return false;
      }
      shared = proof.get(next++);
    }
    int up = Long.numberOfTrailingZeros(oldSize);
    long at = (oldSize - 1) >>> up, last = (newSize - 1) >>> up;
    byte[] fromOld = shared, fromNew = shared;
    for (; next < proof.size(); next++) {
      if (last == 0) {
        return false; // A proof that is longer than the tree is high.
      }
      byte[] hash = proof.get(next);
      if ((at & 1) == 1 || at == last) { // What is left of us is in both trees …
        fromOld = inner(hash, fromOld);
        fromNew = inner(hash, fromNew);
        while ((at & 1) == 0 && at != 0) { // A node without a right sibling goes up as it is.
          at >>>= 1;
          last >>>= 1;
        }
      } else { // … and what is right of us only in the new one.
        fromNew = inner(fromNew, hash);
      }
      at >>>= 1;
      last >>>= 1;
    }
    return last == 0 && Arrays.equals(fromOld, oldRoot) && Arrays.equals(fromNew, newRoot);
  }

  private static byte[] sha256(byte[]... parts) {
    try {
      var digest = MessageDigest.getInstance("SHA-256");
      for (byte[] part : parts) {
        digest.update(part);
      }
      return digest.digest();
    } catch (NoSuchAlgorithmException e) {
      throw new IllegalStateException("every JDK has SHA-256", e);
    }
  }
}
