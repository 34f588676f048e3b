package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

// startNeighbours starts a game on neighbouring ports. Over TCP and UDP, each port
// answers with its protocol and number. It returns the first port.
func startNeighbours(t *testing.T, count int) int {
	t.Helper()
	first, err := cluster.FreePorts(t.Context(), count)
	if err != nil {
		t.Fatal(err)
	}
	for port := first; port < first+count; port++ {
		listener, err := net.Listen("tcp", loopback(port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { listener.Close() })
		packets, err := net.ListenPacket("udp", loopback(port))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { packets.Close() })
		go func() {
			for {
				conn, err := listener.Accept()
				if err != nil {
					return
				}
				fmt.Fprintf(conn, "tcp %d", port)
				conn.Close()
			}
		}()
		go func() {
			buffer := make([]byte, 100)
			for {
				_, player, err := packets.ReadFrom(buffer)
				if err != nil {
					return
				}
				packets.WriteTo(fmt.Appendf(nil, "udp %d", port), player) //nolint:errcheck // the player asks again
			}
		}()
	}
	return first
}

// whoAnswers returns what the game answers a new player, or "".
func whoAnswers(ctx context.Context, protocol types.Protocol, address string) string {
	conn, err := new(net.Dialer).DialContext(ctx, string(protocol), address)
	if err != nil {
		return ""
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if protocol == types.ProtocolUDP {
		if _, err := conn.Write([]byte("?")); err != nil {
			return ""
		}
		buffer := make([]byte, 100)
		n, _ := conn.Read(buffer)
		return string(buffer[:n])
	}
	answer, _ := io.ReadAll(conn)
	return string(answer)
}

func TestCLI_ARunOfPortsReachesTheGamesNeighbours(t *testing.T) {
	w := sharedFor(t)
	ctx := within(t, 2*patience)
	for _, c := range []struct {
		protocol string
		count    int
		rows     int
	}{{"udp", 3, 1}, {"tcp", 2, 1}, {"TCP+UDP", 4, 2}} {
		t.Run(c.protocol, func(t *testing.T) {
			local := startNeighbours(t, c.count)
			target := fmt.Sprintf("127.0.0.1:%d-%d", local, local+c.count-1)
			open := func() (opened []types.Allocation) {
				out, err := w.agent.Run(ctx, "open", c.protocol, target, "--json")
				if err != nil {
					t.Fatal(err)
				}
				if err := json.Unmarshal([]byte(out), &opened); err != nil || len(opened) != c.count*c.rows {
					t.Fatalf("%v: opened %s", err, out)
				}
				return opened
			}
			opened := open()
			for _, a := range opened {
				if a.Port-opened[0].Port != a.LocalPort-local {
					t.Errorf("public port %d leads to %d, and %d to %d", a.Port, a.LocalPort, opened[0].Port, local)
				}
				want := fmt.Sprintf("%s %d", a.Protocol, a.LocalPort)
				await.Within(t, patience, want, func(ctx context.Context) (bool, error) {
					ctx, cancel := context.WithTimeout(ctx, patience/10)
					defer cancel()
					switch answer := whoAnswers(ctx, a.Protocol, a.PublicAddress); answer {
					case want:
						return true, nil
					case "":
						return false, nil // The datagram may be lost.
					default:
						return false, fmt.Errorf("%s port %d answers %q", a.Protocol, a.Port, answer)
					}
				})
			}
			if again := open(); again[0].ID != opened[0].ID {
				t.Errorf("opened again as %+v", again[0])
			}
			public := fmt.Sprintf("%s-%d", opened[0].PublicAddress, opened[0].Port+c.count-1)
			if out, err := w.agent.Run(ctx, "list"); err != nil || strings.Count(out, public) != c.rows {
				t.Errorf("%v: %d rows with %s in\n%s", err, c.rows, public, out)
			}
			out, err := w.agent.Run(ctx, "close", fmt.Sprintf("%d-%d", opened[0].Port, opened[0].Port+c.count-1))
			if err != nil || strings.Count(out, "closed ") != len(opened) {
				t.Errorf("%v: closed %s", err, out)
			}
			if out, err := w.agent.Run(ctx, "list"); err != nil || strings.Contains(out, target) {
				t.Errorf("%v: still listed:\n%s", err, out)
			}
		})
	}
}

// An agent that does not run yet: its port is kept, and the exit code says that nobody
// can join.
func TestCLI_OpenOfflineKeepsThePort(t *testing.T) {
	w := sharedFor(t)
	ctx := within(t, 2*patience)
	offline := cluster.NewAgent(binaries, t.TempDir(), "offline", nil)
	if err := offline.Enroll(ctx, w.panel); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // The world is shared, and its ports are few.
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if _, err := w.panel.API.DeleteDeviceWithResponse(ctx, offline.Device.ID); err != nil {
			t.Error(err)
		}
	})
	for _, c := range []struct {
		args []string
		code int
	}{
		{[]string{"tcp", "25565"}, 12},
		{[]string{"udp", "2456-2458"}, 12},
		{[]string{"tcp+udp", "19132", "--wait", "0s"}, 0},
		{[]string{"udp", "2456-2458"}, 12}, // It is open already.
		{[]string{"tcp", "25566-25565"}, 2},
	} {
		process, err := cluster.StartProcess("open", offline.Command(ctx, append([]string{"open"}, c.args...)...), nil)
		if err != nil {
			t.Fatal(err)
		}
		if code, err := process.Wait(ctx); err != nil || code != c.code {
			t.Errorf("open %v: exit code %d, want %d (%v): %s", c.args, code, c.code, err, process.Output())
		}
	}
	out, err := offline.Run(ctx, "list")
	if err != nil || strings.Count(out, "offline") != 4 {
		t.Errorf("%v: listed\n%s", err, out)
	}
}
