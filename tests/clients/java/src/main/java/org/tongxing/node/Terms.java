package org.tongxing.node;

import java.util.List;
import java.util.regex.Pattern;
import org.tongxing.error.v1.ErrorReason;

/** The names of things, as the .cddl files write them: members, categories, purposes, scopes, venues, audiences. */
final class Terms {
  /** In the order of their numbers, which start at 1. */
  static final List<String> CATEGORIES =
      List.of(
          "checkpoint", "residential", "station", "airport", "port", "terminal", "ferry", "hospital", "park", "school",
          "workplace", "other");
  static final List<String> PURPOSES = List.of("entry", "travel", "medical", "school", "work", "lodging");

  /** In the order of their bits. */
  static final List<String> SCOPES =
      List.of("level", "assignment", "tests", "vaccination", "risk-areas", "identity-hint");

  static final int LEVEL = 1, ASSIGNMENT = 2, IDENTITY_HINT = 32, ALL_SCOPES = 63;

  /** Lower-case letters, digits and inner hyphens. */
  static final Pattern NAME = Pattern.compile("[a-z0-9]([a-z0-9-]*[a-z0-9])?");
  static final Pattern MEMBER = Pattern.compile("00|1[1-5]|2[1-3]|3[1-7]|4[1-6]|5[0-4]|6[1-6]");

  private static final Pattern TWO_DIGITS = Pattern.compile("[0-9]{2}");
  private static final Pattern LONG_NUMBER = Pattern.compile("[0-9]{11}"); // A phone's or a person's: in no venue.
  private static final int MAX_VENUE = 40, MAX_AUTHORITY = 27;

  private Terms() {}

  static boolean isMember(String code) {
    return MEMBER.matcher(code).matches();
  }

  static boolean isVenue(String text) {
    var parts = text.split("/", -1);
    return parts.length == 3 && isMember(parts[0]) && CATEGORIES.contains(parts[1]) && isVenueName(text, parts[2]);
  }

  private static boolean isVenueName(String venue, String name) {
    boolean fits = venue.length() <= MAX_VENUE && NAME.matcher(name).matches();
    return fits && !LONG_NUMBER.matcher(name).find();
  }

  static String category(String venue) {
    return venue.split("/")[1];
  }

  static boolean isAudience(String text) {
    return text.equals("*") || CATEGORIES.contains(text) || isVenue(text);
  }

  static boolean includes(String audience, String venue) {
    return audience.equals("*") || audience.equals(category(venue)) || audience.equals(venue);
  }

  static boolean isAuthority(String text) {
    var parts = text.split("/", 2);
    boolean named = parts.length == 2 && isMember(parts[0]) && NAME.matcher(parts[1]).matches();
    return named && text.length() <= MAX_AUTHORITY;
  }

  /** A line: no control characters, no space around it. */
  static boolean isLine(String text) {
    return text.codePoints().noneMatch(Character::isISOControl) && text.equals(text.strip());
  }

  /** The venue of a request. A code of no member is repeated; whatever has not even its form may be anything. */
  static String venueField(String text) {
    if (text.isEmpty()) {
      throw Refusal.missing("venue");
    }
    var parts = text.split("/", -1);
    boolean formed = parts.length == 3 && isVenueName(text, parts[2]);
    if (formed && !isMember(parts[0])) {
      var refusal = new Refusal(ErrorReason.ERROR_REASON_MEMBER_UNKNOWN).violating("venue", "its member is unknown");
      throw TWO_DIGITS.matcher(parts[0]).matches() ? refusal.with("member", parts[0]) : refusal;
    }
    if (!formed || !CATEGORIES.contains(parts[1])) {
      throw Refusal.invalid("venue", "<member>/<category>/<name>, at most 40 bytes, no 11 digits in a row");
    }
    return text;
  }
}
