package org.tongxing.client;

import com.upokecenter.cbor.CBORObject;
import com.upokecenter.cbor.CBORType;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.KeyPair;
import java.security.KeyPairGenerator;
import java.security.MessageDigest;
import java.security.PrivateKey;
import java.security.PublicKey;
import java.security.Signature;
import java.security.interfaces.ECPublicKey;
import java.security.spec.ECGenParameterSpec;
import java.security.spec.X509EncodedKeySpec;
import java.time.Instant;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HashSet;
import java.util.HexFormat;
import java.util.Map;
import java.util.Set;
import java.util.function.Function;
import javax.crypto.Cipher;
import javax.crypto.Mac;
import javax.crypto.spec.GCMParameterSpec;
import javax.crypto.spec.SecretKeySpec;

/**
 * Signed objects: COSE in deterministic CBOR, as proto/*.cddl lays them out.
 *
 * <p>What a client needs, and those parts that a node needs too. By hand on a CBOR library and the JDK: the COSE
 * libraries do not know the fully specified algorithms −9 and −19 of RFC 9864 yet, and what is left of COSE without
 * them is the array that gets signed.
 */
public final class Signed {
  /** {@code typ}, which keeps a signature over one kind of object from being taken for another. */
  public static final int TOKEN = 65001, PROOF = 65002, STATEMENT = 65003, TRUST_LIST = 65004, POLICY = 65005;
  public static final int LOG_COMMIT = 65006, CONSENT_REQUEST = 65007, DELIVERY_RECEIPT = 65008;

  /** {@code alg}: issuers and roots sign with Ed25519, devices with ECDSA on P-256. */
  public static final int ED25519 = -19, ESP256 = -9;

  /** Header labels (RFC 9052 §3.1, RFC 9596). */
  public static final int ALG = 1, KID = 4, TYP = 16;

  public static final long CLOCK_LEEWAY = 30;
  private static final long WEEK = 7 * 24 * 3600;
  private static final byte[] NOTHING = {};

  private Signed() {}

  public static void check(boolean holds, String otherwise) {
    if (!holds) {
      throw new IllegalStateException(otherwise);
    }
  }

  public static long now() {
    return Instant.now().getEpochSecond();
  }

  public static byte[] sha256(byte[]... parts) throws GeneralSecurityException {
    var digest = MessageDigest.getInstance("SHA-256");
    for (byte[] part : parts) {
      digest.update(part);
    }
    return digest.digest();
  }

  // --- Deterministic CBOR (RFC 8949 §4.2.1) --------------------------------------------------------------------------

  /** The library's plain maps are in bytewise order, which is the deterministic one. */
  public static CBORObject map() {
    return CBORObject.NewMap();
  }

  public static CBORObject array(Object... items) {
    var array = CBORObject.NewArray();
    for (Object item : items) {
      array.Add(item);
    }
    return array;
  }

  static CBORObject decode(byte[] data) {
    var value = CBORObject.DecodeFromBytes(data);
    check(Arrays.equals(value.EncodeToBytes(), data), "not deterministic CBOR"); // One meaning has one encoding.
    check(isPlain(value), "a tag or a float");
    return value;
  }

  private static boolean isPlain(CBORObject value) {
    return !value.isTagged() && switch (value.getType()) {
      case Array -> value.getValues().stream().allMatch(Signed::isPlain);
      case Map -> value.getEntries().stream().allMatch(e -> isPlain(e.getKey()) && isPlain(e.getValue()));
      case FloatingPoint -> false;
      default -> true;
    };
  }

  /** Maps are closed: an entry that its .cddl file does not name is refused, never skipped. */
  public static void checkKeys(CBORObject map, Set<Integer> required, Set<Integer> optional) {
    check(map.getType() == CBORType.Map, "not a map");
    var keys = new HashSet<Integer>();
    for (CBORObject key : map.getKeys()) {
      keys.add(key.AsInt32Value());
    }
    check(keys.containsAll(required), "an entry is missing");
    keys.removeAll(required);
    check(optional.containsAll(keys), "an entry too many");
  }

  private static void checkArray(CBORObject array, int size) {
    check(array.getType() == CBORType.Array && array.size() == size, "not an array of " + size);
    check(array.get(1).equals(map()), "the unprotected header is not empty");
  }

  // --- What a device signs: COSE_Sign1 with ESP256 -------------------------------------------------------------------

  static KeyPair newDeviceKey() throws GeneralSecurityException {
    var generator = KeyPairGenerator.getInstance("EC");
    generator.initialize(new ECGenParameterSpec("secp256r1"));
    return generator.generateKeyPair();
  }

  static byte[] sign1(int typ, KeyPair key, byte[] kid, CBORObject claims) throws GeneralSecurityException {
    return sign1(typ, key, kid, claims, NOTHING);
  }

  static byte[] sign1(int typ, KeyPair key, byte[] kid, CBORObject claims, byte[] externalAad)
      throws GeneralSecurityException {
    return sign1(typ, ESP256, key.getPrivate(), kid, claims, externalAad);
  }

  /** COSE_Sign1 by any key: a device's, or (a node's) issuer's. */
  public static byte[] sign1(int typ, int alg, PrivateKey key, byte[] kid, CBORObject claims, byte[] externalAad)
      throws GeneralSecurityException {
    byte[] header = map().Add(ALG, alg).Add(KID, kid).Add(TYP, typ).EncodeToBytes();
    byte[] payload = claims.EncodeToBytes();
    var signer = signature(alg);
    signer.initSign(key);
    signer.update(array("Signature1", header, externalAad, payload).EncodeToBytes());
    return array(header, map(), payload, signer.sign()).EncodeToBytes();
  }

  /** The JDK's name of an algorithm. Of ECDSA the form r ‖ s, not DER (RFC 9053 §2.1). */
  private static Signature signature(int alg) throws GeneralSecurityException {
    return Signature.getInstance(alg == ESP256 ? "SHA256withECDSAinP1363Format" : "Ed25519");
  }

  /** The public half as a COSE_Key, the point compressed: of y there is only the sign. */
  static CBORObject coseKey(KeyPair key) {
    return map().Add(1, 2).Add(-1, 1).Add(-2, x(key)).Add(-3, yIsOdd(key));
  }

  static byte[] deviceKid(KeyPair key) throws GeneralSecurityException {
    byte[] sign = {(byte) (yIsOdd(key) ? 3 : 2)};
    return Arrays.copyOf(sha256(sign, x(key)), 8);
  }

  /** 32 bytes: a BigInteger has one more for its sign, or fewer where zeros lead. */
  private static byte[] x(KeyPair key) {
    byte[] number = ((ECPublicKey) key.getPublic()).getW().getAffineX().toByteArray();
    byte[] x = new byte[32];
    int length = Math.min(number.length, 32);
    System.arraycopy(number, number.length - length, x, 32 - length, length);
    return x;
  }

  private static boolean yIsOdd(KeyPair key) {
    return ((ECPublicKey) key.getPublic()).getW().getAffineY().testBit(0);
  }

  // --- What issuers sign: COSE_Sign1 with Ed25519 --------------------------------------------------------------------

  /** An object in its parts. Nothing is believed yet. */
  record Read(byte[] header, byte[] payload, byte[] signature, CBORObject claims) {}

  static Read read1(byte[] data) {
    var object = decode(data);
    checkArray(object, 4);
    byte[] payload = object.get(2).GetByteString();
    return new Read(object.get(0).GetByteString(), payload, object.get(3).GetByteString(), decode(payload));
  }

  /** The claims of an object that one of its issuer's keys signed; {@code keysOf} has them by kid for an issuer. */
  static CBORObject verify1(int typ, byte[] data, Function<String, Map<String, PublicKey>> keysOf)
      throws GeneralSecurityException {
    var object = read1(data);
    return verify1(typ, object, keysOf.apply(object.claims().get(1).AsString()));
  }

  /** The claims of an object that one of these keys signed. */
  static CBORObject verify1(int typ, Read object, Map<String, PublicKey> keys) {
    var key = keys.get(kid(typ, object.header()));
    check(key != null, "its issuer has no such key for this use");
    verify(key, array("Signature1", object.header(), NOTHING, object.payload()), object.signature());
    return object.claims();
  }

  /** The header has exactly alg, kid and typ. It never chooses the algorithm: it must name the one that we expect. */
  private static String kid(int typ, byte[] bytes) {
    var header = decode(bytes);
    checkKeys(header, Set.of(ALG, KID, TYP), Set.of());
    boolean expected = header.get(ALG).AsInt32Value() == ED25519 && header.get(TYP).AsInt32Value() == typ;
    check(expected, "not the header of a " + typ);
    return HexFormat.of().formatHex(header.get(KID).GetByteString());
  }

  private static void verify(PublicKey key, CBORObject sigStructure, byte[] signature) {
    check(verifies(ED25519, key, sigStructure, signature), "the signature does not verify");
  }

  public static boolean verifies(int alg, PublicKey key, CBORObject sigStructure, byte[] signature) {
    try {
      var verifier = signature(alg);
      verifier.initVerify(key);
      verifier.update(sigStructure.EncodeToBytes());
      return verifier.verify(signature);
    } catch (GeneralSecurityException e) {
      return false; // A signature of another length, or a key of another algorithm.
    }
  }

  /** Ed25519 keys of the trust list by their kid, which is computed and not carried. */
  public static Map<String, PublicKey> publicKeys(CBORObject keys) {
    var byKid = new HashMap<String, PublicKey>();
    for (CBORObject key : keys.getValues()) {
      check(key.get(0).AsInt32Value() == ED25519, "a key of an unknown algorithm");
      byte[] bytes = key.get(1).GetByteString();
      check(bytes.length == 32, "not an Ed25519 key");
      // The JDK reads SubjectPublicKeyInfo: for Ed25519 (RFC 8410) these 12 bytes and then the key.
      byte[] encoded = Arrays.copyOf(HexFormat.of().parseHex("302a300506032b6570032100"), 44);
      System.arraycopy(bytes, 0, encoded, 12, 32);
      try {
        var kid = HexFormat.of().formatHex(sha256(bytes), 0, 8);
        byKid.put(kid, KeyFactory.getInstance("Ed25519").generatePublic(new X509EncodedKeySpec(encoded)));
      } catch (GeneralSecurityException e) {
        throw new IllegalStateException("not an Ed25519 key", e);
      }
    }
    return byKid;
  }

  // --- What the roots sign: COSE_Sign by N of M ----------------------------------------------------------------------

  /** The trust list or the policy, in an edition that enough roots signed. The version has 64 bits and no sign. */
  public record Opened(long version, long expires, CBORObject content) {}

  public static Opened openDocument(int typ, byte[] data, Map<String, PublicKey> roots, long threshold)
      throws GeneralSecurityException {
    var document = decode(data);
    checkArray(document, 4);
    byte[] header = document.get(0).GetByteString();
    byte[] payload = document.get(2).GetByteString();
    check(decode(header).equals(map().Add(TYP, typ)), "not a document of type " + typ);
    var signers = new HashSet<String>();
    check(document.get(3).size() <= 16, "more signatures than there can be roots");
    for (CBORObject signature : document.get(3).getValues()) {
      checkArray(signature, 3);
      byte[] signatureHeader = signature.get(0).GetByteString();
      String kid = kid(typ, signatureHeader);
      if (roots.containsKey(kid)) { // Others are passed over: when roots change, old and new ones sign.
        var message = array("Signature", header, signatureHeader, NOTHING, payload);
        verify(roots.get(kid), message, signature.get(2).GetByteString());
        signers.add(kid);
      }
    }
    check(signers.size() >= threshold, signers.size() + " roots signed, " + threshold + " must");
    var edition = decode(payload);
    checkKeys(edition, Set.of(1, 2, 4, 6), Set.of());
    long version = version(edition);
    long expires = edition.get(4).AsInt64Value();
    long issued = edition.get(6).AsInt64Value();
    check(issued < expires && expires <= issued + WEEK, "a document lives a week at most");
    check(issued - CLOCK_LEEWAY <= now() && now() < expires, "the document does not hold now");
    return new Opened(version, expires, edition.get(2));
  }

  /** The version of an edition: 64 bits without a sign. */
  public static long version(CBORObject edition) {
    var version = edition.get(1).AsEIntegerValue();
    check(version.signum() >= 0, "a version is not negative");
    return version.ToInt64Unchecked();
  }

  // --- The sealed identity hint --------------------------------------------------------------------------------------

  /** Masked name and the last characters of the document's number. */
  record Hint(String maskedName, String tail) {}

  /** nonce ‖ ciphertext ‖ tag, 92 bytes for everybody. */
  static Hint openHint(byte[] sealed, byte[] k) throws GeneralSecurityException {
    check(sealed.length == 92, "not a sealed hint");
    byte[] key = hkdf(k, "tongxing/1/hint".getBytes(StandardCharsets.UTF_8), 32);
    var cipher = Cipher.getInstance("AES/GCM/NoPadding");
    cipher.init(Cipher.DECRYPT_MODE, new SecretKeySpec(key, "AES"), new GCMParameterSpec(128, sealed, 0, 12));
    byte[] plain = cipher.doFinal(sealed, 12, 80);
    var name = new String(plain, 2, plain[0], StandardCharsets.UTF_8);
    return new Hint(name, new String(plain, 2 + plain[0], plain[1], StandardCharsets.UTF_8));
  }

  /** HKDF-SHA256 (RFC 5869), which the JDK has from 25 on: extract with a salt of zeros, expand to one block. */
  public static byte[] hkdf(byte[] key, byte[] info, int length) throws GeneralSecurityException {
    byte[] block = Arrays.copyOf(info, info.length + 1);
    block[info.length] = 1;
    return Arrays.copyOf(hmac(hmac(new byte[32], key), block), length);
  }

  private static byte[] hmac(byte[] key, byte[] data) throws GeneralSecurityException {
    var mac = Mac.getInstance("HmacSHA256");
    mac.init(new SecretKeySpec(key, "HmacSHA256"));
    return mac.doFinal(data);
  }
}
