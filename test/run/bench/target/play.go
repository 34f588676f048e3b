package target

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/eclitunnel/eclitunnel/test/run/bench/pattern"
)

// play serves one player until either is done.
func play(conn *net.TCPConn) error {
	if _, err := conn.Write([]byte{Greeting}); err != nil {
		return err
	}
	var buf [RequestSize]byte
	if _, err := io.ReadFull(conn, buf[:]); err != nil {
		return err
	}
	switch r := decodeRequest(buf[:]); r.Op {
	case OpDownload:
		return send(conn, r.Arg)
	case OpUpload:
		return receive(conn, r.Arg)
	case OpEcho:
		return echo(conn)
	case OpCount:
		return count(conn)
	default:
		return fmt.Errorf("no such request: %q", r.Op)
	}
}

// tick is how often a download at a given rate sends.
const tick = time.Millisecond

// send sends the pattern until the player leaves.
func send(conn net.Conn, rate uint64) error {
	started := time.Now()
	// What is due grows while it is being sent. Less than a tick's worth waits for
	// the next tick, or the game would never sleep.
	step := rate * uint64(tick) / uint64(time.Second)
	for position := uint64(0); ; {
		n := pattern.MaxSlice
		if rate > 0 {
			due := uint64(time.Since(started).Seconds() * float64(rate))
			if due < position+step {
				time.Sleep(tick)
				continue
			}
			n = int(min(due-position, pattern.MaxSlice))
		}
		written, err := conn.Write(pattern.Slice(position, n))
		if err != nil {
			return err
		}
		position += uint64(written)
	}
}

// receive verifies the pattern and acknowledges every block.
func receive(conn net.Conn, block uint64) error {
	if block == 0 {
		return errors.New("upload without a block size")
	}
	buf := make([]byte, 256<<10)
	var ack [8]byte
	for position := uint64(0); ; {
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		if err := pattern.Check(buf[:n], position); err != nil {
			return err
		}
		before := position / block
		position += uint64(n)
		if position/block == before {
			continue
		}
		binary.LittleEndian.PutUint64(ack[:], position/block*block)
		if _, err := conn.Write(ack[:]); err != nil {
			return err
		}
	}
}

func echo(conn net.Conn) error {
	buf := make([]byte, 4<<10)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return err
		}
		if _, err := conn.Write(buf[:n]); err != nil {
			return err
		}
	}
}

// count says how much came before the end of the stream. It can be said only
// where the end of one direction leaves the other open.
func count(conn *net.TCPConn) error {
	buf := make([]byte, 64<<10)
	for position := uint64(0); ; {
		n, err := conn.Read(buf)
		if err := pattern.Check(buf[:n], position); err != nil {
			return err
		}
		position += uint64(n)
		if errors.Is(err, io.EOF) {
			_, err := conn.Write(binary.LittleEndian.AppendUint64(nil, position))
			return err
		}
		if err != nil {
			return err
		}
	}
}

const (
	// udpBatch is how many datagrams one system call takes.
	udpBatch = 64
	// udpBuffer is the room for datagrams that wait, in bytes: the game must
	// not be what loses them.
	udpBuffer = 8 << 20
	// maxDatagram takes every datagram that the bench sends.
	maxDatagram = 2048
)

// echoDatagrams sends every datagram back until the socket is closed.
func echoDatagrams(conn *net.UDPConn) {
	//nolint:errcheck // the kernel's default is less room and no reason to stop
	conn.SetReadBuffer(udpBuffer)
	batch := ipv4.NewPacketConn(conn)
	messages := make([]ipv4.Message, udpBatch)
	for i := range messages {
		messages[i].Buffers = [][]byte{make([]byte, maxDatagram)}
	}
	for {
		n, err := batch.ReadBatch(messages, 0)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // an ICMP error of an earlier answer
		}
		for i := range messages[:n] {
			messages[i].Buffers[0] = messages[i].Buffers[0][:messages[i].N]
		}
		sendAll(batch, messages[:n])
		for i := range messages[:n] {
			messages[i].Buffers[0] = messages[i].Buffers[0][:maxDatagram]
		}
	}
}

// sendAll sends every message; one that the kernel refuses is skipped, as any
// game would.
func sendAll(batch *ipv4.PacketConn, messages []ipv4.Message) {
	for len(messages) > 0 {
		n, err := batch.WriteBatch(messages, 0)
		if err != nil || n == 0 {
			n = 1
		}
		messages = messages[n:]
	}
}
