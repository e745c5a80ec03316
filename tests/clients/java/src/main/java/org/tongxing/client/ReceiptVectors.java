package org.tongxing.client;

import static org.tongxing.client.Signed.check;

import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.ByteString;
import com.upokecenter.cbor.CBORObject;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.GeneralSecurityException;
import java.util.HexFormat;
import org.tongxing.recognition.v1.RecognizeRequest;
import org.tongxing.recognition.v1.RecognizeResponse;

/** Holds Receipt to proto/vectors, whose directory is its argument. No example to copy. */
final class ReceiptVectors {
  private ReceiptVectors() {}

  public static void main(String[] arguments) throws IOException, GeneralSecurityException {
    var directory = Path.of(arguments[0]);
    var file = read(directory, "access-receipt");
    var key = file.getAsJsonObject("test_keys").getAsJsonObject("gateway-log").get("public").getAsString();
    var logKeys = Signed.publicKeys(Signed.array(Signed.array(Signed.ED25519, HexFormat.of().parseHex(key))));
    var vectors = file.getAsJsonArray("vectors");
    for (var element : vectors) {
      var vector = element.getAsJsonObject();
      String id = vector.get("id").getAsString();
      boolean valid = vector.get("verdict").getAsString().equals("valid");
      check(Receipt.isBelieved(bytes(vector), logKeys) == valid, id + " gets another verdict");
      if (valid) {
        var exchange = Receipt.verify(bytes(vector), logKeys).record().get(13).GetByteString();
        String expected = vector.getAsJsonObject("result").get("exchange").getAsString();
        check(HexFormat.of().formatHex(exchange).equals(expected), id + " is of another exchange");
      }
    }
    byte[] good = bytes(vectors.get(0).getAsJsonObject());
    for (int bit = 0; bit < good.length * 8; bit++) {
      good[bit / 8] ^= 1 << bit % 8;
      check(!Receipt.isBelieved(good, logKeys), "bit " + bit + " was flipped, and that was not seen");
      good[bit / 8] ^= 1 << bit % 8;
    }
    var statement = read(directory, "statement").getAsJsonArray("vectors").get(0).getAsJsonObject();
    checkOwn(Receipt.verify(good, logKeys), bytes(statement));
    System.out.println("ok " + vectors.size() + " receipts");
  }

  /** A receipt is good for its own exchange alone. */
  private static void checkOwn(Receipt receipt, byte[] statement) {
    var record = receipt.record();
    byte[] cti = record.get(7).GetByteString();
    var own = Signed.map().Add(1, "44").Add(7, cti);
    var asked = RecognizeRequest.newBuilder().setVenue(record.get(2).AsString()).setPurposeValue(2).build();
    var exchange = ByteString.copyFrom(record.get(13).GetByteString());
    var answer = RecognizeResponse.newBuilder().setExchangeId(exchange).setOutcomeValue(1)
        .setStatement(ByteString.copyFrom(statement)).build();
    check(isOf(receipt, own, asked, answer), "its own exchange is none");
    var none = ByteString.EMPTY;
    check(!isOf(receipt, Signed.map().Add(1, "11").Add(7, cti), asked, answer), "another log");
    check(!isOf(receipt, Signed.map().Add(1, "44").Add(7, new byte[16]), asked, answer), "another consent");
    check(!isOf(receipt, own, asked.toBuilder().setVenue("44/park/x").build(), answer), "another venue");
    check(!isOf(receipt, own, asked.toBuilder().setPurposeValue(1).build(), answer), "another purpose");
    check(!isOf(receipt, own, asked, answer.toBuilder().setExchangeId(none).build()), "another exchange");
    check(!isOf(receipt, own, asked, answer.toBuilder().setOutcomeValue(3).build()), "another outcome");
    check(!isOf(receipt, own, asked, answer.toBuilder().setStatement(none).build()), "another statement");
  }

  private static boolean isOf(Receipt receipt, CBORObject consent, RecognizeRequest asked, RecognizeResponse answer) {
    try {
      receipt.check(consent, asked, answer);
      return true;
    } catch (IllegalStateException | GeneralSecurityException e) {
      return false;
    }
  }

  private static JsonObject read(Path directory, String name) throws IOException {
    return JsonParser.parseString(Files.readString(directory.resolve(name + ".json"))).getAsJsonObject();
  }

  private static byte[] bytes(JsonObject vector) {
    int times = vector.has("repeat") ? vector.get("repeat").getAsInt() : 1;
    return HexFormat.of().parseHex(vector.get("bytes").getAsString().repeat(times));
  }
}
