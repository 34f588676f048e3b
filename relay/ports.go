package relay

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
)

// publicPort is an open public port.
type publicPort interface {
	// configure gives it the options that new players get.
	configure(types.ServerAllocation)
	// drain has it take no new players, and resume has it take them again.
	drain()
	resume() error
	// remaining is how many players a port that drains has.
	remaining() int
	// close frees the port before it returns, and cuts its players off.
	close()
	// tend does what has become due.
	tend(now time.Time)
}

// ports makes the open public ports those of the desired state. It is
// level-triggered: apply is given everything that is wanted and tend tries
// again what failed.
type ports struct {
	open    func(types.ServerAllocation) (publicPort, error)
	changed func() // Called without mu, by tend.
	log     *slog.Logger

	mu     sync.Mutex
	closed bool
	slots  map[int64]*slot
}

// slot is an allocation and what has become of it.
type slot struct {
	allocation types.ServerAllocation
	port       publicPort // nil: it could not be opened, or drains since before it was.
	reason     string     // Why it takes no players, though it should;
	retry      time.Time  // then it is tried again.
	backoff    backoff.Exponential
	empty      bool // It drains, and had no player left when last looked at.
}

func (s *slot) drained() bool {
	return draining(s.allocation) && (s.port == nil || s.port.remaining() == 0)
}

// portState is what is reported of an allocation: a reason where it failed, and
// whether it has drained.
type portState struct {
	reason  string
	drained bool
}

func (p portState) report(id int64) types.AllocationReport {
	if p.drained {
		return types.AllocationReport{ID: id, State: types.ReportReady, Drained: &p.drained}
	}
	if p.reason == "" {
		return types.AllocationReport{ID: id, State: types.ReportReady}
	}
	return types.AllocationReport{ID: id, State: types.ReportFailed, Reason: &p.reason}
}

func newPorts(open func(types.ServerAllocation) (publicPort, error), changed func(), log *slog.Logger) *ports {
	return &ports{open: open, changed: changed, log: log, slots: map[int64]*slot{}}
}

// apply opens, closes and changes ports until they are the wanted ones, as far
// as they can be.
func (p *ports) apply(wanted map[int64]types.ServerAllocation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	// Everything is closed before anything is opened: an allocation may get the
	// port of another.
	for id, s := range p.slots {
		a, ok := wanted[id]
		if ok && a.Port == s.allocation.Port && a.Protocol == s.allocation.Protocol && a.ClientID == s.allocation.ClientID {
			continue
		}
		if s.port != nil {
			s.port.close()
			p.log.Info("public port closed", slog.Int64("allocationId", id), slog.Int("port", s.allocation.Port))
		}
		delete(p.slots, id)
	}
	for id, a := range wanted {
		s, ok := p.slots[id]
		if !ok {
			s = &slot{backoff: backoff.Exponential{Min: time.Second, Max: 10 * time.Second}}
			p.slots[id] = s
		}
		closed := !ok || draining(s.allocation)
		s.allocation, s.empty = a, false
		if s.port != nil {
			s.port.configure(a)
		}
		switch {
		case draining(a):
			p.drain(s)
		case closed:
			p.try(s, time.Now())
		}
	}
}

// drain has a slot take no new players.
func (p *ports) drain(s *slot) {
	s.reason = "" // What could not be opened is not wanted any more.
	if s.port != nil {
		s.port.drain()
	}
}

// try has a slot take players.
func (p *ports) try(s *slot, now time.Time) {
	a, port := s.allocation, s.port
	var err error
	if port != nil {
		err = port.resume()
	} else {
		port, err = p.open(a)
	}
	if err != nil {
		reason := bindReason(a, err)
		s.retry = now.Add(s.backoff.Next())
		if reason != s.reason {
			p.log.Warn("public port cannot be opened", slog.Int64("allocationId", a.ID), slog.String("deviceId", a.ClientID.String()), slog.String("reason", reason))
		}
		s.reason = reason
		return
	}
	s.port, s.reason = port, ""
	p.log.Info("public port open", slog.Int64("allocationId", a.ID), slog.String("deviceId", a.ClientID.String()), slog.String("protocol", string(a.Protocol)), slog.Int("port", a.Port))
}

// tend tries failed ports again whose time has come, tends the open ones, and
// notices which have drained.
func (p *ports) tend(now time.Time) {
	p.mu.Lock()
	changed := false
	open := make([]publicPort, 0, len(p.slots))
	for _, s := range p.slots {
		if p.closed {
			break
		}
		if s.reason != "" && !now.Before(s.retry) {
			before := s.reason
			p.try(s, now)
			changed = changed || s.reason != before
		}
		if empty := s.drained(); empty != s.empty {
			s.empty, changed = empty, true
		}
		if s.port != nil {
			open = append(open, s.port)
		}
	}
	p.mu.Unlock()
	for _, port := range open {
		port.tend(now)
	}
	if changed {
		p.changed()
	}
}

// states returns what is true of every allocation.
func (p *ports) states() map[int64]portState {
	p.mu.Lock()
	defer p.mu.Unlock()
	states := make(map[int64]portState, len(p.slots))
	for id, s := range p.slots {
		states[id] = portState{reason: s.reason, drained: s.drained()}
	}
	return states
}

// count returns how many of the wanted ports are in which state.
func (p *ports) count() map[PortState]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := map[PortState]int{}
	for _, s := range p.slots {
		drains := draining(s.allocation)
		counts[PortState{Protocol: s.allocation.Protocol, Open: s.reason == "" && !drains, Draining: drains}]++
	}
	return counts
}

// close closes all ports for good.
func (p *ports) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, s := range p.slots {
		if s.port != nil {
			s.port.close()
		}
	}
	clear(p.slots)
}

// bindReason says for people why a port could not be opened.
func bindReason(a types.ServerAllocation, err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Sprintf("port %d is in use by another program", a.Port)
	case errors.Is(err, syscall.EACCES):
		return fmt.Sprintf("port %d needs a privilege that the tunnel server does not have", a.Port)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "the tunnel server's bind address is not one of its machine's"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return "the tunnel server has too many files open"
	}
	reason := fmt.Sprintf("port %d cannot be opened: %v", a.Port, err)
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason], "")
	}
	return reason
}

// bindAddress is where a port is bound. Without a host the net package takes
// both IPv6 and IPv4, or the one that the machine has.
func (s *Server) bindAddress(port int) string {
	return net.JoinHostPort(s.opts.BindHost, strconv.Itoa(port))
}
