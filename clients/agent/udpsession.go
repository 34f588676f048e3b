package agent

import (
	"context"
	"log/slog"

	"github.com/gorilla/websocket"

	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
)

// udpSessionName is the name of the link's UDP session, or "".
func (l *link) udpSessionName() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.udp == nil || l.udp.Ended() {
		return ""
	}
	return l.udp.Name()
}

// endOtherUDPSession ends the link's UDP session unless it has that name.
func (l *link) endOtherUDPSession(name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.udp != nil && l.udp.Name() != name {
		l.udp.End()
		l.udp = nil
	}
}

// udpSession returns the link's UDP session of that name, and makes it in place of
// another where there is none.
func (l *link) udpSession(ctx context.Context, name string) (*udptunnel.ClientSession, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.udp; s != nil && s.Name() == name && !s.Ended() {
		return s, nil
	}
	sockets, err := l.links.targets.NewFlowSockets(l.server)
	if err != nil {
		return nil, err
	}
	if l.udp != nil {
		l.udp.End()
	}
	s := udptunnel.NewClientSession(ctx, name, udptunnel.ClientOptions{
		Target:             sockets.Target,
		FlowsPerAllocation: l.links.opts.Limits.Flows,
		Queue:              l.links.opts.Limits.DatagramQueue,
		Counters:           &l.links.counters.udp,
		Logger:             l.log,
	})
	l.udp = s
	l.udpSessions.Go(s.Run)
	l.udpSessions.Go(func() {
		if err := sockets.Run(s.Flush); err != nil {
			l.log.Error("wait for local targets", slog.Any("error", err))
			s.End()
		}
	})
	// After the session's context, which ends its flows.
	context.AfterFunc(s.Context(), sockets.Close)
	return s, nil
}

// serveDatagrams serves a data connection of a UDP session until it or ctx ends.
// Port is where the tunnel server takes sealed packets; 0: nowhere.
func (s *session) serveDatagrams(ctx context.Context, ws *websocket.Conn, name string, port uint16) error {
	udp, err := s.link.udpSession(s.life, name)
	if err != nil {
		s.link.log.Error("no UDP flows can be served", slog.Any("error", err))
		return ws.Close()
	}
	return udp.ServeData(ctx, ws, port)
}
