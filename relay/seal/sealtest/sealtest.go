// Package sealtest makes keys of sealed packets, for tests.
package sealtest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/relay/seal"
)

// Handshake makes a TLS connection in memory and returns the keys that its two ends
// export. change, if not nil, may change the client's TLS configuration first.
func Handshake(t testing.TB, change func(client *tls.Config)) (client, server seal.Keys, err error) {
	t.Helper()
	return handshake(t, change, seal.Export)
}

// Ratchet is Handshake for ends that both support a ratchet.
func Ratchet(t testing.TB) (client, server seal.Keys) {
	t.Helper()
	client, server, err := handshake(t, nil, seal.ExportRatchet)
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

func handshake(
	t testing.TB, change func(client *tls.Config), export func(*tls.ConnectionState) (seal.Keys, error),
) (client, server seal.Keys, err error) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	config := &tls.Config{InsecureSkipVerify: true}
	if change != nil {
		change(config)
	}
	c := tls.Client(near, config)
	s := tls.Server(far, &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	done := make(chan error, 1)
	go func() {
		done <- c.HandshakeContext(t.Context())
		// A session ticket follows. Without a read the server would block.
		_, _ = c.Read(make([]byte, 1))
	}()
	if err := errors.Join(s.HandshakeContext(t.Context()), <-done); err != nil {
		t.Fatal(err)
	}
	ours, theirs := c.ConnectionState(), s.ConnectionState()
	if client, err = export(&ours); err != nil {
		return client, server, err
	}
	server, err = export(&theirs)
	return client, server, err
}
