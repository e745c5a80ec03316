package org.tongxing.node;

import static org.tongxing.client.Signed.check;

import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;
import org.tomlj.Toml;
import org.tomlj.TomlArray;
import org.tomlj.TomlTable;

/** The national policy: what a node needs of it. All of it is checked, since a part that is wrong refuses the whole. */
final class Policy {
  private static final long MINUTE = 60, HOUR = 3600, DAY = 86_400;
  private static final Pattern DURATION = Pattern.compile("([0-9]{1,9})([smhd])");
  private static final Set<String> TEXT = Set.of("zh", "en");
  private static final Set<String> MEANINGS = Set.of("green", "yellow", "red", "undetermined");
  private static final Set<String> EVIDENCE =
      Set.of("case", "contact", "high-risk-stay", "medium-risk-stay", "low-risk-stay", "positive-test");
  private static final String LIFTED = "lifted_by_negative_test", WAIVED = "waived_by_negative_test_within";
  private static final Set<String> ANSWERS =
      Set.of("green", "yellow", "red", "unknown", "undetermined", "unsubstantiated", "unreachable");

  private final Map<String, Long> lives = new HashMap<>();
  private final Map<String, Integer> grants = new HashMap<>();
  private final Map<String, Map<String, String>> labels = new HashMap<>();
  private final int liveConsents, devices;
  private final long homeRetention, visibilityDelay;

  /** Throws IllegalStateException where it is not a policy. */
  Policy(String toml) {
    var root = Toml.parse(toml);
    check(!root.hasErrors(), "not TOML");
    var parts = Set.of("name", "lives", "quotas", "grants", "labels", "rules", "authorities", "answers", "correction");
    keys(root, "the policy", parts, Set.of("development", "access_log", "evidence", "assigned_labels"));
    check(root.get("name") instanceof String, "name is not a text");
    var development = root.contains("development") ? root.get("development") : false;
    check(development instanceof Boolean, "development is true or false");
    readLives(table(root, "lives"), (Boolean) development);
    var quotas = table(root, "quotas");
    keys(quotas, "quotas", Set.of("live_consents_per_traveler", "devices_per_traveler"), Set.of());
    liveConsents = number(quotas, "live_consents_per_traveler", 16);
    devices = number(quotas, "devices_per_traveler", 64);
    var accessLog = root.contains("access_log") ? table(root, "access_log") : Toml.parse("");
    keys(accessLog, "access_log", Set.of(), Set.of("gateway_retention", "home_retention", "visibility_delay"));
    duration(accessLog, "gateway_retention", HOUR, 0, 30 * DAY);
    homeRetention = duration(accessLog, "home_retention", 183 * DAY, DAY, 3660 * DAY);
    visibilityDelay = duration(accessLog, "visibility_delay", 0, 0, 30 * DAY);
    readGrants(table(root, "grants"));
    readLabels(table(root, "labels"));
    var assigning = checkRules(table(root, "rules"), table(root, "authorities"));
    checkAssigning(assigning, root.contains("evidence") ? table(root, "evidence") : Toml.parse(""));
    var assigned = root.contains("assigned_labels") ? table(root, "assigned_labels") : Toml.parse("");
    checkAssigned(assigned, !assigning.isEmpty());
    checkAnswers(table(root, "answers"));
    texts(table(root, "correction"), "correction", TEXT);
  }

  /** How long a token of this kind lives at most. All lives are in seconds. */
  long life(int kind) {
    return lives.get(kind == Token.PAPER ? "paper" : "token");
  }

  long proofLife() {
    return lives.get("proof");
  }

  long statementLife() {
    return lives.get("statement");
  }

  long offlineLife() {
    return lives.get("offline");
  }

  /** How long access records are kept. */
  long homeRetention() {
    return homeRetention;
  }

  /** How old an access record is before its traveler sees it. */
  long visibilityDelay() {
    return visibilityDelay;
  }

  int liveConsents() {
    return liveConsents;
  }

  int devices() {
    return devices;
  }

  /** The scope that venues of a category may see for a purpose; null where they have no business. */
  Integer grant(String category, String purpose) {
    return grants.get(category + "." + purpose);
  }

  /** green, yellow, red or undetermined; null if the policy has no such label for this member. */
  String meaning(String member, String label) {
    return labels.getOrDefault(member, labels.get("default")).get(label);
  }

  private void readLives(TomlTable table, boolean development) {
    var most = Map.of(
        "token", DAY, "paper", 14 * DAY, "proof", development ? HOUR : MINUTE, "statement", HOUR, "offline", 600L,
        "last_known_good", HOUR);
    keys(table, "lives", most.keySet(), Set.of());
    most.forEach((object, max) -> {
      long life = duration("lives." + object, table.get(object));
      boolean mayBeNone = object.equals("offline") || object.equals("last_known_good");
      check(life <= max && (life > 0 || mayBeNone), "lives." + object + " is out of bounds");
      lives.put(object, life);
    });
  }

  /** What may be left out has a default. */
  private static long duration(TomlTable table, String key, long otherwise, long min, long max) {
    long seconds = table.contains(key) ? duration(key, table.get(key)) : otherwise;
    check(seconds >= min && seconds <= max, key + " is out of bounds");
    return seconds;
  }

  private static long duration(String name, Object value) {
    var matcher = DURATION.matcher(String.valueOf(value));
    check(matcher.matches(), name + " is not a duration");
    long unit = Map.of("s", 1L, "m", MINUTE, "h", HOUR, "d", DAY).get(matcher.group(2));
    return Long.parseLong(matcher.group(1)) * unit;
  }

  private void readGrants(TomlTable table) {
    for (String category : table.keySet()) {
      check(Terms.CATEGORIES.contains(category), "grants." + category + " is no category");
      var purposes = table(table, category);
      for (String purpose : purposes.keySet()) {
        String key = category + "." + purpose;
        check(Terms.PURPOSES.contains(purpose), "grants." + key + " is no purpose");
        int scope = 0;
        for (Object word : list(purposes, purpose)) {
          check(Terms.SCOPES.contains(word), "grants." + key + " has an unknown scope");
          scope |= 1 << Terms.SCOPES.indexOf(word);
        }
        check((scope & Terms.LEVEL) != 0, "grants." + key + " has not the level");
        grants.put(key, scope);
      }
    }
  }

  private void readLabels(TomlTable table) {
    check(table.contains("default"), "labels.default is missing");
    for (String member : table.keySet()) {
      check(member.equals("default") || Terms.isMember(member), "labels." + member + " is no member");
      var meanings = new HashMap<String, String>();
      var own = table(table, member);
      for (String label : own.keySet()) {
        Object meaning = own.get(List.of(label));
        check(Forms.isLabel(label) && MEANINGS.contains(meaning), "labels." + member + " has a wrong label");
        meanings.put(label, (String) meaning);
      }
      labels.put(member, meanings);
    }
  }

  /** Returns the rules by which codes follow from evidence. This node has none: they are only checked. */
  private static Map<String, TomlTable> checkRules(TomlTable rules, TomlTable authorities) {
    var assigning = new HashMap<String, TomlTable>();
    authorities.keySet().forEach(kind -> texts(table(authorities, kind), "authorities." + kind, TEXT));
    for (String id : rules.keySet()) {
      var rule = table(rules, id);
      keys(rule, "rules." + id, Set.of("zh", "en", "levels", "authorities"), Set.of("assigns"));
      boolean levels = list(rule, "levels").stream().allMatch(List.of("yellow", "red")::contains);
      boolean known = list(rule, "authorities").stream().allMatch(authorities.keySet()::contains);
      check(Forms.bytes(id) <= Forms.MAX_RULE && levels && known, "rules." + id + " is out of bounds");
      if (rule.contains("assigns")) {
        checkAssigns("rules." + id + ".assigns", table(rule, "assigns"), list(rule, "levels"));
        assigning.put(id, table(rule, "assigns"));
      }
    }
    return assigning;
  }

  private static void checkAssigns(String name, TomlTable assigns, List<Object> levels) {
    keys(assigns, name, Set.of("evidence", "phases"), Set.of(LIFTED, WAIVED));
    check(EVIDENCE.contains(assigns.get("evidence")), name + " is for unknown evidence");
    check(!assigns.contains(LIFTED) || assigns.get(LIFTED) instanceof Boolean, name + "." + LIFTED + " is true or false");
    duration(assigns, WAIVED, HOUR, HOUR, 30 * DAY);
    var phases = list(assigns, "phases");
    check(phases.size() >= 1 && phases.size() <= 4, name + " has 1 to 4 phases");
    for (Object item : phases) {
      check(item instanceof TomlTable, name + ".phases is not of tables");
      var phase = (TomlTable) item;
      keys(phase, name + ".phases", Set.of("as", "lasts"), Set.of());
      duration(phase, "lasts", 0, HOUR, 366 * DAY);
      var meanings = list(phase, "as");
      boolean may = meanings.stream().allMatch(meaning -> meaning.equals("undetermined") || levels.contains(meaning));
      boolean once = Set.copyOf(meanings).size() == meanings.size();
      check(may && once && !meanings.isEmpty(), name + " assigns what the rule may not");
    }
  }

  /** Evidence is kept for as long as any rule reaches back; where a negative test eases one, somebody may bring tests. */
  private static void checkAssigning(Map<String, TomlTable> assigning, TomlTable evidence) {
    keys(evidence, "evidence", Set.of(), Set.of("retention"));
    long retention = duration(evidence, "retention", 180 * DAY, 30 * DAY, 3660 * DAY);
    boolean tested = assigning.values().stream().anyMatch(rule -> "positive-test".equals(rule.get("evidence")));
    assigning.forEach((id, rule) -> {
      var phases = list(rule, "phases").stream();
      long lasts = phases.mapToLong(phase -> duration((TomlTable) phase, "lasts", 0, 0, Long.MAX_VALUE)).sum();
      long waived = duration(rule, WAIVED, 0, 0, Long.MAX_VALUE);
      check(Math.max(lasts, waived) <= retention, "evidence.retention is less than rules." + id + " reaches back");
      boolean eased = rule.contains(WAIVED) || Boolean.TRUE.equals(rule.get(LIFTED));
      check(tested || !eased, "rules." + id + " is eased by tests that nobody may bring");
    });
  }

  /** Which of several labels that mean the same a node would assign: no choice is left open where any are assigned. */
  private void checkAssigned(TomlTable assigned, boolean assigns) {
    check(labels.keySet().containsAll(assigned.keySet()), "assigned_labels has one that is not in labels");
    labels.forEach((member, meanings) -> {
      var chosen = assigned.contains(List.of(member)) ? table(assigned, member) : Toml.parse("");
      for (String meaning : chosen.keySet()) {
        Object label = chosen.get(List.of(meaning));
        check(MEANINGS.contains(meaning) && meaning.equals(meanings.get(label)),
            "assigned_labels." + member + "." + meaning + " does not mean it");
      }
      for (String meaning : MEANINGS) {
        long choices = meanings.values().stream().filter(meaning::equals).count();
        boolean open = assigns && choices > 1 && !chosen.keySet().contains(meaning);
        check(!open, "assigned_labels." + member + "." + meaning + " is missing");
      }
    });
  }

  private static void checkAnswers(TomlTable answers) {
    keys(answers, "answers", ANSWERS, Set.of());
    for (String answer : ANSWERS) {
      var advice = table(answers, answer);
      texts(advice, "answers." + answer, Set.of("zh", "en", "decision"));
      var decision = advice.getString("decision");
      boolean passes = decision.equals("pass") && answer.equals("green");
      check(passes || Set.of("assist", "stop").contains(decision), "answers." + answer + ": only a green may pass");
    }
  }

  // --- TOML whose every key is accounted for -------------------------------------------------------------------------

  private static void keys(TomlTable table, String name, Set<String> required, Set<String> optional) {
    check(table.keySet().containsAll(required), name + " lacks a key");
    boolean known = table.keySet().stream().allMatch(key -> required.contains(key) || optional.contains(key));
    check(known, name + " has an unknown key");
  }

  private static void texts(TomlTable table, String name, Set<String> required) {
    keys(table, name, required, Set.of());
    check(required.stream().allMatch(key -> table.get(key) instanceof String), name + " holds texts");
  }

  private static TomlTable table(TomlTable parent, String key) {
    check(parent.get(List.of(key)) instanceof TomlTable, key + " is not a table");
    return parent.getTable(List.of(key));
  }

  private static List<Object> list(TomlTable parent, String key) {
    check(parent.get(List.of(key)) instanceof TomlArray, key + " is not a list");
    return parent.getArray(List.of(key)).toList();
  }

  private static int number(TomlTable table, String key, long max) {
    check(table.get(key) instanceof Long number && number >= 1 && number <= max, key + " is out of bounds");
    return table.getLong(key).intValue();
  }
}
