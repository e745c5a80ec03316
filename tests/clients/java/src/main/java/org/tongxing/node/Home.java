package org.tongxing.node;

import com.google.protobuf.ByteString;
import com.google.protobuf.MessageLite;
import com.google.protobuf.Timestamp;
import com.upokecenter.cbor.CBORObject;
import io.grpc.stub.StreamObserver;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.PrivateKey;
import java.security.SecureRandom;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.tongxing.client.Signed;
import org.tongxing.error.v1.ErrorReason;

/** What the three services share: whose node it is, its keys, whom it trusts, its store. */
record Home(String member, SigningKey consentKey, SigningKey statementKey, byte[] secret, Trust trust, Store store) {
  private static final Logger LOG = Logger.getLogger(Home.class.getName());
  private static final SecureRandom RANDOM = new SecureRandom();

  /** An issuer's Ed25519 key. */
  record SigningKey(PrivateKey key, byte[] kid) {
    byte[] sign(int typ, CBORObject claims) throws GeneralSecurityException {
      return Signed.sign1(typ, Signed.ED25519, key, kid, claims, new byte[0]);
    }
  }

  /** Answers a call: with a message, or a refusal. Any other failure is a defect, whose trace is in the log. */
  static <T extends MessageLite> void answer(StreamObserver<T> observer, Store.Work<T> work) {
    String trace = Edge.TRACE.get();
    try {
      T message = work.run();
      observer.onNext(message);
      observer.onCompleted();
    } catch (Refusal refusal) {
      observer.onError(refusal.toStatus(trace));
    } catch (Exception e) {
      LOG.log(Level.SEVERE, "a defect, trace " + trace, e);
      observer.onError(new Refusal(ErrorReason.ERROR_REASON_INTERNAL).with("trace", trace).toStatus(trace));
    }
  }

  /** {@code k} of one token: opens its sealed hints, and is kept by nobody but the phone. */
  byte[] hintKey(byte[] cti) throws GeneralSecurityException {
    byte[] prefix = "tongxing/1/k".getBytes(StandardCharsets.UTF_8);
    byte[] info = ByteBuffer.allocate(prefix.length + cti.length).put(prefix).put(cti).array();
    return Signed.hkdf(secret, info, 16);
  }

  /** Where the change log stands, for others to hand back: 1, the member's number, the epoch, the change's number. */
  ByteString changeToken(Store.Head head) {
    var token = ByteBuffer.allocate(26).put((byte) 1).put(Byte.parseByte(member)).put(head.epoch()).putLong(head.seq());
    return ByteString.copyFrom(token.array());
  }

  static Timestamp timestamp(long seconds) {
    return Timestamp.newBuilder().setSeconds(seconds).build();
  }

  static byte[] random(int length) {
    byte[] bytes = new byte[length];
    RANDOM.nextBytes(bytes);
    return bytes;
  }
}
