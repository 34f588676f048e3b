package udpsock

import (
	"net/netip"
	"sync"
)

// Batch holds datagrams that were read together, in borrowed memory: Release ends
// the use of the batch and of every slice it returned. It is not safe for
// concurrent use.
type Batch struct {
	datagrams []received
	memory    batchMemory
}

// received is a datagram in a batch's memory.
type received struct {
	data []byte
	from *Endpoint
}

var batches = sync.Pool{New: func() any {
	b := new(Batch)
	b.memory.init()
	return b
}}

// Len returns the number of datagrams, at least 1.
func (b *Batch) Len() int { return len(b.datagrams) }

// Data returns the payload of the i-th datagram. The caller may overwrite it.
func (b *Batch) Data(i int) []byte { return b.datagrams[i].data }

// Endpoint returns where the i-th datagram came from, as a value to keep, to
// compare and to answer to.
func (b *Batch) Endpoint(i int) Endpoint { return *b.datagrams[i].from }

// Source returns the address that the i-th datagram came from. An IPv4 address is
// never mapped to IPv6; the zone of a link-local one is the number of the
// interface on Linux.
func (b *Batch) Source(i int) netip.AddrPort { return b.datagrams[i].from.source() }

// Local returns the local address that the i-th datagram was sent to. It is the
// zero Addr without [Options.Destinations], and on systems other than Linux.
func (b *Batch) Local(i int) netip.Addr { return b.datagrams[i].from.localAddr() }

// Release returns the batch's memory.
func (b *Batch) Release() {
	b.memory.reset(len(b.datagrams))
	b.datagrams = b.datagrams[:0]
	batches.Put(b)
}
