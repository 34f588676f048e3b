// Package seal encrypts and decrypts sealed packets: UDP packets that carry the
// records of a UDP session beside its data connection. The keys are exported from
// that connection's TLS.
//
// It is a pure codec. It has no sockets and no goroutines, and does not allocate per
// packet. Package wire specifies the layout of a packet and the derivation of its keys.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.zx2c4.com/wireguard/replay"
)

const (
	// HeaderSize is the size of a packet's header, in bytes: the id of the path and
	// the sequence number.
	HeaderSize = 16
	// TagSize is the size of the authentication tag at a packet's end, in bytes.
	TagSize = 16
	// Overhead is how many bytes a packet is longer than its records.
	Overhead = HeaderSize + TagSize
)

const (
	// exporterLabel is a label for private use (RFC 5705 section 4).
	exporterLabel = "EXPORTER-EcliTunnel-datagrams"
	idSize        = 8
	secretSize    = 32
	ivSize        = 12
	// epochBits is the number of low bits of the sequence numbers that share a key.
	epochBits = 24
)

// Errors of Open.
var (
	// ErrForged means that the other end did not seal the packet for this one, or
	// that the packet has been modified.
	ErrForged = errors.New("seal: forged")
	// ErrReplayed means that the packet has been opened before, or that its sequence
	// number is behind the replay window.
	ErrReplayed = errors.New("seal: replayed")
)

// Keys are the keys of a path, in both directions. Both ends of a TLS connection
// export the same ones, and no third party can.
type Keys struct {
	// ID identifies the path at the tunnel server. It is not secret.
	ID uint64

	suite          uint16
	client, server [secretSize]byte
}

// Export derives the keys from a TLS connection whose handshake is complete. It fails
// if the version is below TLS 1.3.
func Export(state *tls.ConnectionState) (Keys, error) {
	if state.Version < tls.VersionTLS13 {
		return Keys{}, fmt.Errorf("seal: cannot export keys from %s", tls.VersionName(state.Version))
	}
	material, err := state.ExportKeyingMaterial(exporterLabel, nil, idSize+2*secretSize)
	if err != nil {
		return Keys{}, fmt.Errorf("export keys from TLS: %w", err)
	}
	k := Keys{ID: binary.BigEndian.Uint64(material), suite: state.CipherSuite}
	copy(k.client[:], material[idSize:])
	copy(k.server[:], material[idSize+secretSize:])
	if _, err := newEpoch(k.suite, &k.client, 0); err != nil {
		return Keys{}, err
	}
	return k, nil
}

// Client returns the two directions as the tunnel client uses them.
func (k Keys) Client() (*Sealer, *Opener) { return k.pair(k.client, k.server) }

// Server returns the two directions as the tunnel server uses them.
func (k Keys) Server() (*Sealer, *Opener) { return k.pair(k.server, k.client) }

func (k Keys) pair(ours, theirs [secretSize]byte) (*Sealer, *Opener) {
	return &Sealer{id: k.ID, suite: k.suite, secret: ours}, &Opener{id: k.ID, suite: k.suite, secret: theirs}
}

// epoch is the key of the sequence numbers that have the same upper bits.
type epoch struct {
	number uint64
	aead   cipher.AEAD // nil if it has not been derived.
	iv     [ivSize]byte
}

func newEpoch(suite uint16, secret *[secretSize]byte, number uint64) (epoch, error) {
	var suffix [8]byte
	binary.BigEndian.PutUint64(suffix[:], number)
	e := epoch{number: number}
	iv, err := hkdf.Expand(sha256.New, secret[:], "iv"+string(suffix[:]), ivSize)
	if err != nil {
		return epoch{}, fmt.Errorf("seal: derive an iv: %w", err)
	}
	copy(e.iv[:], iv)
	size, make := 16, newGCM
	switch suite {
	case tls.TLS_AES_128_GCM_SHA256:
	case tls.TLS_AES_256_GCM_SHA384:
		size = 32
	case tls.TLS_CHACHA20_POLY1305_SHA256:
		size, make = chacha20poly1305.KeySize, chacha20poly1305.New
	default:
		return epoch{}, fmt.Errorf("seal: unsupported cipher suite %s", tls.CipherSuiteName(suite))
	}
	key, err := hkdf.Expand(sha256.New, secret[:], "key"+string(suffix[:]), size)
	if err != nil {
		return epoch{}, fmt.Errorf("seal: derive a key: %w", err)
	}
	if e.aead, err = make(key); err != nil {
		return epoch{}, fmt.Errorf("seal: use a key: %w", err)
	}
	return e, nil
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// fill stores the nonce of a sequence number in n (RFC 8446 section 5.3).
func (e *epoch) fill(n *[ivSize]byte, sequence uint64) {
	*n = e.iv
	low := n[ivSize-8:]
	binary.BigEndian.PutUint64(low, binary.BigEndian.Uint64(low)^sequence)
}

// Sealer seals the packets of one direction. It is not safe for concurrent use.
type Sealer struct {
	id     uint64
	suite  uint16
	secret [secretSize]byte
	next   uint64 // Sequence number.
	epoch  epoch
	nonce  [ivSize]byte // A local variable would escape to the heap with every packet.
}

// Seal seals a packet in place and returns it. packet consists of HeaderSize bytes of
// any content and the records, and has capacity for TagSize more bytes. Each call uses
// the next sequence number.
func (s *Sealer) Seal(packet []byte) ([]byte, error) {
	if number := s.next >> epochBits; s.epoch.aead == nil || s.epoch.number != number {
		e, err := newEpoch(s.suite, &s.secret, number)
		if err != nil {
			return nil, err
		}
		s.epoch = e
	}
	sequence := s.next
	s.next++
	header := packet[:HeaderSize]
	binary.BigEndian.PutUint64(header, s.id)
	binary.BigEndian.PutUint64(header[idSize:], sequence)
	s.epoch.fill(&s.nonce, sequence)
	return s.epoch.aead.Seal(header, s.nonce[:], packet[HeaderSize:], header), nil
}

// ID returns the id of a packet's path. ok is false if the packet is too short.
func ID(packet []byte) (id uint64, ok bool) {
	if len(packet) <= Overhead {
		return 0, false
	}
	return binary.BigEndian.Uint64(packet), true
}

// Opener opens the packets of one direction. It is not safe for concurrent use.
type Opener struct {
	id     uint64
	suite  uint16
	secret [secretSize]byte
	// replay holds the sequence numbers that have been opened, of the last 8,128: at
	// 100,000 packets a second, of the last 80 ms.
	replay replay.Filter
	next   uint64 // One more than the highest sequence number opened; 0 if there is none.
	// epochs are the keys of the epochs that are accepted, at their number modulo 3:
	// the epoch of the highest sequence number, the one before and the one after.
	epochs [3]epoch
	nonce  [ivSize]byte
}

// Open authenticates a packet and decrypts it in place. newest reports whether its
// sequence number is higher than that of every packet opened before.
//
// The error is ErrForged or ErrReplayed. The caller must then drop the packet; it has
// not changed the Opener. Either way the packet's contents are overwritten.
func (o *Opener) Open(packet []byte) (records []byte, newest bool, err error) {
	if id, ok := ID(packet); !ok || id != o.id {
		return nil, false, ErrForged
	}
	header := packet[:HeaderSize]
	sequence := binary.BigEndian.Uint64(header[idSize:])
	e, err := o.epoch(sequence >> epochBits)
	if err != nil {
		return nil, false, err
	}
	e.fill(&o.nonce, sequence)
	records, err = e.aead.Open(packet[HeaderSize:HeaderSize], o.nonce[:], packet[HeaderSize:], header)
	if err != nil {
		return nil, false, ErrForged
	}
	// The filter stores what it checks, so it must not see a packet before that is
	// authenticated. A replay costs a decryption, as any forged packet does.
	if !o.replay.ValidateCounter(sequence, math.MaxUint64) {
		return nil, false, ErrReplayed
	}
	if sequence < o.next {
		return records, false, nil
	}
	o.next = sequence + 1
	return records, true, nil
}

// epoch returns the key of an epoch. It derives no keys but of the three epochs that
// are accepted: a forged packet must not choose how many keys are derived.
func (o *Opener) epoch(number uint64) (*epoch, error) {
	switch current := (max(o.next, 1) - 1) >> epochBits; {
	case number > current+1:
		return nil, ErrForged
	case number+1 < current:
		return nil, ErrReplayed // Far behind the window.
	}
	e := &o.epochs[number%3]
	if e.aead == nil || e.number != number {
		derived, err := newEpoch(o.suite, &o.secret, number)
		if err != nil {
			return nil, ErrForged
		}
		*e = derived
	}
	return e, nil
}
