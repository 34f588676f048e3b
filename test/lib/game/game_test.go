package game

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func listen(t *testing.T) *Server {
	t.Helper()
	s, err := Listen(t.Context(), "127.0.0.1:0", "A test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestServer_AnswersBothEditionsOnOnePort(t *testing.T) {
	s := listen(t)
	pings := map[string]func(context.Context, string) (Status, time.Duration, error){
		"java": PingJava, "bedrock": PingBedrock,
	}
	for name, ping := range pings {
		status, rtt, err := ping(t.Context(), s.Addr())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := fmt.Sprintf("A test: ping %d, from 127.0.0.1:", s.Pings())
		if !strings.HasPrefix(status.MOTD, want) {
			t.Errorf("%s: MOTD %q, want %q…", name, status.MOTD, want)
		}
		if status.Max != maxPlayers || status.Protocol == 0 || status.Version == "" {
			t.Errorf("%s: incomplete status %+v", name, status)
		}
		if rtt <= 0 || rtt > patience {
			t.Errorf("%s: round trip %v", name, rtt)
		}
	}
	if s.Pings() != 2 {
		t.Errorf("counted %d pings, want 2", s.Pings())
	}
}

// The bytes are those of the published description, not of our own encoder.
func TestServer_AnswersTheProtocolAsPublished(t *testing.T) {
	s := listen(t)
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// Handshake (protocol 47, "localhost", 25565, status), status request, ping 42.
	request := unhex(t, "0f002f096c6f63616c686f737463dd01"+"0100"+"0901000000000000002a")
	if _, err := conn.Write(request); err != nil {
		t.Fatal(err)
	}
	var answer []byte
	buf := make([]byte, 1024)
	for !strings.HasSuffix(string(answer), string(unhex(t, "0901000000000000002a"))) {
		n, err := conn.Read(buf)
		if err != nil {
			t.Fatalf("after %q: %v", answer, err)
		}
		answer = append(answer, buf[:n]...)
	}
	if !strings.Contains(string(answer), `"description":{"text":"A test: ping 1,`) {
		t.Errorf("answer %q", answer)
	}
}

func TestServer_ReadsThePlayersAddressFromThePROXYHeader(t *testing.T) {
	s := listen(t)
	player := &net.TCPAddr{IP: net.ParseIP("203.0.113.7"), Port: 40123}
	for _, version := range []byte{1, 2} {
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		header := proxyproto.HeaderProxyFromAddrs(version, player, s.tcp.Addr())
		if _, err := header.WriteTo(conn); err != nil {
			t.Fatal(err)
		}
		status, _, err := askJava(conn, "example.com", 25565)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(status.MOTD, "from "+player.String()) {
			t.Errorf("v%d: MOTD %q, want it to end with %s", version, status.MOTD, player)
		}
	}

	from := &net.UDPAddr{IP: player.IP, Port: player.Port}
	header, err := proxyproto.HeaderProxyFromAddrs(2, from, s.udp.LocalAddr()).Format()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("udp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(appendPing(header, 1, 2)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	if _, status, err := parsePong(buf[:n]); err != nil || !strings.HasSuffix(status.MOTD, "from "+from.String()) {
		t.Errorf("status %+v, %v; want the MOTD to end with %s", status, err, from)
	}
}

func TestServer_HangsUpOnGarbage(t *testing.T) {
	s := listen(t)
	for _, garbage := range []string{
		"GET / HTTP/1.1\r\n" + strings.Repeat("Cookie: nonsense\r\n", 4) + "\r\n",
		"\x00",
		"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
		"\xff\xff\x7f",
		"\x02\x00\x02",
	} {
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := conn.Write([]byte(garbage)); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%q was answered", garbage)
		}
	}
	if s.Pings() != 0 {
		t.Errorf("counted %d pings", s.Pings())
	}
}

func TestPing_SaysWhenNobodyAnswers(t *testing.T) {
	s, err := Listen(t.Context(), "127.0.0.1:0", "gone")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := PingJava(t.Context(), s.Addr()); err == nil {
		t.Error("PingJava found a closed server")
	}
	if _, _, err := PingBedrock(t.Context(), s.Addr()); err == nil {
		t.Error("PingBedrock found a closed server")
	}
}

func TestPing_EndsWithItsContext(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	started := time.Now()
	if _, _, err := PingJava(ctx, ln.Addr().String()); err == nil {
		t.Error("a silent server was taken for a game")
	}
	if took := time.Since(started); took > patience/2 {
		t.Errorf("gave up after %v", took)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
