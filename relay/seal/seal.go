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
	// The labels are for private use (RFC 5705 section 4).
	exporterLabel = "EXPORTER-EcliTunnel-datagrams"
	ratchetLabel  = "EXPORTER-EcliTunnel-datagrams-ratchet"
	idSize        = 8
	secretSize    = 32
	ivSize        = 12
	// epochBits is the number of low bits of the sequence numbers that share a key.
	epochBits = 24
	// window is how many sequence numbers a replay.Filter holds. An epoch is accepted until
	// the next one has reached as many.
	window = 8128
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
	ratchet        bool
	client, server [secretSize]byte
}

// Export derives the keys from a TLS connection whose handshake is complete, for ends of
// which one does not support a ratchet. It fails if the version is below TLS 1.3.
func Export(state *tls.ConnectionState) (Keys, error) { return export(state, exporterLabel, false) }

// ExportRatchet is Export for ends that both support a ratchet: the secret of an epoch is
// derived from that of the one before, which is then erased. Whoever learns what an end has
// in its memory cannot read what was sealed in epochs before the last two, unless the TLS
// connection, from which all secrets follow, was still there. Between ends of which only
// one uses a ratchet no packet opens.
func ExportRatchet(state *tls.ConnectionState) (Keys, error) {
	return export(state, ratchetLabel, true)
}

func export(state *tls.ConnectionState, label string, ratchet bool) (Keys, error) {
	if state.Version < tls.VersionTLS13 {
		return Keys{}, fmt.Errorf("seal: cannot export keys from %s", tls.VersionName(state.Version))
	}
	material, err := state.ExportKeyingMaterial(label, nil, idSize+2*secretSize)
	if err != nil {
		return Keys{}, fmt.Errorf("export keys from TLS: %w", err)
	}
	defer clear(material)
	k := Keys{ID: binary.BigEndian.Uint64(material), suite: state.CipherSuite, ratchet: ratchet}
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
	s := &Sealer{id: k.ID, chain: chain{suite: k.suite, ratchet: k.ratchet, secret: ours}}
	o := &Opener{id: k.ID, chain: chain{suite: k.suite, ratchet: k.ratchet, secret: theirs}}
	return s, o
}

// chain derives the keys of the epochs of one direction, one after another.
type chain struct {
	suite   uint16
	ratchet bool
	secret  [secretSize]byte // Of epoch next; without a ratchet: of every one.
	next    uint64           // The epoch whose keys are derived next.
}

// epoch derives the keys of the next epoch. It changes nothing: they may be those of a
// forged packet.
func (c *chain) epoch() (epoch, error) { return newEpoch(c.suite, &c.secret, c.next) }

// advance goes on to the epoch after that, and erases the secret of this one.
func (c *chain) advance() error {
	if c.ratchet {
		secret, err := hkdf.Expand(sha256.New, c.secret[:], label("secret", c.next), secretSize)
		if err != nil {
			return fmt.Errorf("seal: derive a secret: %w", err)
		}
		copy(c.secret[:], secret)
		clear(secret)
	}
	c.next++
	return nil
}

// label returns the label of what is derived for an epoch.
func label(what string, epoch uint64) string {
	return string(binary.BigEndian.AppendUint64([]byte(what), epoch))
}

// epoch is the key of the sequence numbers that have the same upper bits.
type epoch struct {
	number uint64
	aead   cipher.AEAD // nil if it has not been derived.
	iv     [ivSize]byte
}

func newEpoch(suite uint16, secret *[secretSize]byte, number uint64) (epoch, error) {
	e := epoch{number: number}
	iv, err := hkdf.Expand(sha256.New, secret[:], label("iv", number), ivSize)
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
	key, err := hkdf.Expand(sha256.New, secret[:], label("key", number), size)
	if err != nil {
		return epoch{}, fmt.Errorf("seal: derive a key: %w", err)
	}
	defer clear(key)
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
	id    uint64
	chain chain
	next  uint64 // Sequence number.
	epoch epoch
	nonce [ivSize]byte // A local variable would escape to the heap with every packet.
}

// Seal seals a packet in place and returns it. packet consists of HeaderSize bytes of
// any content and the records, and has capacity for TagSize more bytes. Each call uses
// the next sequence number.
func (s *Sealer) Seal(packet []byte) ([]byte, error) {
	if s.epoch.aead == nil || s.epoch.number != s.Epoch() {
		if err := s.enter(s.Epoch()); err != nil {
			return nil, err
		}
	}
	sequence := s.next
	s.next++
	header := packet[:HeaderSize]
	binary.BigEndian.PutUint64(header, s.id)
	binary.BigEndian.PutUint64(header[idSize:], sequence)
	s.epoch.fill(&s.nonce, sequence)
	return s.epoch.aead.Seal(header, s.nonce[:], packet[HeaderSize:], header), nil
}

// enter derives the keys of an epoch and erases what they were derived from.
func (s *Sealer) enter(number uint64) (err error) {
	for s.chain.next < number {
		if err = s.chain.advance(); err != nil {
			return err
		}
	}
	if s.epoch, err = s.chain.epoch(); err != nil {
		return err
	}
	return s.chain.advance()
}

// Epoch returns the epoch of the next packet.
func (s *Sealer) Epoch() uint64 { return s.next >> epochBits }

// NextEpoch begins the next epoch with the next packet. The other end must have opened
// a packet of this one: it opens none of the epoch after the next. Without a ratchet,
// NextEpoch does nothing.
func (s *Sealer) NextEpoch() {
	if s.chain.ratchet {
		s.next = (s.Epoch() + 1) << epochBits
	}
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
	id    uint64
	chain chain  // The next is the epoch after that of the highest sequence number opened.
	next  uint64 // One more than the highest sequence number opened; 0 if there is none.
	// epochs are the epochs that are accepted, at their number modulo 3: that of the
	// highest sequence number, the one before and the one after.
	epochs [3]received
	nonce  [ivSize]byte
}

// received is an epoch of packets received.
type received struct {
	epoch
	// replay holds the sequence numbers that have been opened, of the last window: at
	// 100,000 packets a second, of the last 80 ms. Each epoch has its own, because the
	// numbers up to the next one can be skipped.
	replay replay.Filter
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
	if !e.replay.ValidateCounter(sequence, math.MaxUint64) {
		return nil, false, ErrReplayed
	}
	if sequence < o.next {
		return records, false, nil
	}
	o.next = sequence + 1
	if e.number == o.chain.next {
		o.enter()
	}
	return records, true, nil
}

// epoch returns an epoch. It derives no keys but of the three epochs that are accepted,
// and enters none: a forged packet must not choose how many keys are derived, nor which
// are erased.
func (o *Opener) epoch(number uint64) (*received, error) {
	if o.chain.next == 0 { // Nothing has been opened.
		first, err := o.chain.epoch()
		if err != nil {
			return nil, ErrForged
		}
		o.epochs[0].epoch = first
		o.enter()
	}
	switch next := o.chain.next; {
	case number > next:
		return nil, ErrForged
	case number+2 < next, number+2 == next && o.next&(1<<epochBits-1) > window:
		return nil, ErrReplayed // Far behind the window.
	}
	e := &o.epochs[number%3]
	if e.aead == nil { // It is the next: the others have been entered.
		derived, err := o.chain.epoch()
		if err != nil {
			return nil, ErrForged
		}
		e.epoch = derived
	}
	return e, nil
}

// enter makes the next epoch, whose keys have been derived, that of the highest sequence
// number. It erases what they were derived from, and the keys that are accepted no more.
func (o *Opener) enter() {
	if o.chain.advance() != nil {
		return // Lengths and hash are constants.
	}
	o.epochs[o.chain.next%3] = received{}
}
