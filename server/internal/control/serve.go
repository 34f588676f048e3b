package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

const (
	defaultHelloTimeout = 10 * time.Second
	// disconnectTimeout bounds the database write that marks a device as offline.
	disconnectTimeout = 5 * time.Second

	// Reasons in close frames.
	restarting = "the panel is restarting"
	deleted    = "the device was deleted"
	tokenDead  = "the token was replaced"
	takenOver  = "a newer connection of this device took over"
	connected  = "another connection of this device is open"
	featureOff = "tunnels are switched off on this panel"

	unknownDevice = "the panel does not know this device"
)

// ServeHTTP upgrades an authenticated device's request to its control channel. It does
// not wait for the channel's end: a goroutine of the hub serves the channel, because that
// of the request would keep the request, its buffers and a large stack.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	device, ok := h.opts.Caller(r.Context())
	if !ok {
		problem.Write(w, r, problem.Unauthorized("This operation needs a device token."))
		return
	}
	if h.isFull() {
		problem.Write(w, r, problem.Unavailable("This panel has as many control channels as it takes.", nil))
		return
	}
	ws, err := h.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // refuse has responded.
	}
	s := &session{
		hub:     h,
		conn:    channel.New(ws, h.opts.Channel),
		device:  device.ID,
		kind:    device.Kind,
		version: device.TokenVersion,
		key:     device.TokenKey,
		from:    device.CalledFrom,
		address: device.Address,
		reports: newReports(),
		usage:   newUsageStore(),
		answers: newProbeAnswers(),
		syncer:  newWorker(),
		log:     h.opts.Logger.With(slog.String("deviceId", device.ID.String()), slog.String("kind", string(device.Kind))),
	}
	if s.kind == types.DeviceKindServer {
		s.connections = newConnections()
	}
	if !h.enter(s) {
		s.conn.Close(channel.CloseRestarting, restarting)
		s.conn.Wait()
	}
}

func (h *Hub) isFull() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.opts.MaxChannels > 0 && len(h.open) >= h.opts.MaxChannels
}

// refuse responds to a request that is not a valid WebSocket handshake.
func refuse(w http.ResponseWriter, r *http.Request, status int, reason error) {
	switch status {
	case http.StatusForbidden:
		problem.Write(w, r, problem.Forbidden("A web page of another origin may not open this WebSocket."))
	case http.StatusInternalServerError:
		problem.Write(w, r, problem.Internal(reason))
	default:
		problem.Write(w, r, problem.Invalid(problem.Field("Upgrade", "must request a WebSocket (RFC 6455, version 13)")))
	}
}

// enter counts a new channel and begins to serve it. It reports false if the hub is
// stopping.
func (h *Hub) enter(s *session) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopping {
		return false
	}
	h.open[s] = struct{}{}
	h.sequence++
	s.sequence = h.sequence
	h.opened[s.kind]++
	var ctx context.Context
	ctx, s.cancel = h.newContext()
	h.channels.Go(func() {
		defer s.cancel()
		defer h.leave(s)
		defer s.conn.Wait()
		defer s.contain(ctx)
		h.serve(ctx, s)
	})
	return true
}

// contain ends the channel if its goroutine panics. As in net/http, the others go on. It does not
// cover the channel's workers.
func (s *session) contain(ctx context.Context) {
	if v := recover(); v != nil {
		s.log.ErrorContext(ctx, "control channel failed", slog.Any("panic", v), slog.String("stack", string(debug.Stack())))
		s.close(websocket.CloseInternalServerErr, "internal error")
	}
}

func (h *Hub) leave(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.open, s)
	h.closed[s.ending()]++
}

// serve serves the channel, from the hello until it ends.
func (h *Hub) serve(ctx context.Context, s *session) {
	hello, began, err := s.hello()
	if err != nil {
		s.readErr = err
		s.log.InfoContext(ctx, "control channel refused", slog.String("reason", s.endReason(err)))
		return
	}
	accepted := h.connect(ctx, s, hello)
	s.received(hello, accepted, began)
	if !accepted {
		return
	}
	// ctx may have ended by then. Without this write, the device would be shown as
	// online until the next reconciliation.
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), disconnectTimeout)
		defer cancel()
		h.disconnect(ctx, s)
	}()
	if !h.register(s) {
		return
	}
	defer h.unregister(s)
	s.log.InfoContext(ctx, "control channel connected", slog.String("agentVersion", hello.AgentVersion), slog.String("platform", hello.Platform))
	s.readErr = s.run(ctx)
	s.log.InfoContext(ctx, "control channel disconnected", slog.String("reason", s.endReason(s.readErr)))
}

// hello waits for the device's first message. It returns when that was read, too.
func (s *session) hello() (types.Hello, time.Time, error) {
	timer := time.AfterFunc(s.hub.opts.HelloTimeout, func() {
		s.close(websocket.ClosePolicyViolation, "no hello in time")
	})
	defer timer.Stop()
	data, err := s.conn.Receive()
	if err != nil {
		return types.Hello{}, time.Time{}, fmt.Errorf("wait for hello: %w", err)
	}
	began := time.Now()
	message, err := decode(data)
	if err == nil {
		hello, ok := message.(types.Hello)
		switch {
		case !ok:
			err = policyViolation("the first message must be hello")
		case s.kind == types.DeviceKindServer && hello.Relay == nil:
			err = policyViolation("the hello of a tunnel server must contain relay")
		default:
			return hello, began, nil
		}
	}
	s.received(message, false, began)
	return types.Hello{}, began, s.closeForViolation(err)
}

// connect registers the channel in the database as the newest of its device. It
// reports whether it succeeded; otherwise it has closed the channel.
func (h *Hub) connect(ctx context.Context, s *session, hello types.Hello) bool {
	row := db.Hello{
		TokenVersion: s.version,
		ReplicaID:    h.replica,
		AgentVersion: hello.AgentVersion,
		Platform:     hello.Platform,
		TokenKey:     s.key,
		Address:      s.address,
		IfOffline:    hello.IfOffline != nil && *hello.IfOffline,
	}
	s.probes = hello.Probes != nil && *hello.Probes
	if s.kind == types.DeviceKindServer {
		row.RelayPort, row.Fingerprint, row.CalledFrom = hello.Relay.Port, hello.Relay.Fingerprint, s.from
		s.keeps = knownRules(hello)
		for _, name := range s.keeps {
			row.KeptRules = append(row.KeptRules, string(name))
		}
	}
	// Counted before the database write: a reconciliation between the two would
	// otherwise mark the device as offline.
	h.countOnline(s.device, 1)
	generation, err := h.opts.Store.Connect(ctx, s.device, row)
	s.conn.Resume()
	if err != nil {
		h.countOnline(s.device, -1)
	}
	switch {
	case err == nil:
		s.generation = generation
		s.log = s.log.With(slog.Int64("generation", generation))
		return true
	case errors.Is(err, db.ErrOnline):
		s.close(channel.CloseTakenOver, connected)
	case errors.Is(err, db.ErrNotFound), errors.Is(err, db.ErrConflict):
		h.refuseUnknown(ctx, s)
	default:
		// The write may have succeeded although its result was lost.
		h.reconcile.Store(true)
		s.log.WarnContext(ctx, "control channel not connected", slog.Any("error", err))
		s.close(websocket.CloseTryAgainLater, "the panel cannot reach its database")
	}
	return false
}

// knownRules returns the rules that a tunnel server keeps, of those that the panel knows.
func knownRules(hello types.Hello) []types.RuleName {
	if hello.Rules == nil {
		return nil
	}
	known := slices.DeleteFunc(slices.Clone(*hello.Rules), func(name types.RuleName) bool { return !name.Valid() })
	slices.Sort(known)
	return slices.Compact(known)
}

// refuseUnknown closes a channel whose device has no row, or one with another token
// version, with the code that the database gives a reason for.
func (h *Hub) refuseUnknown(ctx context.Context, s *session) {
	rows, err := h.opts.Store.Channels(ctx, []uuid.UUID{s.device})
	if err != nil {
		s.close(websocket.CloseTryAgainLater, "the panel cannot reach its database")
		return
	}
	if s.checkAgainst(rows) {
		s.close(channel.CloseRestarting, restarting) // It was replaced in between.
	}
}

// disconnect marks the device as offline, unless a newer channel has replaced this
// one.
func (h *Hub) disconnect(ctx context.Context, s *session) {
	var err error
	if !h.isStopping() { // ReleaseReplica does it for all devices at once.
		err = h.opts.Store.Disconnect(ctx, s.device, s.generation, s.ending().reason())
	}
	h.countOnline(s.device, -1)
	if err != nil {
		// Set after countOnline, or a reconciliation in between would keep the device
		// online.
		h.reconcile.Store(true)
		s.log.WarnContext(ctx, "disconnect not stored yet", slog.Any("error", err))
	}
}

// register makes the channel receive events and closes an older one of the same
// device. If the channel may not be served, register closes it and returns false.
func (h *Hub) register(s *session) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	older := h.current[s.device]
	switch {
	case h.stopping:
		s.close(channel.CloseRestarting, restarting)
		return false
	case h.off:
		s.close(channel.CloseFeatureOff, featureOff)
		return false
	case older != nil && older.generation > s.generation:
		s.closeForOther(older)
		return false
	case older != nil:
		older.closeForOther(s)
	}
	h.current[s.device] = s
	return true
}

// closeForOther closes the channel in favour of another of the same device. If this
// channel was accepted first, the device has already replaced it and is told not to
// reconnect. If it was accepted later but stored first, because the database was slow,
// it is the device's live channel, and the device is told to reconnect.
func (s *session) closeForOther(other *session) {
	if s.sequence > other.sequence {
		s.close(channel.CloseRestarting, restarting)
		return
	}
	s.close(channel.CloseTakenOver, takenOver)
}

// unregister removes the channel, unless a newer one has replaced it.
func (h *Hub) unregister(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current[s.device] == s {
		delete(h.current, s.device)
	}
}

// countOnline adds n to the number of the device's channels that the database may show
// as online.
func (h *Hub) countOnline(device uuid.UUID, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.online[device] += n
	if h.online[device] == 0 {
		delete(h.online, device)
	}
}

func (h *Hub) isStopping() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stopping
}

// run serves a registered channel until it ends, and returns why.
func (s *session) run(ctx context.Context) error {
	defer s.reports.storer.stop()
	if s.connections != nil {
		defer s.connections.storer.stop()
		s.connections.storer.start(func() { s.storeConnections(ctx) })
	}
	defer s.syncer.stop()
	defer s.usage.storer.stop()
	defer s.answers.storer.stop()
	defer s.cancel() // First: it ends what the workers do.
	s.syncer.start(func() { s.sync(ctx) })
	s.reports.storer.start(func() { s.reports.store(ctx, s.log, s.save) })
	s.usage.storer.start(func() { s.storeUsage(ctx) })
	s.answers.storer.start(func() { s.storeAnswers(ctx) })
	// Check the row as well: the token may have been revoked between Connect and
	// register, when no event could reach this channel.
	s.request(work{row: true, state: true})
	return s.receive()
}
