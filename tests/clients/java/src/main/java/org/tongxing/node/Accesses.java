package org.tongxing.node;

import com.google.protobuf.ByteString;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.HexFormat;
import java.util.List;
import java.util.regex.Pattern;
import org.tongxing.traveler.v1.Access;

/** Who asked for a traveler's status: the records that were found to be theirs when they came, newest first. */
final class Accesses {
  /** Where a page ended: time, log and index of its last record. */
  static final Pattern PAGE_TOKEN = Pattern.compile("[0-9]{1,12}\\.[0-9a-f]{64}\\.[0-9]{1,18}");

  private Accesses() {}

  /** Those from {@code latest} or before. Inside a transaction. */
  static List<Access> page(Store store, long person, long latest, String after, int size) throws SQLException {
    var parts = after.isEmpty() ? new String[] {"" + Long.MAX_VALUE, "", "0"} : after.split("\\.");
    return store.list(
        Accesses::access,
        "SELECT bytes, device, log, idx FROM access_record WHERE person = ? AND time <= ?"
            + " AND (time, log, idx) < (?, ?, ?) ORDER BY time DESC, log DESC, idx DESC LIMIT ?",
        person, latest, Long.parseLong(parts[0]), HexFormat.of().parseHex(parts[1]), Long.parseLong(parts[2]), size);
  }

  static String pageToken(Access last) {
    String log = HexFormat.of().formatHex(last.getLog().toByteArray());
    return last.getTime().getSeconds() + "." + log + "." + last.getLogIndex();
  }

  private static Access access(ResultSet row) throws SQLException {
    var record = AccessRecord.read(row.getBytes(1));
    byte[] device = row.getBytes(2);
    return Access.newBuilder()
        .setTime(Home.timestamp(record.time()))
        .setVenue(record.venue())
        .setCaller(record.caller())
        .setStaffId(record.staff())
        .setPurposeValue(record.purpose())
        .setDisclosedScope(record.disclosed())
        .setOutcomeValue(record.outcome())
        .setSourceValue(record.source())
        .setRefusalReason(record.refusal())
        .setCti(ByteString.copyFrom(record.cti()))
        .setKindValue(record.kind())
        .setDeviceId(device == null ? ByteString.EMPTY : ByteString.copyFrom(device))
        .setExchangeId(ByteString.copyFrom(record.exchange()))
        .setLog(ByteString.copyFrom(row.getBytes(3)))
        .setLogIndex(row.getLong(4))
        .build();
  }
}
