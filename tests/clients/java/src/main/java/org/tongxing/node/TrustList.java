package org.tongxing.node;

import static org.tongxing.client.Signed.check;

import com.upokecenter.cbor.CBORObject;
import com.upokecenter.cbor.CBORType;
import java.io.ByteArrayInputStream;
import java.security.GeneralSecurityException;
import java.security.PublicKey;
import java.security.cert.CertificateFactory;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;
import org.tongxing.client.Signed;

/** What a trust list says (trust-list.cddl): whom to believe, and by which keys. */
record TrustList(
    String domain,
    Roots roots,
    Set<TrustAnchor> gateway,
    Map<String, PublicKey> logKeys,
    Map<String, Member> members) {
  private static final String OBJECT = "trust_list";
  private static final long MAX_SUSPENSION = 366 * 86_400;
  private static final int MAX_KEYS = 16, MAX_CAS = 4, MAX_CA_BYTES = 4096;
  private static final String LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?";
  private static final Pattern DOMAIN = Pattern.compile(LABEL + "(\\." + LABEL + ")*");
  private static final Pattern ENDPOINT = Pattern.compile("\\P{Cc}+:([1-9][0-9]{0,4})");

  /** Root keys, and how many of them must sign. */
  record Roots(Map<String, PublicKey> keys, long threshold) {}

  /** What one member is believed by: CAs of its trust domain, and keys by kid; and when it is out, if it is. */
  record Member(
      Set<TrustAnchor> anchors,
      Map<String, PublicKey> consentKeys,
      Map<String, PublicKey> statementKeys,
      long outFrom,
      long outUntil) {
    boolean isOut(long now) {
      return now >= outFrom && now < outUntil;
    }
  }

  static TrustList read(CBORObject value) throws GeneralSecurityException {
    var content = new Fields(OBJECT, value);
    String domain = content.text(1);
    check(domain.length() <= 200 && DOMAIN.matcher(domain).matches(), "not a domain");
    var roots = roots(content);
    var gateway = content.map(4);
    var gatewayAnchors = anchors(gateway.list(1, 1, MAX_CAS));
    var seen = new HashSet<>(roots.keys.keySet());
    var logKeys = keys(gateway.list(2, 0, MAX_KEYS));
    checkUnseen(seen, logKeys);
    gateway.finish();
    var members = new HashMap<String, Member>();
    for (CBORObject entry : content.list(5, 0, 100)) {
      var fields = new Fields(OBJECT, entry);
      String code = fields.text(1);
      var member = member(fields);
      checkUnseen(seen, member.consentKeys);
      checkUnseen(seen, member.statementKeys);
      check(Terms.isMember(code) && members.put(code, member) == null, "a member is unknown, or there twice");
    }
    content.finish();
    return new TrustList(domain, roots, gatewayAnchors, logKeys, members);
  }

  /** N and M roots: who must sign the next list. */
  static Roots roots(Fields content) {
    long threshold = content.integer(2);
    var keys = keys(content.list(3, 1, MAX_KEYS));
    check(threshold >= 1 && threshold <= keys.size(), "the threshold is not 1 to M");
    return new Roots(keys, threshold);
  }

  private static Member member(Fields fields) throws GeneralSecurityException {
    var anchors = anchors(fields.list(2, 1, MAX_CAS));
    for (CBORObject endpoint : fields.list(3, 0, 8)) {
      check(endpoint.getType() == CBORType.TextString && isEndpoint(endpoint.AsString()), "an endpoint is host:port");
    }
    var consentKeys = keys(fields.list(4, 0, MAX_KEYS));
    var statementKeys = keys(fields.list(5, 0, MAX_KEYS));
    fields.bytes(6, 32);
    fields.ascending(7, 0, Terms.CATEGORIES.size());
    long from = 0, until = 0;
    if (fields.has(8)) {
      var suspension = fields.map(8);
      int reason = Forms.bytes(suspension.text(1));
      from = suspension.time(2);
      until = suspension.time(3);
      suspension.finish();
      boolean ends = from < until && until - from <= MAX_SUSPENSION;
      check(reason >= 1 && reason <= 200 && ends, "a suspension has a reason and an end");
    }
    fields.finish();
    return new Member(anchors, consentKeys, statementKeys, from, until);
  }

  /** One key, one use: a key with two could make one object stand for another. */
  private static void checkUnseen(Set<String> seen, Map<String, PublicKey> keys) {
    check(keys.keySet().stream().allMatch(seen::add), "a key has more than one use");
  }

  private static Map<String, PublicKey> keys(List<CBORObject> list) {
    for (CBORObject key : list) {
      check(key.getType() == CBORType.Array && key.size() == 2, "a key is [alg, bytes]");
    }
    var keys = Signed.publicKeys(Signed.array(list.toArray()));
    check(keys.size() == list.size(), "a key is there twice");
    return keys;
  }

  private static boolean isEndpoint(String text) {
    var matcher = ENDPOINT.matcher(text);
    return matcher.matches() && Forms.bytes(text) <= 261 && Integer.parseInt(matcher.group(1)) <= 65_535;
  }

  private static Set<TrustAnchor> anchors(List<CBORObject> bundle) throws GeneralSecurityException {
    var anchors = new HashSet<TrustAnchor>();
    for (CBORObject der : bundle) {
      byte[] bytes = der.GetByteString();
      check(bytes.length >= 1 && bytes.length <= MAX_CA_BYTES, "a CA certificate has 1 to 4096 bytes");
      anchors.add(new TrustAnchor(certificate(bytes), null));
    }
    return anchors;
  }

  private static X509Certificate certificate(byte[] der) throws GeneralSecurityException {
    return (X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(new ByteArrayInputStream(der));
  }
}
