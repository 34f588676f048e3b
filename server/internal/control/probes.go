package control

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/gameping"
)

// maxAnswers bounds the answers to probes of one device that wait for the database. Further
// ones are given up: who asked for them does not wait for long.
const maxAnswers = 16

// checkProbeResult holds an answer to the contract, and bounds what a game has said.
func checkProbeResult(result types.ProbeResult) error {
	if t := result.Target; t != nil {
		if t.Reason != nil && !text(*t.Reason, types.MaxProbedTargetReason) {
			return policyViolation("reason: at most %d characters, no NUL", types.MaxProbedTargetReason)
		}
		if !gameping.Check(t.TCP) || !gameping.Check(t.UDP) {
			return policyViolation("tcp, udp: not a reply")
		}
	}
	if p := result.Port; p != nil {
		if p.Arrived < 0 || p.Refused != nil && len(*p.Refused) > maxReasons {
			return policyViolation("port: arrived is at least 0, and refused has at most %d reasons", maxReasons)
		}
		if p.Refused != nil {
			for why, n := range *p.Refused {
				if n < 0 || !text(why, maxReasons) {
					return policyViolation("refused: counts are at least 0")
				}
			}
		}
	}
	if result.Addresses == nil {
		return nil
	}
	if len(*result.Addresses) > types.MaxProbeResultAddresses {
		return policyViolation("addresses: at most %d", types.MaxProbeResultAddresses)
	}
	for i := range *result.Addresses {
		if !gameping.Check(&(*result.Addresses)[i]) {
			return policyViolation("addresses: not a reply")
		}
	}
	return nil
}

// probeAnswers are the answers of a device to probes, on their way to the database.
type probeAnswers struct {
	storer *worker // Runs storeAnswers; woken when there are any.

	mu      sync.Mutex
	waiting []types.ProbeResult
}

func newProbeAnswers() *probeAnswers { return &probeAnswers{storer: newWorker()} }

func (p *probeAnswers) add(result types.ProbeResult) {
	p.mu.Lock()
	if len(p.waiting) < maxAnswers {
		p.waiting = append(p.waiting, result)
	}
	p.mu.Unlock()
	p.storer.wake()
}

func (p *probeAnswers) take() []types.ProbeResult {
	p.mu.Lock()
	defer p.mu.Unlock()
	waiting := p.waiting
	p.waiting = nil
	return waiting
}

// storeAnswers stores what is waiting. An answer that cannot be stored is given up.
func (s *session) storeAnswers(ctx context.Context) {
	for _, result := range s.answers.take() {
		answer, err := json.Marshal(result)
		if err == nil {
			err = s.hub.opts.Store.AnswerProbe(ctx, s.device, result.ID, answer)
		}
		if err != nil && ctx.Err() == nil {
			s.log.WarnContext(ctx, "answer to a probe not stored", slog.Any("error", err))
		}
	}
}

// sendProbes asks the device what somebody wants to find out by a check. One that takes no
// probes is not asked, and whoever waits for it is told.
func (s *session) sendProbes(ctx context.Context) error {
	probes, err := s.hub.opts.Store.TakeProbes(ctx, s.device)
	if err != nil {
		return err
	}
	for _, probe := range probes {
		if !s.probes {
			s.refuseProbe(ctx, probe.ID)
			continue
		}
		var message types.Probe
		if err := json.Unmarshal(probe.Question, &message); err != nil {
			s.refuseProbe(ctx, probe.ID) // Of a later version of the panel.
			continue
		}
		message.Type, message.ID = types.TypeProbe, probe.ID
		if err := s.post(message); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) refuseProbe(ctx context.Context, id uuid.UUID) {
	if err := s.hub.opts.Store.AnswerProbe(ctx, s.device, id, json.RawMessage("null")); err != nil && ctx.Err() == nil {
		s.log.WarnContext(ctx, "probe not refused", slog.Any("error", err))
	}
}
