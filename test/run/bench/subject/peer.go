//go:build linux

package subject

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/eclitunnel/eclitunnel/test/run/bench/machine"
)

// Peer is a tunnel that somebody else has started.
type Peer struct {
	Subject
	// Target is the local address that it leads to, where the bench runs its game.
	Target string
}

// ParsePeer reads a peer's description:
//
//	name=frp,tcp=127.0.0.1:7001,udp=127.0.0.1:7002,target=127.0.0.1:7999,pids=17,18,uplink=7000
//
// where tcp and udp are its public addresses, pids the processes at its two
// ends, and uplink the port of its server that its client connects to. UDP and
// uplink may be missing.
func ParsePeer(text string) (Peer, error) {
	var p Peer
	key := ""
	for _, part := range strings.Split(text, ",") {
		k, value, named := strings.Cut(part, "=")
		if named {
			key = k
		} else {
			value = part // another of a list
		}
		if err := p.set(key, value); err != nil {
			return Peer{}, fmt.Errorf("peer %q: %s: %w", text, key, err)
		}
	}
	switch {
	case p.Name == "", p.TCP == "", p.Target == "", len(p.PIDs) == 0:
		return Peer{}, fmt.Errorf("peer %q: name, tcp, target and pids are needed", text)
	}
	return p, nil
}

func (p *Peer) set(key, value string) error {
	switch key {
	case "name":
		p.Name = value
	case "tcp":
		p.TCP = value
		return addressed(value)
	case "udp":
		p.UDP = value
		return addressed(value)
	case "target":
		p.Target = value
		return addressed(value)
	case "pids":
		pid, err := strconv.Atoi(value)
		if err != nil {
			return err
		}
		p.PIDs = append(p.PIDs, pid)
	case "uplink":
		port, err := strconv.ParseUint(value, 10, 16)
		if err != nil {
			return err
		}
		p.Uplink = []machine.Port{{Direction: machine.To, Number: int(port)}}
	default:
		return errors.New("there is no such key")
	}
	return nil
}

func addressed(addr string) error {
	_, err := portOf(addr)
	return err
}
