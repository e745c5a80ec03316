package org.tongxing.node;

import com.google.protobuf.Any;
import com.google.protobuf.Duration;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Status.Code;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeMap;
import org.tongxing.error.v1.ErrorReason;

/** A refused call: one documented reason with its metadata (error_reason.proto), and how that looks on the wire. */
final class Refusal extends RuntimeException {
  /** What a refusal can speak of: metadata {@code object}. */
  static final String TOKEN = "token", PROOF = "proof", CONSENT_REQUEST = "consent_request";
  static final String CHECKPOINT = "checkpoint", ACCESS_RECORD = "access_record";

  /** What is this node's to mend, and what may be tried again in a moment. All else is the caller's. */
  private static final Set<ErrorReason> OURS =
      Set.of(
          ErrorReason.ERROR_REASON_OVERLOADED,
          ErrorReason.ERROR_REASON_DEADLINE_EXCEEDED,
          ErrorReason.ERROR_REASON_TRUST_EXPIRED,
          ErrorReason.ERROR_REASON_STORE_UNAVAILABLE,
          ErrorReason.ERROR_REASON_INTERNAL);
  private static final Set<ErrorReason> RETRYABLE =
      Set.of(
          ErrorReason.ERROR_REASON_OVERLOADED,
          ErrorReason.ERROR_REASON_TRUST_EXPIRED,
          ErrorReason.ERROR_REASON_STORE_UNAVAILABLE);

  private final ErrorReason reason;
  private final Map<String, String> metadata = new TreeMap<>();
  private BadRequest badRequest;

  Refusal(ErrorReason reason) {
    super(reason.name(), null, false, false); // Refusals are answers: nobody reads their stack traces.
    this.reason = reason;
    metadata.put("source", OURS.contains(reason) ? "home" : "caller");
  }

  Refusal(String object, ErrorReason reason) {
    this(reason);
    with("object", object);
  }

  /** An object that is not of the layout its .cddl file gives. */
  static Refusal malformed(String object, String detail) {
    return new Refusal(object, ErrorReason.ERROR_REASON_OBJECT_MALFORMED).with("detail", detail);
  }

  static Refusal missing(String field) {
    return new Refusal(ErrorReason.ERROR_REASON_FIELD_MISSING).violating(field, "is required");
  }

  /** A field outside its documented form. Says what would be right, and never what was sent: that may be a person's. */
  static Refusal invalid(String field, String what) {
    return new Refusal(ErrorReason.ERROR_REASON_FIELD_INVALID).violating(field, what);
  }

  Refusal with(String key, Object value) {
    metadata.put(key, value.toString());
    return this;
  }

  Refusal violating(String field, String what) {
    var violation = BadRequest.FieldViolation.newBuilder().setField(field).setDescription(what);
    badRequest = BadRequest.newBuilder().addFieldViolations(violation).build();
    return this;
  }

  /** google.rpc.Status with ErrorInfo, and BadRequest or RetryInfo where they apply. */
  StatusRuntimeException toStatus(String trace) {
    String name = reason.name().substring("ERROR_REASON_".length());
    metadata.put("trace_id", trace);
    var info = ErrorInfo.newBuilder().setReason(name).setDomain("tongxing").putAllMetadata(metadata).build();
    var status =
        com.google.rpc.Status.newBuilder()
            .setCode(code().value())
            .setMessage(name.toLowerCase(Locale.ROOT).replace('_', ' '))
            .addDetails(Any.pack(info));
    if (badRequest != null) {
      status.addDetails(Any.pack(badRequest));
    }
    if (RETRYABLE.contains(reason)) {
      var second = RetryInfo.newBuilder().setRetryDelay(Duration.newBuilder().setSeconds(1)).build();
      status.addDetails(Any.pack(second));
    }
    return StatusProto.toStatusRuntimeException(status.build());
  }

  /** The code that error_reason.proto gives this reason; a reason without a line here is never sent by a node. */
  private Code code() {
    return switch (reason) {
      case ERROR_REASON_ROLE_NOT_ALLOWED, ERROR_REASON_MEMBER_NOT_ALLOWED, ERROR_REASON_AUDIENCE_MISMATCH,
          ERROR_REASON_PURPOSE_NOT_CONSENTED, ERROR_REASON_PURPOSE_NOT_ADMITTED, ERROR_REASON_PROOF_MISSING,
          ERROR_REASON_PROOF_UNEXPECTED, ERROR_REASON_PROOF_OF_OTHER_VENUE, ERROR_REASON_CONSENT_REVOKED,
          ERROR_REASON_SCOPE_NOT_GRANTED -> Code.PERMISSION_DENIED;
      case ERROR_REASON_FIELD_MISSING, ERROR_REASON_FIELD_INVALID, ERROR_REASON_PURPOSE_UNKNOWN,
          ERROR_REASON_MEMBER_UNKNOWN, ERROR_REASON_REQUEST_MALFORMED, ERROR_REASON_NOT_CBOR,
          ERROR_REASON_TRAILING_BYTES, ERROR_REASON_NOT_DETERMINISTIC, ERROR_REASON_OBJECT_TOO_LARGE,
          ERROR_REASON_OBJECT_MALFORMED, ERROR_REASON_CRITICAL_HEADER_UNKNOWN, ERROR_REASON_TYPE_MISMATCH,
          ERROR_REASON_ALGORITHM_NOT_ALLOWED, ERROR_REASON_LABEL_UNKNOWN -> Code.INVALID_ARGUMENT;
      case ERROR_REASON_KEY_UNKNOWN, ERROR_REASON_ALGORITHM_MISMATCH, ERROR_REASON_SIGNATURE_INVALID ->
          Code.UNAUTHENTICATED;
      case ERROR_REASON_EXPIRED, ERROR_REASON_NOT_YET_VALID, ERROR_REASON_LIFE_TOO_LONG,
          ERROR_REASON_DEVICE_CLOCK_OFF -> Code.FAILED_PRECONDITION;
      case ERROR_REASON_REQUEST_TOO_LARGE, ERROR_REASON_OVERLOADED, ERROR_REASON_TOO_MANY_CONSENTS,
          ERROR_REASON_TOO_MANY_DEVICES -> Code.RESOURCE_EXHAUSTED;
      case ERROR_REASON_PERSON_UNKNOWN, ERROR_REASON_DEVICE_UNKNOWN, ERROR_REASON_CONSENT_UNKNOWN -> Code.NOT_FOUND;
      case ERROR_REASON_METHOD_UNKNOWN -> Code.UNIMPLEMENTED;
      case ERROR_REASON_REQUEST_ID_REUSED -> Code.ALREADY_EXISTS;
      case ERROR_REASON_DEADLINE_EXCEEDED -> Code.DEADLINE_EXCEEDED;
      case ERROR_REASON_TRUST_EXPIRED, ERROR_REASON_STORE_UNAVAILABLE -> Code.UNAVAILABLE;
      default -> Code.INTERNAL;
    };
  }
}
