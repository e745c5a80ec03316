package org.tongxing.node;

import java.security.cert.CertificateException;
import java.security.cert.X509Certificate;
import java.util.ArrayList;
import java.util.List;

/** Who a certificate says its holder is: its one URI name, e.g. spiffe://44.tongxing.test/backend/app. */
record Peer(String uri, String realm, String role) {
  static final String GATEWAY = "gateway";

  private static final int URI_NAME = 6;
  private static final List<String> ROLES = List.of("backend", "feed", "node", "operator");

  /** Says nothing of whether to believe it. */
  static Peer of(X509Certificate leaf, String domain) throws CertificateException {
    var uris = new ArrayList<String>();
    var names = leaf.getSubjectAlternativeNames();
    for (List<?> name : names == null ? List.<List<?>>of() : names) {
      if (name.get(0).equals(URI_NAME)) {
        uris.add((String) name.get(1));
      }
    }
    if (uris.size() != 1) {
      throw new CertificateException(uris.size() + " URI names instead of one");
    }
    return parse(uris.get(0), domain);
  }

  private static Peer parse(String uri, String domain) throws CertificateException {
    var parts = uri.split("/", -1); // spiffe:, nothing, trust domain, path…
    boolean spiffe = parts.length >= 5 && parts[0].equals("spiffe:") && parts[1].isEmpty();
    if (!spiffe || !parts[2].endsWith("." + domain)) {
      throw new CertificateException("not a SPIFFE id of this federation");
    }
    String realm = parts[2].substring(0, parts[2].length() - domain.length() - 1);
    boolean named = parts[parts.length - 1].length() <= 40 && Terms.NAME.matcher(parts[parts.length - 1]).matches();
    boolean member = Terms.isMember(realm);
    if (realm.equals(GATEWAY) && parts.length == 5 && parts[3].equals("replica") && named) {
      return new Peer(uri, realm, GATEWAY);
    }
    if (member && parts.length == 5 && ROLES.contains(parts[3]) && named) {
      return new Peer(uri, realm, parts[3]);
    }
    if (member && parts.length == 6 && parts[3].equals("venue") && Terms.isVenue(realm + uri.split("/venue", 2)[1])) {
      return new Peer(uri, realm, "venue");
    }
    throw new CertificateException("not a role of this federation");
  }
}
