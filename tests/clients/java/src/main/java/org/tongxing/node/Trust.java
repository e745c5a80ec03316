package org.tongxing.node;

import static org.tongxing.client.Signed.check;

import com.upokecenter.cbor.CBORObject;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.PublicKey;
import java.security.cert.TrustAnchor;
import java.security.cert.X509Certificate;
import java.util.Arrays;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.logging.Logger;
import org.tongxing.client.Signed;
import org.tongxing.error.v1.ErrorReason;

/**
 * The trust list and the policy that this node holds: read from files, verified, replaced while it runs.
 *
 * <p>A version never falls, not across a restart either: what was accepted is kept in the store. What has expired is
 * worth nothing.
 */
final class Trust {
  private static final Logger LOG = Logger.getLogger(Trust.class.getName());
  private static final int MAX_DOCUMENT_BYTES = 512 * 1024;
  private static final String LIST = "trust_list", POLICY = "policy";

  /** One consistent pair of both documents. {@code verified} remembers whom it was found to trust. */
  record Edition(
      Signed.Opened list,
      Signed.Opened document,
      TrustList trusted,
      Policy policy,
      byte[] listBytes,
      byte[] policyBytes,
      Map<X509Certificate, Peer> verified) {
    boolean holds() {
      return Signed.now() < Math.min(list.expires(), document.expires());
    }

    /** The CAs that may vouch for a trust domain's peers: none if it is nobody's, or suspended now. */
    Set<TrustAnchor> anchors(String realm) {
      if (realm.equals(Peer.GATEWAY)) {
        return trusted.gateway();
      }
      var member = trusted.members().get(realm);
      return member == null || member.isOut(Signed.now()) ? Set.of() : member.anchors();
    }

    /** None if the list has this member no more. */
    Map<String, PublicKey> consentKeys(String member) {
      var trust = trusted.members().get(member);
      return trust == null ? Map.of() : trust.consentKeys();
    }
  }

  private final Path listFile, policyFile;
  private final TrustList.Roots pinned;
  private final String domain;
  private final Store store;
  private volatile Edition current;
  private byte[] refused = {};

  Trust(Path listFile, Path policyFile, TrustList.Roots pinned, String domain, Store store) throws Exception {
    this.listFile = listFile;
    this.policyFile = policyFile;
    this.pinned = pinned;
    this.domain = domain;
    this.store = store;
    accept(Files.readAllBytes(listFile), Files.readAllBytes(policyFile));
  }

  String domain() {
    return domain;
  }

  Edition current() {
    return current;
  }

  /** What is held, if it holds still: fail closed. */
  Edition usable() {
    var edition = current;
    if (!edition.holds()) {
      throw new Refusal(ErrorReason.ERROR_REASON_TRUST_EXPIRED);
    }
    return edition;
  }

  /** Takes up what the files have now. What is refused is said once, and leaves what is held in place. */
  void reload() {
    byte[] both = {};
    try {
      byte[] list = Files.readAllBytes(listFile);
      byte[] policy = Files.readAllBytes(policyFile);
      both = Signed.sha256(list, policy);
      boolean same = Arrays.equals(list, current.listBytes) && Arrays.equals(policy, current.policyBytes);
      if (!same) {
        accept(list, policy);
        LOG.info("took up " + held());
      }
    } catch (Exception e) { // Tried again, since time alone may mend it.
      if (!Arrays.equals(both, refused)) {
        LOG.warning(held() + " stay: the files have what is refused: " + e.getMessage());
      }
      refused = both;
    }
  }

  private String held() {
    return "trust list " + current.list.version() + " and policy " + current.document.version();
  }

  /** The list by the roots of the list held (or pinned), the policy by those of the new list. */
  private void accept(byte[] listBytes, byte[] policyBytes) throws Exception {
    byte[] heldList = store.document(LIST);
    byte[] heldPolicy = store.document(POLICY);
    var signers = heldList == null ? pinned : TrustList.roots(new Fields(LIST, edition(heldList).get(2)));
    var list = open(Signed.TRUST_LIST, LIST, listBytes, signers, heldList);
    var trusted = TrustList.read(list.content());
    check(trusted.domain().equals(domain), "a trust list of another federation");
    var document = open(Signed.POLICY, POLICY, policyBytes, trusted.roots(), heldPolicy);
    var policy = new Policy(document.content().AsString());
    var next = new Edition(list, document, trusted, policy, listBytes, policyBytes, new ConcurrentHashMap<>());
    store.keepDocuments(Map.of(LIST, listBytes, POLICY, policyBytes));
    current = next;
  }

  private static Signed.Opened open(int typ, String object, byte[] data, TrustList.Roots roots, byte[] held)
      throws GeneralSecurityException {
    Cose.decode(object, edition(object, data), MAX_DOCUMENT_BYTES);
    var document = Signed.openDocument(typ, data, roots.keys(), roots.threshold());
    if (held != null) {
      long version = Signed.version(edition(held));
      int compared = Long.compareUnsigned(document.version(), version);
      boolean fits = compared > 0 || compared == 0 && Arrays.equals(data, held);
      check(fits, object + " " + document.version() + " is not newer than the one held, " + version);
    }
    return document;
  }

  /** The edition in a document, whoever signed it. */
  private static byte[] edition(String object, byte[] data) {
    return Cose.decode(object, data, MAX_DOCUMENT_BYTES).get(2).GetByteString();
  }

  private static CBORObject edition(byte[] held) {
    return CBORObject.DecodeFromBytes(CBORObject.DecodeFromBytes(held).get(2).GetByteString());
  }
}
