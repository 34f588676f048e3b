package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
)

// missingGame is a game that has not started yet. Its port is nobody's until then.
func missingGame(t *testing.T, protocol types.Protocol) (port int, start func() (stop func() error)) {
	t.Helper()
	listen := func(port int) (int, func() error) {
		if protocol == types.ProtocolUDP {
			c, err := net.ListenPacket("udp", loopback(port))
			if err != nil {
				t.Fatal(err)
			}
			return c.LocalAddr().(*net.UDPAddr).Port, c.Close
		}
		l, err := net.Listen("tcp", loopback(port))
		if err != nil {
			t.Fatal(err)
		}
		return l.Addr().(*net.TCPAddr).Port, l.Close
	}
	port, stop := listen(0)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	return port, func() func() error {
		_, stop := listen(port)
		t.Cleanup(func() { _ = stop() })
		return stop
	}
}

func TestCLI_ShowsWhetherThereIsAGame(t *testing.T) {
	const soon = 5 * time.Second // After its start or end.
	w := sharedFor(t)
	for _, protocol := range []types.Protocol{types.ProtocolTCP, types.ProtocolUDP} {
		t.Run(string(protocol), func(t *testing.T) {
			ctx := within(t, 3*patience)
			port, start := missingGame(t, protocol)
			hint := fmt.Sprintf("nothing listens on %s: start the game", loopback(port))
			out, err := w.agent.Command(ctx, "open", string(protocol), fmt.Sprint(port)).CombinedOutput()
			if err != nil || !strings.Contains(string(out), "listening, no game") || !strings.Contains(string(out), hint) {
				t.Errorf("open: %v\n%s", err, out)
			}
			list := func(ctx context.Context) (a types.Allocation, err error) {
				out, err := w.agent.Run(ctx, "list", "--json")
				if err != nil {
					return a, err
				}
				var all []types.Allocation
				if err := json.Unmarshal([]byte(out), &all); err != nil {
					return a, err
				}
				for _, a = range all {
					if a.LocalPort == port {
						return a, nil
					}
				}
				return a, fmt.Errorf("not listed: %s", out)
			}
			a, err := list(ctx)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { w.withdraw(t, []types.Allocation{a}) })
			become := func(what string, target types.TargetState) {
				t.Helper()
				await.Within(t, soon, what, func(ctx context.Context) (bool, error) {
					a, err := list(ctx)
					if err == nil && a.Target != target {
						err = fmt.Errorf("the target is %s", a.Target)
					}
					return err == nil, err
				})
			}
			if out, err := w.agent.Run(ctx, "status"); err != nil || !strings.Contains(out, "without a game") || !strings.Contains(out, hint) {
				t.Errorf("status: %v\n%s", err, out)
			}
			stop := start()
			become("the game that has started", types.TargetUp)
			if err := stop(); err != nil {
				t.Fatal(err)
			}
			become("the game that has ended", types.TargetDown)
			if out := w.running.Output(); !strings.Contains(out, hint) || !strings.Contains(out, "the game is there") {
				t.Errorf("run said\n%s", out)
			}
		})
	}
}
