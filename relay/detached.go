package relay

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// detached is a UDP session whose link was lost. It waits for the next link of the
// same tunnel client, whose address may have changed; its path works meanwhile.
type detached struct {
	session *udptunnel.ServerSession
	version int64 // Of the token.
	since   time.Time
}

// takeDetachedLocked returns a tunnel client's detached UDP session, which is not
// detached any more, or nil.
func (s *Server) takeDetachedLocked(client uuid.UUID) *udptunnel.ServerSession {
	d := s.detached[client]
	delete(s.detached, client)
	return d.session
}

// endDetached ends the detached UDP sessions for which done returns true. It is
// called with mu held.
func (s *Server) endDetached(done func(uuid.UUID, detached) bool) {
	s.mu.Lock()
	var ended []*udptunnel.ServerSession
	for id, d := range s.detached {
		if done(id, d) {
			ended = append(ended, d.session)
			delete(s.detached, id)
		}
	}
	s.mu.Unlock()
	for _, session := range ended {
		session.End()
	}
}

// tickDetached does for detached UDP sessions what links do for theirs.
func (s *Server) tickDetached(now time.Time) {
	s.endDetached(func(_ uuid.UUID, d detached) bool { return now.Sub(d.since) > wire.CarrierGrace })
	s.mu.Lock()
	left := make([]*udptunnel.ServerSession, 0, len(s.detached))
	for _, d := range s.detached {
		left = append(left, d.session)
	}
	s.mu.Unlock()
	for _, session := range left {
		session.Tick(now) // There is no link to ask for a data connection.
	}
}

// udpSession returns the session in which a tunnel client's flows are opened, or
// nil.
func (s *Server) udpSession(client uuid.UUID) *udptunnel.ServerSession {
	s.mu.Lock()
	l, d := s.linked[client], s.detached[client]
	s.mu.Unlock()
	switch {
	case l != nil:
		return l.udpSession()
	case d.session != nil && d.session.Reachable():
		return d.session
	default:
		return nil
	}
}

// listenPackets opens the UDP port of the listener's address.
func (s *Server) listenPackets(ctx context.Context) {
	address := s.opts.Listener.Addr().String()
	socket, err := udptunnel.ListenPackets(ctx, address, &s.counters.udp.Paths)
	if err != nil {
		s.log.Warn("no UDP port for sealed packets: datagrams take data connections",
			slog.String("address", address), slog.Any("error", err))
		return
	}
	s.packets = socket
	s.work.Go(socket.Serve)
}
