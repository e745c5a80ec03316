package org.tongxing.node;

import static org.tongxing.client.Signed.check;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.upokecenter.cbor.CBORObject;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.security.PublicKey;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import org.tongxing.client.Signed;

/**
 * The test vectors of what this node verifies in its calls: {@code Vectors proto/vectors}. Each must get its verdict.
 *
 * <p>Trust lists and policies are read here as the context of others only; the node judges theirs by its own clock.
 */
final class Vectors {
  private static final String VALID = "valid";

  /** Signed objects by their ids, as contexts name them. */
  private final Map<String, byte[]> documents = new HashMap<>();
  private final Path directory;
  private int seen, different;

  private Vectors(Path directory) {
    this.directory = directory;
  }

  public static void main(String[] arguments) throws Exception {
    var vectors = new Vectors(Path.of(arguments[0]));
    for (String file : List.of("trust-list", "policy")) {
      vectors.read(file).forEach(v -> vectors.documents.put(v.get("id").getAsString(), bytes(v)));
    }
    // A policy that the node does not read is none: it goes on with the one it has, and then stands still.
    for (var vector : vectors.read("policy")) {
      if (vector.get("verdict").getAsString().equals(VALID)) {
        new Policy(vectors.content(vector.get("id").getAsString()).AsString());
      }
    }
    for (String file : List.of("consent-request", "consent-token", "proof")) {
      for (var vector : vectors.read(file)) {
        vectors.compare(vector);
      }
    }
    check(vectors.different == 0, vectors.different + " vectors got another verdict");
    System.out.println("ok " + vectors.seen + " vectors");
  }

  private List<JsonObject> read(String file) throws IOException {
    var all = JsonParser.parseString(Files.readString(directory.resolve(file + ".json"))).getAsJsonObject();
    return all.getAsJsonArray("vectors").asList().stream().map(vector -> vector.getAsJsonObject()).toList();
  }

  private void compare(JsonObject vector) throws GeneralSecurityException {
    var context = vector.getAsJsonObject("context");
    long now = vector.get("now").getAsLong();
    String expected = vector.get("verdict").getAsString();
    String got = VALID;
    try {
      switch (vector.get("operation").getAsString()) {
        case "verify_request" -> {
          var key = DeviceKey.of(HexFormat.of().parseHex(context.get("enrollment_key").getAsString()));
          ConsentRequest.read(bytes(vector)).verify(key, now);
        }
        case "verify_token" -> {
          var token = token(bytes(vector), context);
          token.checkConsent(venue(context), purpose(context), policy(context), now);
        }
        case "use_consent" -> use(token(bytes(vector), context), context, now);
        case "verify_proof" -> {
          var token = token(HexFormat.of().parseHex(context.get("token").getAsString()), context);
          token.checkProof(bytes(vector), venue(context), policy(context).proofLife(), now);
        }
        default -> throw new IllegalStateException("an unknown operation");
      }
    } catch (Refusal refusal) {
      got = refusal.getMessage().substring("ERROR_REASON_".length());
    }
    seen++;
    if (!got.equals(expected)) {
      different++;
      System.out.println(vector.get("id").getAsString() + ": " + got + " instead of " + expected);
    }
  }

  private void use(Token token, JsonObject context, long now) {
    byte[] proof = context.has("proof") ? HexFormat.of().parseHex(context.get("proof").getAsString()) : new byte[0];
    var policy = policy(context);
    token.checkUse(proof, venue(context), purpose(context), policy, now);
    int wanted = context.has("wanted_scope") ? context.get("wanted_scope").getAsInt() : Terms.LEVEL;
    token.checkScope(wanted, venue(context), purpose(context), policy);
  }

  /** A token whose signature verified, by the trust list of the context. */
  private Token token(byte[] data, JsonObject context) throws GeneralSecurityException {
    var token = Token.read(data);
    Map<String, PublicKey> keys = Map.of();
    for (CBORObject member : content(context.get("trust_list").getAsString()).get(5).getValues()) {
      if (member.get(1).AsString().equals(token.issuer())) {
        keys = Signed.publicKeys(member.get(4));
      }
    }
    token.verify(token.issuer(), keys);
    return token;
  }

  private Policy policy(JsonObject context) {
    return new Policy(content(context.get("policy").getAsString()).AsString());
  }

  private CBORObject content(String id) {
    return CBORObject.DecodeFromBytes(CBORObject.DecodeFromBytes(documents.get(id)).get(2).GetByteString()).get(2);
  }

  private static String venue(JsonObject context) {
    return context.get("venue").getAsString();
  }

  private static int purpose(JsonObject context) {
    return Terms.PURPOSES.indexOf(context.get("purpose").getAsString()) + 1;
  }

  private static byte[] bytes(JsonObject vector) {
    int times = vector.has("repeat") ? vector.get("repeat").getAsInt() : 1;
    return HexFormat.of().parseHex(vector.get("bytes").getAsString().repeat(times));
  }
}
