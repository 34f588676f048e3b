package e2e

import (
	"encoding/json"
	"net"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

// TestCheck_NamesAFirewallBeforeTheTunnelServer has packets to a public port dropped, as a
// hosting provider's firewall does: the port is open, and nobody gets there.
func TestCheck_NamesAFirewallBeforeTheTunnelServer(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	feed := func(program, lines string, args ...string) {
		t.Helper()
		if err := cluster.Feed(t.Context(), program, lines, args...); err != nil {
			t.Fatal(err)
		}
	}
	feed("ip", "link set lo up\n", "-batch", "-")
	w := makeWorld(t, embedded)
	w.secondServer(t) // It plays the player.
	_, port, err := net.SplitHostPort(w.expose(t, types.CreateTCP, startEcho(t).port, nil))
	if err != nil {
		t.Fatal(err)
	}
	check := func(args ...string) (string, error) {
		return w.agent.Run(within(t, patience), append([]string{"check", port}, args...)...)
	}
	if out, err := check(); err != nil {
		t.Errorf("without a firewall: %v: %s", err, out)
	}

	feed("nft", "table ip firewall { chain input { type filter hook input priority 0;\ntcp dport "+port+" drop;\n}\n}\n", "-f", "-")
	out, err := check()
	if err == nil || !strings.Contains(out+err.Error(), "a firewall is in front of it") {
		t.Errorf("with a firewall: %v: %s", err, out)
	}
	out, err = check("--json")
	var checks []types.AllocationCheck
	if json.Unmarshal([]byte(out), &checks) != nil || len(checks) != 1 || checks[0].Outcome != types.CheckFirewall {
		t.Errorf("as JSON: %v: %s", err, out)
	}
}
