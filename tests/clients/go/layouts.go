package main

// The layouts of proto/*.cddl as Go has them. A struct names every entry of its map: what has one more is refused.

import types "tongxing.test/gen/tongxing/types/v1"

// coseKey is the public half of a device's key: RFC 9052 §7, the point compressed.
type coseKey struct {
	Kty int      `cbor:"1,keyasint"`
	Crv int      `cbor:"-1,keyasint"`
	X   [32]byte `cbor:"-2,keyasint"`
	Y   bool     `cbor:"-3,keyasint"`
}

// confirmation is claim 8, in requests and in tokens.
type confirmation struct {
	Key coseKey `cbor:"1,keyasint"`
}

// consentRequest is what a phone signs with its enrolment key: consent-request.cddl.
type consentRequest struct {
	Audience     string       `cbor:"3,keyasint"`
	Issued       int64        `cbor:"6,keyasint"`
	ID           []byte       `cbor:"7,keyasint"`
	Confirmation confirmation `cbor:"8,keyasint"`
	Wish         struct {
		Device   []byte          `cbor:"1,keyasint"`
		Purposes []types.Purpose `cbor:"2,keyasint"`
		Scope    int             `cbor:"3,keyasint"`
		Kind     int             `cbor:"4,keyasint"`
		Life     int             `cbor:"5,keyasint"` // Seconds.
	} `cbor:"-65539,keyasint"`
}

// consent is what a token of a phone says: consent-token.cddl.
type consent struct {
	Issuer       string       `cbor:"1,keyasint"`
	Audience     string       `cbor:"3,keyasint"`
	Expires      int64        `cbor:"4,keyasint"`
	Issued       int64        `cbor:"6,keyasint"`
	Cti          [16]byte     `cbor:"7,keyasint"`
	Confirmation confirmation `cbor:"8,keyasint"`
	Consent      struct {
		Purposes []int `cbor:"1,keyasint"`
		Scope    int   `cbor:"2,keyasint"`
		Kind     int   `cbor:"4,keyasint"`
	} `cbor:"-65537,keyasint"`
}

// proof is bound to a venue here; claim 3 may be left out: proof.cddl.
type proof struct {
	Venue   string `cbor:"3,keyasint"`
	Expires int64  `cbor:"4,keyasint"`
	Issued  int64  `cbor:"6,keyasint"`
	Nonce   []byte `cbor:"10,keyasint"`
}

// presentation is what a QR carries: presentation.cddl.
type presentation struct {
	_       struct{} `cbor:",toarray"`
	Version int
	Token   []byte
	Proof   []byte // nil is null: paper has none.
	K       []byte
}

// statement is what home says of one token: statement.cddl.
type statement struct {
	Issuer  string `cbor:"1,keyasint"`
	Expires int64  `cbor:"4,keyasint"`
	Issued  int64  `cbor:"6,keyasint"`
	Status  struct {
		Token [16]byte `cbor:"1,keyasint"`
		Head  struct {
			_     struct{} `cbor:",toarray"`
			Epoch [16]byte
			Seq   uint64
		} `cbor:"2,keyasint"`
		Label        string     `cbor:"3,keyasint"`
		Rule         string     `cbor:"4,keyasint,omitempty"`
		Authority    string     `cbor:"5,keyasint,omitempty"`
		Assigned     int64      `cbor:"6,keyasint,omitempty"`
		Tests        [][2]int64 `cbor:"7,keyasint,omitempty"`
		Doses        [][2]int64 `cbor:"8,keyasint,omitempty"`
		Visits       [][3]int64 `cbor:"9,keyasint,omitempty"`
		Hint         *[92]byte  `cbor:"10,keyasint,omitempty"`
		OfflineUntil int64      `cbor:"11,keyasint"`
	} `cbor:"-65538,keyasint"`
}

// accessReceipt is that a record is in a commit: access-receipt.cddl.
type accessReceipt struct {
	_        struct{} `cbor:",toarray"`
	Version  int
	Log      string // The member's code, or gateway.
	Index    uint64
	Record   []byte
	Position uint64
	Path     [][32]byte
	Commit   []byte
}

// logCommit is what a replica of the gateway signs when it makes records durable.
type logCommit struct {
	Number    uint64   `cbor:"1,keyasint"`
	Root      [32]byte `cbor:"2,keyasint"`
	Count     uint64   `cbor:"3,keyasint"`
	Heads     [32]byte `cbor:"4,keyasint"`
	Committed int64    `cbor:"6,keyasint"`
}

// accessRecord is what stands on a log for one exchange: access-record.cddl.
type accessRecord struct {
	Time      int64     `cbor:"1,keyasint"`
	Venue     string    `cbor:"2,keyasint"`
	Caller    string    `cbor:"3,keyasint"`
	Staff     string    `cbor:"4,keyasint,omitempty"`
	Purpose   int32     `cbor:"5,keyasint"`
	Scope     int       `cbor:"6,keyasint,omitempty"`
	Cti       [16]byte  `cbor:"7,keyasint"`
	Kind      int       `cbor:"8,keyasint"`
	Outcome   int32     `cbor:"9,keyasint,omitempty"`
	Source    *int      `cbor:"10,keyasint,omitempty"` // 0 is one.
	Statement *[16]byte `cbor:"11,keyasint,omitempty"`
	Policy    uint64    `cbor:"12,keyasint"`
	Exchange  [16]byte  `cbor:"13,keyasint"`
	Reason    string    `cbor:"14,keyasint,omitempty"`
	Trace     [16]byte  `cbor:"15,keyasint"`
}

// edition is what the trust list and the policy come in.
type edition[Content any] struct {
	Version uint64  `cbor:"1,keyasint"`
	Content Content `cbor:"2,keyasint"`
	Expires int64   `cbor:"4,keyasint"`
	Issued  int64   `cbor:"6,keyasint"`
}

// trustList is all of trust-list.cddl: what has an entry more is refused.
type trustList struct {
	Domain    string      `cbor:"1,keyasint"`
	Threshold int         `cbor:"2,keyasint"`
	Roots     []issuerKey `cbor:"3,keyasint"`
	Gateway   struct {
		Bundle  [][]byte    `cbor:"1,keyasint"`
		LogKeys []issuerKey `cbor:"2,keyasint"`
	} `cbor:"4,keyasint"`
	Members []memberEntry `cbor:"5,keyasint"`
}

type memberEntry struct {
	Code          string      `cbor:"1,keyasint"`
	Bundle        [][]byte    `cbor:"2,keyasint"`
	Endpoints     []string    `cbor:"3,keyasint"`
	ConsentKeys   []issuerKey `cbor:"4,keyasint"`
	StatementKeys []issuerKey `cbor:"5,keyasint"`
	SealingKey    [32]byte    `cbor:"6,keyasint"`
	Categories    []int       `cbor:"7,keyasint"`
	Suspension    *suspension `cbor:"8,keyasint,omitempty"`
}

// suspension: from begin to end nobody of the member is let in and its nodes are not asked.
type suspension struct {
	Reason string `cbor:"1,keyasint"`
	From   int64  `cbor:"2,keyasint"`
	Until  int64  `cbor:"3,keyasint"`
}

// issuerKey is a key of the trust list. Its kid is computed, and not carried.
type issuerKey struct {
	_      struct{} `cbor:",toarray"`
	Alg    int
	Public [32]byte
}
