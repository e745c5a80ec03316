package org.tongxing.node;

import java.util.regex.Pattern;

/**
 * What stands on the log for one exchange (access-record.cddl): who asked, where, why, by which consent, and what they
 * learned. Who the traveler is, it does not say; this node alone finds that, by {@code cti}.
 *
 * <p>Of an exchange that was refused, {@code outcome} and {@code source} are 0; of one that was answered,
 * {@code refusal} is empty.
 */
record AccessRecord(
    long time, String venue, String caller, String staff, int purpose, int granted, byte[] cti, int kind, int outcome,
    int source, String refusal, byte[] exchange) {
  static final int MAX_BYTES = 512;

  private static final String OBJECT = Refusal.ACCESS_RECORD;
  private static final int MAX_CALLER = 96, MAX_STAFF = 32, MAX_REASON = 40, ABSENT = 0;
  private static final String PART = "/[a-z0-9]([a-z0-9-]*[a-z0-9])?";
  private static final Pattern CALLER = Pattern.compile("([0-9]{2}|gateway)(" + PART + "){2,3}");
  private static final Pattern STAFF = Pattern.compile("[A-Za-z0-9._-]+");
  private static final Pattern REASON = Pattern.compile("[A-Z0-9_]+");

  /** Outcomes with which something was disclosed: a status, or a label that has no level. */
  private static final int STATUS = 1, UNDETERMINED = 3;

  /** Throws a refusal that nobody is sent: who delivers a record is not asked to mend it. */
  static AccessRecord read(byte[] bytes) {
    var fields = new Fields(OBJECT, Cose.decode(OBJECT, bytes, MAX_BYTES));
    long time = fields.time(1);
    String venue = fields.text(2);
    check(Terms.isVenue(venue), "not a venue");
    String caller = text(fields, 3, CALLER, MAX_CALLER);
    String staff = fields.has(4) ? text(fields, 4, STAFF, MAX_STAFF) : "";
    int purpose = number(fields, 5, 1, Terms.PURPOSES.size());
    int granted = fields.has(6) ? number(fields, 6, 1, Terms.ALL_SCOPES) : ABSENT;
    byte[] cti = fields.bytes(7, 16);
    int kind = number(fields, 8, 1, 4);
    int outcome = ABSENT, source = ABSENT;
    String refusal = "";
    if (fields.has(9)) {
      outcome = number(fields, 9, 1, 5);
      source = number(fields, 10, 0, 3);
      if (fields.has(11)) {
        fields.bytes(11, 16);
      }
    } else {
      refusal = text(fields, 14, REASON, MAX_REASON);
    }
    fields.count(12);
    byte[] exchange = fields.bytes(13, 16);
    fields.bytes(15, 16);
    fields.finish();
    return new AccessRecord(
        time, venue, caller, staff, purpose, granted, cti, kind, outcome, source, refusal, exchange);
  }

  /** What was granted counts only if it went out. */
  int disclosed() {
    return outcome == STATUS || outcome == UNDETERMINED ? granted : 0;
  }

  private static String text(Fields fields, long key, Pattern form, int max) {
    String text = fields.text(key);
    check(text.length() <= max && form.matcher(text).matches(), key + ": not of its form");
    return text;
  }

  private static int number(Fields fields, long key, int min, int max) {
    long number = fields.uint(key, max);
    check(number >= min, key + ": not within its bounds");
    return (int) number;
  }

  private static void check(boolean holds, String otherwise) {
    if (!holds) {
      throw Refusal.malformed(OBJECT, otherwise);
    }
  }
}
