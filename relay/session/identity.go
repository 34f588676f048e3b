package session

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"sync"
	"time"
)

// SelfSigned makes a key and a certificate for it. Tunnel clients compare the
// key's fingerprint, which the panel gave them; nothing else in a certificate is
// looked at, be it this one or an authority's.
func SelfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make a key: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "EcliTunnel tunnel server"},
		NotBefore:    time.Now().Add(-time.Hour),
		// RFC 5280 section 4.1.2.5 has this date for a certificate without an
		// end.
		NotAfter:    time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("sign a certificate: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// keyed is a certificate and the fingerprint of its key. It is not changed once
// made.
type keyed struct {
	certificate tls.Certificate
	fingerprint string
}

// newKeyed works the fingerprint out, as the contract's RelayEndpoint has it.
func newKeyed(c tls.Certificate) (*keyed, error) {
	if len(c.Certificate) == 0 {
		return nil, errors.New("the certificate is empty")
	}
	leaf, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		return nil, fmt.Errorf("parse the certificate: %w", err)
	}
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return &keyed{certificate: c, fingerprint: hex.EncodeToString(sum[:])}, nil
}

// Identity is the key and certificate that a tunnel server shows. A certificate for
// another key is served once the panel knows that key: tunnel clients accept only
// the key that the panel names. Its methods may be called from any goroutine.
type Identity struct {
	mu     sync.Mutex
	served *keyed
	next   *keyed // Served once the panel knows of its key; nil: none.
}

func newIdentity(c tls.Certificate) (*Identity, error) {
	served, err := newKeyed(c)
	if err != nil {
		return nil, err
	}
	return &Identity{served: served}, nil
}

// Fingerprint is the fingerprint of the key that is served now, as in
// types.RelayEndpoint.
func (i *Identity) Fingerprint() string { return i.current().fingerprint }

func (i *Identity) current() *keyed {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.served
}

// Renew sets another certificate. It reports whether that is served from the next
// handshake on: otherwise its key must be announced to the panel first, with a new
// hello. An error leaves everything as it was.
func (i *Identity) Renew(c tls.Certificate) (served bool, err error) {
	k, err := newKeyed(c)
	if err != nil {
		return false, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if k.fingerprint == i.served.fingerprint {
		i.served, i.next = k, nil
		return true, nil
	}
	i.next = k
	return false, nil
}

// ToAnnounce is the fingerprint that the panel should know.
func (i *Identity) ToAnnounce() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.next != nil {
		return i.next.fingerprint
	}
	return i.served.fingerprint
}

// Announced serves the next certificate if the panel knows its fingerprint.
func (i *Identity) Announced(fingerprint string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.next != nil && i.next.fingerprint == fingerprint {
		i.served, i.next = i.next, nil
	}
}
