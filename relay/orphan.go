package relay

import (
	"context"
	"log/slog"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// orphan is a carrier whose link was lost. It waits for the next link of the same
// tunnel client, whose address may have changed; its path goes on meanwhile.
type orphan struct {
	carrier *carrier
	version int64 // Of the token.
	since   time.Time
}

// takeOrphanLocked returns a tunnel client's orphan, which is none any more, or
// nil.
func (s *Server) takeOrphanLocked(client uuid.UUID) *carrier {
	o := s.orphans[client]
	delete(s.orphans, client)
	return o.carrier
}

// endOrphans ends those of which done says so, which is called with mu held.
func (s *Server) endOrphans(done func(uuid.UUID, orphan) bool) {
	s.mu.Lock()
	var ended []*carrier
	for id, o := range s.orphans {
		if done(id, o) {
			ended = append(ended, o.carrier)
			delete(s.orphans, id)
		}
	}
	s.mu.Unlock()
	for _, c := range ended {
		c.end()
	}
}

// tendOrphans does for orphans what links do for their carriers.
func (s *Server) tendOrphans(now time.Time) {
	s.endOrphans(func(_ uuid.UUID, o orphan) bool { return now.Sub(o.since) > wire.CarrierGrace })
	s.mu.Lock()
	left := make([]*carrier, 0, len(s.orphans))
	for _, o := range s.orphans {
		left = append(left, o.carrier)
	}
	s.mu.Unlock()
	for _, c := range left {
		c.tend(now) // It has no link that could do more.
	}
}

// carrier returns where a tunnel client's flows are opened, or nil.
func (s *Server) carrier(client uuid.UUID) *carrier {
	s.mu.Lock()
	l, o := s.linked[client], s.orphans[client]
	s.mu.Unlock()
	switch {
	case l != nil:
		return l.datagrams()
	case o.carrier != nil && o.carrier.reachable():
		return o.carrier
	default:
		return nil
	}
}

// listenPackets opens the UDP port of the listener's address.
func (s *Server) listenPackets(ctx context.Context) {
	address := s.opts.Listener.Addr().String()
	socket, err := udptunnel.ListenPackets(ctx, address, &s.counters.paths)
	if err != nil {
		s.log.Warn("no UDP port for packets of agents: datagrams take their data connections",
			slog.String("address", address), slog.Any("error", err))
		return
	}
	s.packets = socket
	s.work.Go(socket.Serve)
}
