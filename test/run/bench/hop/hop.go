// Package hop is a plain proxy: two in a row are what any reverse tunnel has to
// be at least, so what they reach is the limit of the topology. Nothing in it is
// clever. Bytes are copied with [io.Copy], datagrams one at a time.
package hop

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
)

// Endpoints are the addresses of a hop.
type Endpoints struct {
	// Splice moves a stream's bytes within the kernel where both sides are TCP,
	// Copy always through a 32 kB buffer.
	Splice string `json:"splice"`
	Copy   string `json:"copy"`
	// UDP is empty where TLS is spoken.
	UDP string `json:"udp,omitempty"`
	// Certificate is what a hop that accepts TLS shows, as DER.
	Certificate []byte `json:"certificate,omitempty"`
}

// Options say what a hop does.
type Options struct {
	// Host is the address it listens on; empty is 127.0.0.1.
	Host string `json:"host,omitempty"`
	// Next is where it leads: another hop, or the game at all three addresses.
	Next Endpoints `json:"next"`
	// AcceptTLS makes it speak TLS to whoever connects, with a certificate of
	// its own; DialTLS to what is next, which must show Next.Certificate. Both
	// take a handshake for every connection.
	AcceptTLS bool `json:"acceptTLS,omitempty"`
	DialTLS   bool `json:"dialTLS,omitempty"`
}

// Hop is a running proxy.
type Hop struct {
	endpoints Endpoints
	dialTLS   *tls.Config

	cancel    context.CancelFunc
	listeners []net.Listener
	udp       *relay
	done      sync.WaitGroup
}

// Listen starts a proxy on free ports.
func Listen(ctx context.Context, o Options) (*Hop, error) {
	ctx, cancel := context.WithCancel(ctx)
	h := &Hop{cancel: cancel}
	if err := h.listen(ctx, o); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

func (h *Hop) listen(ctx context.Context, o Options) error {
	free := net.JoinHostPort(cmp.Or(o.Host, "127.0.0.1"), "0")
	var accept *tls.Config
	if o.AcceptTLS {
		certificate, err := newCertificate()
		if err != nil {
			return fmt.Errorf("make a certificate: %w", err)
		}
		h.endpoints.Certificate = certificate.Certificate[0]
		accept = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}
	}
	if o.DialTLS {
		config, err := trustOnly(o.Next.Certificate)
		if err != nil {
			return fmt.Errorf("trust the next hop: %w", err)
		}
		h.dialTLS = config
	}
	for _, s := range []struct {
		addr *string
		next string
		copy copier
	}{
		{&h.endpoints.Splice, o.Next.Splice, copySpliced},
		{&h.endpoints.Copy, o.Next.Copy, copyBuffered},
	} {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", free)
		if err != nil {
			return err
		}
		*s.addr = listener.Addr().String()
		if accept != nil {
			listener = tls.NewListener(listener, accept)
		}
		h.listeners = append(h.listeners, listener)
		h.done.Go(func() { h.serve(ctx, listener, s.next, s.copy) })
	}
	if o.AcceptTLS || o.DialTLS {
		return nil
	}
	udp, err := newRelay(ctx, free, o.Next.UDP)
	if err != nil {
		return err
	}
	h.udp = udp
	h.endpoints.UDP = udp.addr()
	h.done.Go(udp.serve)
	return nil
}

// Endpoints are where it listens.
func (h *Hop) Endpoints() Endpoints { return h.endpoints }

// Close stops it, cuts every connection off and waits.
func (h *Hop) Close() error {
	h.cancel()
	var errs []error
	for _, listener := range h.listeners {
		errs = append(errs, listener.Close())
	}
	if h.udp != nil {
		errs = append(errs, h.udp.close())
	}
	h.done.Wait()
	return errors.Join(errs...)
}
