"""The policy's TOML: what data/policy.toml shows, with its bounds; and what it is asked."""

import re
import tomllib

from vectors.claims import CATEGORIES, NAME, PURPOSES
from vectors.profile import MEMBERS, is_text, require

SCOPES = {"level": 1, "assignment": 2, "tests": 4, "vaccination": 8, "risk-areas": 16, "identity-hint": 32}
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
HOUR, DAY = 3600, 86_400
ANSWERS = ["green", "yellow", "red", "unknown", "undetermined", "unsubstantiated", "unreachable"]
TEXT = {"zh": str, "en": str}
# How long records are kept and when travelers see them: least and most, in seconds.
ACCESS_LOG = {
    "gateway_retention": (0, 30 * DAY),
    "home_retention": (DAY, 3660 * DAY),
    "visibility_delay": (0, 30 * DAY),
}


def read_policy(text):
    require(isinstance(text, str), "policy")
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        require(False, "policy")
    return Policy(document)


def _shaped(table, shape):
    """Exactly these keys, each with a value of this type."""
    require(isinstance(table, dict) and set(table) == set(shape), "policy")
    require(all(type(table[key]) is kind for key, kind in shape.items()), "policy")
    return table


class Policy:
    def __init__(self, document):
        development = document.pop("development", False)
        require(type(development) is bool, "policy")
        access_log = document.pop("access_log", {})  # May be left out, and any of its keys too.
        require(isinstance(access_log, dict), "policy")
        shape = dict.fromkeys("lives quotas grants labels rules authorities answers correction".split(), dict)
        _shaped(document, {"name": str} | shape)
        names = "token paper proof statement offline last_known_good".split()
        lives = _shaped(document["lives"], dict.fromkeys(names, str))
        self.lives = {key: _seconds(value) for key, value in lives.items()}
        longest = {"token": DAY, "paper": 14 * DAY, "proof": HOUR if development else 60, "statement": HOUR}
        for key, most in longest.items():
            require(1 <= self.lives[key] <= most, "policy")
        require(self.lives["offline"] <= 600 and self.lives["last_known_good"] <= HOUR, "policy")
        quotas = _shaped(document["quotas"], {"live_consents_per_traveler": int, "devices_per_traveler": int})
        require(1 <= quotas["live_consents_per_traveler"] <= 16 and 1 <= quotas["devices_per_traveler"] <= 64, "policy")
        self.grants = dict(_grants(document["grants"]))
        self.labels = {member: _labels(member, table) for member, table in document["labels"].items()}
        require("default" in self.labels, "policy")
        self.authorities = document["authorities"]
        for authority in self.authorities.values():
            _shaped(authority, TEXT)
        self.rules = document["rules"]
        for name, rule in self.rules.items():
            _shaped(rule, TEXT | {"levels": list, "authorities": list})
            require(len(name.encode()) <= 32 and set(rule["levels"]) <= {"yellow", "red"}, "policy")
            require(all(kind in self.authorities and NAME.fullmatch(kind) for kind in rule["authorities"]), "policy")
        self.answers = _shaped(document["answers"], dict.fromkeys(ANSWERS, dict))
        for outcome, answer in self.answers.items():
            decision = _shaped(answer, TEXT | {"decision": str})["decision"]
            require(decision in ("assist", "stop") or (decision, outcome) == ("pass", "green"), "policy")
        _shaped(document["correction"], TEXT)
        for key, value in access_log.items():
            require(key in ACCESS_LOG and type(value) is str, "policy")
            least, most = ACCESS_LOG[key]
            require(least <= _seconds(value) <= most, "policy")

    def grant(self, venue, purpose):
        """The scope that a venue may see at most; None where the purpose is not admitted."""
        return self.grants.get((venue.split("/")[1], purpose))

    def judge(self, claims):
        """Outcome, level and decision for a statement."""
        labels = self.labels.get(claims["iss"], self.labels["default"])
        level = labels.get(claims["label"], "undetermined")
        if level == "undetermined":
            return self._answer("UNDETERMINED", None, "undetermined")
        if level != "green" and not self._admits(claims, level):
            return self._answer("UNSUBSTANTIATED", None, "unsubstantiated")
        return self._answer("STATUS", level, level)

    def _admits(self, claims, level):
        rule = self.rules.get(claims["rule"])
        member, _, kind = (claims["authority"] or "").partition("/")
        if rule is None or member not in (claims["iss"], "00"):
            return False
        return level in rule["levels"] and kind in rule["authorities"]

    def _answer(self, outcome, level, key):
        return {"outcome": outcome, "level": level, "decision": self.answers[key]["decision"]}


def _seconds(text):
    require(re.fullmatch(r"(\d+[smhd]\s*)+", text) is not None, "policy")
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", text))


def _grants(tables):
    for category, purposes in tables.items():
        require(category in CATEGORIES and isinstance(purposes, dict), "policy")
        for purpose, words in purposes.items():
            require(purpose in PURPOSES and isinstance(words, list) and set(words) <= set(SCOPES), "policy")
            require("level" in words, "policy")
            yield (category, purpose), sum(SCOPES[word] for word in set(words))


def _labels(member, table):
    require((member == "default" or member in MEMBERS) and isinstance(table, dict), "policy")
    for label, meaning in table.items():
        require(is_text(label, 48) and meaning in ("green", "yellow", "red", "undetermined"), "policy")
    return table
