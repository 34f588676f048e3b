package gameping_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/gameping"
)

// listen has each connection served by serve, and returns the address.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn)
			}()
		}
	}()
	return listener.Addr().String()
}

// answerDatagrams answers each datagram with those that answer returns for it.
func answerDatagrams(t *testing.T, answer func(query []byte) [][]byte) string {
	t.Helper()
	socket, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { socket.Close() })
	go func() {
		buffer := make([]byte, 2048)
		for {
			n, from, err := socket.ReadFrom(buffer)
			if err != nil {
				return
			}
			for _, data := range answer(buffer[:n]) {
				_, _ = socket.WriteTo(data, from)
			}
		}
	}()
	return socket.LocalAddr().String()
}

func readAll(conn net.Conn) { _, _ = io.Copy(io.Discard, conn) }

func TestProbe_TCP(t *testing.T) {
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	status := `{"version":{"name":"1.21.4"},"players":{"max":20,"online":2},"description":"Home"}`
	for name, c := range map[string]struct {
		address string
		want    gameping.Reply
	}{
		"a Minecraft server": {listen(t, func(conn net.Conn) {
			query := make([]byte, 64)
			n, _ := conn.Read(query)
			if !bytes.Contains(query[:n], []byte("play.example.com")) {
				return
			}
			body := binary.AppendUvarint([]byte{0}, uint64(len(status)))
			body = append(body, status...)
			answer := append(binary.AppendUvarint(nil, uint64(len(body))), body...)
			_, _ = conn.Write(answer[:10])
			_, _ = conn.Write(answer[10:])
			readAll(conn)
		}), gameping.Reply{State: gameping.Answered, Game: &gameping.Game{Kind: gameping.MinecraftJava, Name: "Home", Version: "1.21.4", Players: 2, MaxPlayers: 20}}},
		"a server that speaks first": {listen(t, func(conn net.Conn) { _, _ = io.WriteString(conn, "SSH-2.0-x\r\n"); readAll(conn) }), gameping.Reply{State: gameping.Answered}},
		"another server": {listen(t, func(conn net.Conn) {
			_, _ = io.ReadAtLeast(conn, make([]byte, 64), 5)
			_, _ = io.WriteString(conn, "what?")
		}), gameping.Reply{State: gameping.Answered}},
		"a silent server":         {listen(t, readAll), gameping.Reply{State: gameping.Open}},
		"a server that is closed": {listen(t, func(net.Conn) {}), gameping.Reply{State: gameping.Closed, Early: true}},
		"a server that hangs up":  {listen(t, func(conn net.Conn) { _, _ = conn.Read(make([]byte, 64)) }), gameping.Reply{State: gameping.Closed}},
		"no server":               {free.Addr().String(), gameping.Reply{State: gameping.Refused}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			expect(t, gameping.Probe(t.Context(), "tcp", c.address, gameping.Options{Host: "play.example.com"}), c.want)
		})
	}
}

func expect(t *testing.T, got, want gameping.Reply) {
	t.Helper()
	switch {
	case got.State != want.State, got.Early != want.Early, got.Reason != want.Reason:
		t.Errorf("%+v", got)
	case (got.Game == nil) != (want.Game == nil), got.Game != nil && *got.Game != *want.Game:
		t.Errorf("%+v", got.Game)
	case (got.State == gameping.Answered) != (got.RoundTrip > 0):
		t.Errorf("the round trip is %v", got.RoundTrip)
	}
}

func TestProbe_UDP(t *testing.T) {
	free, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	oob := []byte{0xff, 0xff, 0xff, 0xff}
	for name, c := range map[string]struct {
		address string
		want    gameping.Reply
	}{
		"a game that asks for its challenge": {answerDatagrams(t, func(query []byte) [][]byte {
			switch {
			case !bytes.HasPrefix(query, append(oob, 'T')):
				return nil
			case !bytes.HasSuffix(query, []byte("\x001234")):
				return [][]byte{append(oob[:4:4], "A1234"...)}
			}
			return [][]byte{append(oob[:4:4], "I\x11Rust\x00m\x00f\x00g\x00\x00\x00\x05\x32\x00dl\x00\x012025\x00"...)}
		}), gameping.Reply{State: gameping.Answered, Game: &gameping.Game{Kind: gameping.Source, Name: "Rust", Version: "2025", Players: 5, MaxPlayers: 50}}},
		"a Bedrock server": {answerDatagrams(t, func(query []byte) [][]byte {
			if query[0] != 1 {
				return nil
			}
			answer := append([]byte{0x1c}, query[1:9]...)
			answer = append(answer, make([]byte, 8)...)
			answer = append(answer, query[9:25]...)
			text := "MCPE;Home;800;1.21.80;1;10;1;w;"
			answer = binary.BigEndian.AppendUint16(answer, uint16(len(text)))
			return [][]byte{append(answer, text...)}
		}), gameping.Reply{State: gameping.Answered, Game: &gameping.Game{Kind: gameping.MinecraftBedrock, Name: "Home", Version: "1.21.80", Players: 1, MaxPlayers: 10}}},
		"a game that is not known": {answerDatagrams(t, func([]byte) [][]byte { return [][]byte{{1}} }), gameping.Reply{State: gameping.Answered}},
		"a game that is silent":    {answerDatagrams(t, func([]byte) [][]byte { return nil }), gameping.Reply{State: gameping.Silent}},
		"no game":                  {free.LocalAddr().String(), gameping.Reply{State: gameping.Refused}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			expect(t, gameping.Probe(t.Context(), "udp", c.address, gameping.Options{}), c.want)
		})
	}
}

func TestProbe_EndsWithAnEndlessAnswer(t *testing.T) {
	t.Parallel()
	address := listen(t, func(conn net.Conn) {
		_, _ = io.ReadAtLeast(conn, make([]byte, 64), 5)
		_, _ = conn.Write([]byte{0x80, 0x80, 0x02, 0x00})
		for range time.Tick(50 * time.Millisecond) {
			if _, err := conn.Write([]byte{'x'}); err != nil {
				return
			}
		}
	})
	begin := time.Now()
	reply := gameping.Probe(t.Context(), "tcp", address, gameping.Options{Timeout: time.Second})
	if took := time.Since(begin); reply.State != gameping.Answered || took > 2*time.Second {
		t.Errorf("%+v after %v", reply, took)
	}
}
