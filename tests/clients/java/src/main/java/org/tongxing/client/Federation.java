package org.tongxing.client;

import io.grpc.Grpc;
import io.grpc.ManagedChannel;
import io.grpc.TlsChannelCredentials;
import java.io.IOException;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.PublicKey;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import com.upokecenter.cbor.CBORObject;
import org.tomlj.Toml;
import org.tomlj.TomlParseResult;
import org.tongxing.federation.v1.FederationServiceGrpc;
import org.tongxing.federation.v1.GetPolicyRequest;
import org.tongxing.federation.v1.GetTrustListRequest;

/**
 * What a party needs to know beforehand: its own credentials, and in life the root keys by a way it trusts. Trust list
 * and policy come from the gateway, which cannot forge them: enough of the pinned roots must have signed.
 */
final class Federation {
  private static final int CONSENT_KEYS = 4, STATEMENT_KEYS = 5;
  private static final long DEADLINE = 10; // Seconds. Without one a call may wait for ever.

  private final Path dir;
  private final TomlParseResult addresses;
  private final Map<String, CBORObject> members = new HashMap<>();
  private final Map<String, PublicKey> logKeys;
  private final TomlParseResult policy;

  Federation(Path dir, String venue) throws IOException, GeneralSecurityException {
    this.dir = dir;
    addresses = Toml.parse(dir.resolve("federation.toml"));
    var pinned = Toml.parse(dir.resolve("trust-list.toml"));
    var rootKeys = CBORObject.NewArray();
    for (Object root : pinned.getArray("roots").toList()) {
      rootKeys.Add(Signed.array(Signed.ED25519, HexFormat.of().parseHex((String) root)));
    }
    var roots = Signed.publicKeys(rootKeys);
    long threshold = pinned.getLong("threshold");

    var channel = gateway(venue);
    try {
      var gateway = FederationServiceGrpc.newBlockingStub(channel).withDeadlineAfter(DEADLINE, TimeUnit.SECONDS);
      byte[] list = gateway.getTrustList(GetTrustListRequest.getDefaultInstance()).getTrustList().toByteArray();
      var trustList = Signed.openDocument(Signed.TRUST_LIST, list, roots, threshold).content();
      for (CBORObject member : trustList.get(5).getValues()) {
        members.put(member.get(1).AsString(), member);
      }
      logKeys = Signed.publicKeys(trustList.get(4).get(2));
      byte[] signedPolicy = gateway.getPolicy(GetPolicyRequest.getDefaultInstance()).getPolicy().toByteArray();
      policy = Toml.parse(Signed.openDocument(Signed.POLICY, signedPolicy, roots, threshold).content().AsString());
    } finally {
      channel.shutdownNow();
    }
  }

  Map<String, PublicKey> consentKeys(String member) {
    return keys(member, CONSENT_KEYS);
  }

  Map<String, PublicKey> statementKeys(String member) {
    return keys(member, STATEMENT_KEYS);
  }

  /** What the gateway's access logs are signed with. */
  Map<String, PublicKey> logKeys() {
    return logKeys;
  }

  private Map<String, PublicKey> keys(String member, int use) {
    var trust = members.get(member);
    return trust == null ? Map.of() : Signed.publicKeys(trust.get(use));
  }

  /** 转码: what a member's own word means everywhere. Null is no level, and never green. */
  String level(String member, String label) {
    var own = List.of("labels", member);
    var labels = policy.getTable(policy.contains(own) ? own : List.of("labels", "default"));
    return labels.getString(List.of(label));
  }

  /** How long an object may live by the policy, in seconds: "60s", "10m", "24h", "14d". */
  long life(String object) {
    String life = policy.getString(List.of("lives", object));
    long number = Long.parseLong(life.substring(0, life.length() - 1));
    return number * Map.of('s', 1, 'm', 60, 'h', 3600, 'd', 86400).get(life.charAt(life.length() - 1));
  }

  ManagedChannel node(String member, String role) throws IOException {
    return node(dir, member, role);
  }

  /** For whoever asks no gateway, and needs no more than an address and its own credentials: the member's platform. */
  static ManagedChannel node(Path dir, String member, String role) throws IOException {
    var addresses = Toml.parse(dir.resolve("federation.toml"));
    String address = addresses.getString(List.of("addresses", "nodes", member, "public"));
    return channel(dir, address, member, role + "/" + member);
  }

  ManagedChannel gateway(String venue) throws IOException {
    String address = addresses.getArray("addresses.gateways").getTable(0).getString("public");
    return channel(dir, address, "gateway", "venue/" + venue.replace('/', '-'));
  }

  /** Believes the one CA of the server that is meant. Every other member's CA vouches for its own alone. */
  private static ManagedChannel channel(Path dir, String address, String server, String own) throws IOException {
    var credentials =
        TlsChannelCredentials.newBuilder()
            .trustManager(dir.resolve("ca/" + server + ".tongxing.test.pem").toFile())
            .keyManager(dir.resolve(own + "/cert.pem").toFile(), dir.resolve(own + "/key.pem").toFile())
            .build();
    return Grpc.newChannelBuilder(address, credentials).build();
  }
}
