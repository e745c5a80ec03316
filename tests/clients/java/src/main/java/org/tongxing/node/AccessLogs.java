package org.tongxing.node;

import static org.tongxing.client.Signed.map;

import com.google.protobuf.ByteString;
import com.upokecenter.cbor.CBORObject;
import io.grpc.stub.StreamObserver;
import java.security.GeneralSecurityException;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.List;
import java.util.logging.Logger;
import org.tongxing.access.v1.AccessLogServiceGrpc.AccessLogServiceImplBase;
import org.tongxing.access.v1.Conflict;
import org.tongxing.access.v1.RecordAccessesRequest;
import org.tongxing.access.v1.RecordAccessesResponse;
import org.tongxing.client.Signed;

/**
 * The way home of the access record. The gateway writes a log and signs its heads; we take the records in, keep the tree
 * over them ourselves, and sign what we hold. The gateway forgets what we have signed for, so a receipt is only given for
 * what is on our disk.
 *
 * <p>Nothing here depends on trusting the gateway: a log that was changed after we saw it is found, with both heads in
 * hand, each signed by the log's own key.
 */
final class AccessLogs extends AccessLogServiceImplBase {
  private static final Logger LOG = Logger.getLogger(AccessLogs.class.getName());
  private static final int MAX_RECORDS = 1000, MAX_PROOF = 63, HASH = 32;

  /** Two notes prove it; more of them prove no more. */
  private static final int MAX_CONFLICTS = 100;

  private final Home home;
  private final Store store;

  AccessLogs(Home home) {
    this.home = home;
    this.store = home.store();
  }

  /** A request that may be believed: its fields are in their forms, and its checkpoint is signed. */
  private record Batch(
      byte[] log, long first, List<byte[]> records, Checkpoint checkpoint, String note, List<byte[]> proof,
      List<byte[]> before) {
    long end() {
      return first + records.size();
    }
  }

  /** What there is to answer: what is held now, behind what is missing from now on; or where two histories part. */
  private record Verdict(long size, byte[] root, long missing, Conflict conflict) {}

  @Override
  public void recordAccesses(RecordAccessesRequest request, StreamObserver<RecordAccessesResponse> observer) {
    Home.answer(observer, () -> {
      var trust = home.trust().usable();
      long now = Signed.now();
      var batch = read(request);
      checkCheckpoint(batch, trust.trusted());
      var verdict = store.transaction(() -> takeIn(batch, now));
      if (verdict.conflict != null) {
        LOG.severe("TWO HISTORIES of access log " + HexFormat.of().formatHex(batch.log) + ", from record "
            + verdict.conflict.getIndex() + " on: both checkpoints are kept in access_conflict");
        return RecordAccessesResponse.newBuilder().setConflict(verdict.conflict).build();
      }
      if (verdict.missing > 0) {
        LOG.severe(verdict.missing + " RECORDS MISSING from access log " + HexFormat.of().formatHex(batch.log)
            + ": they never came, and the gateway has them no more; it goes on behind them, see access_gap");
      }
      var receipt = ByteString.copyFrom(sign(batch.log, verdict, now));
      return RecordAccessesResponse.newBuilder().setReceipt(receipt).build();
    });
  }

  // --- Whether it may be believed: what is wrong first is told, in the contract's order ------------------------------

  private Batch read(RecordAccessesRequest request) {
    if (request.getLog().isEmpty()) {
      throw Refusal.missing("log");
    }
    check(request.getLog().size() == HASH, "log", "32 bytes");
    check(request.getRecordsCount() <= MAX_RECORDS, "records", "at most " + MAX_RECORDS);
    for (ByteString record : request.getRecordsList()) {
      check(!record.isEmpty() && record.size() <= AccessRecord.MAX_BYTES, "records", "each of 1 to 512 bytes");
    }
    if (request.getCheckpoint().isEmpty()) {
      throw Refusal.missing("checkpoint");
    }
    check(request.getConsistencyProofCount() <= MAX_PROOF, "consistency_proof", "at most " + MAX_PROOF);
    var proof = hashes("consistency_proof", request.getConsistencyProofList());
    var before = hashes("frontier", request.getFrontierList());
    boolean whole = before.isEmpty() || before.size() == Long.bitCount(request.getFirstIndex());
    check(whole, "frontier", "a hash for each bit of `first_index`");
    var records = request.getRecordsList().stream().map(ByteString::toByteArray).toList();
    var checkpoint = Checkpoint.read(request.getCheckpoint(), home.trust().domain());
    return new Batch(
        request.getLog().toByteArray(), request.getFirstIndex(), records, checkpoint, request.getCheckpoint(), proof,
        before);
  }

  private static List<byte[]> hashes(String field, List<ByteString> hashes) {
    for (ByteString hash : hashes) {
      check(hash.size() == HASH, field, "hashes of 32 bytes");
    }
    return hashes.stream().map(ByteString::toByteArray).toList();
  }

  private void checkCheckpoint(Batch batch, TrustList trusted) throws GeneralSecurityException {
    var checkpoint = batch.checkpoint;
    boolean ours = checkpoint.owner().equals(home.member()) && Arrays.equals(checkpoint.log(), batch.log);
    check(ours, "checkpoint", "its origin names this log, and this member");
    checkpoint.verify(trusted.logKeys());
    // An end beyond 2^64 has come round to a small number.
    boolean ends = Long.compareUnsigned(batch.end(), batch.first) >= 0;
    boolean covered = ends && Long.compareUnsigned(checkpoint.size(), batch.end()) >= 0;
    check(covered, "checkpoint", "its size is at least the end of the records");
    // From here on no number is beyond what a long has: not the first index, nor the end.
    check(checkpoint.size() >= 0, "checkpoint", "its size is smaller than any proof can reach");
  }

  private static void check(boolean holds, String field, String form) {
    if (!holds) {
      throw Refusal.invalid(field, form);
    }
  }

  // --- Whether it is one history with what is held: from here on nothing is refused -----------------------------------

  private Verdict takeIn(Batch batch, long now) throws Exception {
    var held = HeldLog.open(store, batch.log);
    int overlap = (int) Math.max(0, Math.min(held.size() - batch.first, batch.records.size()));
    for (int i = 0; i < overlap; i++) { // What we hold already is compared, and not stored again.
      byte[] leaf = held.leaf(batch.first + i);
      if (leaf != null && !Arrays.equals(leaf, Merkle.leaf(batch.records.get(i)))) {
        return conflict(held, batch, batch.first + i, now);
      }
    }
    if (parts(held, batch.checkpoint)) {
      return conflict(held, batch, held.size(), now);
    }
    boolean gap = batch.first > held.size(), behind = gap && !batch.before.isEmpty();
    // The gateway goes on from where we stand; and of what ends where records never came, nothing can be proven.
    if ((gap && !behind) || (!gap && !held.knows(batch.end()))) {
      return holds(held.size(), held.root(held.size()));
    }
    var frontier = behind ? Frontier.told(batch.first, batch.before) : held.frontier();
    if (behind && (!held.shares(frontier.completed()) || breaks(held.accepted(), frontier))) {
      return conflict(held, batch, held.size(), now);
    }
    var added = batch.records.subList(overlap, batch.records.size());
    for (byte[] record : added) {
      frontier.push(Merkle.leaf(record));
      if (breaks(held.accepted(), frontier)) {
        return conflict(held, batch, held.size(), now);
      }
    }
    var checkpoint = batch.checkpoint;
    byte[] end = frontier.size() == batch.end() ? frontier.root() : held.root(batch.end());
    if (!Merkle.isConsistent(batch.end(), end, checkpoint.size(), checkpoint.root(), batch.proof)) {
      return conflict(held, batch, held.size(), now);
    }
    held.store(added, frontier, checkpoint, batch.note, now);
    return new Verdict(frontier.size(), frontier.root(), behind ? batch.first - held.size() : 0, null);
  }

  /**
   * Whether a checkpoint says another root than we know of its size. The proof leads from the end of these records to it,
   * and says nothing of what we hold beyond that end, nor of a checkpoint we accepted that reaches as far.
   */
  private static boolean parts(HeldLog held, Checkpoint checkpoint) throws Exception {
    long size = checkpoint.size();
    boolean known = size <= held.size() && held.knows(size);
    return (known && !Arrays.equals(held.root(size), checkpoint.root()))
        || parts(held.accepted(), size, checkpoint.root());
  }

  /** What the log's key has signed before binds it, also behind a gap. */
  private static boolean breaks(HeldLog.Accepted accepted, Frontier frontier) {
    return parts(accepted, frontier.size(), frontier.root());
  }

  /** Whether a tree of this size is another than the one that the log's key has signed before. */
  private static boolean parts(HeldLog.Accepted accepted, long size, byte[] root) {
    return accepted != null && accepted.size() == size && !Arrays.equals(accepted.root(), root);
  }

  private static Verdict holds(long size, byte[] root) {
    return new Verdict(size, root, 0, null);
  }

  /** Nothing of the request is stored but the evidence. */
  private Verdict conflict(HeldLog held, Batch batch, long index, long now) throws Exception {
    String before = held.accepted() == null ? "" : held.accepted().note();
    if (store.count("SELECT count(*) FROM access_conflict WHERE log = ?", batch.log) < MAX_CONFLICTS) {
      store.update("INSERT OR IGNORE INTO access_conflict VALUES (?, ?, ?, ?)", batch.log, before, batch.note, now);
    }
    var conflict = Conflict.newBuilder().setHeldCheckpoint(before).setHeldSize(held.size()).setIndex(index);
    return new Verdict(held.size(), null, 0, conflict.build());
  }

  /** The delivery receipt (delivery-receipt.cddl), signed like a statement: the gateway keeps it as evidence. */
  private byte[] sign(byte[] log, Verdict verdict, long now) throws GeneralSecurityException {
    CBORObject claims = map().Add(1, home.member()).Add(2, log).Add(3, verdict.size).Add(4, verdict.root).Add(6, now);
    return home.statementKey().sign(Signed.DELIVERY_RECEIPT, claims);
  }
}
