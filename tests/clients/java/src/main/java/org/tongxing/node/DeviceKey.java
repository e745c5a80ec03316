package org.tongxing.node;

import com.upokecenter.cbor.CBORObject;
import java.math.BigInteger;
import java.security.AlgorithmParameters;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PublicKey;
import java.security.spec.ECFieldFp;
import java.security.spec.ECGenParameterSpec;
import java.security.spec.ECParameterSpec;
import java.security.spec.ECPoint;
import java.security.spec.ECPublicKeySpec;
import java.util.Arrays;
import org.tongxing.client.Signed;

/** A device's public key on P-256, the point compressed (SEC 1 §2.3.3): 33 bytes, as it is stored and hashed. */
record DeviceKey(byte[] point, PublicKey key) {
  private static final ECParameterSpec P256 = p256();

  /** From a COSE_Key ({@code device-key} in the .cddl files). */
  static DeviceKey read(Fields fields) {
    boolean p256 = fields.integer(1) == 2 & fields.integer(-1) == 1;
    if (!p256) {
      throw fields.wrong(1, "a device key is EC2 on P-256");
    }
    byte[] x = fields.bytes(-2, 32);
    byte[] point = new byte[33];
    System.arraycopy(x, 0, point, 1, 32);
    point[0] = (byte) (fields.bool(-3) ? 3 : 2);
    fields.finish();
    try {
      return of(point);
    } catch (GeneralSecurityException e) {
      throw fields.wrong(-2, "not a point of P-256");
    }
  }

  /** The JDK reads no compressed points: y is the root of x³ − 3x + b that has the sign. */
  static DeviceKey of(byte[] point) throws GeneralSecurityException {
    var curve = P256.getCurve();
    var p = ((ECFieldFp) curve.getField()).getP();
    var x = new BigInteger(1, point, 1, 32);
    var square = x.pow(3).add(curve.getA().multiply(x)).add(curve.getB()).mod(p);
    var y = square.modPow(p.add(BigInteger.ONE).shiftRight(2), p); // p is 3 modulo 4.
    if (x.compareTo(p) >= 0 || !y.multiply(y).mod(p).equals(square)) {
      throw new GeneralSecurityException("not a point of P-256");
    }
    if (y.testBit(0) != (point[0] == 3)) {
      y = p.subtract(y);
    }
    var spec = new ECPublicKeySpec(new ECPoint(x, y), P256);
    return new DeviceKey(point, KeyFactory.getInstance("EC").generatePublic(spec));
  }

  CBORObject toCose() {
    byte[] x = Arrays.copyOfRange(point, 1, 33);
    return Signed.map().Add(1, 2).Add(-1, 1).Add(-2, x).Add(-3, point[0] == 3);
  }

  byte[] kid() throws GeneralSecurityException {
    return Arrays.copyOf(Signed.sha256(point), 8);
  }

  boolean isSameAs(DeviceKey other) {
    return Arrays.equals(point, other.point);
  }

  private static ECParameterSpec p256() {
    try {
      var parameters = AlgorithmParameters.getInstance("EC");
      parameters.init(new ECGenParameterSpec("secp256r1"));
      return parameters.getParameterSpec(ECParameterSpec.class);
    } catch (GeneralSecurityException e) {
      throw new IllegalStateException("a JDK without P-256", e);
    }
  }
}
