// Package linetest has hosts and lines that fail in part, for tests: names with several
// addresses, and peers that accept a connection and are of no use.
package linetest

import (
	"context"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// resolver is that of ResolveAll while it has an effect.
var resolver atomic.Pointer[net.Resolver]

// The variable is set once, before all tests: what a test has begun may read it after the test's end.
func init() {
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		if r := resolver.Load(); r != nil {
			return r.Dial(ctx, network, address)
		}
		return new(net.Dialer).DialContext(ctx, network, address)
	}}
}

// ResolveAll has [net.DefaultResolver] be a Resolver until the test ends.
func ResolveAll(t testing.TB, addresses ...string) {
	t.Helper()
	before := resolver.Swap(Resolver(t, addresses...))
	t.Cleanup(func() { resolver.Store(before) })
}

// Resolver returns a resolver that resolves every name to the addresses. The test's end
// stops it.
func Resolver(t testing.TB, addresses ...string) *net.Resolver {
	t.Helper()
	c, err := new(net.ListenConfig).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 512)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if data := answer(b[:n], addresses); data != nil {
				_, _ = c.WriteTo(data, from)
			}
		}
	}()
	t.Cleanup(func() {
		_ = c.Close()
		<-done
	})
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", c.LocalAddr().String())
	}}
}

// answer returns the answer to a question, or nil if it is not a question.
func answer(question []byte, addresses []string) []byte {
	var m dnsmessage.Message
	if m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	header := dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class, TTL: 60}
	m.Response, m.Additionals = true, nil
	for _, text := range addresses {
		switch a := netip.MustParseAddr(text); {
		case q.Type == dnsmessage.TypeA && a.Is4():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AResource{A: a.As4()}})
		case q.Type == dnsmessage.TypeAAAA && a.Is6():
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &dnsmessage.AAAAResource{AAAA: a.As16()}})
		}
	}
	data, err := m.Pack()
	if err != nil {
		return nil
	}
	return data
}
