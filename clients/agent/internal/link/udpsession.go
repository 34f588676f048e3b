package link

import (
	"context"
	"log/slog"

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

// udpSession returns the link's UDP session of that name. Where there is none, it
// starts one that ends with ctx, in place of any other.
func (l *link) udpSession(ctx context.Context, name string) (*udptunnel.ClientSession, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.udp; s != nil && s.Name() == name && !s.Ended() {
		return s, nil
	}
	sockets, err := l.Targets.NewFlowSockets(l.server)
	if err != nil {
		return nil, err
	}
	if l.udp != nil {
		l.udp.End()
	}
	s := udptunnel.NewClientSession(ctx, name, udptunnel.ClientOptions{
		Target:             sockets.Target,
		FlowsPerAllocation: l.Limits.Flows,
		Queue:              l.Limits.DatagramQueue,
		Counters:           &l.counters.udp,
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
	// After the session's context has ended, and its flows with it.
	context.AfterFunc(s.Context(), sockets.Close)
	return s, nil
}
