package org.tongxing.node;

import io.grpc.BindableService;
import io.grpc.HandlerRegistry;
import io.grpc.Metadata;
import io.grpc.Server;
import io.grpc.ServerCall;
import io.grpc.ServerInterceptors;
import io.grpc.ServerMethodDefinition;
import io.grpc.Status;
import io.grpc.health.v1.HealthCheckResponse.ServingStatus;
import io.grpc.netty.shaded.io.grpc.netty.GrpcSslContexts;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.netty.shaded.io.netty.handler.ssl.ClientAuth;
import io.grpc.netty.shaded.io.netty.handler.ssl.SslContextBuilder;
import io.grpc.protobuf.services.HealthStatusManager;
import io.grpc.util.AdvancedTlsX509KeyManager;
import java.io.File;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.KeyFactory;
import java.security.PublicKey;
import java.security.spec.PKCS8EncodedKeySpec;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.logging.Level;
import java.util.logging.Logger;
import org.tomlj.Toml;
import org.tomlj.TomlParseResult;
import org.tongxing.client.Signed;
import org.tongxing.province.v1.ProvinceServiceGrpc;

/**
 * A member's node, against proto/ alone: {@code --dir DIR --member 44 [--listen HOST:PORT]}.
 *
 * <p>Reads DIR/node/MEMBER/node.toml for roots, files and keys, and keeps its store beside them. Prints
 * {@code ready node=HOST:PORT member=44}; SIGTERM stops it within five seconds.
 */
public final class Node {
  private static final Logger LOG = Logger.getLogger(Node.class.getName());
  private static final int THREADS = 16, STREAMS = 256;
  private static final long RELOAD_SECONDS = 2, SWEEP_SECONDS = 3600, GRACE_SECONDS = 3;

  /** What the library refuses by itself; from the bound in {@link Edge} on we do, with a reason. */
  private static final int MAX_MESSAGE_BYTES = 1024 * 1024;

  private final Path directory;
  private final TomlParseResult config;
  private final ScheduledExecutorService timer = Executors.newScheduledThreadPool(2);
  private final HealthStatusManager health = new HealthStatusManager();

  public static void main(String[] arguments) throws Exception {
    System.setProperty("java.util.logging.SimpleFormatter.format", "%1$tFT%1$tT %4$s %5$s%6$s%n");
    var options = new HashMap<String, String>();
    for (int i = 0; i + 1 < arguments.length; i += 2) {
      options.put(arguments[i], arguments[i + 1]);
    }
    String member = options.getOrDefault("--member", "44");
    var directory = Path.of(options.getOrDefault("--dir", ".tongxing"), "node", member);
    try {
      new Node(directory).serve(member, options.get("--listen"));
    } catch (Exception e) {
      System.err.println("the node does not start: " + e);
      System.exit(64);
    }
  }

  private Node(Path directory) throws IOException {
    this.directory = directory;
    config = Toml.parse(directory.resolve("node.toml"));
    Signed.check(!config.hasErrors(), directory.resolve("node.toml") + " is not TOML");
  }

  private void serve(String member, String listen) throws Exception {
    Signed.check(member.equals(config.getString("member")), "the configuration is another member's");
    var data = Files.createDirectories(file("data_dir"));
    var store = new Store(data.resolve("java-node.db"));
    var trust = new Trust(file("trust.list"), file("trust.policy"), roots(), config.getString("domain"), store);
    var home = home(member, trust, store);
    var peers = new Peers(trust);
    var address = address(listen == null ? config.getString("listen") : listen);
    var watchers = new Watchers(store);
    var server = server(home, watchers, peers, address).start();
    timer.scheduleWithFixedDelay(() -> follow(trust), 0, RELOAD_SECONDS, TimeUnit.SECONDS);
    timer.scheduleWithFixedDelay(() -> sweep(store, trust), 0, SWEEP_SECONDS, TimeUnit.SECONDS);
    Runtime.getRuntime().addShutdownHook(new Thread(() -> stop(server, watchers, store)));
    System.out.println("ready node=" + address.getHostString() + ":" + server.getPort() + " member=" + member);
    server.awaitTermination();
  }

  private Server server(Home home, Watchers watchers, Peers peers, InetSocketAddress address)
      throws IOException, GeneralSecurityException {
    var keys = new AdvancedTlsX509KeyManager(); // Certificates are renewed while we run.
    File certificate = file("identity.certificate").toFile(), key = file("identity.key").toFile();
    keys.updateIdentityCredentials(certificate, key, 1, TimeUnit.MINUTES, timer);
    var tls =
        GrpcSslContexts.configure(SslContextBuilder.forServer(keys))
            .trustManager(peers)
            .clientAuth(ClientAuth.REQUIRE)
            .protocols("TLSv1.3")
            .build();
    var builder =
        NettyServerBuilder.forAddress(address)
            .sslContext(tls)
            .handshakeTimeout(5, TimeUnit.SECONDS)
            .maxConcurrentCallsPerConnection(STREAMS)
            .maxInboundMessageSize(MAX_MESSAGE_BYTES)
            .executor(Executors.newFixedThreadPool(THREADS))
            .fallbackHandlerRegistry(new Unknown())
            .intercept(new Edge(home.member(), peers, timer))
            .addService(health.getHealthService());
    var province = new Province(home, watchers);
    for (BindableService service : List.of(province, new Travelers(home), new Assignments(home), new AccessLogs(home))) {
      // As bytes, so that the edge sees how many they are and whether they decode.
      builder.addService(ServerInterceptors.useInputStreamMessages(service.bindService()));
    }
    return builder.build();
  }

  /** Files change, and what is held expires: then the node says that it does not serve. */
  private void follow(Trust trust) {
    trust.reload();
    var status = trust.current().holds() ? ServingStatus.SERVING : ServingStatus.NOT_SERVING;
    health.setStatus(HealthStatusManager.SERVICE_NAME_ALL_SERVICES, status);
    Edge.SERVICES.forEach(service -> health.setStatus(service, status));
  }

  private static void sweep(Store store, Trust trust) {
    try {
      store.sweep(Signed.now(), trust.current().policy().homeRetention());
    } catch (Exception e) {
      LOG.log(Level.WARNING, "what is past its retention could not be forgotten", e);
    }
  }

  /** Calls under way end, then the store closes: what was acknowledged is on the disk already. */
  private void stop(Server server, Watchers watchers, Store store) {
    try {
      health.enterTerminalState();
      watchers.close();
      if (!server.shutdown().awaitTermination(GRACE_SECONDS, TimeUnit.SECONDS)) {
        server.shutdownNow();
      }
      timer.shutdownNow();
      store.close();
    } catch (Exception e) {
      System.err.println("did not stop well: " + e);
    }
  }

  // --- Configuration and keys ----------------------------------------------------------------------------------------

  private Path file(String key) {
    return directory.resolve(config.getString(key)).normalize();
  }

  private TrustList.Roots roots() {
    var keys = Signed.array();
    for (Object root : config.getArray("trust.roots").toList()) {
      keys.Add(Signed.array(Signed.ED25519, HexFormat.of().parseHex((String) root)));
    }
    return new TrustList.Roots(Signed.publicKeys(keys), config.getLong("trust.threshold"));
  }

  private Home home(String member, Trust trust, Store store) throws IOException, GeneralSecurityException {
    var own = trust.current().trusted().members().get(member);
    Signed.check(own != null, "the trust list has no member " + member);
    byte[] secret = secret("keys.secret");
    Signed.check(secret.length == 32, "the node's secret is not 32 bytes");
    var consent = signingKey("keys.consent", own.consentKeys());
    return new Home(member, consent, signingKey("keys.statement", own.statementKeys()), secret, trust, store);
  }

  /** A key that the trust list has for this use: what another signs, nobody would believe. */
  private Home.SigningKey signingKey(String name, Map<String, PublicKey> listed)
      throws IOException, GeneralSecurityException {
    var key = KeyFactory.getInstance("Ed25519").generatePrivate(new PKCS8EncodedKeySpec(secret(name)));
    byte[] nothing = {};
    byte[] signed = Signed.sign1(Signed.TOKEN, Signed.ED25519, key, new byte[8], Signed.map(), nothing);
    var probe = Cose.read(Refusal.TOKEN, Signed.TOKEN, signed);
    var message = Signed.array("Signature1", probe.header(), nothing, probe.payload());
    for (var entry : listed.entrySet()) {
      if (Signed.verifies(Signed.ED25519, entry.getValue(), message, probe.signature())) {
        return new Home.SigningKey(key, HexFormat.of().parseHex(entry.getKey()));
      }
    }
    throw new GeneralSecurityException(name + ": the trust list has no such key for this member and use");
  }

  /** A file that nobody else may read. */
  private byte[] secret(String name) throws IOException {
    var path = file(name);
    var others = Files.getPosixFilePermissions(path).stream().filter(p -> !p.name().startsWith("OWNER")).toList();
    Signed.check(others.isEmpty(), path + " lets others at a secret; run chmod 600 on it");
    return Files.readAllBytes(path);
  }

  private static InetSocketAddress address(String text) {
    int colon = text.lastIndexOf(':');
    return new InetSocketAddress(text.substring(0, colon), Integer.parseInt(text.substring(colon + 1)));
  }

  /** Every method that is not there, so that the edge refuses it with a reason. */
  private static final class Unknown extends HandlerRegistry {
    @Override
    public ServerMethodDefinition<?, ?> lookupMethod(String name, String authority) {
      var method = ProvinceServiceGrpc.getGetNodeMethod().toBuilder().setFullMethodName(name).build();
      return ServerMethodDefinition.create(
          method,
          (call, headers) -> {
            call.close(Status.UNIMPLEMENTED, new Metadata());
            return new ServerCall.Listener<>() {};
          });
    }
  }
}
