package org.tongxing.node;

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.util.Arrays;
import org.tongxing.client.Signed;
import org.tongxing.error.v1.ErrorReason;

/** What a phone asks for (consent-request.cddl), signed with the key that it enrolled. */
record ConsentRequest(
    Cose.Sign1 object,
    String audience,
    long issued,
    byte[] nonce,
    DeviceKey tokenKey,
    byte[] deviceId,
    int purposes,
    int scope,
    int kind,
    long life) {
  private static final int WISH = -65539;
  private static final long MAX_AGE = 300;

  static ConsentRequest read(byte[] data) {
    var object = Cose.read(Refusal.CONSENT_REQUEST, Signed.CONSENT_REQUEST, data);
    var claims = object.claims();
    String audience = claims.text(3);
    if (!Terms.isAudience(audience)) {
      throw claims.wrong(3, "not *, a category or a venue");
    }
    long issued = claims.time(6);
    byte[] nonce = claims.bytes(7, 16);
    var tokenKey = Token.deviceKey(claims);
    var wish = claims.map(WISH);
    byte[] deviceId = wish.bytes(1, 16);
    int purposes = wish.ascending(2, 1, Terms.PURPOSES.size());
    int scope = (int) wish.uint(3, Terms.ALL_SCOPES);
    int kind = (int) wish.uint(4, Token.ASSISTED);
    long life = wish.count(5);
    if (scope == 0 || kind == 0) {
      throw wish.wrong(scope == 0 ? 3 : 4, "not within its bounds");
    }
    wish.finish();
    claims.finish();
    return new ConsentRequest(object, audience, issued, nonce, tokenKey, deviceId, purposes, scope, kind, life);
  }

  /** Whether the enrolled device signed it, lately. */
  void verify(DeviceKey enrollmentKey, long now) throws GeneralSecurityException {
    if (!Arrays.equals(object.kid(), enrollmentKey.kid())) {
      throw new Refusal(Refusal.CONSENT_REQUEST, ErrorReason.ERROR_REASON_SIGNATURE_INVALID);
    }
    object.verify(enrollmentKey.key(), Signed.ESP256, new byte[0]);
    if (issued > now + Signed.CLOCK_LEEWAY) {
      throw new Refusal(Refusal.CONSENT_REQUEST, ErrorReason.ERROR_REASON_DEVICE_CLOCK_OFF)
          .with("seconds", issued - now);
    }
    if (now > issued + MAX_AGE) {
      throw new Refusal(Refusal.CONSENT_REQUEST, ErrorReason.ERROR_REASON_EXPIRED)
          .with("seconds", now - issued - MAX_AGE);
    }
  }

  /** What may be asked for at all. */
  void check(DeviceKey enrollmentKey, Policy policy) {
    if (kind != Token.OWN && kind != Token.PAPER) {
      throw Refusal.invalid("consent_request.kind", "own (1) and paper (3) are issued here");
    }
    if ((kind == Token.OWN) != (tokenKey != null)) {
      throw Refusal.invalid("consent_request.token_key", "own tokens have one, paper has none");
    }
    if (tokenKey != null && tokenKey.isSameAs(enrollmentKey)) {
      throw Refusal.invalid("consent_request.token_key", "is the enrolment key: a token has a fresh key of its own");
    }
    boolean levelOnly = kind != Token.PAPER || scope == Terms.LEVEL;
    if ((scope & Terms.LEVEL) == 0 || !levelOnly) {
      throw Refusal.invalid("consent_request.scope", "has the level, and on paper nothing else");
    }
    if (life == 0) {
      throw Refusal.invalid("consent_request.life", "is at least one second");
    }
    if (life > policy.life(kind)) {
      throw new Refusal(Refusal.CONSENT_REQUEST, ErrorReason.ERROR_REASON_LIFE_TOO_LONG)
          .with("max_seconds", policy.life(kind));
    }
  }

  /** All that was asked for. Not when: a phone may sign the same request again when its first signature is too old. */
  byte[] digest() throws GeneralSecurityException {
    byte[] key = tokenKey == null ? new byte[0] : tokenKey.point();
    var numbers = ByteBuffer.allocate(24).putInt(purposes).putInt(scope).putInt(kind).putLong(life).putInt(key.length);
    return Signed.sha256(numbers.array(), key, audience.getBytes(StandardCharsets.UTF_8));
  }
}
