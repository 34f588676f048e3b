package e2e

import (
	"strconv"
	"strings"
	"testing"

	"github.com/eclitunnel/eclitunnel/gen/types"
)

func TestDNS_OverUDPAndTCPOnOnePort(t *testing.T) {
	w, port := sharedFor(t), freePort(t)
	long := strings.Repeat("abcdefghij", 20)
	args := []string{
		"--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file=",
		"--listen-address=127.0.0.1", "--bind-interfaces", "--port=" + strconv.Itoa(port),
		"--user=", "--group=", // as the user who runs the test: there is no privilege to drop
		"--address=/game.example/203.0.113.7", "--edns-packet-max=4096",
	}
	for i := range 5 {
		args = append(args, "--txt-record=long.example,"+strconv.Itoa(i)+long)
	}
	serve(t, port, "dnsmasq", args...)
	public := portOf(t, w.expose(t, types.CreateTCPUDP, port, nil))

	for _, transport := range []string{"+notcp", "+tcp"} {
		dig := func(args ...string) string {
			args = append([]string{"@127.0.0.1", "-p", public, transport, "+ignore", "+tries=3", "+time=5"}, args...)
			return command(t, patience, "dig", args...)
		}
		if out := dig("+short", "game.example"); strings.TrimSpace(out) != "203.0.113.7" {
			t.Errorf("%s: %q", transport, out)
		}
		// More than one Ethernet frame holds: the datagram must come whole.
		if out := dig("+short", "+bufsize=4096", "long.example", "TXT"); strings.Count(out, long) != 5 {
			t.Errorf("%s: a long answer came as %q", transport, out)
		}
	}
}
