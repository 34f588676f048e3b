//go:build linux

package main

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"sync"
	"time"
)

// endpoints are the addresses of a hop.
type endpoints struct {
	// Splice moves a stream's bytes within the kernel where both sides are TCP,
	// Copy always through a 32 kB buffer.
	Splice, Copy string
	// UDP is empty where TLS is spoken.
	UDP string
	// Certificate is what a hop that accepts TLS shows, as DER.
	Certificate []byte
}

// hopOptions say what a hop does.
type hopOptions struct {
	Host string    // The address it listens on; empty is 127.0.0.1.
	Next endpoints // Where it leads: another hop, or the game at all three addresses.
	// AcceptTLS has it speak TLS with those who connect, with a certificate of its
	// own; DialTLS with what is next, which must show Next.Certificate. Both take a
	// handshake for each connection.
	AcceptTLS, DialTLS bool
}

// hop is a plain proxy: two in a row are what any reverse tunnel has to be at
// least, so what they reach is the limit of the topology. Nothing in it is
// clever. Bytes are copied with io.Copy, datagrams one at a time.
type hop struct {
	cancel    context.CancelFunc
	dialTLS   *tls.Config
	listeners []net.Listener
	udp       *datagramHop
	done      sync.WaitGroup
}

// startHop starts a proxy on free ports. It runs until close is called.
func startHop(ctx context.Context, o hopOptions) (at endpoints, closeHop func() error, err error) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	h := &hop{cancel: cancel}
	if at, err = h.listen(ctx, o); err != nil {
		return at, nil, errors.Join(err, h.close())
	}
	return at, h.close, nil
}

func (h *hop) listen(ctx context.Context, o hopOptions) (at endpoints, err error) {
	free := net.JoinHostPort(cmp.Or(o.Host, "127.0.0.1"), "0")
	var accept *tls.Config
	if o.AcceptTLS {
		if accept, at.Certificate, err = selfSigned(); err != nil {
			return at, fmt.Errorf("make a certificate: %w", err)
		}
	}
	if o.DialTLS {
		if h.dialTLS, err = trustOnly(o.Next.Certificate); err != nil {
			return at, fmt.Errorf("trust the next hop: %w", err)
		}
	}
	for _, s := range []struct {
		addr *string
		next string
		copy func(to io.Writer, from io.Reader) (int64, error)
	}{{&at.Splice, o.Next.Splice, io.Copy}, {&at.Copy, o.Next.Copy, copyBuffered}} {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", free)
		if err != nil {
			return at, err
		}
		*s.addr = listener.Addr().String()
		if accept != nil {
			listener = tls.NewListener(listener, accept)
		}
		h.listeners = append(h.listeners, listener)
		h.done.Go(func() {
			for {
				conn, err := listener.Accept()
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err == nil { // Otherwise this player was gone before being accepted.
					h.done.Go(func() { h.carry(ctx, conn.(stream), s.next, s.copy) })
				}
			}
		})
	}
	if o.AcceptTLS || o.DialTLS {
		return at, nil
	}
	h.udp, err = newDatagramHop(ctx, free, o.Next.UDP)
	if err == nil {
		at.UDP = h.udp.conn.LocalAddr().String()
		h.done.Go(h.udp.serve)
	}
	return at, err
}

// close stops it, cuts every connection off and waits.
func (h *hop) close() error {
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

// stream is a TCP connection, or TLS over one.
type stream interface {
	net.Conn
	CloseWrite() error
}

// copyBuffered moves the bytes through the program. The wrappers hide the
// methods by which io.CopyBuffer would avoid the buffer.
func copyBuffered(to io.Writer, from io.Reader) (int64, error) {
	return io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 32<<10))
}

// carry connects a player to what is next until both directions have ended.
func (h *hop) carry(ctx context.Context, player stream, next string, copy func(io.Writer, io.Reader) (int64, error)) {
	defer player.Close()
	game, err := h.dial(ctx, next)
	if err != nil {
		return // The player's connection is closed, which the bench sees.
	}
	defer game.Close()
	defer context.AfterFunc(ctx, func() {
		player.Close()
		game.Close()
	})()
	pass := func(to, from stream) {
		if _, err := copy(to, from); err != nil {
			to.Close()
			from.Close()
			return
		}
		//nolint:errcheck // it fails where the other direction has closed the stream already
		to.CloseWrite()
	}
	var up sync.WaitGroup
	up.Go(func() { pass(game, player) })
	pass(player, game)
	up.Wait()
}

func (h *hop) dial(ctx context.Context, next string) (stream, error) {
	if h.dialTLS != nil {
		conn, err := (&tls.Dialer{Config: h.dialTLS}).DialContext(ctx, "tcp", next)
		if err != nil {
			return nil, err
		}
		return conn.(stream), nil
	}
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", next)
	if err != nil {
		return nil, err
	}
	return conn.(stream), nil
}

// hopName is the name that the certificate is for.
const hopName = "hop.invalid"

func selfSigned() (*tls.Config, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{hopName},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	certificate := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	return &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}, der, err
}

// trustOnly is a client's configuration that accepts one certificate and no other.
func trustOnly(der []byte) (*tls.Config, error) {
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	roots.AddCert(certificate)
	return &tls.Config{RootCAs: roots, ServerName: hopName, MinVersion: tls.VersionTLS13}, nil
}
