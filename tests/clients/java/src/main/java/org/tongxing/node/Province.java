package org.tongxing.node;

import static org.tongxing.client.Signed.array;
import static org.tongxing.client.Signed.map;

import com.google.protobuf.ByteString;
import com.upokecenter.cbor.CBORObject;
import io.grpc.stub.StreamObserver;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.util.Arrays;
import javax.crypto.Cipher;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;
import org.tongxing.client.Signed;
import org.tongxing.error.v1.ErrorReason;
import org.tongxing.province.v1.GetNodeRequest;
import org.tongxing.province.v1.GetNodeResponse;
import org.tongxing.province.v1.LookupRequest;
import org.tongxing.province.v1.LookupResponse;
import org.tongxing.province.v1.ProvinceServiceGrpc.ProvinceServiceImplBase;
import org.tongxing.province.v1.UnknownTraveler;
import org.tongxing.province.v1.WatchChangesRequest;
import org.tongxing.province.v1.WatchChangesResponse;

/** The standard lookup: what the gateway has checked is checked again, then the store is asked once, then signed. */
final class Province extends ProvinceServiceImplBase {
  private static final String SOFTWARE = "tongxing-java-node/0.1.0";
  private static final int STATUS = -65538, HINT_BYTES = 64;
  private static final String FIND =
      "SELECT hash, revoked, name, number, label, rule, authority, assigned FROM consent"
          + " JOIN person ON person.id = consent.person LEFT JOIN code"
          + " ON code.id = (SELECT max(id) FROM code WHERE code.person = person.id) WHERE cti = ?";

  private final Home home;
  private final Watchers watchers;

  Province(Home home, Watchers watchers) {
    this.home = home;
    this.watchers = watchers;
  }

  /** What stands behind a handle. A person whom nobody assigned a code has no label. */
  private record Found(
      byte[] hash, boolean revoked, String name, String number, String label, String rule, String by, long assigned) {}

  /** The change log's head and what was found, of one snapshot: a status is never older than its number says. */
  private record Snapshot(Store.Head head, Found found) {}

  @Override
  public void lookup(LookupRequest request, StreamObserver<LookupResponse> observer) {
    Home.answer(observer, () -> answer(request));
  }

  @Override
  public void getNode(GetNodeRequest request, StreamObserver<GetNodeResponse> observer) {
    Home.answer(observer, () -> {
      var trust = home.trust().usable();
      var head = home.store().transaction(home.store()::head);
      return GetNodeResponse.newBuilder()
          .setSoftware(SOFTWARE)
          .setTrustListVersion(trust.list().version())
          .setPolicyVersion(trust.document().version())
          .setChangeToken(home.changeToken(head))
          .setNodeTime(Home.timestamp(Signed.now()))
          .build();
    });
  }

  @Override
  public StreamObserver<WatchChangesRequest> watchChanges(StreamObserver<WatchChangesResponse> observer) {
    return watchers.open(observer);
  }

  private LookupResponse answer(LookupRequest request) throws Exception {
    var trust = home.trust().usable();
    long now = Signed.now();
    if (request.getToken().isEmpty()) {
      throw Refusal.missing("token");
    }
    String venue = Terms.venueField(request.getVenue());
    int purpose = request.getPurposeValue();
    if (purpose < 1 || purpose > Terms.PURPOSES.size()) {
      throw new Refusal(ErrorReason.ERROR_REASON_PURPOSE_UNKNOWN).violating("purpose", "1 to 6");
    }
    int scope = request.getScope();
    if (scope < 1 || scope > Terms.ALL_SCOPES || (scope & Terms.LEVEL) == 0) {
      throw Refusal.invalid("scope", "scope bits, 1 to 63, the level (1) always among them");
    }
    Forms.id("exchange_id", request.getExchangeId());

    var token = Token.read(request.getToken().toByteArray());
    token.verify(home.member(), trust.consentKeys(home.member()));
    token.checkUse(request.getProof().toByteArray(), venue, purpose, trust.policy(), now);
    token.checkScope(scope, venue, purpose, trust.policy());

    var snapshot = find(token);
    var found = snapshot.found;
    if (found != null && found.revoked) {
      throw new Refusal(Refusal.TOKEN, ErrorReason.ERROR_REASON_CONSENT_REVOKED);
    }
    if (found == null || found.label == null) {
      var unknown = UnknownTraveler.newBuilder().setChangeToken(home.changeToken(snapshot.head));
      return LookupResponse.newBuilder().setUnknownTraveler(unknown).build();
    }
    byte[] statement = state(token, scope, snapshot, trust.policy(), now);
    return LookupResponse.newBuilder().setStatement(ByteString.copyFrom(statement)).build();
  }

  private Snapshot find(Token token) throws Exception {
    Store.Row<Found> row = r ->
        new Found(
            r.getBytes(1), r.getObject(2) != null, r.getString(3), r.getString(4), r.getString(5), r.getString(6),
            r.getString(7), r.getLong(8));
    var store = home.store();
    return store.transaction(() -> {
      var found = store.first(row, FIND, token.cti());
      boolean same = found != null && Arrays.equals(found.hash, token.hash());
      return new Snapshot(store.head(), same ? found : null);
    });
  }

  /** The statement (statement.cddl): what the scope grants and nothing else. */
  private byte[] state(Token token, int scope, Snapshot snapshot, Policy policy, long now)
      throws GeneralSecurityException {
    var found = snapshot.found;
    // A token is honoured for the clock leeway after its end; a statement never ends before it begins.
    long expires = Math.max(now, Math.min(token.expires(), now + policy.statementLife()));
    boolean detail = (scope & Terms.ASSIGNMENT) != 0;
    var status =
        map()
            .Add(1, Arrays.copyOf(token.hash(), 16))
            .Add(2, array(snapshot.head.epoch(), snapshot.head.seq()))
            .Add(3, found.label);
    // A level that is not green names who assigned it and by which rule, whatever the scope.
    if (detail || !"green".equals(policy.meaning(home.member(), found.label))) {
      status.Add(4, found.rule).Add(5, found.by);
    }
    if (detail) {
      status.Add(6, found.assigned);
    }
    if ((scope & Terms.IDENTITY_HINT) != 0) {
      status.Add(10, seal(found, home.hintKey(token.cti())));
    }
    status.Add(11, Math.min(expires, now + policy.offlineLife()));
    CBORObject claims = map().Add(1, home.member()).Add(4, expires).Add(6, now).Add(STATUS, status);
    return home.statementKey().sign(Signed.STATEMENT, claims);
  }

  /** Masked name and tail of the number, for whoever has {@code k}: nonce ‖ ciphertext ‖ tag, 92 bytes for all. */
  private static byte[] seal(Found found, byte[] k) throws GeneralSecurityException {
    int length = found.name.codePointCount(0, found.name.length());
    String first = found.name.substring(0, found.name.offsetByCodePoints(0, 1));
    byte[] name = (first + "*".repeat(Math.min(Math.max(length - 1, 1), 8))).getBytes(StandardCharsets.UTF_8);
    byte[] tail = found.number.substring(Math.max(0, found.number.length() - 4)).getBytes(StandardCharsets.UTF_8);
    var plain = ByteBuffer.allocate(HINT_BYTES).put((byte) name.length).put((byte) tail.length).put(name).put(tail);
    byte[] key = Signed.hkdf(k, "tongxing/1/hint".getBytes(StandardCharsets.UTF_8), 32);
    byte[] nonce = Home.random(12);
    var cipher = Cipher.getInstance("AES/GCM/NoPadding");
    cipher.init(Cipher.ENCRYPT_MODE, new SecretKeySpec(key, "AES"), new GCMParameterSpec(128, nonce));
    return ByteBuffer.allocate(92).put(nonce).put(cipher.doFinal(plain.array())).array();
  }
}
