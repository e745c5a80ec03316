package org.tongxing.node;

import java.sql.SQLException;
import java.util.Arrays;
import java.util.List;

/**
 * What this node holds of one access log, inside a transaction: every record, every node of the tree over them, and the
 * checkpoint that reaches furthest of those it accepted.
 *
 * <p>All nodes are kept, not the frontier alone. They are one more for each record, and they say the root of every
 * earlier size: a batch that comes again, or a checkpoint from before, is compared and not believed. Records may be
 * forgotten one day (the policy says when); their hashes stay, or the log could not be gone on with.
 *
 * <p>Where this node was put back to before what the gateway still has, records in between never come. The log goes on
 * behind such a gap from the peaks over all that was before, as the gateway tells them and its signed head bears out. They
 * are nodes of the same tree: within the gap there are no others, and of a size that ends there no root is known.
 */
final class HeldLog implements Merkle.Nodes {
  /** A checkpoint that was accepted. Its size has no sign. */
  record Accepted(String note, long size, byte[] root) {}

  private final Store store;
  private final byte[] id;
  private final long size;
  private final Accepted accepted; // Null before the first.

  private HeldLog(Store store, byte[] id, long size, Accepted accepted) {
    this.store = store;
    this.id = id;
    this.size = size;
    this.accepted = accepted;
  }

  static HeldLog open(Store store, byte[] id) throws SQLException {
    Store.Row<HeldLog> row =
        r -> new HeldLog(store, id, r.getLong(1), new Accepted(r.getString(2), r.getLong(3), r.getBytes(4)));
    String find = "SELECT size, note, note_size, note_root FROM access_log WHERE id = ?";
    var held = store.first(row, find, id);
    return held == null ? new HeldLog(store, id, 0, null) : held;
  }

  long size() {
    return size;
  }

  Accepted accepted() {
    return accepted;
  }

  @Override
  public byte[] node(int level, long index) throws SQLException {
    String find = "SELECT hash FROM access_node WHERE log = ? AND level = ? AND idx = ?";
    return store.first(row -> row.getBytes(1), find, id, level, index);
  }

  /** Null within a gap. */
  byte[] leaf(long index) throws SQLException {
    return node(0, index);
  }

  /** Whether the root of its first {@code size} records is known: not where they end in a gap. */
  boolean knows(long size) throws SQLException {
    String find = "SELECT count(*) FROM access_gap WHERE log = ? AND first < ? AND ? < behind";
    return store.count(find, id, size, size) == 0;
  }

  /** Whether a tree that reaches further has the nodes that both have in common. */
  boolean shares(List<Frontier.Node> nodes) throws SQLException {
    for (var node : nodes) {
      byte[] held = node(node.level(), node.index());
      if (held != null && !Arrays.equals(held, node.hash())) {
        return false;
      }
    }
    return true;
  }

  /** The root of the tree of its first {@code size} records. */
  byte[] root(long size) throws Exception {
    return Merkle.root(Merkle.peaks(this, size));
  }

  Frontier frontier() throws Exception {
    return new Frontier(size, Merkle.peaks(this, size));
  }

  /**
   * Takes in the records that follow, with the nodes that they complete, and the checkpoint that covers them. What is
   * missing before them is on file from here on.
   */
  void store(List<byte[]> records, Frontier after, Checkpoint checkpoint, String note, long now) throws SQLException {
    long index = after.size() - records.size();
    if (index > size) {
      store.update("INSERT INTO access_gap VALUES (?, ?, ?, ?)", id, size, index, now);
    }
    for (byte[] record : records) {
      storeRecord(index++, record, now);
    }
    for (var node : after.completed()) {
      // A peak that was told may be one that is held.
      String keep = "INSERT INTO access_node VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING";
      store.update(keep, id, node.level(), node.index(), node.hash());
    }
    // An earlier checkpoint that comes again says less than the one held.
    boolean further = accepted == null || Long.compareUnsigned(checkpoint.size(), accepted.size) >= 0;
    var kept = further ? new Accepted(note, checkpoint.size(), checkpoint.root()) : accepted;
    store.update(
        "INSERT OR REPLACE INTO access_log VALUES (?, ?, ?, ?, ?)", id, after.size(), kept.note, kept.size, kept.root);
  }

  /**
   * Whose consent it was is looked up now, while this node still knows. A record that cannot be read, or whose consent
   * is nobody's, is a record all the same: without it the log would have a hole, and no later one could be verified.
   */
  private void storeRecord(long index, byte[] bytes, long now) throws SQLException {
    record Given(long person, byte[] device) {}
    Long time = null, person = null;
    byte[] device = null;
    try {
      var record = AccessRecord.read(bytes);
      time = record.time();
      String find = "SELECT person, device FROM consent WHERE cti = ?";
      var given = store.first(r -> new Given(r.getLong(1), r.getBytes(2)), find, record.cti());
      if (given != null) {
        person = given.person;
        device = given.device;
      }
    } catch (Refusal unreadable) { // Of a later version, perhaps.
    }
    store.update(
        "INSERT INTO access_record VALUES (?, ?, ?, ?, ?, ?, ?)", id, index, bytes, now, time, person, device);
  }
}
