package wire

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/bits"
	"net/netip"
)

// RecordKind tells the records of a batch apart.
type RecordKind byte

// The records of batches and sealed packets.
const (
	RecordOpen     RecordKind = 1
	RecordDatagram RecordKind = 2
	RecordClose    RecordKind = 3
	RecordOpened   RecordKind = 4
	RecordProbe    RecordKind = 5
	RecordAnswer   RecordKind = 6
)

// Sealed reports whether records of the kind are for sealed packets alone.
func (k RecordKind) Sealed() bool { return k == RecordProbe || k == RecordAnswer }

// maxRecordOverhead is what an open record, the longest beside a datagram's
// payload, takes: kind, three varints and two addresses.
const maxRecordOverhead = 1 + 3*binary.MaxVarintLen64 + 2*(1+16+2)

// Record is one record of a batch or a sealed packet.
type Record struct {
	Kind RecordKind
	// Flow is the flow's number, of RecordProbe and RecordAnswer the probe's.
	Flow uint64
	// Of RecordOpen: the allocation, the player's address, the public address
	// the player reached, and the silence in seconds that ends the flow.
	Allocation          int64
	IdleSeconds         int
	Source, Destination netip.AddrPort
	// Payload of RecordDatagram, or the padding of RecordProbe, within the batch
	// decoded: valid as long as that is.
	Payload []byte
}

// AppendRecord appends the encoding of r to b. It panics if the payload is
// longer than MaxDatagram: no UDP socket over IPv4 yields one, and it would be
// cut.
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
	}
	return b
}

// RecordSize is an upper bound of what AppendRecord appends for a record with
// the given payload.
func RecordSize(payload int) int { return maxRecordOverhead + payload }

// EncodedSize is exactly what AppendRecord appends for r.
func EncodedSize(r *Record) int {
	n := 1 + uvarintSize(r.Flow)
	switch r.Kind {
	case RecordOpen:
		n += uvarintSize(uint64(r.Allocation)) + uvarintSize(uint64(r.IdleSeconds)) + addressSize(r.Source) + addressSize(r.Destination)
	case RecordDatagram, RecordProbe:
		n += uvarintSize(uint64(len(r.Payload))) + len(r.Payload)
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

// NextRecord decodes the first record of a batch and returns what follows it.
// It allocates nothing unless it fails, and never reads past MaxDatagram bytes
// of payload.
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
	case RecordClose, RecordOpened, RecordAnswer:
	default:
		d.bad = true
	}
	if d.bad {
		return Record{}, nil, fmt.Errorf("%w: record of kind %d, %d bytes before the batch's end", ErrMalformed, r.Kind, len(batch))
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

// decoder reads fields one after another. Once something is bad it yields zero
// values.
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

// uvarint takes only the shortest form: one value has one encoding.
func (d *decoder) uvarint(limit uint64) uint64 {
	v, n := binary.Uvarint(d.rest)
	if d.bad || n <= 0 || (n > 1 && d.rest[n-1] == 0) || v > limit {
		d.bad = true
		return 0
	}
	d.rest = d.rest[n:]
	return v
}

// address never yields an IPv4-mapped IPv6 address, which would be a second
// encoding of the IPv4 one.
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
