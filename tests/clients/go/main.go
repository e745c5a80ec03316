// One health code from its first day to the gate, over mTLS: enrol, consent, prove, be recognised, believe nobody.
//
// Four parties that are four programs in life, top to bottom: the phone, its home member's backend and operator, the
// venue. How a signed object is made and checked is in signed.go, the receipt that an exchange is on record in
// receipt.go, whom to trust in federation.go. gen/ is generated: see generate/main.go.
package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"log"
	"slices"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"tongxing.test/base45"
	assignment "tongxing.test/gen/tongxing/assignment/v1"
	recognition "tongxing.test/gen/tongxing/recognition/v1"
	traveler "tongxing.test/gen/tongxing/traveler/v1"
	types "tongxing.test/gen/tongxing/types/v1"
)

const (
	deadline = 10 * time.Second // For each side. Without one a call may wait for ever.

	// Scope bits. Ask for what is needed: the person reads it before they agree.
	scopeLevel        = 1
	scopeIdentityHint = 32
)

var (
	dir    = flag.String("dir", ".tongxing", "a running federation's state directory")
	member = flag.String("member", "44", "the home member")
	venue  = flag.String("venue", "11/station/beijing-west", "who asks")
	number = flag.String("document", "", "a seeded person's; a new person gets a green code from the operator")
	name   = flag.String("name", "演示旅客", "the person's name")
	label  = flag.String("label", "绿码", "the member's own word for green")
	push   = flag.Bool("push", false, "the member's platform pushes the code, among many, instead of the operator")
)

func main() {
	log.SetFlags(0)
	flag.Parse()
	if err := run(); err != nil {
		log.Fatal("FAIL ", err)
	}
}

func run() error {
	federation, err := openFederation(*dir, *venue)
	if err != nil {
		return err
	}
	reference := ""
	if *push {
		if reference, err = pushAll(federation); err != nil {
			return err
		}
	}
	text, err := atHome(federation, reference)
	if err != nil {
		return err
	}
	fmt.Println("presentation ", text)
	return atTheGate(federation, text)
}

// --- The phone, and those at home who serve it -----------------------------------------------------------------------

type phone struct {
	enrollmentKey, tokenKey *ecdsa.PrivateKey
	deviceID                []byte
	clockOffset             time.Duration
	token, k                []byte
}

// atHome: a phone enrols, gets a token and shows it. Returns the text of the QR. The reference is the platform's, of whom
// it pushed a code for.
func atHome(federation *federation, reference string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	channel, err := federation.node(*member, "backend")
	if err != nil {
		return "", err
	}
	defer channel.Close()
	backend := traveler.NewTravelerServiceClient(channel)

	document := &types.Document{Type: types.DocumentType_DOCUMENT_TYPE_RESIDENT_ID, Number: *number}
	isNew := *number == ""
	if isNew {
		document = &types.Document{Type: types.DocumentType_DOCUMENT_TYPE_OTHER, Number: "DEMO-" + rand.Text()}
	}
	phone, err := enroll(ctx, backend, document, reference)
	if err != nil {
		return "", err
	}
	if isNew && reference == "" {
		if err := setCode(ctx, federation, document); err != nil {
			return "", err
		}
	}
	category := strings.Split(*venue, "/")[1]
	purposes := []types.Purpose{types.Purpose_PURPOSE_ENTRY, types.Purpose_PURPOSE_TRAVEL}
	if err := phone.consent(ctx, backend, category, purposes); err != nil {
		return "", err
	}
	return phone.present(*venue)
}

func enroll(
	ctx context.Context, backend traveler.TravelerServiceClient, document *types.Document, reference string,
) (*phone, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	response, err := backend.EnrollDevice(ctx, &traveler.EnrollDeviceRequest{
		RequestId:       rand.Text(),
		Document:        document,
		Name:            *name,
		EnrollmentKey:   encode(publicKey(key)),
		PersonReference: reference,
	})
	if err != nil {
		return nil, err
	}
	// Proofs live a minute, so a phone goes by home's clock and not by its own.
	offset := time.Until(response.HomeTime.AsTime())
	fmt.Println("enrolled      a phone")
	return &phone{enrollmentKey: key, deviceID: response.DeviceId, clockOffset: offset}, nil
}

func (p *phone) now() int64 {
	return time.Now().Add(p.clockOffset).Unix()
}

// setCode: a person whom the member did not know has no code yet. The operator assigns one and says by which rule.
func setCode(ctx context.Context, federation *federation, document *types.Document) error {
	channel, err := federation.node(*member, "operator")
	if err != nil {
		return err
	}
	defer channel.Close()
	request := &assignment.SetCodeRequest{
		RequestId:     rand.Text(),
		Document:      document,
		Label:         *label,
		Rule:          "R-CASE",
		Authority:     *member + "/cdc",
		Justification: "an example",
	}
	if _, err := assignment.NewAssignmentServiceClient(channel).SetCode(ctx, request); err != nil {
		return err
	}
	fmt.Println("assigned     ", *label)
	return nil
}

// consent asks for a token. It names a fresh key: the enrolment key would link what the random cti unlinks (I6).
func (p *phone) consent(
	ctx context.Context, backend traveler.TravelerServiceClient, audience string, purposes []types.Purpose,
) (err error) {
	if p.tokenKey, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return err
	}
	claims := consentRequest{Audience: audience, Issued: p.now(), ID: random(16)}
	claims.Confirmation.Key = publicKey(p.tokenKey)
	claims.Wish.Device, claims.Wish.Purposes, claims.Wish.Life = p.deviceID, purposes, 3600
	claims.Wish.Scope, claims.Wish.Kind = scopeLevel|scopeIdentityHint, int(types.ConsentKind_CONSENT_KIND_OWN)
	signed, err := signDevice(typConsentRequest, p.enrollmentKey, kidOf(compressed(p.enrollmentKey)), claims, []byte{})
	if err != nil {
		return err
	}
	response, err := backend.IssueConsent(ctx, &traveler.IssueConsentRequest{ConsentRequest: signed})
	if err != nil {
		return err
	}
	p.token, p.k = response.Token, response.HintKey
	until := response.ExpireTime.AsTime().Format(time.RFC3339)
	fmt.Printf("consented     a token of %d bytes until %s\n", len(p.token), until)
	return nil
}

// present makes a proof for this venue alone, whose printed code the phone scanned. Good for a minute.
func (p *phone) present(venue string) (string, error) {
	var token consent
	if _, err := read1(p.token, &token); err != nil {
		return "", err
	}
	claims := proof{Venue: venue, Expires: p.now() + 60, Issued: p.now(), Nonce: random(8)}
	tokenHash := sha256.Sum256(p.token) // Signed along, so that the proof is no other token's.
	signed, err := signDevice(typProof, p.tokenKey, kid(token.Cti[:8]), claims, tokenHash[:])
	if err != nil {
		return "", err
	}
	return "TX1:" + base45.Encode(encode(presentation{Version: 1, Token: p.token, Proof: signed, K: p.k})), nil
}

func random(n int) []byte {
	bytes := make([]byte, n)
	rand.Read(bytes)
	return bytes
}

// --- The venue -------------------------------------------------------------------------------------------------------

// atTheGate: a venue asks the national gateway. All it got from the phone is the text of the QR.
func atTheGate(federation *federation, text string) error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	shown, err := readPresentation(text)
	if err != nil {
		return err
	}
	channel, err := federation.gateway(*venue)
	if err != nil {
		return err
	}
	defer channel.Close()
	gateway := recognition.NewRecognitionServiceClient(channel)

	// k is not in the request, and must never be: it opens what the gateway may not read (I6).
	request := &recognition.RecognizeRequest{
		Token: shown.Token, Proof: shown.Proof, Venue: *venue, Purpose: types.Purpose_PURPOSE_ENTRY,
	}
	answer, err := gateway.Recognize(ctx, request)
	if err != nil {
		return err
	}
	next := answer.NextStep
	fmt.Println("answer       ", answer.Outcome, answer.Decision, answer.Source, next.GetZh(), next.GetEn())
	if answer.Outcome != recognition.Outcome_OUTCOME_STATUS {
		return errors.New("no status")
	}
	maskedName, err := federation.verifyAnswer(shown, answer)
	if err != nil {
		return err
	}
	if maskedName != mask(*name) {
		return errors.New("another person's code")
	}
	if answer.Decision != recognition.Decision_DECISION_PASS {
		return errors.New("the gate stays shut")
	}
	if err := federation.verifyRecord(request, answer); err != nil {
		return fmt.Errorf("access receipt: %w", err)
	}

	// Errors are about the call, and are meant for programs: branch on the reason, never on the message.
	request.Purpose = types.Purpose_PURPOSE_MEDICAL // The person did not agree to that.
	_, err = gateway.Recognize(ctx, request)
	reason, _ := refusal(err)
	if reason != "PURPOSE_NOT_CONSENTED" {
		return fmt.Errorf("refused for %q: %w", reason, err)
	}
	_, err = gateway.Recognize(ctx, &recognition.RecognizeRequest{Purpose: types.Purpose_PURPOSE_ENTRY})
	fieldReason, fields := refusal(err)
	if fieldReason != "FIELD_MISSING" || !slices.Equal(fields, []string{"token"}) {
		return fmt.Errorf("refused for %q: %w", fieldReason, err)
	}
	fmt.Println("ok go PASS", reason)
	return nil
}

func readPresentation(text string) (shown presentation, err error) {
	body, found := strings.CutPrefix(text, "TX1:")
	if !found {
		return shown, errors.New("not a presentation")
	}
	data, err := base45.Decode(body)
	if err != nil {
		return shown, err
	}
	if err = decode(data, &shown); err == nil && shown.Version != 1 {
		err = fmt.Errorf("a presentation of version %d", shown.Version)
	}
	return shown, err
}

// verifyAnswer checks home's own words, so that nobody needs to believe the gateway (I3). Returns the masked name.
func (f *federation) verifyAnswer(shown presentation, answer *recognition.RecognizeResponse) (string, error) {
	var token consent
	object, err := read1(shown.Token, &token)
	if err != nil {
		return "", err
	}
	home := f.trust(token.Issuer)
	if err := verify1(typToken, object, home.ConsentKeys); err != nil {
		return "", fmt.Errorf("token: %w", err)
	}
	var said statement
	if object, err = read1(answer.Statement, &said); err != nil {
		return "", err
	}
	if err := verify1(typStatement, object, home.StatementKeys); err != nil {
		return "", fmt.Errorf("statement: %w", err)
	}

	status, now := said.Status, time.Now().Unix()
	tokenHash := sha256.Sum256(shown.Token)
	life, offline := said.Expires-said.Issued, status.OfflineUntil-said.Issued
	granted := func(bit uint32) bool { return answer.GrantedScope&bit != 0 }
	switch {
	case said.Issuer != token.Issuer || status.Token != [16]byte(tokenHash[:16]):
		return "", errors.New("the statement answers for another token")
	case life < 0 || life > int64(f.policy.Lives.Statement.Seconds()):
		return "", errors.New("the statement claims too long a life")
	case offline < 0 || offline > int64(f.policy.Lives.Offline.Seconds()) || status.OfflineUntil > said.Expires:
		return "", errors.New("the statement may be trusted offline for too long")
	case now < said.Issued-clockLeeway || now >= said.Expires+clockLeeway:
		return "", errors.New("the statement does not hold now")
	case status.Assigned != 0 && !granted(2), status.Tests != nil && !granted(4), status.Doses != nil && !granted(8),
		status.Visits != nil && !granted(16), status.Hint != nil && !granted(32):
		return "", errors.New("the statement discloses what nobody granted")
	}

	// The level is ours to work out. Yellow or red needs a rule and an authority of the policy too; a green, nothing.
	level := f.level(said.Issuer, status.Label)
	if level != "green" || answer.Level != types.Level_LEVEL_GREEN {
		return "", fmt.Errorf("%s is %q, which is not green", status.Label, level)
	}
	fmt.Printf("verified      %s of %s, %d s, offline %d s\n", status.Label, said.Issuer, life, offline)
	if status.Hint == nil {
		return "", errors.New("no identity hint, although it was asked for")
	}
	maskedName, tail, err := openHint(*status.Hint, shown.K)
	if err != nil {
		return "", fmt.Errorf("identity hint: %w", err)
	}
	fmt.Printf("identity      %s …%s: compare with the document in the person's hand\n", maskedName, tail)
	return maskedName, nil
}

// verifyRecord checks that the exchange is on record, on home's log, and that the record says what the answer says (I2).
func (f *federation) verifyRecord(asked *recognition.RecognizeRequest, answer *recognition.RecognizeResponse) error {
	var token consent
	if _, err := read1(asked.Token, &token); err != nil { // Verified with the answer.
		return err
	}
	receipt, err := checkReceipt(answer.AccessReceipt, f.logKeys, token, asked, answer)
	if err != nil {
		return err
	}
	fmt.Printf("on record     no. %d on a log of %s, for this exchange, with this statement\n", receipt.Index, receipt.Log)
	flipped := slices.Clone(answer.AccessReceipt)
	flipped[len(flipped)-1] ^= 1
	if _, _, err := verifyReceipt(flipped, f.logKeys); err == nil {
		return errors.New("a flipped one was believed")
	}
	return nil
}

func mask(name string) string {
	runes := []rune(name)
	return string(runes[:1]) + strings.Repeat("*", min(max(len(runes)-1, 1), 8))
}

// refusal prints what a refused call says of itself. Returns the reason and the fields at fault.
func refusal(err error) (reason string, fields []string) {
	refused := status.Convert(err)
	for _, detail := range refused.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			if detail.Domain == "tongxing" {
				reason = detail.Reason
			}
			fmt.Println("refused      ", refused.Code(), detail.Reason, detail.Domain, detail.Metadata)
		case *errdetails.BadRequest:
			for _, violation := range detail.FieldViolations {
				fields = append(fields, violation.Field)
				fmt.Printf("              %s: %s\n", violation.Field, violation.Description)
			}
		case *errdetails.RetryInfo:
			fmt.Println("              try again in", detail.RetryDelay.AsDuration())
		}
	}
	return reason, fields
}
