package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/controlclient"
	"github.com/eclitunnel/eclitunnel/relay"
)

const (
	// onlineTimeout bounds the wait until the embedded tunnel server is online when
	// the panel starts. The panel starts without it after that.
	onlineTimeout = 5 * time.Second
	onlinePoll    = 10 * time.Millisecond
)

// tunnelServer is the embedded tunnel server. It differs from a stand-alone one only in
// that it enrolls itself and dials the panel's own listener.
type tunnelServer struct {
	panel    *Server
	name     string // Tells it from those of other panels.
	log      *slog.Logger
	listener net.Listener
	warned   atomic.Pointer[string] // Why it last did not reach the panel; empty where it did.
	dialled  chan error             // How the first try to reach the panel went.
	// What a run could not report, for the next one: of this process or, where the panel has a
	// directory, of the one after a kill.
	usage *relay.UsageBacklog
}

// startTunnelServer starts the embedded tunnel server, unless it is disabled, and waits
// until it is online, so that a panel that is ready can allocate ports.
func (s *Server) startTunnelServer(ctx, life context.Context) error {
	if s.opts.TunnelServer.Disabled {
		return nil
	}
	name, err := s.claimName(ctx)
	if err != nil {
		return err
	}
	t := &tunnelServer{
		panel:   s,
		name:    name,
		log:     s.logger.With(slog.String("serverName", name)),
		dialled: make(chan error, 1),
		usage:   relay.NewUsageBacklog(usageFile(s.opts.Database), s.logger),
	}
	if err := t.listen(ctx); err != nil {
		return err
	}
	device, err := t.enroll(ctx)
	if err != nil {
		return errors.Join(err, t.listener.Close())
	}
	before, err := t.generation(ctx, device.ID)
	if err != nil {
		return errors.Join(err, t.listener.Close())
	}
	s.background(life, "tunnel server", func(ctx context.Context) error { return t.supervise(ctx, device.ID) })
	t.awaitOnline(ctx, device.ID, before)
	return nil
}

// usageFile is where usage that is not stored is kept; "": nowhere, since a panel with
// another database has no directory.
func usageFile(d Database) string {
	if d.URL != "" || d.DataDir == "" {
		return ""
	}
	return filepath.Join(d.DataDir, "tunnel-server.usage.jsonl")
}

// generation returns the generation of the tunnel server's last control channel.
func (t *tunnelServer) generation(ctx context.Context, id uuid.UUID) (int64, error) {
	rows, err := t.panel.db.Channels(ctx, []uuid.UUID{id})
	return rows[id].Generation, err
}

func (t *tunnelServer) listen(ctx context.Context) error {
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", t.panel.opts.TunnelServer.Listen)
	if err != nil {
		return fmt.Errorf("listen for agents: %w", err)
	}
	t.listener = listener
	return nil
}

// enroll returns the tunnel server's device, which it creates if necessary.
func (t *tunnelServer) enroll(ctx context.Context) (db.Device, error) {
	return t.panel.db.EnsureEmbeddedServer(asPanel(ctx), db.EmbeddedServer{
		Name:       t.name,
		PublicHost: t.panel.host,
		PortFirst:  t.panel.opts.Ports.First,
		PortLast:   t.panel.opts.Ports.Last,
	})
}

// supervise runs the tunnel server until ctx ends. Unlike a stand-alone one, it
// continues with a new token, or as a new device, when its token is replaced or its
// device deleted.
func (t *tunnelServer) supervise(ctx context.Context, id uuid.UUID) error {
	var retry backoff.Exponential
	for {
		err := t.run(ctx, id)
		var final *channel.FinalError
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &final) && final.Code == channel.CloseDeleted:
			t.log.WarnContext(ctx, "tunnel server was deleted with its allocations; enrolling it again")
		case errors.As(err, &final):
			t.log.InfoContext(ctx, "token of the tunnel server was replaced; restarting it with the new one")
		default:
			t.log.ErrorContext(ctx, "tunnel server failed; restarting it", slog.Any("error", err))
		}
		if id, err = t.prepare(ctx, &retry); err != nil {
			return nil // ctx has ended.
		}
	}
}

// prepare enrolls and listens for the next run. It retries until ctx ends, and returns
// no other error than ctx's.
func (t *tunnelServer) prepare(ctx context.Context, retry *backoff.Exponential) (uuid.UUID, error) {
	for {
		if err := retry.Wait(ctx); err != nil {
			return uuid.Nil, err
		}
		device, err := t.enroll(ctx)
		if err == nil {
			err = t.listen(ctx)
		}
		if err == nil {
			return device.ID, nil
		}
		if ctx.Err() == nil {
			t.log.WarnContext(ctx, "tunnel server not started yet", slog.Any("error", err))
		}
	}
}

// presence reads whether a tunnel server of this name is connected to any panel.
func (t *tunnelServer) presence(ctx context.Context, id uuid.UUID) (controlclient.Presence, error) {
	device, err := t.panel.db.Device(ctx, db.Scope{All: true}, id)
	switch {
	case errors.Is(err, db.ErrNotFound):
		return controlclient.Presence{}, errDeleted
	case err != nil:
		return controlclient.Presence{}, err
	}
	presence := controlclient.Presence{Online: device.Online}
	if device.LastSeenAt != nil {
		presence.LastSeen = *device.LastSeenAt
	}
	return presence, nil
}

// run runs the tunnel server as a device until it ends. It closes the listener.
func (t *tunnelServer) run(ctx context.Context, id uuid.UUID) error {
	server, err := relay.New(relay.Options{
		ID:       id,
		Dial:     func(ctx context.Context) (*websocket.Conn, error) { return t.dial(ctx, id) },
		Listener: t.listener,
		BindHost: t.panel.opts.TunnelServer.BindHost,
		Version:  t.panel.opts.Version,

		Standby: controlclient.Standby{
			Presence: func(ctx context.Context) (controlclient.Presence, error) { return t.presence(ctx, id) },
			Begin: func(string) {
				t.log.ErrorContext(ctx, "tunnel server stands by: another panel on this database runs one with the same name; set a different --tunnel-server-name for each")
			},
			StandbyTimes: t.panel.opts.TunnelServer.Standby,
		},
		UsageBacklog: t.usage,
		PlainStreams: t.panel.opts.TunnelServer.PlainStreams,
		Platform:     runtime.GOOS + "/" + runtime.GOARCH,
		Logger:       t.log,
		Metrics:      t.panel.opts.Metrics,
	})
	if err != nil {
		return errors.Join(err, t.listener.Close())
	}
	return server.Run(ctx)
}

// awaitOnline waits until the tunnel server has a control channel of a later
// generation than before. It returns early if that will not happen soon, as while
// tunnels are switched off. It does not check whether the device is online, because
// after a crash it is shown as online until the old lease expires.
func (t *tunnelServer) awaitOnline(ctx context.Context, id uuid.UUID, before int64) {
	ctx, cancel := context.WithTimeout(ctx, onlineTimeout)
	defer cancel()
	select {
	case err := <-t.dialled:
		if err != nil {
			return
		}
	case <-ctx.Done():
		return
	}
	// The hello is on its way. Its effect is a row, for which there is no signal.
	ticker := time.NewTicker(onlinePoll)
	defer ticker.Stop()
	for {
		if now, err := t.generation(ctx, id); err == nil && now > before {
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
