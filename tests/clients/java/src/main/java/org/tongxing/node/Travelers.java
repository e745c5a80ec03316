package org.tongxing.node;

import static org.tongxing.client.Signed.array;
import static org.tongxing.client.Signed.map;

import com.google.protobuf.ByteString;
import com.upokecenter.cbor.CBORObject;
import io.grpc.stub.StreamObserver;
import java.security.GeneralSecurityException;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.HexFormat;
import java.util.List;
import java.util.regex.Pattern;
import org.tongxing.client.Signed;
import org.tongxing.error.v1.ErrorReason;
import org.tongxing.province.v1.ChangeKind;
import org.tongxing.traveler.v1.Consent;
import org.tongxing.traveler.v1.DeleteTravelerRequest;
import org.tongxing.traveler.v1.DeleteTravelerResponse;
import org.tongxing.traveler.v1.EnrollDeviceRequest;
import org.tongxing.traveler.v1.EnrollDeviceResponse;
import org.tongxing.traveler.v1.IssueConsentRequest;
import org.tongxing.traveler.v1.IssueConsentResponse;
import org.tongxing.traveler.v1.ListAccessesRequest;
import org.tongxing.traveler.v1.ListAccessesResponse;
import org.tongxing.traveler.v1.ListConsentsRequest;
import org.tongxing.traveler.v1.ListConsentsResponse;
import org.tongxing.traveler.v1.RevokeConsentRequest;
import org.tongxing.traveler.v1.RevokeConsentResponse;
import org.tongxing.traveler.v1.TravelerServiceGrpc.TravelerServiceImplBase;

/** Devices and consents of this member's travelers, and who asked for their status. */
final class Travelers extends TravelerServiceImplBase {
  private static final int DEFAULT_PAGE = 50, MAX_PAGE = 100;
  private static final Pattern PAGE_TOKEN = Pattern.compile("[0-9]{1,12}\\.[0-9a-f]{32}");

  private final Home home;
  private final Store store;

  Travelers(Home home) {
    this.home = home;
    this.store = home.store();
  }

  private record Person(long id, String name) {}

  private record Device(long person, DeviceKey key) {}

  /** What a write answered, now or before, and where the change log stands in that transaction. */
  private record Written(byte[] answer, Store.Head head) {}

  // --- Devices -------------------------------------------------------------------------------------------------------

  @Override
  public void enrollDevice(EnrollDeviceRequest request, StreamObserver<EnrollDeviceResponse> observer) {
    Home.answer(observer, () -> {
      var policy = home.trust().usable().policy();
      long now = Signed.now();
      String caller = Edge.CALLER.get().uri();
      String id = Forms.requestId(request.getRequestId());
      var document = Forms.document(request.hasDocument(), request.getDocument());
      String name = Forms.name(request.getName());
      var key = Forms.enrollmentKey(request.getEnrollmentKey());
      byte[] digest = Signed.sha256(request.toBuilder().setDocument(document).build().toByteArray());
      var written = store.transaction(() -> {
        byte[] earlier = store.answered(caller, id, digest);
        if (earlier != null) {
          return new Written(earlier, store.head());
        }
        long person = person(document.getTypeValue(), document.getNumber(), name);
        checkKeyIsNew(key, "enrollment_key");
        if (store.count("SELECT count(*) FROM device WHERE person = ?", person) >= policy.devices()) {
          throw new Refusal(ErrorReason.ERROR_REASON_TOO_MANY_DEVICES).with("limit", policy.devices());
        }
        byte[] device = Home.random(16);
        store.update("INSERT INTO device VALUES (?, ?, ?)", device, person, key.point());
        store.remember(caller, id, digest, device, now, person);
        return new Written(device, store.head());
      });
      return EnrollDeviceResponse.newBuilder()
          .setDeviceId(ByteString.copyFrom(written.answer))
          .setHomeTime(Home.timestamp(now))
          .setChangeToken(home.changeToken(written.head))
          .build();
    });
  }

  /** The person with a document, added if unknown. By another name it is somebody else: one side has it wrong. */
  private long person(int type, String number, String name) throws SQLException {
    String find = "SELECT id, name FROM person WHERE type = ? AND number = ?";
    Store.Row<Person> row = r -> new Person(r.getLong(1), r.getString(2));
    var person = store.first(row, find, type, number);
    if (person == null) {
      store.update("INSERT INTO person (type, number, name) VALUES (?, ?, ?)", type, number, name);
      person = store.first(row, find, type, number);
    }
    if (!person.name.equals(name)) {
      throw Refusal.invalid("name", "is not the name on file for this document");
    }
    return person.id;
  }

  /** A key that enrolled or that a token names has done so once: again, it would link what random handles unlink. */
  private void checkKeyIsNew(DeviceKey key, String field) throws SQLException {
    String count = "SELECT (SELECT count(*) FROM device WHERE key = ?) + (SELECT count(*) FROM consent WHERE key = ?)";
    if (store.count(count, key.point(), key.point()) > 0) {
      throw Refusal.invalid(field, "was used before; a device makes a fresh key");
    }
  }

  private Device device(byte[] id) throws Exception {
    record Row(long person, byte[] point) {}
    Store.Row<Row> row = r -> new Row(r.getLong(1), r.getBytes(2));
    var found = store.transaction(() -> store.first(row, "SELECT person, key FROM device WHERE id = ?", id));
    if (found == null) {
      throw new Refusal(ErrorReason.ERROR_REASON_DEVICE_UNKNOWN);
    }
    return new Device(found.person, DeviceKey.of(found.point));
  }

  // --- Consents ------------------------------------------------------------------------------------------------------

  @Override
  public void issueConsent(IssueConsentRequest request, StreamObserver<IssueConsentResponse> observer) {
    Home.answer(observer, () -> {
      var policy = home.trust().usable().policy();
      long now = Signed.now();
      if (request.getConsentRequest().isEmpty()) {
        throw Refusal.missing("consent_request");
      }
      var wish = ConsentRequest.read(request.getConsentRequest().toByteArray());
      var device = device(wish.deviceId());
      wish.verify(device.key, now);
      wish.check(device.key, policy);
      var issued = issue(wish, device.person, policy.liveConsents(), now);
      var token = Token.read(issued.answer);
      return IssueConsentResponse.newBuilder()
          .setToken(ByteString.copyFrom(issued.answer))
          .setHintKey(ByteString.copyFrom(home.hintKey(token.cti())))
          .setExpireTime(Home.timestamp(token.expires()))
          .setHomeTime(Home.timestamp(now))
          .setChangeToken(home.changeToken(issued.head))
          .build();
    });
  }

  /** The token: a new one, or that of the same request before. */
  private Written issue(ConsentRequest wish, long person, int limit, long now) throws Exception {
    String caller = "device " + HexFormat.of().formatHex(wish.deviceId());
    String id = HexFormat.of().formatHex(wish.nonce());
    byte[] cti = Home.random(16);
    byte[] token = sign(wish, cti, now);
    return store.transaction(() -> {
      byte[] earlier = store.answered(caller, id, wish.digest());
      if (earlier != null) {
        return new Written(earlier, store.head());
      }
      if (store.count("SELECT count(*) FROM device WHERE id = ?", wish.deviceId()) == 0) { // Deleted since it was found.
        throw new Refusal(ErrorReason.ERROR_REASON_DEVICE_UNKNOWN);
      }
      if (wish.kind() == Token.PAPER) { // A printed code that was lost dies with the reprint.
        String live = "person = ? AND kind = ? AND revoked IS NULL AND expires > ?";
        String find = "SELECT cti FROM consent WHERE " + live;
        var papers = store.list(r -> r.getBytes(1), find, person, Token.PAPER, now - Store.HONOURED);
        for (byte[] paper : papers) {
          store.update("UPDATE consent SET revoked = ? WHERE cti = ?", now, paper);
        }
        store.append(papers, ChangeKind.CHANGE_KIND_REVOKED, now);
      } else {
        checkKeyIsNew(wish.tokenKey(), "consent_request.token_key");
      }
      String live = "SELECT count(*) FROM consent WHERE person = ? AND revoked IS NULL AND expires > ?";
      if (store.count(live, person, now) >= limit) {
        throw new Refusal(ErrorReason.ERROR_REASON_TOO_MANY_CONSENTS).with("limit", limit);
      }
      byte[] key = wish.tokenKey() == null ? null : wish.tokenKey().point();
      store.update(
          "INSERT INTO consent VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, ?)",
          cti, person, wish.kind(), wish.scope(), Signed.sha256(token), key, now, now + wish.life(), wish.deviceId());
      store.remember(caller, id, wish.digest(), token, now, person);
      return new Written(token, store.head());
    });
  }

  private byte[] sign(ConsentRequest wish, byte[] cti, long now) throws GeneralSecurityException {
    var purposes = array();
    for (int purpose = 1; purpose <= Terms.PURPOSES.size(); purpose++) {
      if ((wish.purposes() & 1 << purpose) != 0) {
        purposes.Add(purpose);
      }
    }
    var claims = map().Add(1, home.member()).Add(3, wish.audience()).Add(4, now + wish.life()).Add(6, now).Add(7, cti);
    if (wish.tokenKey() != null) {
      claims.Add(8, map().Add(1, wish.tokenKey().toCose()));
    }
    CBORObject consent = map().Add(1, purposes).Add(2, wish.scope()).Add(4, wish.kind());
    return home.consentKey().sign(Signed.TOKEN, claims.Add(Token.CONSENT, consent));
  }

  @Override
  public void listConsents(ListConsentsRequest request, StreamObserver<ListConsentsResponse> observer) {
    Home.answer(observer, () -> {
      home.trust().usable();
      byte[] deviceId = Forms.id("device_id", request.getDeviceId());
      int size = pageSize(request.getPageSize());
      String after = pageToken(request.getPageToken(), PAGE_TOKEN);
      var response = ListConsentsResponse.newBuilder().addAllConsents(page(device(deviceId).person, after, size));
      if (response.getConsentsCount() == size) {
        var last = response.getConsents(size - 1);
        String cti = HexFormat.of().formatHex(last.getCti().toByteArray());
        response.setNextPageToken(last.getIssueTime().getSeconds() + "." + cti);
      }
      return response.build();
    });
  }

  private static int pageSize(int asked) {
    if (asked < 0 || asked > MAX_PAGE) {
      throw Refusal.invalid("page_size", "0 to 100");
    }
    return asked == 0 ? DEFAULT_PAGE : asked;
  }

  private static String pageToken(String after, Pattern form) {
    if (!after.isEmpty() && !form.matcher(after).matches()) {
      throw Refusal.invalid("page_token", "one that was given out");
    }
    return after;
  }

  private List<Consent> page(long person, String after, int size) throws Exception {
    var parts = after.isEmpty() ? new String[] {"" + Long.MAX_VALUE, ""} : after.split("\\.");
    return store.transaction(
        () ->
            store.list(
                Travelers::consent,
                "SELECT cti, kind, scope, issued, expires, revoked FROM consent WHERE person = ? AND expires > ?"
                    + " AND (issued, cti) < (?, ?) ORDER BY issued DESC, cti DESC LIMIT ?",
                person, Signed.now(), Long.parseLong(parts[0]), HexFormat.of().parseHex(parts[1]), size));
  }

  private static Consent consent(ResultSet row) throws SQLException {
    var consent =
        Consent.newBuilder()
            .setCti(ByteString.copyFrom(row.getBytes(1)))
            .setKindValue(row.getInt(2))
            .setScope(row.getInt(3))
            .setIssueTime(Home.timestamp(row.getLong(4)))
            .setExpireTime(Home.timestamp(row.getLong(5)));
    return (row.getObject(6) == null ? consent : consent.setRevokeTime(Home.timestamp(row.getLong(6)))).build();
  }

  @Override
  public void revokeConsent(RevokeConsentRequest request, StreamObserver<RevokeConsentResponse> observer) {
    Home.answer(observer, () -> {
      home.trust().usable();
      byte[] deviceId = Forms.id("device_id", request.getDeviceId());
      byte[] cti = Forms.id("cti", request.getCti());
      long person = device(deviceId).person;
      long now = Signed.now();
      var head = store.transaction(() -> {
        if (store.count("SELECT count(*) FROM consent WHERE cti = ? AND person = ?", cti, person) == 0) {
          throw new Refusal(ErrorReason.ERROR_REASON_CONSENT_UNKNOWN);
        }
        int revoked = store.update("UPDATE consent SET revoked = ? WHERE cti = ? AND revoked IS NULL", now, cti);
        var events = revoked == 0 ? List.<byte[]>of() : List.of(cti);
        return store.append(events, ChangeKind.CHANGE_KIND_REVOKED, now);
      });
      return RevokeConsentResponse.newBuilder().setChangeToken(home.changeToken(head)).build();
    });
  }

  // --- Who asked for their status, and their end ---------------------------------------------------------------------

  @Override
  public void listAccesses(ListAccessesRequest request, StreamObserver<ListAccessesResponse> observer) {
    Home.answer(observer, () -> {
      long delay = home.trust().usable().policy().visibilityDelay();
      byte[] deviceId = Forms.id("device_id", request.getDeviceId());
      int size = pageSize(request.getPageSize());
      String after = pageToken(request.getPageToken(), Accesses.PAGE_TOKEN);
      long person = device(deviceId).person;
      // Without a delay the gateway's clock may be ahead of ours.
      long latest = delay == 0 ? Long.MAX_VALUE : Signed.now() - delay;
      var accesses = store.transaction(() -> Accesses.page(store, person, latest, after, size));
      var response = ListAccessesResponse.newBuilder().addAllAccesses(accesses);
      if (accesses.size() == size) {
        response.setNextPageToken(Accesses.pageToken(accesses.get(size - 1)));
      }
      return response.build();
    });
  }

  /**
   * Nothing of a person stays: not in answers kept for repeated requests either, whose digests are of documents. Their
   * access records are nobody's from now on, and stay on the log: a log with holes could not be verified any more.
   */
  @Override
  public void deleteTraveler(DeleteTravelerRequest request, StreamObserver<DeleteTravelerResponse> observer) {
    Home.answer(observer, () -> {
      home.trust().usable();
      byte[] deviceId = Forms.id("device_id", request.getDeviceId());
      long now = Signed.now();
      return store.transaction(() -> {
        Long person = store.first(r -> r.getLong(1), "SELECT person FROM device WHERE id = ?", deviceId);
        if (person == null) {
          throw new Refusal(ErrorReason.ERROR_REASON_DEVICE_UNKNOWN);
        }
        String live = "SELECT cti FROM consent WHERE person = ? AND revoked IS NULL AND expires > ?";
        var revoked = store.list(r -> r.getBytes(1), live, person, now - Store.HONOURED);
        store.update("UPDATE access_record SET person = NULL, device = NULL WHERE person = ?", person);
        for (String table : List.of("request", "consent", "code", "device")) {
          store.update("DELETE FROM " + table + " WHERE person = ?", person);
        }
        store.update("DELETE FROM person WHERE id = ?", person);
        var head = store.append(revoked, ChangeKind.CHANGE_KIND_REVOKED, now);
        return DeleteTravelerResponse.newBuilder()
            .setChangeToken(home.changeToken(head))
            .setRevokedConsents(revoked.size())
            .build();
      });
    });
  }
}
