package org.tongxing.node;

import java.nio.file.Path;
import java.security.SecureRandom;
import java.sql.Connection;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.locks.ReentrantLock;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.sqlite.SQLiteConfig;
import org.tongxing.error.v1.ErrorReason;
import org.tongxing.province.v1.ChangeKind;

/**
 * What the node remembers, in one SQLite file. One connection, so one writer and one snapshot at a time; a transaction
 * is on the disk when it returns.
 *
 * <p>The change log's numbers are given inside the transaction that makes the change, without gaps, in commit order.
 */
final class Store implements AutoCloseable {
  /** How long past its end a consent may still be honoured by somebody's clock. Until then its changes are events. */
  static final long HONOURED = 60;

  private static final Logger LOG = Logger.getLogger(Store.class.getName());
  private static final long WAIT_MILLISECONDS = 1000;
  private static final long DAY = 86_400;
  private static final List<String> SCHEMA =
      List.of(
          "CREATE TABLE IF NOT EXISTS document (name TEXT PRIMARY KEY, bytes BLOB NOT NULL) STRICT",
          "CREATE TABLE IF NOT EXISTS head (only INTEGER PRIMARY KEY, epoch BLOB NOT NULL, seq INTEGER NOT NULL)"
              + " STRICT",
          "CREATE TABLE IF NOT EXISTS event (seq INTEGER PRIMARY KEY, cti BLOB NOT NULL, kind INTEGER NOT NULL,"
              + " at INTEGER NOT NULL) STRICT",
          "CREATE TABLE IF NOT EXISTS person (id INTEGER PRIMARY KEY AUTOINCREMENT, type INTEGER NOT NULL,"
              + " number TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (type, number)) STRICT",
          "CREATE TABLE IF NOT EXISTS device (id BLOB PRIMARY KEY, person INTEGER NOT NULL REFERENCES person (id),"
              + " key BLOB NOT NULL UNIQUE) STRICT",
          "CREATE TABLE IF NOT EXISTS code (id INTEGER PRIMARY KEY, person INTEGER NOT NULL REFERENCES person (id),"
              + " label TEXT NOT NULL, rule TEXT NOT NULL, authority TEXT NOT NULL, assigned INTEGER NOT NULL,"
              + " recorded INTEGER NOT NULL, by TEXT NOT NULL, justification TEXT NOT NULL) STRICT",
          "CREATE INDEX IF NOT EXISTS code_of_person ON code (person)",
          "CREATE TABLE IF NOT EXISTS consent (cti BLOB PRIMARY KEY, person INTEGER NOT NULL REFERENCES person (id),"
              + " kind INTEGER NOT NULL, scope INTEGER NOT NULL, hash BLOB NOT NULL, key BLOB UNIQUE,"
              + " issued INTEGER NOT NULL, expires INTEGER NOT NULL, revoked INTEGER, device BLOB NOT NULL) STRICT",
          "CREATE INDEX IF NOT EXISTS consent_of_person ON consent (person, expires)",
          "CREATE TABLE IF NOT EXISTS request (caller TEXT NOT NULL, id TEXT NOT NULL, digest BLOB NOT NULL,"
              + " answer BLOB NOT NULL, at INTEGER NOT NULL, person INTEGER NOT NULL,"
              + " PRIMARY KEY (caller, id)) STRICT",
          // Of each access log: what is held, the last checkpoint; its tree by level and index; its records, and whose
          // they are, if anybody's. A checkpoint's size is unsigned.
          "CREATE TABLE IF NOT EXISTS access_log (id BLOB PRIMARY KEY, size INTEGER NOT NULL, note TEXT NOT NULL,"
              + " note_size INTEGER NOT NULL, note_root BLOB NOT NULL) STRICT",
          "CREATE TABLE IF NOT EXISTS access_node (log BLOB NOT NULL, level INTEGER NOT NULL, idx INTEGER NOT NULL,"
              + " hash BLOB NOT NULL, PRIMARY KEY (log, level, idx)) STRICT, WITHOUT ROWID",
          "CREATE TABLE IF NOT EXISTS access_record (log BLOB NOT NULL, idx INTEGER NOT NULL, bytes BLOB NOT NULL,"
              + " received INTEGER NOT NULL, time INTEGER, person INTEGER, device BLOB, PRIMARY KEY (log, idx)) STRICT",
          "CREATE INDEX IF NOT EXISTS access_of_person ON access_record (person, time)",
          // Records of a log that never came, because nobody had them any more when it went on behind them.
          "CREATE TABLE IF NOT EXISTS access_gap (log BLOB NOT NULL, first INTEGER NOT NULL, behind INTEGER NOT NULL,"
              + " at INTEGER NOT NULL, PRIMARY KEY (log, first)) STRICT",
          "CREATE TABLE IF NOT EXISTS access_conflict (log BLOB NOT NULL, held TEXT NOT NULL, sent TEXT NOT NULL,"
              + " at INTEGER NOT NULL, PRIMARY KEY (log, held, sent)) STRICT");

  /** Where the change log stands: an epoch, random when the store is made, and the last change's number. */
  record Head(byte[] epoch, long seq) {}

  /** An event: what happened to one consent. */
  record Change(long seq, byte[] cti, ChangeKind kind) {}

  interface Work<T> {
    T run() throws Exception;
  }

  interface Row<T> {
    T read(ResultSet row) throws SQLException;
  }

  private final Connection connection;
  private final ReentrantLock lock = new ReentrantLock(true);
  private final SecureRandom random = new SecureRandom();
  private volatile Runnable onAppend = () -> {};
  private boolean appended; // In the transaction that runs.

  Store(Path file) throws Exception {
    var config = new SQLiteConfig();
    config.setJournalMode(SQLiteConfig.JournalMode.WAL);
    config.setSynchronous(SQLiteConfig.SynchronousMode.FULL);
    config.setLockingMode(SQLiteConfig.LockingMode.EXCLUSIVE); // A second node on this file would be a second writer.
    config.setTransactionMode(SQLiteConfig.TransactionMode.IMMEDIATE);
    config.enforceForeignKeys(true);
    config.setPragma(SQLiteConfig.Pragma.SECURE_DELETE, "true"); // What is forgotten is overwritten.
    connection = config.createConnection("jdbc:sqlite:" + file);
    connection.setAutoCommit(false);
    byte[] epoch = new byte[16];
    random.nextBytes(epoch);
    transaction(() -> {
      for (String statement : SCHEMA) {
        update(statement);
      }
      return update("INSERT INTO head VALUES (1, ?, 0) ON CONFLICT DO NOTHING", epoch);
    });
  }

  /** One transaction: all of it, durably, or nothing. Refusals pass; failures of the store are said in the log. */
  <T> T transaction(Work<T> work) throws Exception {
    if (!lock.tryLock(WAIT_MILLISECONDS, TimeUnit.MILLISECONDS)) {
      throw new Refusal(ErrorReason.ERROR_REASON_STORE_UNAVAILABLE);
    }
    boolean done = false, events = false;
    try {
      try {
        appended = false;
        T result = work.run();
        connection.commit();
        done = true;
        events = appended;
        return result;
      } finally {
        if (!done) {
          connection.rollback();
        }
      }
    } catch (SQLException e) {
      LOG.log(Level.SEVERE, "the store does not answer", e);
      throw new Refusal(ErrorReason.ERROR_REASON_STORE_UNAVAILABLE);
    } finally {
      lock.unlock();
      if (events) {
        onAppend.run();
      }
    }
  }

  // --- Statements, inside a transaction ------------------------------------------------------------------------------

  int update(String sql, Object... values) throws SQLException {
    try (var statement = prepare(sql, values)) {
      return statement.executeUpdate();
    }
  }

  <T> List<T> list(Row<T> row, String sql, Object... values) throws SQLException {
    try (var statement = prepare(sql, values);
        var rows = statement.executeQuery()) {
      var all = new ArrayList<T>();
      while (rows.next()) {
        all.add(row.read(rows));
      }
      return all;
    }
  }

  /** The first row; null if there is none. */
  <T> T first(Row<T> row, String sql, Object... values) throws SQLException {
    var all = list(row, sql, values);
    return all.isEmpty() ? null : all.get(0);
  }

  long count(String sql, Object... values) throws SQLException {
    return first(row -> row.getLong(1), sql, values);
  }

  private PreparedStatement prepare(String sql, Object... values) throws SQLException {
    var statement = connection.prepareStatement(sql);
    for (int i = 0; i < values.length; i++) {
      statement.setObject(i + 1, values[i]);
    }
    return statement;
  }

  // --- The change log ------------------------------------------------------------------------------------------------

  Head head() throws SQLException {
    return first(row -> new Head(row.getBytes(1), row.getLong(2)), "SELECT epoch, seq FROM head");
  }

  /** Tells of events soon after they are committed. */
  void onAppend(Runnable listener) {
    onAppend = listener;
  }

  /** Events after one number and up to another, in their order. */
  List<Change> changes(long after, long upTo, int limit) throws SQLException {
    return list(
        row -> new Change(row.getLong(1), row.getBytes(2), ChangeKind.forNumber(row.getInt(3))),
        "SELECT seq, cti, kind FROM event WHERE seq > ? AND seq <= ? ORDER BY seq LIMIT ?", after, upTo, limit);
  }

  /** One event per consent, shuffled: their order must not tell which of them belong to one person. */
  Head append(List<byte[]> consents, ChangeKind kind, long now) throws SQLException {
    var before = head();
    var shuffled = new ArrayList<>(consents);
    Collections.shuffle(shuffled, random);
    long seq = before.seq;
    for (byte[] cti : shuffled) {
      update("INSERT INTO event VALUES (?, ?, ?, ?)", ++seq, cti, kind.getNumber(), now);
    }
    update("UPDATE head SET seq = ?", seq);
    appended |= !consents.isEmpty();
    return new Head(before.epoch, seq);
  }

  // --- Idempotency ---------------------------------------------------------------------------------------------------

  /** The answer that this request had before, or null; an id that came with another content is refused. */
  byte[] answered(String caller, String id, byte[] digest) throws SQLException {
    record Earlier(byte[] digest, byte[] answer) {}
    var earlier =
        first(
            row -> new Earlier(row.getBytes(1), row.getBytes(2)),
            "SELECT digest, answer FROM request WHERE caller = ? AND id = ?", caller, id);
    if (earlier != null && !Arrays.equals(earlier.digest, digest)) {
      throw new Refusal(ErrorReason.ERROR_REASON_REQUEST_ID_REUSED);
    }
    return earlier == null ? null : earlier.answer;
  }

  void remember(String caller, String id, byte[] digest, byte[] answer, long now, long person) throws SQLException {
    update("INSERT INTO request VALUES (?, ?, ?, ?, ?, ?)", caller, id, digest, answer, now, person);
  }

  // --- What was accepted as trust list and policy --------------------------------------------------------------------

  byte[] document(String name) throws Exception {
    return transaction(() -> first(row -> row.getBytes(1), "SELECT bytes FROM document WHERE name = ?", name));
  }

  void keepDocuments(Map<String, byte[]> documents) throws Exception {
    transaction(() -> {
      for (var document : documents.entrySet()) {
        update("INSERT OR REPLACE INTO document VALUES (?, ?)", document.getKey(), document.getValue());
      }
      return null;
    });
  }

  // --- Its end -------------------------------------------------------------------------------------------------------

  /**
   * Forgets answers after a day, changes after two, consents 30 days after their end, and access records when the policy
   * says; the hashes of these stay.
   */
  void sweep(long now, long accessRetention) throws Exception {
    transaction(() -> update("DELETE FROM access_record WHERE received < ?", now - accessRetention));
    transaction(() -> update("DELETE FROM request WHERE at < ?", now - DAY));
    transaction(() -> update("DELETE FROM event WHERE at < ?", now - 2 * DAY));
    transaction(() -> update("DELETE FROM consent WHERE expires < ?", now - 30 * DAY));
  }

  @Override
  public void close() throws SQLException {
    lock.lock();
    try {
      connection.close();
    } finally {
      lock.unlock();
    }
  }
}
