package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/clustertest"
	"github.com/eclitunnel/eclitunnel/test/lib/game"
)

// from connects a player who has an address of the loopback to a public port.
func from(t testing.TB, ip, network, public string) net.Conn {
	t.Helper()
	dialer := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	if network == "udp" {
		dialer.LocalAddr = &net.UDPAddr{IP: net.ParseIP(ip)}
	}
	conn, err := dialer.DialContext(t.Context(), network, net.JoinHostPort("127.0.0.1", portOf(t, public)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// teeworlds is a Teeworlds server and its console.
type teeworlds struct {
	t       *testing.T
	port    int
	console net.Conn
	lines   *bufio.Reader
}

// startTeeworlds starts a server that takes four players of an address.
func startTeeworlds(t *testing.T) *teeworlds {
	t.Helper()
	ports, err := cluster.FreePorts(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	g := &teeworlds{t: t, port: ports}
	serve(t, ports+1, "teeworlds-server",
		"bindaddr 127.0.0.1", fmt.Sprintf("sv_port %d", ports), "sv_register 0", "sv_max_clients_per_ip 4",
		"conn_timeout 100", // The players of this test send nothing once they are in.
		"ec_bindaddr 127.0.0.1", fmt.Sprintf("ec_port %d", ports+1), "ec_password console")
	g.console, err = new(net.Dialer).DialContext(t.Context(), "tcp", loopback(ports+1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.console.Close() })
	_ = g.console.SetDeadline(time.Now().Add(2 * time.Minute))
	g.lines = bufio.NewReader(g.console)
	g.say("console", "successful")
	return g
}

// say enters a line in the server's console and returns the next one with these words.
func (g *teeworlds) say(line, words string) string {
	g.t.Helper()
	if _, err := g.console.Write([]byte(line + "\n")); err != nil {
		g.t.Fatal(err)
	}
	for {
		printed, err := g.lines.ReadString('\n')
		if err != nil {
			g.t.Fatalf("%q is not printed after %q: %v", words, line, err)
		}
		if strings.Contains(printed, words) {
			return printed
		}
	}
}

var loopbackAddress = regexp.MustCompile(`127\.\d+\.\d+\.\d+`)

func TestTeeworlds_LimitsAndBansCountPlayers(t *testing.T) {
	w := sharedFor(t)
	for name, c := range map[string]struct {
		options *types.AllocationOptions
		fifth   string // Why the fifth player is refused; "": not at all.
	}{
		"an address each": {nil, ""},
		"one address":     {&types.AllocationOptions{PlayerAddresses: new(bool)}, "Only 4 players with the same IP"},
	} {
		t.Run(name, func(t *testing.T) {
			g := startTeeworlds(t)
			public := w.expose(t, types.CreateUDP, g.port, c.options)
			players := make([]net.Conn, 5)
			for i := range players {
				players[i] = from(t, fmt.Sprintf("127.0.0.%d", 11+i), "udp", public)
				err := game.JoinTeeworlds(t.Context(), players[i])
				var refused *game.RefusedError
				switch {
				case i == 4 && c.fifth != "":
					if !errors.As(err, &refused) || !strings.Contains(refused.Reason, c.fifth) {
						t.Errorf("the fifth player: %v", err)
					}
				case err != nil:
					t.Errorf("player %d: %v", i+1, err)
				}
			}
			if c.fifth != "" {
				return
			}
			status := g.say("status", "connecting")
			banned := loopbackAddress.FindString(status)
			if banned == "" || banned == "127.0.0.1" {
				t.Fatalf("the first player is %q", status)
			}
			g.say("ban "+banned+" 5 cheating", "banned")
			if reason, err := game.AwaitTeeworldsClose(players[0]); err != nil || !strings.Contains(reason, "cheating") {
				t.Errorf("the banned player is disconnected because of %q (%v)", reason, err)
			}
			for i := range players[1:] {
				g.say("status", fmt.Sprintf("id=%d ", i+1)) // The others are still in.
			}
			// The server does not answer those who are banned.
			if err := game.JoinTeeworlds(within(t, 2*time.Second), from(t, "127.0.0.11", "udp", public)); err == nil {
				t.Error("the banned player is back")
			}
			if err := game.JoinTeeworlds(t.Context(), from(t, "127.0.0.16", "udp", public)); err != nil {
				t.Errorf("a newcomer: %v", err)
			}
		})
	}
}

func TestMumble_BansWhoConnectsTooOften(t *testing.T) {
	w, port, dir := sharedFor(t), freePort(t), t.TempDir()
	const attempts = 5
	config := filepath.Join(dir, "murmur.ini")
	writeFile(t, config, fmt.Appendf(nil, "uname=root\nhost=127.0.0.1\nport=%d\ndatabase=%s\nlogfile=\npidfile=\nice=\nbonjour=false\nautobanAttempts=%d\nautobanTimeframe=120\nautobanTime=300\n",
		port, filepath.Join(dir, "murmur.sqlite"), attempts), 0o600)
	server, err := cluster.StartProcess("murmurd", exec.Command(find(t, "murmurd"), "-fg", "-ini", config), nil)
	if err != nil {
		t.Fatal(err)
	}
	clustertest.StopAtEnd(t, server)
	// Not by a connection, which would count.
	await.Within(t, patience, "listening murmurd", func(context.Context) (bool, error) {
		return strings.Contains(server.Output(), "Server listening on"), nil
	})
	public := w.expose(t, types.CreateTCP, port, nil)
	join := func(ip, name string) error {
		joined, err := game.JoinMumble(t.Context(), from(t, ip, "tcp", public), name)
		if err == nil {
			t.Cleanup(func() { _ = joined.Close() })
		}
		return err
	}
	if err := join("127.0.0.21", "early"); err != nil {
		t.Fatal(err)
	}
	banned := false
	for i := range 2 * attempts {
		if err := join("127.0.0.22", fmt.Sprintf("repeat%d", i)); err != nil {
			banned = true
			break
		}
	}
	if !banned {
		t.Error("one address may connect as often as it likes")
	}
	for _, ip := range []string{"127.0.0.21", "127.0.0.23", "127.0.0.24"} {
		if err := join(ip, "player"+ip[len(ip)-1:]); err != nil {
			t.Errorf("a player at %s: %v\n%s", ip, err, server.Output())
		}
	}
}
