package org.tongxing.node;

import java.security.GeneralSecurityException;
import java.security.PublicKey;
import java.util.Arrays;
import java.util.HexFormat;
import java.util.Map;
import org.tongxing.client.Signed;
import org.tongxing.error.v1.ErrorReason;

/** A consent token (consent-token.cddl) that is well formed, and the checks of one use of it, in their order. */
record Token(
    Cose.Sign1 object,
    byte[] hash,
    String issuer,
    String audience,
    long expires,
    long issued,
    byte[] cti,
    DeviceKey deviceKey,
    int purposes,
    int scope,
    int kind) {
  static final int OWN = 1, DEPENDENT = 2, PAPER = 3, ASSISTED = 4;
  static final int CONSENT = -65537;

  private static final byte[] NOTHING = {};

  static Token read(byte[] data) throws GeneralSecurityException {
    var object = Cose.read(Refusal.TOKEN, Signed.TOKEN, data);
    var claims = object.claims();
    String issuer = claims.text(1);
    if (issuer.length() != 2) {
      throw claims.wrong(1, "not a member's code");
    }
    if (!Terms.isMember(issuer)) {
      var refusal = new Refusal(Refusal.TOKEN, ErrorReason.ERROR_REASON_MEMBER_UNKNOWN);
      throw issuer.matches("[0-9]{2}") ? refusal.with("member", issuer) : refusal;
    }
    String audience = claims.text(3);
    if (!Terms.isAudience(audience)) {
      throw claims.wrong(3, "not *, a category or a venue");
    }
    long expires = claims.time(4);
    long issued = claims.time(6);
    byte[] cti = claims.bytes(7, 16);
    var deviceKey = deviceKey(claims);
    var consent = claims.map(CONSENT);
    int purposes = consent.ascending(1, 1, Terms.PURPOSES.size());
    int scope = (int) consent.uint(2, Terms.ALL_SCOPES);
    int kind = (int) consent.uint(4, ASSISTED);
    consent.finish();
    claims.finish();
    boolean hasDevice = kind == OWN || kind == DEPENDENT;
    boolean levelOnly = kind != PAPER || scope == Terms.LEVEL;
    boolean oneVenue = kind != ASSISTED || Terms.isVenue(audience);
    boolean whole = kind > 0 && expires > issued && (scope & Terms.LEVEL) != 0;
    if (!whole || hasDevice != (deviceKey != null) || !levelOnly || !oneVenue) {
      throw Refusal.malformed(Refusal.TOKEN, "its claims contradict each other");
    }
    byte[] hash = Signed.sha256(data);
    return new Token(object, hash, issuer, audience, expires, issued, cti, deviceKey, purposes, scope, kind);
  }

  /** Claim 8: the key made for one token alone, or null. Tokens and requests for one have it alike. */
  static DeviceKey deviceKey(Fields claims) {
    if (!claims.has(8)) {
      return null;
    }
    var fields = claims.map(8);
    var key = DeviceKey.read(fields.map(1));
    fields.finish();
    return key;
  }

  void verify(String member, Map<String, PublicKey> consentKeys) {
    var key = issuer.equals(member) ? consentKeys.get(HexFormat.of().formatHex(object.kid())) : null;
    if (key == null) {
      throw new Refusal(Refusal.TOKEN, ErrorReason.ERROR_REASON_KEY_UNKNOWN).with("member", issuer);
    }
    object.verify(key, Signed.ED25519, NOTHING);
  }

  /** Whether the traveler's consent covers this use now, as the device that it was given to proves. */
  void checkUse(byte[] proof, String venue, int purpose, Policy policy, long now) {
    checkConsent(venue, purpose, policy, now);
    if (deviceKey != null && proof.length == 0) {
      throw new Refusal(Refusal.PROOF, ErrorReason.ERROR_REASON_PROOF_MISSING);
    }
    if (deviceKey == null && proof.length == 0) {
      return; // Paper, and what staff asked for.
    }
    checkProof(proof, venue, policy.proofLife(), now);
  }

  /** Whether it holds now, here, and for this purpose. */
  void checkConsent(String venue, int purpose, Policy policy, long now) {
    checkLife(Refusal.TOKEN, issued, expires, policy.life(kind));
    if (issued > now + Signed.CLOCK_LEEWAY) {
      throw new Refusal(Refusal.TOKEN, ErrorReason.ERROR_REASON_NOT_YET_VALID).with("seconds", issued - now);
    }
    checkNotOver(Refusal.TOKEN, expires, now);
    if (!Terms.includes(audience, venue)) {
      throw new Refusal(Refusal.TOKEN, ErrorReason.ERROR_REASON_AUDIENCE_MISMATCH).with("venue", venue);
    }
    if ((purposes & 1 << purpose) == 0) {
      throw new Refusal(Refusal.TOKEN, ErrorReason.ERROR_REASON_PURPOSE_NOT_CONSENTED)
          .with("purpose", Terms.PURPOSES.get(purpose - 1));
    }
  }

  /** A proof (proof.cddl): made by this token's device, for this showing. Whether it was redeemed is the gateway's. */
  void checkProof(byte[] proof, String venue, long maxLife, long now) {
    if (deviceKey == null) {
      throw new Refusal(Refusal.PROOF, ErrorReason.ERROR_REASON_PROOF_UNEXPECTED);
    }
    var signed = Cose.read(Refusal.PROOF, Signed.PROOF, proof);
    var claims = signed.claims();
    String bound = claims.has(3) ? claims.text(3) : null;
    if (bound != null && !Terms.isVenue(bound)) {
      throw claims.wrong(3, "not a venue");
    }
    long ends = claims.time(4);
    long began = claims.time(6);
    claims.bytes(10, 8);
    claims.finish();
    if (ends <= began) {
      throw Refusal.malformed(Refusal.PROOF, "it expires before it is issued");
    }
    if (!Arrays.equals(signed.kid(), Arrays.copyOf(cti, 8))) {
      throw new Refusal(Refusal.PROOF, ErrorReason.ERROR_REASON_SIGNATURE_INVALID);
    }
    signed.verify(deviceKey.key(), Signed.ESP256, hash);
    checkLife(Refusal.PROOF, began, ends, maxLife);
    if (began > now + Signed.CLOCK_LEEWAY) {
      throw new Refusal(Refusal.PROOF, ErrorReason.ERROR_REASON_DEVICE_CLOCK_OFF).with("seconds", began - now);
    }
    checkNotOver(Refusal.PROOF, ends, now);
    if (bound != null && !bound.equals(venue)) {
      throw new Refusal(Refusal.PROOF, ErrorReason.ERROR_REASON_PROOF_OF_OTHER_VENUE).with("venue", venue);
    }
  }

  /** Nothing may be disclosed beyond what the traveler, and policy for this venue and purpose, both grant. */
  void checkScope(int wanted, String venue, int purpose, Policy policy) {
    String category = Terms.category(venue);
    String word = Terms.PURPOSES.get(purpose - 1);
    Integer admitted = policy.grant(category, word);
    if (admitted == null) {
      throw new Refusal(ErrorReason.ERROR_REASON_PURPOSE_NOT_ADMITTED).with("category", category).with("purpose", word);
    }
    int granted = scope & admitted;
    if ((wanted & ~granted) != 0) {
      throw new Refusal(ErrorReason.ERROR_REASON_SCOPE_NOT_GRANTED).with("granted", granted);
    }
  }

  private static void checkLife(String object, long from, long to, long max) {
    if (to - from > max) {
      throw new Refusal(object, ErrorReason.ERROR_REASON_LIFE_TOO_LONG).with("max_seconds", max);
    }
  }

  private static void checkNotOver(String object, long expires, long now) {
    if (now >= expires + Signed.CLOCK_LEEWAY) {
      throw new Refusal(object, ErrorReason.ERROR_REASON_EXPIRED).with("seconds", now - expires);
    }
  }
}
