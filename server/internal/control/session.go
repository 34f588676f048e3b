package control

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

// resyncInterval is the least time between two snapshots on one channel: each
// costs reading the whole state.
const resyncInterval = time.Second

// work is what is to be done for a session; requests that come while it is
// under way add up to one.
type work struct {
	row      bool // Check that the device still is who it was at the upgrade.
	state    bool // Read the desired state and send what differs.
	snapshot bool // Send it whole.
	tickets  bool // Send fresh tickets.
}

func (w work) or(o work) work {
	return work{w.row || o.row, w.state || o.state, w.snapshot || o.snapshot, w.tickets || o.tickets}
}

// session is one device's control channel, from the upgrade to its end.
type session struct {
	hub        *Hub
	conn       *channel.Conn
	cancel     context.CancelFunc
	log        *slog.Logger
	device     uuid.UUID
	kind       types.DeviceKind
	version    int64
	key        string // That signed its token.
	arrived    uint64 // Which of the hub's channels it is, by the order of their upgrades.
	generation int64  // Set by Connect, before anyone else sees the session.
	gone       error  // What reading came to; of the goroutine in serve alone.

	reports *reports
	wake    chan struct{} // One slot: todo holds something.
	mu      sync.Mutex
	todo    work
	ending  string // Why this end closed the channel; empty where it did not.
	code    int    // What it closed the channel with.

	// Of the goroutine in sync alone.
	sent         desired // nil before the first snapshot.
	revision     types.Revision
	lastSnapshot time.Time
}

// close ends the session with a close code. It returns at once; the first
// reason stands.
func (s *session) close(code int, reason string) {
	s.mu.Lock()
	if s.ending == "" {
		s.ending, s.code = reason, code
	}
	s.mu.Unlock()
	s.conn.Close(code, reason)
	s.cancel() // A query of a session that ends has nobody to answer.
}

// why says for logs why the channel ended: our own reason where we had one,
// otherwise what reading it came to.
func (s *session) why(err error) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ending != "" {
		return s.ending
	}
	return err.Error()
}

// want asks for work without waiting for it.
func (s *session) want(w work) {
	s.mu.Lock()
	s.todo = s.todo.or(w)
	s.mu.Unlock()
	signal(s.wake)
}

func (s *session) take() work {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.todo
	s.todo = work{}
	return w
}

// receive reads the device's messages until the channel ends, and returns why.
func (s *session) receive() error {
	for {
		data, err := s.conn.Receive()
		if err != nil {
			return err
		}
		message, err := decode(data)
		if err != nil {
			return s.violated(err)
		}
		switch m := message.(type) {
		case types.StatusReport:
			s.reports.add(m)
		case types.ResyncRequest:
			s.want(work{snapshot: true})
		default:
			return s.violated(unacceptable("hello was said already"))
		}
	}
}

// violated closes the session for what the device did, and returns it.
func (s *session) violated(err error) error {
	var v *violation
	if errors.As(err, &v) {
		s.close(v.code, v.reason)
	}
	return err
}

// sync does the session's work until ctx ends. What could not be done because
// the database is away is tried again; the channel stays open meanwhile.
func (s *session) sync(ctx context.Context) {
	var todo work
	var again <-chan time.Time
	var retry backoff.Exponential
	failing := false
	for {
		// Work that is asked for does not wait for the end of a back-off: it may
		// be that the token is dead.
		select {
		case <-s.wake:
		case <-again:
		case <-ctx.Done():
			return
		}
		again = nil
		todo = todo.or(s.take())
		wait, err := s.do(ctx, &todo)
		switch {
		case ctx.Err() != nil, errors.Is(err, channel.ErrClosed), errors.Is(err, channel.ErrSlow):
			return
		case err != nil:
			if !failing {
				failing = true
				s.log.WarnContext(ctx, "desired state not sent yet", slog.Any("error", err))
			}
			again = time.After(retry.Next())
		case wait > 0:
			again = time.After(wait)
		default:
			retry.Reset()
			failing = false
		}
	}
}

// do does todo and takes from it what is done. A wait of more than 0 means that
// it is too early for the rest.
func (s *session) do(ctx context.Context, todo *work) (wait time.Duration, err error) {
	if err := s.checkRow(ctx, todo); err != nil {
		return 0, err
	}
	var failed error
	if todo.state || todo.snapshot {
		release, err := slot(ctx, s.hub.reads)
		if err != nil {
			return 0, err
		}
		defer release()
		// What has been asked for while this waited is done by the same reading, as
		// when thousands of devices come back at once.
		*todo = todo.or(s.take())
		if err := s.checkRow(ctx, todo); err != nil {
			return 0, err
		}
		wait, failed = s.refresh(ctx, todo)
	}
	// Whatever became of the state: tickets outlive the database's absence.
	if todo.tickets {
		if err := s.renewTickets(); err != nil {
			return 0, err
		}
		todo.tickets = false
	}
	return wait, failed
}

// checkRow does what of todo takes reading the device's row.
func (s *session) checkRow(ctx context.Context, todo *work) error {
	if !todo.row {
		return nil
	}
	rows, err := s.hub.opts.Store.Channels(ctx, []uuid.UUID{s.device})
	if err != nil {
		return err
	}
	if !s.judge(rows) {
		return channel.ErrClosed
	}
	todo.row = false
	return nil
}

// refresh does what of todo takes reading the desired state.
func (s *session) refresh(ctx context.Context, todo *work) (wait time.Duration, err error) {
	if todo.snapshot && s.sent != nil {
		if wait := resyncInterval - time.Since(s.lastSnapshot); wait > 0 {
			return wait, nil
		}
	}
	state, err := s.hub.read(ctx, s.device, s.kind)
	if err != nil {
		return 0, err
	}
	if err := s.send(state, todo.snapshot); err != nil {
		return 0, err
	}
	todo.state, todo.snapshot = false, false
	return 0, nil
}

// judge closes the session where the device's row, absent if deleted, says that
// it must end. It reports whether the session goes on.
func (s *session) judge(rows map[uuid.UUID]db.Channel) bool {
	row, ok := rows[s.device]
	switch {
	case !ok:
		s.close(channel.CloseDeleted, deleted)
	case row.TokenVersion != s.version:
		s.close(channel.CloseTokenDead, tokenDead)
	case row.Generation > s.generation:
		s.close(channel.CloseTakenOver, takenOver)
	default:
		return true
	}
	return false
}

// send sends state: whole where that is asked for or nothing was sent before,
// otherwise what differs, and nothing where nothing does.
func (s *session) send(state desired, whole bool) error {
	var message any
	var err error
	whole = whole || s.sent == nil
	if whole {
		message, err = state.snapshot(s.revision+1, s.ticket)
	} else {
		message, err = state.change(s.sent, s.revision+1, s.ticket)
	}
	if err != nil {
		return err
	}
	if message == nil {
		s.sent = state // The same, but for when its tunnel servers were last seen.
		s.reports.expect(s.revision, state.allocations())
		return nil
	}
	// Before the device can answer: it may report as soon as it has the message.
	s.reports.expect(s.revision+1, state.allocations())
	if err := s.conn.Send(message); err != nil {
		return err
	}
	s.sent = state
	s.revision++
	if whole {
		s.lastSnapshot = time.Now()
	}
	return nil
}

// renewTickets needs no database.
func (s *session) renewTickets() error {
	state, ok := s.sent.(*clientState)
	if !ok {
		return nil // A tunnel server, or a snapshot with fresh ones is yet to come.
	}
	message, err := state.renewal(s.revision+1, s.ticket)
	if err != nil || message == nil {
		return err
	}
	if err := s.conn.Send(message); err != nil {
		return err
	}
	s.revision++
	return nil
}

func (s *session) ticket(server uuid.UUID, seen time.Time) (string, error) {
	return s.hub.opts.Ticket(s.device, server, s.version, seen)
}
