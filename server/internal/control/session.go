package control

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
)

// resyncInterval is the minimum time between two snapshots on one channel. Each one
// reads the whole desired state.
const resyncInterval = time.Second

// work is a set of requests to a session. Requests that arrive while others are
// processed are merged.
type work struct {
	row      bool // Check that the device's row still matches the session.
	state    bool // Read the desired state and send the difference.
	snapshot bool // Send the desired state as a snapshot.
	tickets  bool // Send new tickets.
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
	key        string           // The id of the key that signed the token.
	from       string           // See Device.CalledFrom.
	address    netip.Addr       // See Device.Address.
	keeps      []types.RuleName // The rules that a tunnel server keeps; set by connect.
	probes     bool             // It takes probes; set by connect.
	sequence   uint64           // Position in the order in which the hub accepted its channels.
	generation int64            // Set by connect before register.
	readErr    error            // The error that ended reading; used by the goroutine of serve only.

	reports     *reports
	usage       *usageStore
	connections *connections // nil unless the device is a tunnel server.
	answers     *probeAnswers
	syncer      *worker // Runs sync; woken when todo is not empty.

	mu          sync.Mutex
	todo        work
	closeReason string // Why the panel closed the channel; empty if it did not.
	closeCode   int    // The close code it used.

	// The following fields are used by sync only.
	sent         desired // nil before the first snapshot.
	revision     types.Revision
	lastSnapshot time.Time
}

// close closes the session with a close code. It does not block. The first call
// determines the reason.
func (s *session) close(code int, reason string) {
	s.mu.Lock()
	if s.closeReason == "" {
		s.closeReason, s.closeCode = reason, code
	}
	s.mu.Unlock()
	s.conn.Close(code, reason)
	s.cancel() // Cancel database queries, whose results are no longer needed.
}

// endReason returns the reason to log for the end of the channel: the panel's own if
// the panel closed it, otherwise err, the error from reading.
func (s *session) endReason(err error) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closeReason != "" {
		return s.closeReason
	}
	return err.Error()
}

// request requests work and does not wait for it.
func (s *session) request(w work) {
	s.mu.Lock()
	s.todo = s.todo.or(w)
	s.mu.Unlock()
	s.syncer.wake()
}

func (s *session) take() work {
	s.mu.Lock()
	defer s.mu.Unlock()
	w := s.todo
	s.todo = work{}
	return w
}

// receive reads the device's messages until the channel ends, and returns the error.
func (s *session) receive() error {
	for {
		data, err := s.conn.Receive()
		if err != nil {
			return err
		}
		began := time.Now()
		message, err := s.handle(data)
		s.received(message, err == nil, began)
		if err != nil {
			return s.closeForViolation(err)
		}
	}
}

// handle handles a message from the device, and returns it. It is nil if it could not be
// decoded.
func (s *session) handle(data []byte) (message any, err error) {
	message, err = decode(data)
	if err != nil {
		return message, err
	}
	switch m := message.(type) {
	case types.StatusReport:
		s.reports.add(m)
	case types.ConnectionsReport:
		s.addConnections(m)
	case types.ProbeResult:
		s.answers.add(m)
	case types.ResyncRequest:
		s.request(work{snapshot: true})
	case types.UsageReport:
		if s.kind != types.DeviceKindServer {
			return message, policyViolation("only tunnel servers report usage")
		}
		s.usage.add(m, time.Now())
	default:
		return message, policyViolation("hello was already sent")
	}
	return message, nil
}

// closeForViolation closes the session if err is a violation, and returns err.
func (s *session) closeForViolation(err error) error {
	var v *violation
	if errors.As(err, &v) {
		s.close(v.code, v.reason)
	}
	return err
}

// sync processes the session's work. While the database is unavailable it retries, until
// ctx ends, and the channel stays open.
func (s *session) sync(ctx context.Context) {
	var todo work
	var retry backoff.Exponential
	failing := false
	for {
		todo = todo.or(s.take())
		if todo == (work{}) {
			return
		}
		wait, err := s.do(ctx, &todo)
		switch {
		case ctx.Err() != nil, errors.Is(err, channel.ErrClosed), errors.Is(err, channel.ErrSlow):
			return
		case err != nil:
			if !failing {
				failing = true
				s.log.WarnContext(ctx, "desired state not sent yet", slog.Any("error", err))
			}
			wait = retry.Next()
		case wait == 0:
			retry.Reset()
			failing = false
			continue
		}
		// New work does not wait for a back-off to end: it may close the channel of a
		// revoked token.
		select {
		case <-s.syncer.woken:
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
	}
}

// do processes todo and clears what is done. A positive wait is the time until the rest
// may be done.
func (s *session) do(ctx context.Context, todo *work) (wait time.Duration, err error) {
	if err := s.checkRow(ctx, todo); err != nil {
		return 0, err
	}
	var failed error
	if todo.state || todo.snapshot {
		// Include what was requested during the check, as happens when thousands of
		// devices reconnect at once. A row that has changed is checked afterwards.
		*todo = todo.or(s.take())
		wait, failed = s.refresh(ctx, todo)
	}
	// Even if the state could not be read: tickets do not need the database.
	if todo.tickets {
		if err := s.renewTickets(); err != nil {
			return 0, err
		}
		todo.tickets = false
	}
	return wait, failed
}

// checkRow processes todo.row. It returns channel.ErrClosed if it has closed the
// session.
func (s *session) checkRow(ctx context.Context, todo *work) error {
	if !todo.row {
		return nil
	}
	rows, err := s.hub.opts.Store.Channels(ctx, []uuid.UUID{s.device})
	if err != nil {
		return err
	}
	if !s.checkAgainst(rows) {
		return channel.ErrClosed
	}
	todo.row = false
	return nil
}

// refresh processes todo.state and todo.snapshot. A positive wait is the time until
// the next snapshot is allowed.
func (s *session) refresh(ctx context.Context, todo *work) (wait time.Duration, err error) {
	if todo.snapshot && s.sent != nil {
		if wait := resyncInterval - time.Since(s.lastSnapshot); wait > 0 {
			return wait, nil
		}
	}
	first := s.sent == nil
	if !first { // Before what takes longer.
		if err := s.sendCuts(ctx, false); err != nil {
			return 0, err
		}
		if err := s.sendProbes(ctx); err != nil {
			return 0, err
		}
	}
	state, err := s.hub.read(ctx, s)
	if err != nil {
		return 0, err
	}
	if err := s.send(state, todo.snapshot); err != nil {
		return 0, err
	}
	if first {
		if err := s.sendCuts(ctx, false); err != nil {
			return 0, err
		}
	}
	// After what keeps them out: they would be back at once.
	if err := s.sendCuts(ctx, true); err != nil {
		return 0, err
	}
	todo.state, todo.snapshot = false, false
	return 0, nil
}

// checkAgainst checks the session against its device's row. It reports whether the
// session remains valid, and closes it otherwise. A row that is absent or older than the
// session's token is that of a database that was replaced, as by a restore: the device
// is told to come back.
func (s *session) checkAgainst(rows map[uuid.UUID]db.Channel) bool {
	row, ok := rows[s.device]
	switch {
	case !ok, row.TokenVersion < s.version && !row.Deleted:
		s.close(channel.CloseRestarting, unknownDevice)
	case row.Deleted:
		s.close(channel.CloseDeleted, deleted)
	case row.TokenVersion > s.version:
		s.close(channel.CloseTokenDead, tokenDead)
	case row.Generation > s.generation:
		s.close(channel.CloseTakenOver, takenOver)
	default:
		return true
	}
	return false
}

// send sends state as a snapshot if whole is set or nothing was sent before. Otherwise
// it sends the difference from the last state, if there is any.
func (s *session) send(state desired, whole bool) error {
	var message any
	var err error
	whole = whole || s.sent == nil
	if whole {
		message, err = state.snapshot(s.revision+1, s.hub.panelID(), s.ticket)
	} else {
		message, err = state.change(s.sent, s.revision+1, s.ticket)
	}
	if err != nil {
		return err
	}
	if message == nil {
		s.sent = state // Only the times at which tunnel servers were last seen differ.
		s.reports.expect(s.revision, state.allocations())
		return nil
	}
	// Before the message is sent: the device may report as soon as it receives it.
	s.reports.expect(s.revision+1, state.allocations())
	if err := s.post(message); err != nil {
		return err
	}
	s.sent = state
	s.revision++
	if whole {
		s.lastSnapshot = time.Now()
	}
	return nil
}

// renewTickets sends new tickets for the state last sent. It does not use the database.
func (s *session) renewTickets() error {
	state, ok := s.sent.(*clientState)
	if !ok {
		return nil // A tunnel server, or a client that has yet to get its first snapshot.
	}
	message, err := state.renewal(s.revision+1, s.ticket)
	if err != nil || message == nil {
		return err
	}
	if err := s.post(message); err != nil {
		return err
	}
	s.revision++
	return nil
}

func (s *session) ticket(server uuid.UUID, seen time.Time) (string, error) {
	return s.hub.opts.Ticket(s.device, server, s.version, seen)
}
