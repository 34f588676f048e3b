// Package wire is the protocol between a tunnel client and a tunnel server: its names,
// messages and records, as a pure codec. It has no sockets and no goroutines.
//
// # Connections
//
// The tunnel client connects to the tunnel server over TLS 1.3 and upgrades to a
// WebSocket (RFC 6455). The tunnel server never connects to the tunnel client. Every
// upgrade requests [Subprotocol], which contains the version of the protocol; a tunnel
// server that does not support it answers 400.
//
//	GET /v1/link                             Authorization: Bearer <ticket>
//	GET /v1/link?carrier=S                   the same, to resume UDP session S
//	GET /v1/link?streams=N&flows=M           the same, of a client that can have N stream
//	                                         data connections and M UDP flows open
//	GET /v1/data?kind=stream                 Authorization: Bearer <secret of the link>
//	GET /v1/data?kind=datagram&carrier=S     Authorization: Bearer <secret of the link>
//
// An invalid ticket or secret is answered with 401. No handshake follows the upgrade:
// data can flow at once.
//
// A client masks its frames ([Mask]). The masking key may be zero, which leaves the
// payload unchanged; stream data connections of this implementation use zero. RFC 6455
// section 5.3 requires an unpredictable key, so that a web page cannot make a browser
// send bytes that a proxy would take for another request. That does not apply to a
// tunnel client, which is not a browser. A server must accept any key, because a proxy
// may terminate the connection and mask the frames again.
//
// # The link
//
// There is one link for each pair of tunnel client and tunnel server. Each message is a
// text message that contains one [LinkMessage] as JSON, of at most 64 KiB. Both ends send
// pings, and close the link when they have received nothing for 9 s. A data connection
// belongs to the link whose secret it was opened with, and ends with it.
//
//	server -> client
//	  {"type":"welcome","secret":"...",
//	   "carrier":"..."}                            the first message
//	  {"type":"dial","kind":"stream","count":4}    open 4 stream data connections
//	  {"type":"dial","kind":"datagram","count":1,
//	   "carrier":"...","udp":7443}                 open the UDP session's
//
// "carrier" of welcome is the UDP session that the client asked to resume. It is absent
// if the server does not have that session. "udp" of dial is the port on which the server
// receives sealed packets. It is absent if the server does not receive any.
//
// A message of an unknown type is ignored, so that a later version can add types.
//
// # Stream data connections
//
// A stream data connection is idle, or carries one player's TCP connection: the stream.
// Binary messages contain the bytes of the stream, split at any point, with at most
// [MaxStreamMessage] bytes each. A receiver may forward the bytes before the message is
// complete. Text messages contain one [Control] as JSON, of at most [MaxControl] bytes:
//
//	server -> client
//	  {"type":"open","allocation":17,
//	   "source":"203.0.113.9:50123",
//	   "destination":"198.51.100.1:25565"}   a player has connected: dial the game
//	both directions
//	  {"type":"fin"}                         no more bytes follow (half-close)
//	  {"type":"reset"}                       the stream has failed
//	client -> server
//	  {"type":"idle"}                        the client is done with this stream
//
// Bytes may follow open at once. An end that reads EOF from its TCP connection sends fin.
// An end that receives fin closes its TCP connection for writing.
//
// The client sends idle when it has sent fin and has delivered everything before the
// server's fin. After idle it sends nothing more about this stream, and the server may
// open the next one. An idle without a fin before it means both. idle is needed because
// the game may reset its connection after the client has sent fin, while bytes of the
// player are still to be delivered: a reset for that must not reach the next stream.
//
// An end that sends or receives reset resets its TCP connection and discards what it still
// receives of the stream. A server that receives reset sends one, unless it has already
// ended its own direction. The client sends idle once both directions have ended, or when
// it receives reset; the data connection can then carry the next stream. A client ignores
// a reset that it receives after it has sent idle, as that belongs to the previous stream.
// An end closes the data connection if its peer does not finish a failed stream within
// seconds, and the loss of the data connection means reset.
//
// Anything else (bytes while idle, an open before idle, a second fin) is a protocol error
// and ends the data connection.
//
// # Streams without encryption
//
// If the network between the two ends is already encrypted or trusted, both can be
// configured not to encrypt streams. A client that is configured so requests
// [SubprotocolPlain] before [Subprotocol] when it upgrades a stream data connection. A
// server that is configured so selects it.
//
// The upgrade, which contains the secret of the link, always takes place over TLS. The
// request is the last thing that the client sends over TLS, and the response the last
// thing that the server sends over TLS. After that, each end writes its frames to the TCP
// connection directly. Neither sends close_notify. The client sends nothing before it has
// received the response.
//
// Nothing else changes, except that a binary message may have up to [MaxPlainMessage] bytes,
// so that an end can move them between sockets without reading them. Links and datagram
// data connections are always encrypted.
//
// # UDP sessions
//
// A UDP session is the set of all flows between one tunnel client and one tunnel server. On
// the wire it is called "carrier". The server names it, with 1 to [MaxSessionName] characters
// of A-Z and 0-9. A client has at most one on each tunnel server. Its records travel over a
// datagram data connection and, if those arrive, in sealed packets, in which a lost packet
// does not delay the ones that follow. A UDP session outlives both:
//
//   - The loss of its data connection ends no flow. The server requests a new one with the
//     same name, and may request another one if that is slow to come: at both ends, the
//     newest takes the place of the one before. Until then, records that cannot be sent in
//     sealed packets are dropped.
//   - The loss of the link ends no flow. Both ends keep the detached session for
//     [SessionGrace]. The client's next link resumes it if the link was opened with its name,
//     and ends it otherwise.
//   - It ends when either end closes its data connection with close code 1000 or after a
//     protocol error, and when the client is no longer permitted to link.
//
// # Records
//
// Numbers are unsigned LEB128 varints in their shortest form. idle is in seconds.
//
//	0x01 open      flow allocation idle source destination   server -> client
//	0x02 datagram  flow length payload                       both directions
//	0x03 close     flow                                      both directions
//	0x04 opened    flow                                      client -> server
//	0x05 probe     number length padding                     both directions, sealed only
//	0x06 answer    number                                    both directions, sealed only
//	0x07 head      flow split length payload                 both directions, sealed only
//	0x08 tail      flow split length payload                 both directions, sealed only
//
//	source, destination:
//	  1 byte      4 or 16, the length of the IP address
//	  4|16 bytes  IP address
//	  2 bytes     port, big-endian
//
// A flow is the traffic between one player address and one allocation. The server assigns
// its number, and does not use a number again in the same UDP session. A payload is one UDP
// datagram of at most [MaxDatagram] bytes. Datagrams are never merged, and split only as
// described in "Split datagrams".
//
// Records can be lost or arrive out of order:
//
//   - The server sends open before every datagram of a flow, in the same batch or packet,
//     until it has received a record of that flow. The client answers each open with opened.
//     An open of a flow that the client already has changes nothing.
//   - Either end can close a flow. A close is not answered. A datagram of an unknown or
//     closed flow is dropped and answered with close. So are an open of a flow that the
//     client has closed recently, and an opened of a flow that the server has closed.
//   - Each end closes a flow that has been idle for the time in its open record.
//   - Datagrams of a flow are sent in order on each transport (the data connection and sealed
//     packets), whatever their sizes, and forwarded in the order of their arrival; a split
//     datagram arrives with its second half. Datagrams on different transports can overtake
//     each other: when a path comes up or goes down, and if a datagram exceeds two packets.
//
// # Datagram data connections
//
// A binary message is a batch: one or more records, one after another, of at most [MaxBatch]
// bytes together. Text messages and sealed-only records are protocol errors.
//
// # Sealed packets
//
// Sealed packets are UDP packets between a port that the client chooses and the UDP port of
// the server, at the IP address to which the client is connected by TCP. Each contains one
// or more encrypted records:
//
//	8 bytes   id of the path
//	8 bytes   sequence number, big-endian: 0, 1, 2, ... in each direction, except where
//	          an epoch ends early
//	n bytes   records, encrypted
//	16 bytes  authentication tag
//
// The keys are exported (RFC 8446 section 7.5) from the TLS connection of the first datagram
// data connection of the UDP session whose upgrade the client has completed. They remain the
// keys of the session when another data connection replaces the first. If that happens before
// the server has received a record of the session, over the first data connection or in a
// packet, the server cannot tell whether the client completed the first upgrade. It then
// accepts packets under the keys of either.
//
//	TLS-Exporter("EXPORTER-EcliTunnel-datagrams", "", 72) =
//	    id (8) || secret of the client (32) || secret of the server (32)
//
//	epoch = sequence number >> 24
//	key   = HKDF-Expand(SHA-256, sender's secret, "key" || epoch, key length)
//	iv    = HKDF-Expand(SHA-256, sender's secret, "iv" || epoch, 12)
//
// If both ends ratchet their keys, the secret of the sender is that of epoch 0, and each
// epoch has its own:
//
//	TLS-Exporter("EXPORTER-EcliTunnel-datagrams-ratchet", "", 72) = as above
//	secret of epoch + 1 = HKDF-Expand(SHA-256, secret of epoch, "secret" || epoch, 32)
//
// An end keeps the secret of the epoch that its packets, or those received, reach next, and
// no secret of an earlier one. A sender goes on to the next epoch, to its first sequence
// number, once [EpochTime] has passed and a probe that it sent in the current epoch has been
// answered: a receiver that has missed a whole epoch opens nothing any more. A receiver enters
// an epoch with the first authentic packet of it. A client that supports this requests
// [SubprotocolRatchet] before [SubprotocolSplit] and [Subprotocol] when it upgrades a datagram
// data connection, and a server that does selects it. It includes what [SubprotocolSplit]
// means.
//
// epoch is encoded in 8 bytes, big-endian. The AEAD is that of the TLS connection's cipher
// suite: AES-128-GCM, AES-256-GCM or ChaCha20-Poly1305. The nonce is iv XOR the sequence
// number, padded with zeros on the left to 12 bytes (RFC 8446 section 5.3). The first 16
// bytes of the packet are the additional data. One key thus protects at most 2^24 packets of
// less than 2^11 bytes each; RFC 9001 appendix B.1 allows 2^28.
//
// A receiver silently drops a packet that is shorter than [MinPacket], has an unknown id,
// has an epoch out of range, fails to decrypt, or is a replay (detected by a window over
// sequence numbers, RFC 4303 section 3.4.3). The epochs in range are that of the highest
// sequence number received, the one before and the one after. A packet has no effect before
// it has been decrypted; in particular, its source address is not used.
//
// # Paths
//
// A path is the use of sealed packets by one UDP session. Each end sends records in sealed
// packets only while it knows that they arrive, which it learns from answers to probes:
//
//   - A probe is answered at once, with its number, in a sealed packet. If several arrive
//     together, it is enough to answer the last.
//   - When an end sends anything on a path, it adds a probe if the last one was sent
//     [ProbeInterval] ago, or was sent 200 ms ago and has not been answered.
//   - The path is up once a probe has been answered. It is down if a probe, and every one sent
//     after it, has not been answered for [PathTimeout]; records then travel over the data
//     connection.
//   - While the path is down, the client continues to send probes, and the server sends a
//     probe with each answer.
//   - While the path is up and nothing else is sent, the client sends a probe every
//     [Keepalive], so that NATs keep their mapping. While players use the path, and for some
//     seconds after, it sends two a second, so that the server learns of a new client address
//     soon.
//
// The number of a probe is not 0. An answer has no effect unless its number is that of one of
// the last probes sent to the address that it comes from; a client does not compare addresses.
// Numbers should be unpredictable.
//
// # Addresses
//
// The client's address can change at any time, and the source of a packet proves nothing:
// a packet can be held back or copied and sent from elsewhere. The server therefore sends
// to an address only once that is validated (RFC 9000 sections 8.2 and 9.3), the first
// address of a path as well as every later one:
//
//   - A packet from another address than the one in use, with the highest sequence number so
//     far, makes its source a candidate. The server keeps the newest few.
//   - It challenges a candidate with a probe whose number consists of 64 random bits, at most
//     every 200 ms while packets come. The client answers as it does any probe. The challenge
//     has [PacketSize] bytes if as many have come from there, and no padding otherwise. It is
//     all that the server sends to a candidate, and never more than three times the bytes that
//     have come from there.
//   - If the answer comes from the candidate within 3 s, the server uses that address from then
//     on, answers the last probe that came from there, and looks for the packet size again. It
//     also challenges the address before once, so that a client that is still there says so.
//   - Until then it goes on using the address before. If there is none, records travel over the
//     data connection.
//   - A packet from the address in use, with the highest sequence number so far, ends all
//     candidacies: the client is where its newest packet comes from.
//
// # Packet sizes
//
// Packets are sent with the don't-fragment bit where the operating system supports it. The
// UDP payload of a packet is at most [PacketSize] bytes at first, which fits every IPv6
// path, and more once a probe with padding of that size has been answered.
//
// A lost probe does not show why it was lost. Probes are therefore padded to the current
// maximum, and while one of them is unanswered, a short probe precedes each. An end reduces
// its maximum to the minimum once three short probes in a row have been answered and none of
// the padded ones. It tries larger sizes as soon as the path comes up, its maximum has been
// reduced, or the address of the client has changed: several times within the first second
// and then less and less often, down to once a minute. Such a try starts again after a time
// without any answers.
//
// # Split datagrams
//
// A datagram that does not fit into one packet is split into two halves, if both ends
// support that and the halves fit. The first half, a head, and the second half, a tail, have
// 1 to [MaxHalf] bytes each. They have the same flow and the same split, a number that the
// sender uses for one datagram only. Head and tail are sent in different packets, in this
// order, and may share them with other records. A head takes the place of the datagram
// after an open in the same packet.
//
// The receiver joins the halves, in whatever order they arrive. It may discard a half whose
// counterpart has not arrived: because it holds too many, or after a second. The datagram is
// then lost.
//
// A client that supports split datagrams requests [SubprotocolSplit] before [Subprotocol]
// when it upgrades a datagram data connection. A server that supports them selects it. An
// end sends halves only in a UDP session for which the other end has requested or selected
// it. If the other end has not, or if a datagram does not fit into two packets, it is sent
// over the data connection.
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
// SubprotocolPlain names the same protocol for a stream data connection that is not
// encrypted after its upgrade, SubprotocolSplit for a datagram data connection whose UDP
// session may split datagrams, and SubprotocolRatchet for one whose session does so and
// ratchets its keys.
const (
	Subprotocol        = "eclitunnel.v1"
	SubprotocolPlain   = "eclitunnel.v1.plain"
	SubprotocolSplit   = "eclitunnel.v1.split"
	SubprotocolRatchet = "eclitunnel.v1.ratchet"
)

// Paths of the tunnel server, and their query parameters.
const (
	PathLink = "/v1/link"
	PathData = "/v1/data"
	// KindParam is the [Kind] of a data connection. Only PathData has it.
	KindParam = "kind"
	// SessionParam is the name of a UDP session. Version 1 of the protocol calls a UDP
	// session a carrier.
	SessionParam = "carrier"
	// StreamsParam is the number of stream data connections that a client can have open,
	// on all its links. A server requests no more, and refuses the players for whom it
	// would. Absent: any number. Only PathLink has it.
	StreamsParam = "streams"
	// FlowsParam is the number of UDP flows that a client can have open, on all its links.
	// For a further one a server closes another, or refuses it. Absent: any number. Only
	// PathLink has it.
	FlowsParam = "flows"
)

// Limits of the protocol, in bytes.
const (
	MaxLinkMessage   = 64 << 10
	MaxControl       = 4 << 10
	MaxStreamMessage = 256 << 10
	// MaxPlainMessage is the limit of a binary message of a stream without encryption.
	MaxPlainMessage = 1 << 20
	// MaxDatagram is the largest payload of a UDP datagram over IPv4.
	MaxDatagram = 65507
	// BatchTarget is the size at which a sender ends a batch.
	BatchTarget = 64 << 10
	// MaxBatch is the limit of a batch: one byte less than its target, and the largest
	// datagram.
	MaxBatch = BatchTarget + MaxDatagram + maxRecordOverhead
	// MaxSessionName is the limit of the name of a UDP session.
	MaxSessionName = 32
	// MinPacket is the size of a sealed packet with one byte of records.
	MinPacket = 8 + 8 + 1 + 16
	// PacketSize is the UDP payload that fits the minimum MTU of IPv6, 1280 bytes.
	PacketSize = 1232
	// MaxHalf is the limit of half a split datagram. It is more than the UDP payload that
	// fits the MTU of Ethernet, 1500 bytes.
	MaxHalf = 1500
)

// Times of the protocol.
const (
	// SessionGrace is how long both ends keep a UDP session that has no link.
	SessionGrace = 30 * time.Second
	// ProbeInterval is the time between probes on a path that is in use and up.
	ProbeInterval = time.Second
	// PathTimeout is how long a probe may be unanswered while the path is up.
	PathTimeout = 1500 * time.Millisecond
	// Keepalive is the longest time without a packet on a path that is up. It is shorter
	// than the 30 s after which common NATs drop an idle UDP mapping.
	Keepalive = 15 * time.Second
	// EpochTime is how long an end that ratchets its keys uses those of one epoch while its
	// probes are answered.
	EpochTime = 2 * time.Minute
)

// ErrMalformed is the error, wrapped with the reason, of every decoder for bytes that
// violate the protocol.
var ErrMalformed = errors.New("wire: malformed")

// Kind is the kind of a data connection.
type Kind string

// The kinds of data connection.
const (
	KindStream   Kind = "stream"   // Carries one player's TCP connection at a time.
	KindDatagram Kind = "datagram" // Carries the records of a UDP session.
)

// Valid reports whether k is a known kind.
func (k Kind) Valid() bool { return k == KindStream || k == KindDatagram }
