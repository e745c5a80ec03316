// Verifies every vector of proto/vectors with go-cose and fxamacker/cbor, makes those with claims anew, and writes what
// it made: vectors DIRECTORY OUT.
package main

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"

	"github.com/veraison/go-cose"
)

type file struct {
	Kind     string             `json:"kind"`
	TestKeys map[string]testKey `json:"test_keys"`
	Vectors  []*vector          `json:"vectors"`
}

type testKey struct {
	Alg     cose.Algorithm `json:"alg"`
	Private hexData        `json:"private"`
	Public  hexData        `json:"public"`
}

type vector struct {
	ID        string          `json:"id"`
	Operation string          `json:"operation"`
	SignedBy  []string        `json:"signed_by"`
	Now       int64           `json:"now"`
	Context   vectorContext   `json:"context"`
	Claims    json.RawMessage `json:"claims"`
	Text      string          `json:"text"`
	Bytes     hexData         `json:"bytes"`
	Repeat    int             `json:"repeat"`
	Verdict   string          `json:"verdict"`
	Object    string          `json:"object"`
	Result    map[string]any  `json:"result"`
}

type vectorContext struct {
	TrustList     string   `json:"trust_list"`
	Policy        string   `json:"policy"`
	Roots         rootKeys `json:"roots"`
	Held          string   `json:"held"`
	EnrollmentKey hexData  `json:"enrollment_key"`
	Token         hexData  `json:"token"`
	Proof         hexData  `json:"proof"`
	Venue         string   `json:"venue"`
	Purpose       string   `json:"purpose"`
	WantedScope   uint64   `json:"wanted_scope"`
	GrantedScope  uint64   `json:"granted_scope"`
	NodeSecret    hexData  `json:"node_secret"`
	Cti           hexData  `json:"cti"`
	K             hexData  `json:"k"`
	Nonce         hexData  `json:"nonce"`
	Member        string   `json:"member"`
	Leaf          hexData  `json:"leaf"`
	Index         uint64   `json:"index,string"`
	Size          uint64   `json:"size,string"`
	Root          hexData  `json:"root"`
	OldSize       uint64   `json:"old_size,string"`
	OldRoot       hexData  `json:"old_root"`
}

type rootKeys struct {
	Threshold int       `json:"threshold"`
	Keys      []hexData `json:"keys"`
}

// hexData is a byte string, which JSON has as hexadecimal digits; nil where it is null or not there.
type hexData []byte

func (h *hexData) UnmarshalText(text []byte) error {
	data, err := hex.DecodeString(string(text))
	*h = data
	return err
}

func (h hexData) MarshalText() ([]byte, error) {
	return []byte(hex.EncodeToString(h)), nil
}

func (v *vector) data() []byte {
	return bytes.Repeat(v.Bytes, max(v.Repeat, 1))
}

func (v *vector) claimed() verdict {
	return verdict{v.Verdict, v.Object, v.Result}
}

// made is an object made anew, as the Rust test reads it.
type made struct {
	ID    string  `json:"id"`
	Bytes hexData `json:"bytes"`
	Text  string  `json:"text,omitempty"`
}

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: vectors DIRECTORY OUT")
		os.Exit(2)
	}
	directory, out := os.Args[1], os.Args[2]
	var files []file
	vectors := all{}
	for _, name := range []string{
		"trust-list", "policy", "consent-request", "consent-token", "proof", "presentation", "statement", "hint",
		"merkle", "access-record", "access-receipt", "checkpoint", "delivery-receipt",
	} {
		var read file
		data := must(os.ReadFile(filepath.Join(directory, name+".json")))
		must(0, json.Unmarshal(data, &read))
		files = append(files, read)
		for _, v := range read.Vectors {
			vectors[v.ID] = v
		}
	}
	objects, wrong := []made{}, 0
	for _, file := range files {
		before := len(objects)
		for _, v := range file.Vectors {
			wrong += compare(v.ID, vectors.verdict(v), v.claimed())
			if v.Claims != nil {
				object, different := makeAnew(vectors, v, file.TestKeys)
				objects, wrong = append(objects, object), wrong+different
			}
		}
		fmt.Printf("%-16s %4d verified %4d made\n", file.Kind, len(file.Vectors), len(objects)-before)
	}
	must(0, os.MkdirAll(filepath.Dir(out), 0o755))
	must(0, os.WriteFile(out, must(json.MarshalIndent(map[string]any{"objects": objects}, "", " ")), 0o644))
	if wrong > 0 {
		fmt.Printf("FAIL vectors-go %d of %d vectors\n", wrong, len(vectors))
		os.Exit(1)
	}
	fmt.Printf("ok vectors-go %d vectors\n", len(vectors))
}

// makeAnew: what was made has the same verdict; where all signatures are Ed25519, or there are none, the same bytes too.
func makeAnew(vectors all, v *vector, testKeys map[string]testKey) (made, int) {
	keys, deterministic := []testKey{}, true
	for _, name := range v.SignedBy {
		keys = append(keys, testKeys[name])
		deterministic = deterministic && testKeys[name].Alg == algEd25519
	}
	data, text := produce(vectors, v, keys)
	again := *v
	again.Bytes, again.Text = data, text
	wrong := compare(v.ID+" (made)", vectors.verdict(&again), v.claimed())
	if deterministic {
		wrong += compare(v.ID+" (bytes)", made{Bytes: data, Text: text}, made{Bytes: v.Bytes, Text: v.Text})
	}
	return made{v.ID, data, text}, wrong
}

func compare[T any](what string, got, wanted T) int {
	if reflect.DeepEqual(got, wanted) {
		return 0
	}
	fmt.Printf("FAIL %s: got %v, wanted %v\n", what, got, wanted)
	return 1
}
