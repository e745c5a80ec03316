package main

// The policy's TOML: what data/policy.toml shows, with its bounds; and what it is asked.

import (
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

var scopes = map[string]uint64{
	"level": 1, "assignment": 2, "tests": 4, "vaccination": 8, "risk-areas": 16, "identity-hint": 32,
}

type text struct{ Zh, En *string }

type rule struct {
	text
	Levels, Authorities []string
}

type answer struct {
	text
	Decision *string
}

type policyDocument struct {
	Name        *string
	Development bool
	Lives       map[string]string
	Quotas      map[string]int64
	Grants      map[string]map[string][]string
	Labels      map[string]map[string]string
	Rules       map[string]rule
	Authorities map[string]text
	Answers     map[string]answer
	Correction  *text
	AccessLog   map[string]string `toml:"access_log"`
}

type policy struct {
	policyDocument
	lives  map[string]int64
	grants map[[2]string]uint64
}

func readPolicy(content any) policy {
	source, ok := content.(string)
	allow(ok)
	var read policyDocument
	meta, err := toml.Decode(source, &read)
	allow(err == nil && len(meta.Undecoded()) == 0)
	complete := func(t text) { allow(t.Zh != nil && t.En != nil) }
	allow(read.Name != nil && read.Correction != nil)
	complete(*read.Correction)
	made := policy{policyDocument: read, lives: readLives(read), grants: readGrants(read)}
	allow(len(read.Quotas) == 2)
	for key, most := range map[string]int64{"live_consents_per_traveler": 16, "devices_per_traveler": 64} {
		allow(1 <= read.Quotas[key] && read.Quotas[key] <= most)
	}
	readLabels(read)
	readAccessLog(read)
	for _, authority := range read.Authorities {
		complete(authority)
	}
	allow(read.Rules != nil && read.Authorities != nil)
	for name, rule := range read.Rules {
		complete(rule.text)
		allow(len(name) <= 32 && rule.Levels != nil && rule.Authorities != nil)
		for _, level := range rule.Levels {
			allow(level == "yellow" || level == "red")
		}
		for _, kind := range rule.Authorities {
			_, listed := read.Authorities[kind]
			allow(listed && nameForm.MatchString(kind))
		}
	}
	outcomes := strings.Fields("green yellow red unknown undetermined unsubstantiated unreachable")
	allow(len(read.Answers) == len(outcomes))
	for _, outcome := range outcomes {
		answer := read.Answers[outcome]
		complete(answer.text)
		allow(answer.Decision != nil)
		decision := *answer.Decision
		allow(decision == "assist" || decision == "stop" || decision == "pass" && outcome == "green")
	}
	return made
}

// readAccessLog: how long records are kept, and when travelers see them. May be left out, and any of its keys too.
func readAccessLog(read policyDocument) {
	const day = 86_400
	bounds := map[string][2]int64{
		"gateway_retention": {0, 30 * day}, "home_retention": {day, 3660 * day}, "visibility_delay": {0, 30 * day},
	}
	for key, duration := range read.AccessLog {
		bound, known := bounds[key]
		value := seconds(duration)
		allow(known && bound[0] <= value && value <= bound[1])
	}
}

func allow(holds bool) {
	wellFormed(holds, "policy")
}

func readLives(read policyDocument) map[string]int64 {
	const hour, day = 3600, 86_400
	proof := int64(60)
	if read.Development {
		proof = hour
	}
	bounds := map[string][2]int64{
		"token": {1, day}, "paper": {1, 14 * day}, "proof": {1, proof}, "statement": {1, hour},
		"offline": {0, 600}, "last_known_good": {0, hour},
	}
	allow(len(read.Lives) == len(bounds))
	lives := map[string]int64{}
	for key, bound := range bounds {
		value, there := read.Lives[key]
		allow(there)
		lives[key] = seconds(value)
		allow(bound[0] <= lives[key] && lives[key] <= bound[1])
	}
	return lives
}

var durationForm, durationPart = regexp.MustCompile(`^([0-9]{1,9}[smhd] *)+$`), regexp.MustCompile(`([0-9]+)([smhd])`)

func seconds(duration string) (sum int64) {
	allow(durationForm.MatchString(duration))
	units := map[string]int64{"s": 1, "m": 60, "h": 3600, "d": 86_400}
	for _, part := range durationPart.FindAllStringSubmatch(duration, -1) {
		sum += must(strconv.ParseInt(part[1], 10, 64)) * units[part[2]]
	}
	return sum
}

func readGrants(read policyDocument) map[[2]string]uint64 {
	allow(read.Grants != nil)
	grants := map[[2]string]uint64{}
	for category, table := range read.Grants {
		for purpose, words := range table {
			allow(slices.Contains(categories, category) && slices.Contains(purposes, purpose))
			allow(slices.Contains(words, "level"))
			for _, word := range words {
				allow(scopes[word] != 0)
				grants[[2]string{category, purpose}] |= scopes[word]
			}
		}
	}
	return grants
}

func readLabels(read policyDocument) {
	allow(read.Labels["default"] != nil)
	for member, table := range read.Labels {
		allow(member == "default" || memberForm.MatchString(member))
		for label, meaning := range table {
			allow(isText(label, 48) && slices.Contains([]string{"green", "yellow", "red", "undetermined"}, meaning))
		}
	}
}

// judge says what a statement comes to: outcome, level (none is nil), decision.
func (p policy) judge(said statement) map[string]any {
	labels := p.Labels[said.iss]
	if labels == nil {
		labels = p.Labels["default"]
	}
	level, known := labels[said.label]
	switch {
	case !known || level == "undetermined":
		return p.answer("UNDETERMINED", nil, "undetermined")
	case level != "green" && !p.admits(said, level):
		return p.answer("UNSUBSTANTIATED", nil, "unsubstantiated")
	default:
		return p.answer("STATUS", level, level)
	}
}

func (p policy) admits(said statement, level string) bool {
	member, kind, _ := strings.Cut(said.authority, "/")
	rule, known := p.Rules[said.rule]
	return known && (member == said.iss || member == "00") &&
		slices.Contains(rule.Levels, level) && slices.Contains(rule.Authorities, kind)
}

func (p policy) answer(outcome string, level any, key string) map[string]any {
	return map[string]any{"outcome": outcome, "level": level, "decision": *p.Answers[key].Decision}
}
