//go:build linux

package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

// A home's uplink.
const (
	uplinkRate = "100mbit"
	// uplinkQueue is how many bytes wait in the modem, first in, first out.
	uplinkQueue = 256 << 10
	// uplinkMTU is the size of its packets. Loopback's are larger, and the kernel
	// joins some to one, of which a queue as short holds four.
	uplinkMTU = 1500
)

// Direction says which packets of a port take the uplink.
type Direction string

// The directions: to the port, from the port.
const (
	To   Direction = "dport"
	From Direction = "sport"
)

// Port is packets to or from a TCP or UDP port.
type Port struct {
	Direction Direction
	Number    int
}

// Uplink is a slow link from a home to the rest of the world, within a network
// namespace that nobody else uses. What passes it arrives on loopback like
// everything else and is sent on a detour there, to an intermediate functional
// block (ifb) with the queue. The sender's kernel has let go of a packet by
// then, so it neither sees the queue nor spares it (TCP small queues do, where
// the queue is the sender's own): the queue is a modem's.
type Uplink struct {
	// Congestion is the congestion control of sockets that choose none.
	Congestion string
}

// NewUplink prepares the calling process's network namespace, which must have
// no interface but loopback, until Close.
func NewUplink(ctx context.Context) (*Uplink, error) {
	if err := cluster.Alone(); err != nil {
		return nil, fmt.Errorf("shape an uplink: %w", err)
	}
	u := new(Uplink)
	var err error
	if u.Congestion, err = lossBased(); err != nil {
		return nil, err
	}
	for _, line := range []string{
		fmt.Sprintf("ip link set lo mtu %d gso_max_segs 1 up", uplinkMTU),
		"ip link add ifb0 type ifb",
		"ip link set ifb0 up",
		"tc qdisc add dev ifb0 root handle 1: htb default 1",
		fmt.Sprintf("tc class add dev ifb0 parent 1: classid 1:1 htb rate %s quantum %d", uplinkRate, 2*uplinkMTU),
	} {
		if err := command(ctx, line); err != nil {
			return nil, errors.Join(err, u.Close())
		}
	}
	return u, nil
}

// lossBased makes a congestion control that knows losses alone the default, as
// nearly every home's is, whatever this machine's is. Cubic may be used in a
// namespace only where the machine allows it to everybody.
func lossBased() (string, error) {
	const setting = "/proc/sys/net/ipv4/tcp_congestion_control"
	const first, second = "cubic", "reno"
	if os.WriteFile(setting, []byte(first), 0) == nil {
		return first, nil
	}
	return second, os.WriteFile(setting, []byte(second), 0)
}

// Shape makes the packets of these ports, and no others, take the uplink, whose
// queue is empty again.
func (*Uplink) Shape(ctx context.Context, ports []Port) error {
	lines := []string{
		"tc qdisc replace dev ifb0 parent 1:1 pfifo",
		fmt.Sprintf("tc qdisc replace dev ifb0 parent 1:1 bfifo limit %d", uplinkQueue),
		"nft add table netdev home",
		"nft delete table netdev home",
		"nft add table netdev home",
		"nft add chain netdev home up { type filter hook ingress device lo priority 0; }",
	}
	for _, p := range ports {
		lines = append(lines, fmt.Sprintf("nft add rule netdev home up th %s %d fwd to ifb0", p.Direction, p.Number))
	}
	for _, line := range lines {
		if err := command(ctx, line); err != nil {
			return err
		}
	}
	return nil
}

// Close makes the namespace's network what it was, but for the loopback's MTU.
func (*Uplink) Close() error {
	//nolint:errcheck // it fails where nothing was shaped
	command(context.Background(), "nft delete table netdev home")
	return command(context.Background(), "ip link del ifb0")
}

// command runs a command line whose words have no spaces.
func command(ctx context.Context, line string) error {
	words := strings.Fields(line)
	return cluster.Feed(ctx, words[0], "", words[1:]...)
}
