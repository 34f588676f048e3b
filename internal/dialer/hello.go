package dialer

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"
)

// A TLS hello that offers ML-KEM, as Go's does, is longer than one packet, and some
// middleboxes drop or reset a connection that begins with one. After a handshake that
// failed so, the next attempt has a classic hello, of a few hundred bytes. If that
// succeeds, it is kept while this machine has the address from which it did, and the
// modern one is tried again from time to time. Whoever can drop packets can so take away
// ML-KEM's protection against later quantum computers, and nothing else.

// modernInterval is the default of Options.ModernInterval.
const modernInterval = time.Hour

// hello is what is known of the TLS hellos that reach a destination.
type hello struct {
	failed  bool       // The modern one failed last.
	local   netip.Addr // The address of this machine from which a classic one succeeded,
	retry   time.Time  // and when the modern one is due again.
	working bool       // A classic one succeeded.
}

// ClassicTLS returns a copy of config, which may be nil, whose hellos do not offer
// ML-KEM.
func ClassicTLS(config *tls.Config) *tls.Config {
	if config == nil {
		config = new(tls.Config)
	}
	config = config.Clone()
	config.CurvePreferences = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}
	return config
}

// Classic reports whether the attempt's TLS hello must be a classic one, which
// ClassicTLS makes. It may try the modern one again if probe is set, at the risk that
// the attempt fails by its timeout. It must be called before the handshake.
func (a *Attempt) Classic(probe bool) bool {
	classic := a.dialer.classic(a.destination, probe)
	a.mu.Lock()
	defer a.mu.Unlock()
	a.classic = classic
	return classic
}

// Resumes notes that the TLS hello is a short one that resumes a session. What becomes of
// it says nothing about those that Classic chooses from. It must be called before the
// handshake.
func (a *Attempt) Resumes() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.resumes = true
}

func (d *Dialer) classic(destination string, probe bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	h, ok := d.hellos[destination]
	switch {
	case !ok:
		return false
	case !h.working:
		return h.failed
	case !d.has(h.local):
		delete(d.hellos, destination) // Another network.
		return false
	default:
		return !probe || time.Now().Before(h.retry)
	}
}

// has reports whether this machine has an address.
func (d *Dialer) has(local netip.Addr) bool {
	if !local.IsValid() || local.IsLoopback() {
		return true
	}
	addresses, err := d.opts.Addresses()
	if err != nil {
		return true // Nothing shows a change.
	}
	for _, a := range addresses {
		if p, ok := a.(*net.IPNet); ok && p.IP.Equal(local.AsSlice()) {
			return true
		}
	}
	return false
}

// shaken records the outcome of the attempt's TLS handshake.
func (a *Attempt) shaken(err error) {
	a.mu.Lock()
	classic, secured, started, local, resumes := a.classic, a.secured, a.started, a.local, a.resumes
	a.mu.Unlock()
	if resumes {
		return
	}
	d := a.dialer
	d.mu.Lock()
	defer d.mu.Unlock()
	h := d.hellos[a.destination]
	switch {
	case secured && classic:
		if !h.working {
			h.retry = time.Now().Add(d.opts.ModernInterval)
		}
		h.working, h.failed, h.local = true, false, local
	case secured:
		delete(d.hellos, a.destination)
		return
	case !started || !unanswered(err):
		return
	case classic:
		// Neither reaches the host, or the classic one no longer does. The modern one is next.
		delete(d.hellos, a.destination)
		return
	default:
		h.failed = true
		h.retry = time.Now().Add(d.opts.ModernInterval)
	}
	if len(d.hellos) >= maxFailures {
		clear(d.hellos)
	}
	d.hellos[a.destination] = h
}

// unanswered reports whether a handshake failed for want of an answer. An alert or a
// certificate that is not trusted is one.
func unanswered(err error) bool {
	var timeout net.Error
	var op *net.OpError
	return errors.Is(err, context.DeadlineExceeded) ||
		errors.As(err, &timeout) && timeout.Timeout() ||
		errors.As(err, &op) && (op.Op == "read" || op.Op == "write") ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// localOf returns the address of this machine's end of a connection.
func localOf(conn net.Conn) netip.Addr {
	if e, ok := endpointOf(conn.LocalAddr()); ok {
		return e.address.Addr().WithZone("")
	}
	return netip.Addr{}
}
