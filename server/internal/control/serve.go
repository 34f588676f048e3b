package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
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
	// disconnectTimeout bounds the note that a channel has ended.
	disconnectTimeout = 5 * time.Second

	restarting = "the panel restarts"
	deleted    = "the device is deleted"
	tokenDead  = "the token was replaced"
	takenOver  = "a newer connection of this device took over"
	featureOff = "tunnels are switched off on this panel"
)

// ServeHTTP upgrades an authenticated device's request and serves its control
// channel until the channel ends.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	device, ok := h.opts.Caller(r.Context())
	if !ok {
		problem.Write(w, r, problem.Unauthorized("A device token is needed here."))
		return
	}
	ws, err := h.upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // refuse has answered.
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	s := &session{
		hub:     h,
		conn:    channel.New(ws, h.opts.Channel),
		cancel:  cancel,
		device:  device.ID,
		kind:    device.Kind,
		version: device.TokenVersion,
		key:     device.TokenKey,
		reports: newReports(),
		wake:    make(chan struct{}, 1),
		log:     h.opts.Logger.With(slog.String("deviceId", device.ID.String()), slog.String("kind", string(device.Kind))),
	}
	if !h.enter(s) {
		s.close(channel.CloseRestarting, restarting)
		s.conn.Wait()
		return
	}
	defer h.leave(s)
	defer s.conn.Wait()
	h.serve(ctx, s)
}

// refuse answers a request that is no WebSocket handshake.
func refuse(w http.ResponseWriter, r *http.Request, status int, reason error) {
	switch status {
	case http.StatusForbidden:
		problem.Write(w, r, problem.Forbidden("A browser's page of another origin may not open this WebSocket."))
	case http.StatusInternalServerError:
		problem.Write(w, r, problem.Internal(reason))
	default:
		problem.Write(w, r, problem.Invalid(problem.Field("Upgrade", "this is a WebSocket (RFC 6455, version 13)")))
	}
}

// enter admits a channel unless the hub is stopping.
func (h *Hub) enter(s *session) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopping {
		return false
	}
	h.handlers.Add(1)
	h.open[s] = struct{}{}
	h.arrivals++
	s.arrived = h.arrivals
	h.opened[s.kind]++
	return true
}

func (h *Hub) leave(s *session) {
	h.mu.Lock()
	delete(h.open, s)
	h.closed[s.howEnded()]++
	h.mu.Unlock()
	h.handlers.Done()
}

// serve runs the channel from its hello to its end.
func (h *Hub) serve(ctx context.Context, s *session) {
	hello, err := s.hello()
	if err != nil {
		s.gone = err
		s.log.InfoContext(ctx, "control channel refused", slog.String("reason", s.why(err)))
		return
	}
	if !h.connect(ctx, s, hello) {
		return
	}
	// The channel is over when this runs, and ctx may be too; but unless the
	// database hears of it the device looks online until the next reconciliation.
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
	s.gone = s.run(ctx)
	s.log.InfoContext(ctx, "control channel disconnected", slog.String("reason", s.why(s.gone)))
}

// hello waits for the device's first message.
func (s *session) hello() (types.Hello, error) {
	timer := time.AfterFunc(s.hub.opts.HelloTimeout, func() {
		s.close(websocket.ClosePolicyViolation, "no hello in time")
	})
	defer timer.Stop()
	data, err := s.conn.Receive()
	if err != nil {
		return types.Hello{}, fmt.Errorf("wait for hello: %w", err)
	}
	message, err := decode(data)
	if err == nil {
		hello, ok := message.(types.Hello)
		switch {
		case !ok:
			err = unacceptable("hello comes first")
		case s.kind == types.DeviceKindServer && hello.Relay == nil:
			err = unacceptable("a tunnel server's hello says where its relay is")
		default:
			return hello, nil
		}
	}
	return types.Hello{}, s.violated(err)
}

// connect makes this the newest channel of its device, for every replica.
func (h *Hub) connect(ctx context.Context, s *session, hello types.Hello) bool {
	row := db.Hello{
		TokenVersion: s.version,
		ReplicaID:    h.replica,
		AgentVersion: hello.AgentVersion,
		Platform:     hello.Platform,
		TokenKey:     s.key,
	}
	if s.kind == types.DeviceKindServer {
		row.RelayPort, row.Fingerprint = hello.Relay.Port, hello.Relay.Fingerprint
	}
	// A crowd that comes back at once waits here, and leaves the rest of the panel
	// connections to the database.
	release, err := slot(ctx, h.connects)
	if err != nil {
		s.close(channel.CloseRestarting, restarting)
		return false
	}
	defer release()
	// Counted before the database says that it is online: a reconciliation
	// between the two would declare it gone.
	h.arrive(s.device, 1)
	generation, err := h.opts.Store.Connect(ctx, s.device, row)
	s.conn.Resume()
	if err != nil {
		h.arrive(s.device, -1)
	}
	switch {
	case err == nil:
		s.generation = generation
		s.log = s.log.With(slog.Int64("generation", generation))
		return true
	case errors.Is(err, db.ErrNotFound):
		s.close(channel.CloseDeleted, deleted)
	case errors.Is(err, db.ErrConflict):
		s.close(channel.CloseTokenDead, tokenDead)
	default:
		// It may have been stored all the same, with the answer lost.
		h.reconcile.Store(true)
		s.log.WarnContext(ctx, "control channel not connected", slog.Any("error", err))
		s.close(websocket.CloseTryAgainLater, "the panel cannot reach its database")
	}
	return false
}

// disconnect is connect's counterpart; it does nothing to a newer channel.
func (h *Hub) disconnect(ctx context.Context, s *session) {
	var err error
	if !h.isStopping() { // Releasing the replica says it for all at once.
		err = h.opts.Store.Disconnect(ctx, s.device, s.generation)
	}
	h.arrive(s.device, -1)
	if err != nil {
		// Only now that it is not counted, or a reconciliation could still name it.
		h.reconcile.Store(true)
		s.log.WarnContext(ctx, "disconnect not stored yet", slog.Any("error", err))
	}
}

// register puts the channel where events reach it, and ends the older one of
// the same device. It closes s and returns false where s may not be served.
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
		s.yield(older)
		return false
	case older != nil:
		older.yield(s)
	}
	h.current[s.device] = s
	return true
}

// yield closes a channel in favour of another of its device. One that came first is
// what a device has left: it must not come back. One that came later, and was
// stored first because the database took its time, is what the device has: it does.
func (s *session) yield(to *session) {
	if s.arrived > to.arrived {
		s.close(channel.CloseRestarting, restarting)
		return
	}
	s.close(channel.CloseTakenOver, takenOver)
}

// unregister forgets the channel, unless a newer one has taken its place.
func (h *Hub) unregister(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.current[s.device] == s {
		delete(h.current, s.device)
	}
}

// arrive counts the channels of a device that the database may call online.
func (h *Hub) arrive(device uuid.UUID, n int) {
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
	var group sync.WaitGroup
	group.Go(func() { s.sync(ctx) })
	group.Go(func() {
		s.reports.store(ctx, s.log, s.save)
	})
	// The row too: the token may have died between Connect and register, when
	// no event could reach this channel.
	s.want(work{row: true, state: true})
	err := s.receive()
	s.cancel()
	group.Wait()
	return err
}
