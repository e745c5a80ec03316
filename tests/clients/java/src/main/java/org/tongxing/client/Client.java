package org.tongxing.client;

import static org.tongxing.client.Signed.array;
import static org.tongxing.client.Signed.check;
import static org.tongxing.client.Signed.map;
import static org.tongxing.client.Signed.sha256;

import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.io.IOException;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyPair;
import java.security.SecureRandom;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.TimeUnit;
import org.tongxing.assignment.v1.AssignmentServiceGrpc;
import org.tongxing.assignment.v1.SetCodeRequest;
import org.tongxing.recognition.v1.Decision;
import org.tongxing.recognition.v1.Outcome;
import org.tongxing.recognition.v1.RecognitionServiceGrpc;
import org.tongxing.recognition.v1.RecognitionServiceGrpc.RecognitionServiceBlockingStub;
import org.tongxing.recognition.v1.RecognizeRequest;
import org.tongxing.recognition.v1.RecognizeResponse;
import org.tongxing.traveler.v1.Access;
import org.tongxing.traveler.v1.EnrollDeviceRequest;
import org.tongxing.traveler.v1.ExportTravelerRequest;
import org.tongxing.traveler.v1.IssueConsentRequest;
import org.tongxing.traveler.v1.ListAccessesRequest;
import org.tongxing.traveler.v1.TravelerServiceGrpc.TravelerServiceBlockingStub;
import org.tongxing.traveler.v1.TravelerServiceGrpc;
import org.tongxing.types.v1.ConsentKind;
import org.tongxing.types.v1.Document;
import org.tongxing.types.v1.DocumentType;
import org.tongxing.types.v1.Level;
import org.tongxing.types.v1.Purpose;

/**
 * One health code from its first day to the gate, over mTLS: enrol, consent, prove, be recognised, believe nobody.
 *
 * <p>Four parties that are four programs in life, top to bottom: the phone, its home member's backend and operator, the
 * venue. How a signed object is made and checked is in Signed, the receipt that an exchange is on record in Receipt, whom
 * to trust in Federation.
 */
public final class Client {
  private static final long DEADLINE = 10; // Seconds, for each side. Without one a call may wait for ever.
  private static final int SCOPE_LEVEL = 1, SCOPE_IDENTITY_HINT = 32; // Ask for what is needed: the person reads it.

  private final Map<String, String> options = new HashMap<>();
  final Federation federation;
  final String venue;
  private final String member, name;
  private final Document document;
  private byte[] deviceId; // Once it is enrolled.

  public static void main(String[] arguments) throws Exception {
    var client = new Client(arguments);
    String text = client.atHome();
    System.out.println("presentation  " + text);
    client.atTheGate(text);
  }

  /**
   * Options: --dir, --member, --venue, --name, --label, --document for a seeded person, and --reference for one whose code
   * the member's platform has pushed.
   */
  Client(String[] arguments) throws IOException, GeneralSecurityException {
    for (int i = 0; i + 1 < arguments.length; i += 2) {
      options.put(arguments[i], arguments[i + 1]);
    }
    member = options.getOrDefault("--member", "44");
    venue = options.getOrDefault("--venue", "11/station/beijing-west");
    federation = new Federation(Path.of(options.getOrDefault("--dir", ".tongxing")), venue);
    name = options.getOrDefault("--name", "演示旅客");
    String seeded = options.get("--document");
    String number = seeded != null ? seeded : "DEMO-" + UUID.randomUUID().toString().substring(24).toUpperCase();
    var type = seeded != null ? DocumentType.DOCUMENT_TYPE_RESIDENT_ID : DocumentType.DOCUMENT_TYPE_OTHER;
    document = Document.newBuilder().setType(type).setNumber(number).build();
  }

  // --- The phone, and those at home who serve it ---------------------------------------------------------------------

  /** A phone enrols, gets a token and shows it. Returns the text of the QR. */
  String atHome() throws IOException, GeneralSecurityException {
    var channel = federation.node(member, "backend");
    try {
      var backend = TravelerServiceGrpc.newBlockingStub(channel).withDeadlineAfter(DEADLINE, TimeUnit.SECONDS);
      var phone = new Phone(backend, document, name, options.getOrDefault("--reference", ""));
      deviceId = phone.deviceId;
      if (!options.containsKey("--document") && !options.containsKey("--reference")) {
        setCode(options.getOrDefault("--label", "绿码"));
      }
      phone.consent(backend, venue.split("/")[1], List.of(Purpose.PURPOSE_ENTRY, Purpose.PURPOSE_TRAVEL));
      return phone.present(venue);
    } finally {
      channel.shutdownNow();
    }
  }

  /** Who asked for the traveler's status, as they see it: what home's log has by now, the newest first. */
  List<Access> accesses() throws IOException {
    var channel = federation.node(member, "backend");
    try {
      var backend = TravelerServiceGrpc.newBlockingStub(channel).withDeadlineAfter(DEADLINE, TimeUnit.SECONDS);
      var request = ListAccessesRequest.newBuilder().setDeviceId(ByteString.copyFrom(deviceId));
      return backend.listAccesses(request.build()).getAccessesList();
    } finally {
      channel.shutdownNow();
    }
  }

  /** How many codes home has on file for the traveler, those that hold no more among them. */
  int codesOnFile() throws IOException {
    var channel = federation.node(member, "backend");
    try {
      var backend = TravelerServiceGrpc.newBlockingStub(channel).withDeadlineAfter(DEADLINE, TimeUnit.SECONDS);
      var request = ExportTravelerRequest.newBuilder().setDeviceId(ByteString.copyFrom(deviceId)).build();
      int codes = 0;
      for (var parts = backend.exportTraveler(request); parts.hasNext(); ) {
        codes += parts.next().hasCode() ? 1 : 0;
      }
      return codes;
    } finally {
      channel.shutdownNow();
    }
  }

  private static final class Phone {
    private final KeyPair enrollmentKey = Signed.newDeviceKey();
    private final byte[] deviceId;
    private final long clockOffset;
    private KeyPair tokenKey;
    private byte[] token, k;

    Phone(TravelerServiceBlockingStub backend, Document document, String name, String reference)
        throws GeneralSecurityException {
      var request =
          EnrollDeviceRequest.newBuilder()
              .setRequestId(UUID.randomUUID().toString())
              .setDocument(document)
              .setName(name)
              .setPersonReference(reference) // Empty: the platform, if there is one, has no code for this person.
              .setEnrollmentKey(ByteString.copyFrom(Signed.coseKey(enrollmentKey).EncodeToBytes()));
      var response = backend.enrollDevice(request.build());
      deviceId = response.getDeviceId().toByteArray();
      // Proofs live a minute, so a phone goes by home's clock and not by its own.
      clockOffset = response.getHomeTime().getSeconds() - Signed.now();
      System.out.println("enrolled      a phone");
    }

    private long now() {
      return Signed.now() + clockOffset;
    }

    /** Asks for a token. It names a fresh key: the enrolment key would link what the random cti unlinks (I6). */
    void consent(TravelerServiceBlockingStub backend, String audience, List<Purpose> purposes)
        throws GeneralSecurityException {
      tokenKey = Signed.newDeviceKey();
      var wish =
          map()
              .Add(1, deviceId)
              .Add(2, array(purposes.stream().map(Purpose::getNumber).toArray()))
              .Add(3, SCOPE_LEVEL | SCOPE_IDENTITY_HINT)
              .Add(4, ConsentKind.CONSENT_KIND_OWN_VALUE)
              .Add(5, 3600);
      var claims =
          map()
              .Add(3, audience)
              .Add(6, now())
              .Add(7, random(16))
              .Add(8, map().Add(1, Signed.coseKey(tokenKey)))
              .Add(-65539, wish);
      byte[] kid = Signed.deviceKid(enrollmentKey);
      byte[] consentRequest = Signed.sign1(Signed.CONSENT_REQUEST, enrollmentKey, kid, claims);
      var request = IssueConsentRequest.newBuilder().setConsentRequest(ByteString.copyFrom(consentRequest)).build();
      var response = backend.issueConsent(request);
      token = response.getToken().toByteArray();
      k = response.getHintKey().toByteArray();
      var until = Instant.ofEpochSecond(response.getExpireTime().getSeconds());
      System.out.printf("consented     a token of %d bytes until %s%n", token.length, until);
    }

    /** A proof for this venue alone, whose printed code the phone scanned. Good for a minute. */
    String present(String venue) throws GeneralSecurityException {
      byte[] cti = Signed.read1(token).claims().get(7).GetByteString();
      var claims = map().Add(3, venue).Add(4, now() + 60).Add(6, now()).Add(10, random(8));
      byte[] tokenHash = sha256(token); // Signed along, so that the proof is no other token's.
      byte[] proof = Signed.sign1(Signed.PROOF, tokenKey, Arrays.copyOf(cti, 8), claims, tokenHash);
      return "TX1:" + Base45.encode(array(1, token, proof, k).EncodeToBytes());
    }

    private static byte[] random(int length) {
      byte[] bytes = new byte[length];
      new SecureRandom().nextBytes(bytes);
      return bytes;
    }
  }

  /** A person whom the member did not know has no code yet. The operator assigns one and says by which rule. */
  void setCode(String label) throws IOException {
    var channel = federation.node(member, "operator");
    try {
      var operator = AssignmentServiceGrpc.newBlockingStub(channel).withDeadlineAfter(DEADLINE, TimeUnit.SECONDS);
      var request =
          SetCodeRequest.newBuilder()
              .setRequestId(UUID.randomUUID().toString())
              .setDocument(document)
              .setLabel(label)
              .setRule("R-CASE")
              .setAuthority(member + "/cdc")
              .setJustification("an example");
      operator.setCode(request.build());
      System.out.println("assigned      " + label);
    } finally {
      channel.shutdownNow();
    }
  }

  // --- The venue -----------------------------------------------------------------------------------------------------

  record Presentation(byte[] token, byte[] proof, byte[] k) {
    static Presentation read(String text) {
      check(text.startsWith("TX1:"), "not a presentation");
      var parts = Signed.decode(Base45.decode(text.substring(4)));
      check(parts.size() == 4 && parts.get(0).AsInt32Value() == 1, "not a presentation of version 1");
      byte[] proof = parts.get(2).isNull() ? new byte[0] : parts.get(2).GetByteString(); // Paper has none.
      return new Presentation(parts.get(1).GetByteString(), proof, parts.get(3).GetByteString());
    }
  }

  /** A venue asks the national gateway. All it got from the phone is the text of the QR. */
  void atTheGate(String text) throws IOException, GeneralSecurityException {
    var shown = Presentation.read(text);
    var channel = federation.gateway(venue);
    try {
      var gateway = RecognitionServiceGrpc.newBlockingStub(channel).withDeadlineAfter(DEADLINE, TimeUnit.SECONDS);
      // k is not in the request, and must never be: it opens what the gateway may not read (I6).
      var request =
          RecognizeRequest.newBuilder()
              .setToken(ByteString.copyFrom(shown.token()))
              .setProof(ByteString.copyFrom(shown.proof()))
              .setVenue(venue)
              .setPurpose(Purpose.PURPOSE_ENTRY);
      var answer = gateway.recognize(request.build());
      var next = answer.getNextStep();
      System.out.printf("answer        %s %s %s: ", answer.getOutcome(), answer.getDecision(), answer.getSource());
      System.out.println(next.getZh() + " " + next.getEn());
      check(answer.getOutcome() == Outcome.OUTCOME_STATUS, "no status");
      check(verifyAnswer(shown, answer).equals(mask(name)), "another person's code");
      check(answer.getDecision() == Decision.DECISION_PASS, "the gate stays shut");
      verifyRecord(request.build(), answer);

      // Errors are about the call, and are meant for programs: branch on the reason, never on the message.
      request.setPurpose(Purpose.PURPOSE_MEDICAL); // The person did not agree to that.
      var refusal = refusal(gateway, request.build());
      check(refusal.reason().equals("PURPOSE_NOT_CONSENTED"), "refused for " + refusal);
      var missing = refusal(gateway, RecognizeRequest.newBuilder().setPurpose(Purpose.PURPOSE_ENTRY).build());
      check(missing.equals(new Refusal("FIELD_MISSING", List.of("token"))), "refused for " + missing);
      System.out.println("ok java PASS " + refusal.reason());
    } finally {
      channel.shutdownNow();
    }
  }

  /** Checks home's own words, so that nobody needs to believe the gateway (I3). Returns the masked name. */
  private String verifyAnswer(Presentation shown, RecognizeResponse answer) throws GeneralSecurityException {
    var consent = Signed.verify1(Signed.TOKEN, shown.token(), federation::consentKeys);
    byte[] signed = answer.getStatement().toByteArray();
    var statement = Signed.verify1(Signed.STATEMENT, signed, federation::statementKeys);
    Signed.checkKeys(statement, Set.of(1, 4, 6, -65538), Set.of());
    var status = statement.get(-65538);
    Signed.checkKeys(status, Set.of(1, 2, 3, 11), Set.of(4, 5, 6, 7, 8, 9, 10));
    String issuer = statement.get(1).AsString();
    String label = status.get(3).AsString();
    long expires = statement.get(4).AsInt64Value();
    long issued = statement.get(6).AsInt64Value();
    long offlineUntil = status.get(11).AsInt64Value();
    long now = Signed.now();

    boolean bound = Arrays.equals(status.get(1).GetByteString(), Arrays.copyOf(sha256(shown.token()), 16));
    check(bound && issuer.equals(consent.get(1).AsString()), "the statement answers for another token");
    boolean livesRightly = issued <= expires && expires <= issued + federation.life("statement");
    check(livesRightly, "the statement claims too long a life");
    long offlineLimit = Math.min(issued + federation.life("offline"), expires);
    check(issued <= offlineUntil && offlineUntil <= offlineLimit, "offline for too long");
    boolean holds = issued - Signed.CLOCK_LEEWAY <= now && now < expires + Signed.CLOCK_LEEWAY;
    check(holds, "the statement does not hold now");
    Map.of(6, 2, 7, 4, 8, 8, 9, 16, 10, 32).forEach((field, bit) -> { // Which field needs which scope bit.
      boolean granted = (answer.getGrantedScope() & bit) != 0;
      check(granted || !status.ContainsKey(field), "the statement discloses what nobody granted");
    });

    // The level is ours to work out. Yellow or red needs a rule and an authority of the policy too; a green, nothing.
    String level = federation.level(issuer, label);
    check("green".equals(level) && answer.getLevel() == Level.LEVEL_GREEN, label + " is " + level + ", not green");
    long life = expires - issued;
    System.out.printf("verified      %s of %s, %d s, offline %d s%n", label, issuer, life, offlineUntil - issued);
    check(status.ContainsKey(10), "no identity hint, although it was asked for");
    var hint = Signed.openHint(status.get(10).GetByteString(), shown.k());
    var identity = hint.maskedName() + " …" + hint.tail();
    System.out.println("identity      " + identity + ": compare with the document in the person's hand");
    return hint.maskedName();
  }

  /** Checks that the exchange is on record, on home's log, and that the record says what the answer says (I2). */
  private void verifyRecord(RecognizeRequest asked, RecognizeResponse answer) throws GeneralSecurityException {
    var consent = Signed.read1(asked.getToken().toByteArray()).claims(); // Verified with the answer.
    byte[] signed = answer.getAccessReceipt().toByteArray();
    var receipt = Receipt.verify(signed, federation.logKeys());
    receipt.check(consent, asked, answer);
    String place = "no. " + receipt.index() + " on a log of " + receipt.log();
    System.out.println("on record     " + place + ", for this exchange, with this statement");
    signed[signed.length - 1] ^= 1;
    check(!Receipt.isBelieved(signed, federation.logKeys()), "a flipped receipt was believed");
  }

  private static String mask(String name) {
    int length = name.codePointCount(0, name.length());
    return name.substring(0, name.offsetByCodePoints(0, 1)) + "*".repeat(Math.min(Math.max(length - 1, 1), 8));
  }

  /** Why a call failed, and the fields at fault. */
  private record Refusal(String reason, List<String> fields) {}

  /** Makes a call that must fail. */
  private static Refusal refusal(RecognitionServiceBlockingStub gateway, RecognizeRequest request)
      throws InvalidProtocolBufferException {
    try {
      gateway.recognize(request);
    } catch (StatusRuntimeException e) {
      String reason = "";
      var fields = new ArrayList<String>();
      for (var detail : StatusProto.fromThrowable(e).getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          var info = detail.unpack(ErrorInfo.class);
          check(info.getDomain().equals("tongxing"), "an error of " + info.getDomain());
          reason = info.getReason();
          var code = e.getStatus().getCode();
          System.out.printf("refused       %s %s %s %s%n", code, reason, info.getDomain(), info.getMetadataMap());
        } else if (detail.is(BadRequest.class)) {
          for (var violation : detail.unpack(BadRequest.class).getFieldViolationsList()) {
            fields.add(violation.getField());
            System.out.printf("              %s: %s%n", violation.getField(), violation.getDescription());
          }
        } else if (detail.is(RetryInfo.class)) {
          var delay = detail.unpack(RetryInfo.class).getRetryDelay();
          System.out.printf("              try again in %d s%n", delay.getSeconds());
        }
      }
      return new Refusal(reason, fields);
    }
    throw new IllegalStateException("a call that had to be refused was answered");
  }
}
