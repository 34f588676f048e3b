package gameping

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
	"time"
)

// State is what became of a probe.
type State string

// The states.
const (
	Answered    State = "answered"    // Something was sent back; Reply.Game says what, if that is known.
	Open        State = "open"        // TCP: the connection was accepted and stayed open, and nothing was sent back.
	Closed      State = "closed"      // TCP: the connection was accepted and then closed, and nothing was sent back.
	Refused     State = "refused"     // Nothing listens there, or a firewall rejects.
	Silent      State = "silent"      // Nothing came back at all.
	Unreachable State = "unreachable" // It could not be tried; Reply.Reason says why.
)

// Reply is the result of a probe.
type Reply struct {
	State State
	// Early means, of Closed, that the end closed the connection before anything was sent
	// to it.
	Early bool
	// Reason is for people; "" unless the state is Unreachable.
	Reason string
	// Game is nil if what answered is no known game.
	Game *Game
	// RoundTrip is the time from the query to the answer; 0 without an answer.
	RoundTrip time.Duration
}

// DefaultTimeout bounds a probe.
const DefaultTimeout = 3 * time.Second

const (
	// earlyWait is how long a new TCP connection may be closed or greeted before anything is
	// sent: what a tunnel server does not let in is closed at once.
	earlyWait = 300 * time.Millisecond
	// answerWait is for how long an answer is waited for.
	answerWait = 1500 * time.Millisecond
	// repeatWait is when a datagram is sent once more.
	repeatWait = 700 * time.Millisecond
	maxAnswers = 16 // Datagrams that are looked at.
)

// Options say how a probe reaches the game.
type Options struct {
	// Host is the host name that the query of Minecraft names, as players enter it; "" is the
	// address.
	Host string
	// Dial connects; nil: a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Header goes before the first byte of TCP, and before each datagram: a header of the
	// PROXY protocol. nil: none.
	Header []byte
	// Timeout bounds the probe; 0: DefaultTimeout.
	Timeout time.Duration
}

// Probe asks the game at host:port over "tcp" or "udp", and returns once it has answered, has
// refused or the time is over. It opens one connection, or one socket, and sends the queries
// of all protocols of that transport.
func Probe(ctx context.Context, network, address string, o Options) Reply {
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	conn, err := o.Dial(ctx, network, address)
	if err != nil {
		return failed(err)
	}
	defer conn.Close()
	// Reads end by their deadlines; this is for a caller that goes away.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	end, _ := ctx.Deadline()
	p := prober{Conn: conn, end: end.Add(-endMargin)}
	if network == "udp" {
		return p.probeUDP(o)
	}
	return p.probeTCP(address, o)
}

// endMargin is how long before the end of a probe its last read ends.
const endMargin = 50 * time.Millisecond

// prober is one connection or socket of a probe.
type prober struct {
	net.Conn
	end time.Time
}

// within sets the deadline of a read.
func (p prober) within(wait time.Duration) error {
	at := time.Now().Add(wait)
	if at.After(p.end) {
		at = p.end
	}
	return p.SetReadDeadline(at)
}

// failed returns the reply to a probe that got no answer because of err.
func failed(err error) Reply {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return Reply{State: Refused}
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return Reply{State: Silent}
	}
	var number syscall.Errno
	if errors.As(err, &number) {
		return Reply{State: Unreachable, Reason: number.Error()}
	}
	return Reply{State: Unreachable, Reason: clean(err.Error())}
}

func (p prober) probeTCP(address string, o Options) Reply {
	if len(o.Header) > 0 {
		if _, err := p.Write(o.Header); err != nil {
			return Reply{State: Closed, Early: true}
		}
	}
	begin := time.Now()
	data, err := p.readFirst(nil, earlyWait)
	if err != nil && !timedOut(err) {
		return Reply{State: Closed, Early: true}
	}
	if len(data) > 0 { // The server speaks first.
		return Reply{State: Answered, RoundTrip: time.Since(begin)}
	}
	host, port := endpoint(address)
	if o.Host != "" {
		host = o.Host
	}
	begin = time.Now()
	if _, err := p.Write(javaQuery(host, port)); err != nil {
		return Reply{State: Closed}
	}
	var took time.Duration
	for more := true; more; {
		data, err = p.readFirst(data, answerWait)
		if took == 0 && len(data) > 0 {
			took = time.Since(begin)
		}
		var game Game
		var ok bool
		if game, ok, more = parseJava(data); ok {
			return Reply{State: Answered, Game: &game, RoundTrip: took}
		}
		if err != nil {
			break
		}
	}
	switch {
	case len(data) > 0:
		return Reply{State: Answered, RoundTrip: took}
	case timedOut(err):
		return Reply{State: Open}
	default:
		return Reply{State: Closed}
	}
}

// readFirst appends to data what arrives next.
func (p prober) readFirst(data []byte, wait time.Duration) ([]byte, error) {
	if err := p.within(wait); err != nil {
		return data, err
	}
	buffer := make([]byte, 4096)
	n, err := p.Read(buffer)
	if n > 0 {
		return append(data, buffer[:n]...), nil
	}
	return data, err
}

func timedOut(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func endpoint(address string) (host string, port uint16) {
	host, text, _ := net.SplitHostPort(address)
	n, _ := strconv.ParseUint(text, 10, 16)
	return host, uint16(n)
}

func (p prober) probeUDP(o Options) Reply {
	nonce := rand.Uint64()
	queries := [][]byte{
		bedrockQuery(nonce), a2sQuery(nil), quake3Query(), luantiQuery(), teamSpeakQuery(nonce), mumbleQuery(nonce),
	}
	send := func(query []byte) error {
		_, err := p.Write(append(o.Header[:len(o.Header):len(o.Header)], query...))
		return err
	}
	begin, reply := time.Now(), Reply{State: Silent}
	buffer := make([]byte, 64<<10)
	answers := 0
	for _, wait := range []time.Duration{repeatWait, answerWait} {
		for _, query := range queries {
			if err := send(query); err != nil {
				return orAnswered(reply, err)
			}
		}
		for end := time.Now().Add(wait); answers < maxAnswers; answers++ {
			if err := p.within(time.Until(end)); err != nil {
				return orAnswered(reply, err)
			}
			n, err := p.Read(buffer)
			if timedOut(err) {
				break
			}
			if err != nil {
				return orAnswered(reply, err)
			}
			if reply.State != Answered {
				reply.State, reply.RoundTrip = Answered, time.Since(begin)
			}
			game, ok, next := parseDatagram(stripHeader(buffer[:n], o.Header), nonce)
			if next != nil {
				_ = send(next) // If it is lost, the queries are repeated.
			}
			if ok {
				reply.Game = &game
				return reply
			}
		}
		if reply.State == Answered {
			return reply
		}
	}
	return reply
}

// orAnswered returns a reply that has an answer, and otherwise that to err.
func orAnswered(reply Reply, err error) Reply {
	if reply.State == Answered {
		return reply
	}
	return failed(err)
}

// stripHeader removes the header that a game which takes the PROXY protocol may answer with.
func stripHeader(data, header []byte) []byte {
	const fixed = 16
	if len(header) == 0 || len(data) < fixed || string(data[:12]) != string(header[:12]) {
		return data
	}
	if length := fixed + int(binary.BigEndian.Uint16(data[14:])); length <= len(data) {
		return data[length:]
	}
	return data
}

// parseDatagram parses an answer to one of the queries. Next, if it is not nil, is to be sent
// then.
func parseDatagram(data []byte, nonce uint64) (game Game, ok bool, next []byte) {
	if game, ok = parseBedrock(data, nonce); ok {
		return game, true, nil
	}
	game, challenge, ok := parseA2S(data)
	if challenge != nil {
		next = a2sQuery(challenge)
	}
	if ok || next != nil {
		return game, ok, next
	}
	if game, ok = parseQuake3(data); ok {
		return game, true, nil
	}
	if game, next, ok = parseLuanti(data); ok {
		return game, true, next
	}
	if game, ok = parseTeamSpeak(data); ok {
		return game, true, nil
	}
	game, ok = parseMumble(data, nonce)
	return game, ok, nil
}
