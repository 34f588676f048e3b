// Package wire is the protocol between a tunnel client and a tunnel server: the
// names, messages and records both ends speak, as a pure codec.
//
// # Connections
//
// The tunnel client dials the tunnel server over TLS 1.3 and upgrades to a
// WebSocket (RFC 6455). Every upgrade names [Subprotocol], whose number is the
// protocol's version; a tunnel server that does not speak it answers 400.
//
//	GET /v1/link                             Authorization: Bearer <ticket>
//	GET /v1/link?carrier=C                   the same, to go on with carrier C
//	GET /v1/data?kind=stream                 Authorization: Bearer <secret of the link>
//	GET /v1/data?kind=datagram&carrier=C     Authorization: Bearer <secret of the link>
//
// A wrong ticket or secret is answered 401. Neither end ever dials the other
// way round, and there is no message that needs an answer before bytes flow.
//
// The key with which a client masks its frames ([Mask]) may be zero, which
// changes nothing, and for stream data connections of this implementation it is.
// RFC 6455 section 5.3 wants one that cannot be foreseen, so that no page can
// have a browser send what a cache on the way takes for a request of its own: a
// tunnel client is no browser. A server undoes any key, since something on the
// way may take a connection apart and mask anew.
//
// # The link
//
// One for each pair of tunnel client and tunnel server. Every message is a text
// message holding one [LinkMessage] as JSON, of at most 64 KiB; both ends ping,
// and take the other for dead after 9 s of silence. A data connection belongs
// to the link whose secret it was dialled with and ends with it.
//
//	server -> client
//	  {"type":"welcome","secret":"...",
//	   "carrier":"..."}                            first, once
//	  {"type":"dial","kind":"stream","count":4}    open that many data connections
//	  {"type":"dial","kind":"datagram","count":1,
//	   "carrier":"...","udp":7443}                 open the carrier's
//
// The carrier of welcome is the one that the client asked to go on with, and is
// left out where the server does not hold it. The udp of dial is the port at
// which the server takes sealed packets, and is left out where it takes none.
//
// A message of another type is ignored, so that a later version can add one.
//
// # Stream data connections
//
// A stream data connection is idle or carries one player's TCP connection, the
// stream. Binary messages are the stream's bytes, cut anywhere, of at most
// [MaxStreamMessage] bytes each; their bytes are passed on as they come, not when
// the message is whole. Text messages of at most [MaxControl] bytes are
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
// An end that sends a reset or gets one resets its TCP connection, and discards what
// still comes of the stream. A server that gets one sends one, unless it has said how
// its own direction ended. The client says idle once both directions have ended, or
// when it gets a reset, and the data connection serves the next stream; a reset that
// reaches it after that was of the stream before. An end whose peer does not let go of
// a broken stream within seconds closes the data connection, and losing that means
// reset. Anything else (bytes while idle, open before idle, a second fin) is a
// protocol error and ends the data connection.
//
// # Streams without encryption
//
// Where the network between them is encrypted or trusted as it is, both ends can
// be told to do without encryption of the players' bytes. A client that may
// names [SubprotocolPlain] in front of Subprotocol when it upgrades a stream data
// connection; a server that may selects it. The upgrade itself, with the link's
// secret in it, is made under TLS as ever. Its answer is the last that the
// server says under TLS, and the request the last that the client does: from
// then on each end's frames follow on the TCP connection as they are, without so
// much as a close_notify. The client sends nothing before the answer. Nothing else
// changes, but that a binary message may have [MaxPlainMessage] bytes, which an end
// may move from socket to socket without reading them.
// Links and datagram data connections stay encrypted.
//
// # Carriers
//
// A carrier is the flows of a tunnel client: who talks UDP to it through this
// tunnel server. The server names it, with at most [MaxCarrier] characters of
// A-Z and 0-9, and there is at most one for each client. Its records travel
// over a datagram data connection and, where that gets through, in sealed
// packets, which no lost packet holds up. It outlives both:
//
//   - Losing its data connection ends no flow. The server asks for another one
//     with the same name. While there is none, records that find no other way
//     are dropped.
//   - Losing the link ends no flow either. Both ends keep the carrier for
//     [CarrierGrace]. The next link of this client goes on with it if it was
//     dialled with its name, and ends it otherwise.
//   - It ends when either end closes its data connection with close code 1000 or
//     after a protocol error, and when the client may not be linked any more.
//
// # Records
//
// Numbers are unsigned LEB128 varints in their shortest form; idle is in
// seconds.
//
//	0x01 open      flow allocation idle source destination   server -> client
//	0x02 datagram  flow length payload                       both ways
//	0x03 close     flow                                      both ways
//	0x04 opened    flow                                      client -> server
//	0x05 probe     number length padding                     both ways, sealed
//	0x06 answer    number                                    both ways, sealed
//
//	source, destination:
//	  1 byte      4 or 16, the length of the IP address
//	  4|16 bytes  IP address
//	  2 bytes     port, big-endian
//
// A flow is one player's address talking to one allocation. The server numbers
// it; a number is never used again on the same carrier. A payload is one UDP
// datagram of at most [MaxDatagram] bytes, never cut and never joined.
//
// No record is sure to arrive, nor to arrive in order:
//
//   - The server puts open before every datagram of a flow, in the same batch or
//     packet, until it has heard any record of that flow. The client answers
//     each with opened, and takes one of a flow it knows for nothing new.
//   - Either end closes a flow. A close is not answered. A datagram of a flow that
//     its receiver does not know, or not any more, is dropped and answered with
//     close, and so are an open of one that the client has ended lately and an
//     opened of one that the server has ended.
//   - A silent flow ends at both ends, see idle.
//   - Datagrams of a flow are sent in their order on each way and passed on in the
//     order in which they come. Those that take different ways, as when a path
//     comes up, may overtake each other.
//
// # Datagram data connections
//
// A binary message is a batch: records one after another, at least one, of at
// most [MaxBatch] bytes together. Text messages are not allowed, nor are records
// that are for sealed packets.
//
// # Sealed packets
//
// UDP packets between a port of the client's choice and the server's UDP port,
// at the IP address that the client reached the server at by TCP. One holds
// records, at least one, encrypted:
//
//	8 bytes   id of the carrier's path
//	8 bytes   sequence number, big-endian: 0, 1, 2, ... in each direction
//	n bytes   records, encrypted
//	16 bytes  tag
//
// The keys come from the TLS connection below the first datagram data connection of
// the carrier that the client has had (RFC 8446 section 7.5), and stay those of the
// carrier when another one takes its place. A server that has heard nothing of the
// carrier yet when the next comes, neither on the first nor in a packet, cannot tell
// whether the client has had the first: it takes packets under the keys of either.
//
//	TLS-Exporter("EXPORTER-EcliTunnel-datagrams", "", 72) =
//	    id (8) || secret of the client (32) || secret of the server (32)
//
//	epoch = sequence number >> 24
//	key   = HKDF-Expand(SHA-256, sender's secret, "key" || epoch, key length)
//	iv    = HKDF-Expand(SHA-256, sender's secret, "iv" || epoch, 12)
//
// with the epoch as 8 bytes, big-endian. The AEAD is that of the TLS connection's
// cipher suite: AES-128-GCM, AES-256-GCM or ChaCha20-Poly1305. The nonce is iv
// XOR the sequence number padded to 12 bytes on the left (RFC 8446 section 5.3);
// the first 16 bytes of the packet are the additional data. So one key protects at
// most 2^24 packets, of less than 2^11 bytes each: RFC 9001 appendix B.1 allows
// 2^28.
//
// A receiver drops, and does not answer, what is shorter than [MinPacket], has an
// id or an epoch it does not know, does not decrypt, or has come before (a
// window over sequence numbers, RFC 4303 section 3.4.3). The epochs it knows are
// that of the highest sequence number that has come, the one before and the one
// after. Nothing of a packet counts before it has decrypted, not even where it
// came from. The server answers to where the packet with the highest sequence
// number has come from: the client's address may change at any time.
//
// # Paths
//
// Each end sends in sealed packets only while it knows that they arrive, which
// their being answered shows:
//
//   - A probe is answered at once with its number, in a sealed packet. Of several
//     that come together the last is enough.
//   - Whatever is sent on a path has a probe sent beside it where the last one is
//     [ProbeInterval] old, or has not been answered and is 200 ms old.
//   - The path is up when a probe has been answered. It is down when one has not
//     been answered for [PathTimeout], nor any that was sent after it; records
//     then go over the data connection.
//   - While it is down the client goes on sending probes, and the server sends one
//     with each answer. While it is up and nothing else is sent, the client sends
//     one every [Keepalive], which keeps NATs from forgetting it, and twice a second
//     until a flow has been silent for a while.
//
// Packets are sent with the don't-fragment bit where the system has one for
// sockets. No packet is longer, as a UDP payload, than has been shown to arrive:
// [PacketSize] at first, which fits every IPv6 path, and more once a probe padded
// to that has been answered. All probes on a path are padded to what its packets may
// have, so that one that has shrunk is noticed and the end goes back to the least.
// A datagram that does not fit goes over the data connection.
//
// # Versions
//
//	1  The first.
package wire

import (
	"errors"
	"time"
)

// Subprotocol names this protocol and its version in a WebSocket upgrade.
// SubprotocolPlain names the same protocol for a stream data connection that
// leaves TLS after its upgrade.
const (
	Subprotocol      = "eclitunnel.v1"
	SubprotocolPlain = "eclitunnel.v1.plain"
)

// Paths of the tunnel server, and the query parameters: the [Kind] of PathData,
// and the carrier of both.
const (
	PathLink  = "/v1/link"
	PathData  = "/v1/data"
	KindParam = "kind"
	// CarrierParam names a carrier.
	CarrierParam = "carrier"
)

// Limits of the protocol, in bytes.
const (
	MaxLinkMessage   = 64 << 10
	MaxControl       = 4 << 10
	MaxStreamMessage = 256 << 10
	// MaxPlainMessage is a binary message of a stream without encryption.
	MaxPlainMessage = 1 << 20
	// MaxDatagram is the largest payload of a UDP datagram over IPv4.
	MaxDatagram = 65507
	// BatchTarget is the size from which a sender starts another batch.
	BatchTarget = 64 << 10
	// MaxBatch is a batch one byte short of its target and a largest datagram.
	MaxBatch = BatchTarget + MaxDatagram + maxRecordOverhead
	// MaxCarrier is the longest name of a carrier.
	MaxCarrier = 32
	// MinPacket is a sealed packet with one byte of records.
	MinPacket = 8 + 8 + 1 + 16
	// PacketSize is a UDP payload that fits the least MTU of IPv6, 1280 bytes.
	PacketSize = 1232
)

// Times of the protocol.
const (
	// CarrierGrace is how long a carrier is kept without a link.
	CarrierGrace = 30 * time.Second
	// ProbeInterval is the pause after an answered probe while the path is used,
	// PathTimeout how long a probe may be unanswered.
	ProbeInterval = time.Second
	PathTimeout   = 1500 * time.Millisecond
	// Keepalive is the longest pause on a path that is up: less than the 30 s
	// after which common NATs forget a UDP flow.
	Keepalive = 15 * time.Second
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
