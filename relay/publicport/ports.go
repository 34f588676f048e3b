// Package publicport opens and closes the public ports of a tunnel server as
// desired, accepts TCP players and reads UDP datagrams.
//
// In comes the desired state; players go out to what [Clients] says of their tunnel
// client, datagrams for players come back through [udptunnel.PublicPort]. Who may
// enter is decided in admission.go, and for each protocol in the file of that name
// beside it. [Ports] owns the goroutines: a listener or reader for each port and one
// for each TCP player, all of which have ended when Wait returns.
package publicport

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/backoff"
	"github.com/eclitunnel/eclitunnel/internal/lograte"
	"github.com/eclitunnel/eclitunnel/internal/openfiles"
	"github.com/eclitunnel/eclitunnel/relay/meter"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
)

// Clients are the tunnel clients that players are passed to. Its methods may be
// called from any goroutine.
type Clients interface {
	// Carry carries a TCP player over a data connection of a tunnel client until
	// the player or the game ends it, and takes over the player's connection unless
	// it returns a refusal. While ctx lives it waits for a data connection.
	Carry(ctx context.Context, client uuid.UUID, player *tcpstream.Player) Refusal
	// AtClient reports whether a player, who reached the local address, comes from the
	// address of a linked tunnel client. An invalid local address is unknown.
	AtClient(player, local netip.Addr) bool
	// Capacity returns how many TCP players a tunnel client can carry at the same time;
	// 0: it is not known.
	Capacity(client uuid.UUID) int
	// RoundTrip returns the round trip to a tunnel client; 0: it is not known.
	RoundTrip(client uuid.UUID) time.Duration
	// UDPSession returns the session in which a tunnel client's flows are opened,
	// or nil where the client cannot be reached.
	UDPSession(client uuid.UUID) *udptunnel.ServerSession
}

// Options say where public ports are opened and for whom.
type Options struct {
	// BindHost is the address that ports are bound to; "": all, IPv4 and IPv6.
	BindHost string
	// Clients takes the players. Required.
	Clients Clients
	// Limits bound what players can make a port hold.
	Limits Limits
	// Changed is called when Reports has changed by itself. It is called by the
	// goroutine of Tick, without a lock held. nil: not called.
	Changed func()
	// Now is the clock for sources that are kept out until a time; nil: time.Now.
	Now func() time.Time
	// Logger; nil discards.
	Logger *slog.Logger
}

// port is an open public port.
type port interface {
	// configure sets the options that new players get, and the rules, by which players
	// may have to leave.
	configure(types.ServerAllocation, *rules)
	// drain makes it refuse new players, and resume accept them again.
	drain()
	resume() error
	// remaining is how many players a draining port has.
	remaining() int
	// close frees the port before it returns, and cuts its players off.
	close()
	// tick does what is due at a time.
	tick(now time.Time)
}

// Ports makes the open public ports those of the desired state. It is
// level-triggered: Apply is given everything that is wanted, and Tick tries again
// what failed. Its methods may be called from any goroutine.
type Ports struct {
	o        Options
	log      *slog.Logger
	counters *counters
	files    *openfiles.Budget
	carried  carried // TCP players.
	flows    carried // UDP flows.
	loops    loops

	connected connected
	live      connections
	work      sync.WaitGroup

	refusedLines *lograte.Limiter // By allocation.

	mu     sync.Mutex
	closed bool
	slots  map[int64]*slot
	gone   []goneUsage // Of slots that were removed.
	chosen time.Time   // When the busiest ports were.
}

// New makes Ports without any port. Its owner calls Tick every second, and Close
// and Wait at the end.
func New(o Options) *Ports {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func() {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	o.Limits = o.Limits.withDefaults()
	return &Ports{
		o: o, log: o.Logger, counters: newCounters(), files: openfiles.NewBudget(o.Limits.Files, o.Logger),
		loops: loops{log: o.Logger, lines: lograte.New(loopPause)}, slots: map[int64]*slot{},
		refusedLines: lograte.New(refusedInterval),
	}
}

// slot is an allocation and what has become of it.
type slot struct {
	allocation types.ServerAllocation
	rules      *rules    // nil: they are not understood.
	port       port      // nil: it could not be opened, or was draining from the start.
	rulesError error     // Why they are not.
	reason     string    // Why it accepts no players, though it should;
	retry      time.Time // then it is tried again.
	backoff    backoff.Exponential
	empty      bool // It drains, and had no player left when last looked at.
	refusals   portRefusals
	seen       seen
	usage      *meter.Allocation
}

func (s *slot) drained() bool {
	return draining(s.allocation) && (s.port == nil || s.port.remaining() == 0)
}

// Apply opens, closes and changes ports until they are the wanted ones. A port that
// cannot be opened is reported as failed and tried again by Tick.
func (p *Ports) Apply(wanted map[int64]types.ServerAllocation) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return
	}
	// Everything is closed before anything is opened: an allocation may be given the
	// port that another had.
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
		p.gone = append(p.gone, goneUsage{id: id, usage: s.usage})
	}
	for id, a := range wanted {
		s, ok := p.slots[id]
		if !ok {
			s = &slot{backoff: backoff.Exponential{Min: time.Second, Max: 10 * time.Second}, refusals: p.newRefusals(), usage: new(meter.Allocation)}
			p.slots[id] = s
		}
		closed := !ok || draining(s.allocation) || s.rules == nil
		if !ok || !reflect.DeepEqual(s.allocation.Rules, a.Rules) || !reflect.DeepEqual(s.allocation.KeptOut, a.KeptOut) {
			s.setRules(a)
			closed = closed || s.rules == nil
		}
		s.allocation, s.empty = a, false
		if s.port != nil && s.rules != nil {
			s.port.configure(a, s.rules)
		}
		switch {
		case draining(a):
			p.drain(s)
		case closed:
			p.try(s, time.Now())
		}
	}
}

// setRules makes the rules of an allocation, and what it keeps out, those of the slot.
// Where they are not understood its port is closed, and try says why.
func (s *slot) setRules(a types.ServerAllocation) {
	compiled, err := newRules(a.Rules)
	if err == nil {
		compiled.keptOut, err = newKeptOut(a.KeptOut)
	}
	if err != nil {
		compiled = nil
	}
	s.rules, s.rulesError = compiled, err
	if err != nil && s.port != nil {
		s.port.close()
		s.port = nil
	}
}

// drain makes a slot refuse new players.
func (p *Ports) drain(s *slot) {
	s.reason = "" // A port that could not be opened is no longer wanted.
	if s.port != nil {
		s.port.drain()
	}
}

// try makes a slot accept players.
func (p *Ports) try(s *slot, now time.Time) {
	a, port := s.allocation, s.port
	err := s.rulesError
	switch {
	case err != nil:
	case port != nil:
		err = port.resume()
	default:
		port, err = p.openPort(s)
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

// Tick does what is due at a time: it tries failed ports again, ends idle flows, notices
// which ports have drained, and says which refuse much.
func (p *Ports) Tick(now time.Time) {
	p.mu.Lock()
	changed := false
	open := make([]port, 0, len(p.slots))
	p.chooseBusiest(now)
	for id, s := range p.slots {
		if p.closed {
			break
		}
		p.logRefused(id, s, now)
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
	for _, o := range open {
		o.tick(now)
	}
	if changed {
		p.o.Changed()
	}
}

// Close closes all ports for good. It does not wait.
func (p *Ports) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for id, s := range p.slots {
		if s.port != nil {
			s.port.close()
		}
		p.gone = append(p.gone, goneUsage{id: id, usage: s.usage})
	}
	clear(p.slots)
}

// Wait waits, after Close, for the goroutines of all ports.
func (p *Ports) Wait() { p.work.Wait() }

// openPort opens an allocation's public port.
func (p *Ports) openPort(s *slot) (port, error) {
	if s.allocation.Protocol == types.ProtocolUDP {
		return openUDP(p, s.allocation, s)
	}
	return openTCP(p, s.allocation, s)
}

// bindAddress is where a port is bound. Without a host the net package takes
// both IPv6 and IPv4, or the one that the machine has.
func (p *Ports) bindAddress(port int) string {
	return net.JoinHostPort(p.o.BindHost, strconv.Itoa(port))
}

func draining(a types.ServerAllocation) bool { return a.DrainUntil != nil }

// bindReason tells people why a port could not be opened.
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
	return fmt.Sprintf("port %d cannot be opened: %v", a.Port, err)
}
