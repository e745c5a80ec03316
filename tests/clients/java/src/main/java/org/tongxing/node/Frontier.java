package org.tongxing.node;

import java.util.ArrayList;
import java.util.List;

/**
 * A tree's right edge: its size and its peaks, which is all that appending needs. Whoever keeps every node that is
 * completed on the way can say the root of each earlier size too.
 */
final class Frontier {
  /** A node that an appended leaf completed: the leaf itself, at level 0, among them; or a peak that was told. */
  record Node(int level, long index, byte[] hash) {}

  private final List<byte[]> peaks;
  private final List<Node> completed = new ArrayList<>();
  private long size;

  Frontier(long size, List<byte[]> peaks) {
    this.size = size;
    this.peaks = new ArrayList<>(peaks);
  }

  /** One that somebody else tells of: its peaks are nodes that whoever keeps them all has not seen completed. */
  static Frontier told(long size, List<byte[]> peaks) {
    var frontier = new Frontier(size, peaks);
    int next = 0;
    for (int level = 62; level >= 0; level--) {
      if ((size >>> level & 1) == 1) {
        frontier.completed.add(new Node(level, (size >>> level) - 1, peaks.get(next++)));
      }
    }
    return frontier;
  }

  /** Appends a leaf. Where it is the right half of something it is joined with the left one, and so on upwards. */
  void push(byte[] leaf) {
    byte[] hash = leaf;
    completed.add(new Node(0, size, hash));
    for (int level = 0; (size >>> level & 1) == 1; level++) {
      hash = Merkle.inner(peaks.remove(peaks.size() - 1), hash);
      completed.add(new Node(level + 1, size >>> level + 1, hash));
    }
    peaks.add(hash);
    size++;
  }

  long size() {
    return size;
  }

  byte[] root() {
    return Merkle.root(peaks);
  }

  List<Node> completed() {
    return completed;
  }
}
