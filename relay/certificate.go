package relay

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

// identity is what a tunnel server is known by.
type identity struct {
	mu     sync.Mutex
	served *keyed
	next   *keyed // Served once the panel knows of its key; nil: none.
}

// now returns what is served.
func (i *identity) now() *keyed {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.served
}

// renew takes another certificate, and reports whether it is served: whether the
// panel knows its key.
func (i *identity) renew(k *keyed) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if k.fingerprint == i.served.fingerprint {
		i.served, i.next = k, nil
		return true
	}
	i.next = k
	return false
}

// toAnnounce is the fingerprint that the panel should know.
func (i *identity) toAnnounce() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.next != nil {
		return i.next.fingerprint
	}
	return i.served.fingerprint
}

// announced notes that the panel knows a fingerprint, and reports whether it is
// the one that it should know.
func (i *identity) announced(fingerprint string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.next != nil && i.next.fingerprint == fingerprint {
		i.served, i.next = i.next, nil
	}
	return i.next == nil && i.served.fingerprint == fingerprint
}
