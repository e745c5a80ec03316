package org.tongxing.node;

import java.net.Socket;
import java.security.GeneralSecurityException;
import java.security.cert.CertPathBuilder;
import java.security.cert.CertStore;
import java.security.cert.CertificateException;
import java.security.cert.CollectionCertStoreParameters;
import java.security.cert.PKIXBuilderParameters;
import java.security.cert.X509CertSelector;
import java.security.cert.X509Certificate;
import java.util.Arrays;
import java.util.logging.Logger;
import javax.net.ssl.SSLEngine;
import javax.net.ssl.X509ExtendedTrustManager;

/**
 * Verifies clients: the one URI name of a certificate picks the trust domain, and that domain's CAs alone may vouch for
 * it. Province 44's CA cannot vouch for province 51, whatever its certificates say.
 */
final class Peers extends X509ExtendedTrustManager {
  private static final Logger LOG = Logger.getLogger(Peers.class.getName());
  private static final String CLIENT_AUTH = "1.3.6.1.5.5.7.3.2";
  private static final int MAX_REMEMBERED = 10_000;

  private final Trust trust;

  Peers(Trust trust) {
    this.trust = trust;
  }

  /**
   * The peer that the trust list held now vouches for. Asked at the handshake and at every call: a connection outlives
   * a CA that is removed, and the certificate itself.
   */
  Peer verify(X509Certificate[] chain) throws CertificateException {
    var edition = trust.current();
    var leaf = chain[0];
    leaf.checkValidity();
    var known = edition.verified().get(leaf);
    var peer = known != null ? known : Peer.of(leaf, trust.domain());
    var anchors = edition.anchors(peer.realm());
    if (anchors.isEmpty()) {
      throw new CertificateException(peer.uri() + ": its trust domain is not in the trust list, or suspended");
    }
    if (known != null) {
      return known;
    }
    var usage = leaf.getExtendedKeyUsage();
    if (usage != null && !usage.contains(CLIENT_AUTH)) {
      throw new CertificateException(peer.uri() + ": its certificate is no client's");
    }
    try {
      var target = new X509CertSelector();
      target.setCertificate(leaf);
      var parameters = new PKIXBuilderParameters(anchors, target);
      parameters.setRevocationEnabled(false); // The trust list says who is believed; it carries no CRLs yet.
      var others = new CollectionCertStoreParameters(Arrays.asList(chain));
      parameters.addCertStore(CertStore.getInstance("Collection", others));
      CertPathBuilder.getInstance("PKIX").build(parameters);
    } catch (GeneralSecurityException e) {
      throw new CertificateException(peer.uri() + ": no path to a CA of its trust domain", e);
    }
    if (edition.verified().size() >= MAX_REMEMBERED) {
      edition.verified().clear();
    }
    edition.verified().put(leaf, peer);
    return peer;
  }

  @Override
  public void checkClientTrusted(X509Certificate[] chain, String authType, SSLEngine engine)
      throws CertificateException {
    try {
      verify(chain);
    } catch (CertificateException e) {
      LOG.warning("refused a handshake: " + e.getMessage()); // Under TLS 1.3 the client learns little.
      throw e;
    }
  }

  @Override
  public void checkClientTrusted(X509Certificate[] chain, String authType, Socket socket) throws CertificateException {
    checkClientTrusted(chain, authType, (SSLEngine) null);
  }

  @Override
  public void checkClientTrusted(X509Certificate[] chain, String authType) throws CertificateException {
    checkClientTrusted(chain, authType, (SSLEngine) null);
  }

  @Override
  public void checkServerTrusted(X509Certificate[] chain, String authType, SSLEngine engine)
      throws CertificateException {
    throw new CertificateException("a node calls nobody");
  }

  @Override
  public void checkServerTrusted(X509Certificate[] chain, String authType, Socket socket) throws CertificateException {
    checkServerTrusted(chain, authType, (SSLEngine) null);
  }

  @Override
  public void checkServerTrusted(X509Certificate[] chain, String authType) throws CertificateException {
    checkServerTrusted(chain, authType, (SSLEngine) null);
  }

  /** No hint: a list of all CAs would be long and say nothing, for clients have one certificate. */
  @Override
  public X509Certificate[] getAcceptedIssuers() {
    return new X509Certificate[0];
  }
}
