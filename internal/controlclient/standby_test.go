package controlclient_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/controlclient"
)

// answer is what a panel answers to one question of a device that stands by.
type answer struct {
	controlclient.Presence
	err error
}

func gone(lastSeen int64) answer {
	return answer{Presence: controlclient.Presence{LastSeen: time.Unix(lastSeen, 0)}}
}

var there = answer{Presence: controlclient.Presence{Online: true, LastSeen: time.Unix(1, 0)}}

// standby is a device that can stand by. The test answers each of its questions.
type standby struct {
	*device
	begun   chan string
	answers chan answer
}

// runStandby starts a device for which another process is gone after grace.
func runStandby(t *testing.T, grace time.Duration) *standby {
	s := &standby{begun: make(chan string, 8), answers: make(chan answer)}
	s.device = run(t, func(d *device, o *options) {
		o.Logger = slog.New(slog.NewTextHandler(&d.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		o.Standby.Presence = func(ctx context.Context) (controlclient.Presence, error) {
			select {
			case a := <-s.answers:
				return a.Presence, a.err
			case <-ctx.Done():
				return controlclient.Presence{}, ctx.Err()
			}
		}
		o.Standby.Begin = func(reason string) { s.begun <- reason }
		o.Standby.Poll, o.Standby.Grace = time.Millisecond, grace
	})
	return s
}

// takeOver has the panel say that another process took over.
func (s *standby) takeOver(t *testing.T, p *panel) {
	t.Helper()
	p.Close(channel.CloseTakenOver, "the other")
	if reason := await.Receive(t, s.begun, "begin of the standby"); reason != "the other" {
		t.Errorf("stands by because of %q", reason)
	}
}

// answer answers the next questions.
func (s *standby) answer(t *testing.T, answers ...answer) {
	t.Helper()
	for i, a := range answers {
		select {
		case s.answers <- a:
		case p := <-s.channels:
			t.Fatalf("in place of question %d it connects: %+v", i, p.next())
		case <-time.After(10 * time.Second):
			t.Fatalf("it does not ask for answer %d", i)
		}
	}
}

// returns waits for the attempt to come back and returns the panel's end of it.
func (s *standby) returns(t *testing.T) *panel {
	t.Helper()
	p := await.Receive(t, s.channels, "channel after the standby")
	if hello := p.next().(types.Hello); hello.IfOffline == nil || !*hello.IfOffline {
		t.Errorf("returns with the hello %+v", hello)
	}
	return p
}

func TestClient_ReturnsOnceTheOtherProcessIsGone(t *testing.T) {
	s := runStandby(t, time.Nanosecond)
	p := s.next(t)
	p.snapshot(1, 1)
	s.want(t, 1)
	s.takeOver(t, p)
	away := answer{err: errors.New("the panel is away")}
	s.answer(t, there, gone(1), // The other restarts,
		there, gone(2), away, // so does the panel,
		gone(2), gone(3), // and the other was back in between.
		gone(3))
	p = s.returns(t)
	p.snapshot(1, 2)
	s.want(t, 2)
	p.Close(channel.CloseRestarting, "")
	p = await.Receive(t, s.channels, "channel after that")
	if hello := p.next().(types.Hello); hello.IfOffline != nil {
		t.Errorf("a device that serves sends the hello %+v", hello)
	}
	p.snapshot(1, 3)
	s.want(t, 3)
	s.takeOver(t, p)
	s.answer(t, there)
}

func TestClient_StandsByForTheWholeGrace(t *testing.T) {
	s := runStandby(t, time.Hour)
	s.takeOver(t, s.next(t))
	for range 50 {
		s.answer(t, gone(1))
	}
	select {
	case err := <-s.ends:
		t.Errorf("OnChannel was called with %v", err)
	case err := <-s.result:
		t.Errorf("ended with %v", err)
	default:
	}
	s.stop()
	if err := await.Receive(t, s.result, "end of Run"); err != nil {
		t.Error(err)
	}
}

func TestClient_StandsByAgainWhenItCannotReturn(t *testing.T) {
	s := runStandby(t, time.Nanosecond)
	s.takeOver(t, s.next(t))
	for name, end := range map[string]func(*panel){
		"the panel is away again": nil,
		"it restarts meanwhile":   func(p *panel) { p.Close(channel.CloseRestarting, "") },
		"another was quicker":     func(p *panel) { p.Close(channel.CloseTakenOver, "quicker") },
		"its answer is malformed": func(p *panel) { p.send("text") },
	} {
		if end == nil {
			s.refusals <- errors.New("refused")
		}
		s.answer(t, gone(1), gone(1))
		if end != nil {
			end(s.returns(t))
		}
		// Not at once: the other may be back first.
		s.answer(t, there)
		select {
		case reason := <-s.begun:
			t.Errorf("%s: stands by once more, because of %q", name, reason)
		case err := <-s.ends:
			t.Errorf("%s: OnChannel was called with %v", name, err)
		default:
		}
	}
	if s.log.Count("cannot return from standby") == 0 || s.log.Count("error=refused") == 0 {
		t.Error("the failed returns are not logged")
	}
	s.answer(t, gone(1), gone(1))
	p := s.returns(t)
	p.snapshot(1, 1)
	s.want(t, 1)
}

func TestClient_EndsItsStandbyForGood(t *testing.T) {
	revoked := answer{err: &channel.FinalError{Code: channel.CloseTokenDead, Reason: "revoked"}}
	s := runStandby(t, time.Nanosecond)
	s.takeOver(t, s.next(t))
	s.answer(t, answer{err: fmt.Errorf("off: %w", channel.ErrFeatureOff)})
	await.Receive(t, s.off, "call that tunnels are switched off")
	s.answer(t, gone(1), revoked)
	if err := await.Receive(t, s.result, "end of Run"); !controlclient.Revoked(err) {
		t.Errorf("ended with %v", err)
	}

	s = runStandby(t, time.Nanosecond)
	s.takeOver(t, s.next(t))
	s.answer(t, gone(1), gone(1))
	s.returns(t).Close(channel.CloseDeleted, "deleted")
	if err := await.Receive(t, s.result, "end of Run"); !controlclient.Revoked(err) {
		t.Errorf("ended with %v", err)
	}
}

func TestClient_StandsByOnItsOwnersWord(t *testing.T) {
	s := runStandby(t, time.Nanosecond)
	p := s.next(t)
	p.snapshot(1, 1)
	s.want(t, 1)
	s.StandBy("a link says so")
	if err := await.Receive(t, p.ended, "the panel's end"); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("the panel received %v", err)
	}
	if reason := await.Receive(t, s.begun, "begin of the standby"); reason != "a link says so" {
		t.Errorf("stands by because of %q", reason)
	}
	s.StandBy("again")
	s.answer(t, there, gone(1), gone(1))
	s.returns(t).snapshot(1, 2)
	s.want(t, 2)
}
