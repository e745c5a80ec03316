package org.tongxing.node;

import io.grpc.stub.StreamObserver;
import java.sql.SQLException;
import java.util.List;
import org.tongxing.assignment.v1.AssignmentServiceGrpc.AssignmentServiceImplBase;
import org.tongxing.assignment.v1.SetCodeRequest;
import org.tongxing.assignment.v1.SetCodeResponse;
import org.tongxing.client.Signed;
import org.tongxing.error.v1.ErrorReason;
import org.tongxing.province.v1.ChangeKind;
import org.tongxing.types.v1.Document;

/** Codes assigned by hand (赋码). */
final class Assignments extends AssignmentServiceImplBase {
  private final Home home;
  private final Store store;

  Assignments(Home home) {
    this.home = home;
    this.store = home.store();
  }

  private record Code(String label, String rule, String authority, long assigned) {
    boolean says(SetCodeRequest request) {
      return label.equals(request.getLabel())
          && rule.equals(request.getRule())
          && authority.equals(request.getAuthority());
    }
  }

  /** The label must be the policy's. Whether the rule may assign its level is judged by whoever reads the statement. */
  @Override
  public void setCode(SetCodeRequest request, StreamObserver<SetCodeResponse> observer) {
    Home.answer(observer, () -> {
      var policy = home.trust().usable().policy();
      String caller = Edge.CALLER.get().uri();
      String id = Forms.requestId(request.getRequestId());
      var document = Forms.document(request.hasDocument(), request.getDocument());
      String label = Forms.label(request.getLabel());
      Forms.rule(request.getRule());
      String member = Forms.authority(request.getAuthority()).substring(0, 2);
      Forms.justification(request.getJustification());
      if (policy.meaning(home.member(), label) == null) {
        throw new Refusal(ErrorReason.ERROR_REASON_LABEL_UNKNOWN).with("label", label);
      }
      if (!member.equals(home.member()) && !member.equals("00")) {
        throw Refusal.invalid("authority", "is of the member itself or of 00");
      }
      var asked = request.toBuilder().setDocument(document).build();
      byte[] digest = Signed.sha256(asked.toByteArray());
      long now = Signed.now();
      return store.transaction(() -> {
        byte[] earlier = store.answered(caller, id, digest);
        if (earlier != null) {
          return SetCodeResponse.parseFrom(earlier);
        }
        long person = person(document);
        var response = assign(asked, person, caller, now);
        store.remember(caller, id, digest, response.toByteArray(), now, person);
        return response;
      });
    });
  }

  private long person(Document document) throws SQLException {
    Long person =
        store.first(
            r -> r.getLong(1), "SELECT id FROM person WHERE type = ? AND number = ?",
            document.getTypeValue(), document.getNumber());
    if (person == null) {
      throw new Refusal(ErrorReason.ERROR_REASON_PERSON_UNKNOWN);
    }
    return person;
  }

  /** Status and events are one transaction. The status that holds already is recorded again, and is no change. */
  private SetCodeResponse assign(SetCodeRequest request, long person, String by, long now) throws Exception {
    var held =
        store.first(
            r -> new Code(r.getString(1), r.getString(2), r.getString(3), r.getLong(4)),
            "SELECT label, rule, authority, assigned FROM code WHERE person = ? ORDER BY id DESC LIMIT 1", person);
    boolean same = held != null && held.says(request);
    long assigned = same ? held.assigned : now;
    store.update(
        "INSERT INTO code (person, label, rule, authority, assigned, recorded, by, justification)"
            + " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        person, request.getLabel(), request.getRule(), request.getAuthority(), assigned, now, by,
        request.getJustification());
    String honoured = "SELECT cti FROM consent WHERE person = ? AND revoked IS NULL AND expires > ?";
    List<byte[]> changed =
        same ? List.of() : store.list(r -> r.getBytes(1), honoured, person, now - Store.HONOURED);
    var head = store.append(changed, ChangeKind.CHANGE_KIND_STATUS, now);
    return SetCodeResponse.newBuilder()
        .setAssignTime(Home.timestamp(assigned))
        .setChangeToken(home.changeToken(head))
        .setChangedConsents(changed.size())
        .build();
  }
}
