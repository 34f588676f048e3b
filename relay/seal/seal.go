// Package seal encrypts, authenticates and opens the packets in which datagrams
// travel over UDP beside a data connection, with keys from that connection's TLS.
// It is a pure codec: it holds no socket, starts no goroutine, and allocates
// nothing for a packet. What a packet looks like and where its keys come from is
// specified in the documentation of package wire.
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

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	// HeaderSize is what a packet begins with: the path's id and the sequence
	// number.
	HeaderSize = 16
	// TagSize is what it ends with.
	TagSize = 16
	// Overhead is both.
	Overhead = HeaderSize + TagSize
)

const (
	// exporterLabel is of those that RFC 5705 section 4 leaves to private use.
	exporterLabel = "EXPORTER-EcliTunnel-datagrams"
	idSize        = 8
	secretSize    = 32
	ivSize        = 12
	// epochBits is how many sequence numbers share a key.
	epochBits = 24
)

// What Open drops a packet for.
var (
	// ErrForged means that the packet is not one that the other end has sealed for
	// this one, or has been changed since.
	ErrForged = errors.New("seal: forged")
	// ErrReplayed means that the packet has come before, or is so old that this
	// cannot be told.
	ErrReplayed = errors.New("seal: replayed")
)

// Keys are a path's. They are equal at both ends of a TLS connection, and no one
// else has them.
type Keys struct {
	// ID tells the path from others at the tunnel server. It is no secret.
	ID uint64

	suite          uint16
	client, server [secretSize]byte
}

// Export takes the keys from a TLS 1.3 connection, whose handshake is complete.
func Export(state *tls.ConnectionState) (Keys, error) {
	if state.Version < tls.VersionTLS13 {
		return Keys{}, fmt.Errorf("seal: keys of a connection with %s", tls.VersionName(state.Version))
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

// Client returns what the tunnel client seals and opens with.
func (k Keys) Client() (*Sealer, *Opener) { return k.pair(k.client, k.server) }

// Server returns what the tunnel server seals and opens with.
func (k Keys) Server() (*Sealer, *Opener) { return k.pair(k.server, k.client) }

func (k Keys) pair(ours, theirs [secretSize]byte) (*Sealer, *Opener) {
	return &Sealer{id: k.ID, suite: k.suite, secret: ours}, &Opener{id: k.ID, suite: k.suite, secret: theirs}
}

// epoch is the key of the sequence numbers that share their upper bits.
type epoch struct {
	number uint64
	aead   cipher.AEAD // nil where it has not been derived.
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
		return epoch{}, fmt.Errorf("seal: no packets with %s", tls.CipherSuiteName(suite))
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

// fill puts the nonce of a sequence number into n (RFC 8446 section 5.3).
func (e *epoch) fill(n *[ivSize]byte, sequence uint64) {
	*n = e.iv
	low := n[ivSize-8:]
	binary.BigEndian.PutUint64(low, binary.BigEndian.Uint64(low)^sequence)
}

// Sealer seals one direction's packets. One goroutine at a time may use it.
type Sealer struct {
	id     uint64
	suite  uint16
	secret [secretSize]byte
	next   uint64 // Sequence number.
	epoch  epoch
	nonce  [ivSize]byte // Here and not on the stack, which it would leave for each packet.
}

// Seal makes a packet in place: packet holds HeaderSize bytes of any content and
// then the records, and has room for TagSize more. It returns the whole packet.
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

// ID returns the path's id that a packet names, and whether it is one at all.
func ID(packet []byte) (uint64, bool) {
	if len(packet) <= Overhead {
		return 0, false
	}
	return binary.BigEndian.Uint64(packet), true
}

// Opener opens one direction's packets. One goroutine at a time may use it.
type Opener struct {
	id     uint64
	suite  uint16
	secret [secretSize]byte
	window window
	// epochs are those that may come, at their number modulo 3: that of the
	// highest sequence number, the one before and the one after.
	epochs [3]epoch
	nonce  [ivSize]byte
}

// Open checks a packet and decrypts it in place. Newest reports whether no packet
// opened before has a higher sequence number. An error is ErrForged or
// ErrReplayed; the packet must then be dropped, and has changed nothing. What it
// holds is lost in either case.
func (o *Opener) Open(packet []byte) (records []byte, newest bool, err error) {
	if id, ok := ID(packet); !ok || id != o.id {
		return nil, false, ErrForged
	}
	header := packet[:HeaderSize]
	sequence := binary.BigEndian.Uint64(header[idSize:])
	if o.window.seen(sequence) {
		return nil, false, ErrReplayed
	}
	e := o.epoch(sequence >> epochBits)
	if e == nil {
		return nil, false, ErrForged
	}
	e.fill(&o.nonce, sequence)
	records, err = e.aead.Open(packet[HeaderSize:HeaderSize], o.nonce[:], packet[HeaderSize:], header)
	if err != nil {
		return nil, false, ErrForged
	}
	return records, o.window.mark(sequence), nil
}

// epoch returns the key of an epoch, or nil for one that cannot come yet, or any
// more: whoever forges packets must not choose how many keys are derived.
func (o *Opener) epoch(number uint64) *epoch {
	if current := o.window.highest() >> epochBits; number > current+1 || number+1 < current {
		return nil
	}
	e := &o.epochs[number%3]
	if e.aead == nil || e.number != number {
		derived, err := newEpoch(o.suite, &o.secret, number)
		if err != nil {
			return nil
		}
		*e = derived
	}
	return e
}
