// Package wire is the protocol between a tunnel client and a tunnel server: the
// names, messages and records both ends speak, as a pure codec.
//
// # Connections
//
// The tunnel client dials the tunnel server over TLS 1.3 and upgrades to a
// WebSocket (RFC 6455). Every upgrade names [Subprotocol], whose number is the
// protocol's version; a tunnel server that does not speak it answers 400.
//
//	GET /v1/link                Authorization: Bearer <ticket>
//	GET /v1/data?kind=stream    Authorization: Bearer <secret of the link>
//	GET /v1/data?kind=datagram  Authorization: Bearer <secret of the link>
//
// A wrong ticket or secret is answered 401. Neither end ever dials the other
// way round, and there is no message that needs an answer before bytes flow.
//
// # The link
//
// One for each pair of tunnel client and tunnel server. Every message is a text
// message holding one [LinkMessage] as JSON, of at most 64 KiB; both ends ping,
// and take the other for dead after 9 s of silence. A data connection belongs
// to the link whose secret it was dialled with and ends with it.
//
//	server -> client
//	  {"type":"welcome","secret":"..."}            first, once
//	  {"type":"dial","kind":"stream","count":4}    open that many data connections
//
// A message of another type is ignored, so that a later version can add one.
//
// # Stream data connections
//
// A stream data connection is idle or carries one player's TCP connection, the
// stream. Binary messages are the stream's bytes, cut anywhere, of at most
// [MaxStreamMessage] bytes each. Text messages of at most [MaxControl] bytes are
// one [Control] as JSON:
//
//	server -> client
//	  {"type":"open","allocation":17,
//	   "source":"203.0.113.9:50123",
//	   "destination":"198.51.100.1:25565"}   a player joined: dial the game
//	both ways
//	  {"type":"fin"}                         no more bytes from here (half-close)
//	  {"type":"reset"}                       the stream is broken
//	client -> server
//	  {"type":"idle"}                        done with this stream
//
// Bytes may follow open at once. Each end sends fin once it has read the end of
// its TCP connection, and closes the writing half of that connection when it
// gets fin. The client says idle when it has sent fin and has delivered
// everything up to the server's fin: from then on it has nothing left to say
// about this stream, and the server may open the next one. An idle that comes
// without a fin before it is both. It is needed because a client that has sent
// fin can still find its game gone when it delivers more bytes: a reset sent
// then must not reach the next player.
//
// After a reset, sent or received, the data connection carries no further
// stream; the end that got it closes it. Losing the data connection itself means
// reset. Anything else (bytes while idle, open before idle, a second fin) is a
// protocol error and ends the data connection.
//
// # Datagram data connections
//
// A binary message is a batch: records one after another, at least one, of at
// most [MaxBatch] bytes together. Text messages are not allowed. Numbers are
// unsigned LEB128 varints in their shortest form; idle is in seconds.
//
//	0x01 open      flow allocation idle source destination   server -> client
//	0x02 datagram  flow length payload                       both ways
//	0x03 close     flow                                      both ways
//
//	source, destination:
//	  1 byte      4 or 16, the length of the IP address
//	  4|16 bytes  IP address
//	  2 bytes     port, big-endian
//
// A flow is one player's address talking to one allocation. The server numbers
// it; a number is never used again on the same data connection, hence a record
// for an unknown flow is of one that has ended and is dropped. A payload is one
// UDP datagram of at most [MaxDatagram] bytes, never cut and never joined.
// Either end closes a flow; close is not answered.
//
// # Versions
//
//	1  The first.
package wire

import "errors"

// Subprotocol names this protocol and its version in a WebSocket upgrade.
const Subprotocol = "eclitunnel.v1"

// Paths of the tunnel server, and the query parameter of PathData that holds a
// [Kind].
const (
	PathLink  = "/v1/link"
	PathData  = "/v1/data"
	KindParam = "kind"
)

// Limits of the protocol, in bytes.
const (
	MaxLinkMessage   = 64 << 10
	MaxControl       = 4 << 10
	MaxStreamMessage = 256 << 10
	// MaxDatagram is the largest payload of a UDP datagram over IPv4.
	MaxDatagram = 65507
	// BatchTarget is the size from which a sender starts another batch.
	BatchTarget = 64 << 10
	// MaxBatch is a batch one byte short of its target and a largest datagram.
	MaxBatch = BatchTarget + MaxDatagram + maxRecordOverhead
)

// ErrMalformed is what every decoder returns for bytes that are not of this
// protocol. It comes wrapped with what was wrong.
var ErrMalformed = errors.New("wire: malformed")

// Kind is what a data connection carries.
type Kind string

// The kinds of data connection.
const (
	KindStream   Kind = "stream"
	KindDatagram Kind = "datagram"
)

// Valid reports whether k is one of the kinds above.
func (k Kind) Valid() bool { return k == KindStream || k == KindDatagram }
