package main

// The member's own platform pushes the codes it assigns: a table of people becomes a stream of batches, which goes on
// after it broke.

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	assignment "tongxing.test/gen/tongxing/assignment/v1"
)

const (
	batchSize = 250                    // Codes; 500 at most, and 256 KiB.
	ahead     = 8                      // Batches sent and not answered, at most.
	answerIn  = 40 * time.Second       // The node answers within 30, or ends the stream.
	patience  = time.Minute            // Without any answer, for which the node may be away.
	pause     = 500 * time.Millisecond // Between two attempts.
)

// pusher pushes one table.
type pusher struct {
	node       assignment.AssignmentServiceClient
	table      []*assignment.PushedCode      // What was not sent yet.
	waiting    []*assignment.PutCodesRequest // Sent and not answered, in order.
	verdicts   map[assignment.CodeVerdict]int
	broken     int // How many times the stream broke.
	lastAnswer time.Time
}

// pushCodes pushes a table to its end, whatever becomes of single streams. An error is one that does not pass.
func pushCodes(
	ctx context.Context, node assignment.AssignmentServiceClient, table []*assignment.PushedCode,
) (*pusher, error) {
	p := &pusher{node: node, table: table, verdicts: map[assignment.CodeVerdict]int{}, lastAnswer: time.Now()}
	for len(p.table)+len(p.waiting) > 0 {
		if err := p.stream(ctx); err != nil {
			if !passes(err) || time.Since(p.lastAnswer) > patience {
				return nil, err
			}
			p.broken++
			time.Sleep(pause)
		}
	}
	fmt.Printf("pushed        %v, broken %d times\n", p.verdicts, p.broken)
	return p, nil
}

// stream goes on from the first batch that was not answered, until all are or the stream breaks.
func (p *pusher) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	overdue := time.AfterFunc(answerIn, cancel)
	defer overdue.Stop()
	stream, err := p.node.PutCodes(ctx)
	if err != nil {
		return err
	}
	// What was not answered goes first, with the same request ids. The node may have it, or not: the answer is the same.
	// What a broken stream does not send, its Recv tells.
	for _, batch := range p.waiting {
		_ = stream.Send(batch)
	}
	p.fill(stream)
	for len(p.waiting) > 0 {
		answer, err := stream.Recv()
		if err != nil {
			return err
		}
		overdue.Reset(answerIn)
		if err := p.settle(p.waiting[0], answer); err != nil {
			return err
		}
		p.waiting, p.lastAnswer = p.waiting[1:], time.Now()
		p.fill(stream)
	}
	_ = stream.CloseSend()
	_, _ = stream.Recv() // The node's own end, behind which another stream may begin.
	return nil
}

// fill sends as much as may be on its way. A request id is made once, with its batch.
func (p *pusher) fill(stream grpc.BidiStreamingClient[assignment.PutCodesRequest, assignment.PutCodesResponse]) {
	for len(p.waiting) < ahead && len(p.table) > 0 {
		n := min(batchSize, len(p.table))
		batch := &assignment.PutCodesRequest{RequestId: rand.Text(), Codes: p.table[:n]}
		p.table, p.waiting = p.table[n:], append(p.waiting, batch)
		_ = stream.Send(batch)
	}
}

// settle: a batch is answered, so it is durable. One verdict a code, in order; a refused one holds up no other.
func (p *pusher) settle(batch *assignment.PutCodesRequest, answer *assignment.PutCodesResponse) error {
	if answer.RequestId != batch.RequestId || len(answer.Verdicts) != len(batch.Codes) {
		return errors.New("the answer to another batch")
	}
	for i, verdict := range answer.Verdicts {
		p.verdicts[verdict.Verdict]++
		if verdict.Verdict == assignment.CodeVerdict_CODE_VERDICT_REFUSED {
			fmt.Println("refused      ", batch.Codes[i].PersonReference, verdict.Reason, verdict.Field, verdict.Detail)
		}
	}
	return nil
}

// passes says whether the same may do another time: the node, or the way to it, is away for a while.
func passes(err error) bool {
	if errors.Is(err, io.EOF) {
		return true
	}
	refused, ok := status.FromError(err)
	for _, detail := range refused.Details() {
		if info, ok := detail.(*errdetails.ErrorInfo); ok { // The node's own word.
			// OVERLOADED: it has not noticed yet that the last stream broke.
			return info.Reason == "OVERLOADED" || info.Reason == "STORE_UNAVAILABLE" || info.Reason == "TRUST_EXPIRED"
		}
	}
	switch refused.Code() { // The network's, or the library's.
	case codes.Unavailable, codes.Unknown, codes.Canceled, codes.DeadlineExceeded:
		return ok
	}
	return false
}

// --- An invented table, pushed over a stream that breaks -------------------------------------------------------------

// pushAll pushes people whom nobody else has, twice. Returns the reference of one of them.
func pushAll(federation *federation) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	channel, err := federation.node(*member, "backend") // By a name that node.toml has in `platforms`.
	if err != nil {
		return "", err
	}
	defer channel.Close()
	node := assignment.NewAssignmentServiceClient(channel)
	table := make([]*assignment.PushedCode, 2750)
	run, yesterday := rand.Text(), timestamppb.New(time.Now().AddDate(0, 0, -1))
	for i := range table {
		reference := fmt.Sprintf("%s-%d", run, i)
		table[i] = &assignment.PushedCode{PersonReference: reference, Label: *label, AssignTime: yesterday}
	}
	first, err := pushCodes(ctx, &breaking{AssignmentServiceClient: node}, table)
	if err != nil {
		return "", err
	}
	// A batch that came twice was answered as it was the first time, so that everybody is counted once.
	if first.broken == 0 || first.verdicts[assignment.CodeVerdict_CODE_VERDICT_ASSIGNED] != len(table) {
		return "", errors.New("the stream did not break, or something was lost or doubled")
	}
	again, err := pushCodes(ctx, node, table)
	if err != nil {
		return "", err
	}
	if again.verdicts[assignment.CodeVerdict_CODE_VERDICT_UNCHANGED] != len(table) {
		return "", errors.New("what holds already was not unchanged")
	}
	return table[batchSize].PersonReference, nil // Of the second batch, whose answer got lost.
}

// breaking is a node whose first stream breaks: one answer arrives, the next three get lost, and the connection with them.
type breaking struct {
	assignment.AssignmentServiceClient
	broke bool
}

type breakingStream struct {
	grpc.BidiStreamingClient[assignment.PutCodesRequest, assignment.PutCodesResponse]
	cancel   context.CancelFunc
	answered bool
}

func (b *breaking) PutCodes(
	ctx context.Context, options ...grpc.CallOption,
) (grpc.BidiStreamingClient[assignment.PutCodesRequest, assignment.PutCodesResponse], error) {
	if b.broke {
		return b.AssignmentServiceClient.PutCodes(ctx, options...)
	}
	b.broke = true
	ctx, cancel := context.WithCancel(ctx)
	stream, err := b.AssignmentServiceClient.PutCodes(ctx, options...)
	if err != nil {
		cancel()
		return nil, err
	}
	return &breakingStream{BidiStreamingClient: stream, cancel: cancel}, nil
}

func (s *breakingStream) Recv() (*assignment.PutCodesResponse, error) {
	if !s.answered {
		s.answered = true
		return s.BidiStreamingClient.Recv()
	}
	for range 3 {
		if _, err := s.BidiStreamingClient.Recv(); err != nil {
			s.cancel()
			return nil, err
		}
	}
	s.cancel()
	return nil, status.Error(codes.Unavailable, "the connection is lost")
}
