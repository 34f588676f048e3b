package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
)

// RecordKind is the kind of a record.
type RecordKind byte

// The kinds of records in batches and sealed packets.
const (
	RecordOpen     RecordKind = 1
	RecordDatagram RecordKind = 2
	RecordClose    RecordKind = 3
	RecordOpened   RecordKind = 4
	RecordProbe    RecordKind = 5
	RecordAnswer   RecordKind = 6
	RecordHead     RecordKind = 7
	RecordTail     RecordKind = 8
)

// Sealed reports whether records of kind k are permitted in sealed packets only.
func (k RecordKind) Sealed() bool { return k >= RecordProbe }

// maxRecordOverhead is the longest record, in bytes, without the payload of a datagram:
// that of an open record, with its kind, three varints and two addresses.
const maxRecordOverhead = 1 + 3*binary.MaxVarintLen64 + 2*(1+16+2)

// Record is a record of a batch or a sealed packet.
type Record struct {
	Kind RecordKind
	// Flow is the number of the flow. For RecordProbe and RecordAnswer it is the number of
	// the probe.
	Flow uint64
	// Allocation is the id of the allocation. For RecordOpen.
	Allocation int64
	// IdleSeconds is the idle timeout of the flow. For RecordOpen.
	IdleSeconds int
	// Source is the player's address, and Destination the public address that the player
	// sends to. For RecordOpen.
	Source, Destination netip.AddrPort
	// Split is the number of a split datagram. For RecordHead and RecordTail.
	Split uint64
	// Payload is the datagram of a RecordDatagram, the half of one in a RecordHead or
	// RecordTail, or the padding of a RecordProbe. After decoding it refers to the bytes
	// of the batch.
	Payload []byte
}

// AppendRecord appends the encoding of r to b and returns the extended buffer. It panics
// if the payload is longer than MaxDatagram, which no UDP socket over IPv4 returns. The
// halves of a datagram must have 1 to MaxHalf bytes.
func AppendRecord(b []byte, r Record) []byte {
	b = append(b, byte(r.Kind))
	b = binary.AppendUvarint(b, r.Flow)
	switch r.Kind {
	case RecordOpen:
		b = binary.AppendUvarint(b, uint64(r.Allocation))
		b = binary.AppendUvarint(b, uint64(r.IdleSeconds))
		b = appendAddress(b, r.Source)
		b = appendAddress(b, r.Destination)
	case RecordDatagram, RecordProbe:
		if len(r.Payload) > MaxDatagram {
			panic(fmt.Sprintf("wire: datagram of %d bytes", len(r.Payload)))
		}
		b = binary.AppendUvarint(b, uint64(len(r.Payload)))
		b = append(b, r.Payload...)
	case RecordHead, RecordTail:
		b = binary.AppendUvarint(b, r.Split)
		b = binary.AppendUvarint(b, uint64(len(r.Payload)))
		b = append(b, r.Payload...)
	}
	return b
}

// RecordSize returns an upper bound, in bytes, of the encoding of a record with a payload
// of the given length.
func RecordSize(payload int) int { return maxRecordOverhead + payload }

// EncodedSize returns the size, in bytes, of the encoding of r.
func EncodedSize(r *Record) int {
	n := 1 + uvarintSize(r.Flow)
	switch r.Kind {
	case RecordOpen:
		n += uvarintSize(uint64(r.Allocation)) + uvarintSize(uint64(r.IdleSeconds)) + addressSize(r.Source) + addressSize(r.Destination)
	case RecordDatagram, RecordProbe:
		n += uvarintSize(uint64(len(r.Payload))) + len(r.Payload)
	case RecordHead, RecordTail:
		n += uvarintSize(r.Split) + uvarintSize(uint64(len(r.Payload))) + len(r.Payload)
	}
	return n
}

func uvarintSize(v uint64) int { return max(1, (bits.Len64(v)+6)/7) }

func addressSize(a netip.AddrPort) int {
	if a.Addr().Unmap().Is4() {
		return 1 + 4 + 2
	}
	return 1 + 16 + 2
}

// NextRecord decodes the first record of a batch and returns the rest of the batch. A
// payload longer than MaxDatagram is an error, and so is half a datagram that is empty or
// longer than MaxHalf. Its errors wrap ErrMalformed. It does not allocate unless it fails.
func NextRecord(batch []byte) (r Record, rest []byte, err error) {
	d := decoder{rest: batch}
	r.Kind = RecordKind(d.byte())
	r.Flow = d.uvarint(math.MaxUint64)
	switch r.Kind {
	case RecordOpen:
		r.Allocation = int64(d.uvarint(math.MaxInt64))
		r.IdleSeconds = int(d.uvarint(math.MaxInt32))
		r.Source = d.address()
		r.Destination = d.address()
		if r.Allocation == 0 || r.IdleSeconds == 0 {
			d.bad = true
		}
	case RecordDatagram, RecordProbe:
		r.Payload = d.bytes(int(d.uvarint(MaxDatagram)))
	case RecordHead, RecordTail:
		r.Split = d.uvarint(math.MaxUint64)
		r.Payload = d.bytes(int(d.uvarint(MaxHalf)))
		if len(r.Payload) == 0 {
			d.bad = true
		}
	case RecordClose, RecordOpened, RecordAnswer:
	default:
		d.bad = true
	}
	if d.bad {
		return Record{}, nil, fmt.Errorf("%w: record of kind %d, %d bytes before the end of the batch", ErrMalformed, r.Kind, len(batch))
	}
	return r, d.rest, nil
}

func appendAddress(b []byte, a netip.AddrPort) []byte {
	ip := a.Addr().Unmap()
	if ip.Is4() {
		v4 := ip.As4()
		b = append(append(b, 4), v4[:]...)
	} else {
		v6 := ip.As16()
		b = append(append(b, 16), v6[:]...)
	}
	return binary.BigEndian.AppendUint16(b, a.Port())
}

// decoder decodes one field after another. After an error, which sets bad, it returns
// zero values.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) bytes(n int) []byte {
	if d.bad || n > len(d.rest) {
		d.bad = true
		return nil
	}
	b := d.rest[:n:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// uvarint accepts only the shortest form, so that each value has one encoding.
func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.rest)
	if d.bad || n <= 0 || (n > 1 && d.rest[n-1] == 0) || v > limit {
		d.bad = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// address rejects an IPv4-mapped IPv6 address, which would be a second encoding of the
// IPv4 address.
func (d *decoder) address() netip.AddrPort {
	n := int(d.byte())
	if n != 4 && n != 16 {
		d.bad = true
		return netip.AddrPort{}
	}
	ip, ok := netip.AddrFromSlice(d.bytes(n))
	port := d.bytes(2)
	if d.bad || !ok || ip.Is4In6() {
		d.bad = true
		return netip.AddrPort{}
	}
	return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(port))
}
