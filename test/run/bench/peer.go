//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/prometheus/procfs"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

// peer is another tunnel: a program that starts its two ends as its child
// processes and runs until SIGTERM, upon which it ends them. These tell it how, in
// its environment:
//
//	HOST         the address that its server listens on
//	SERVER_PORT  the port that its server takes its client on
//	PUBLIC_PORT  the port that it takes players on, TCP and, if it can, UDP
//	GAME_PORT    the port of the game, at 127.0.0.1 of its client
//	AT_HOME      what comes before the client's command line, to run it at home
type peer struct{ Name, Path string }

// parsePeer reads NAME=PATH.
func parsePeer(text string) (peer, error) {
	name, path, _ := strings.Cut(text, "=")
	if name == "" || path == "" {
		return peer{}, fmt.Errorf("%q is not NAME=PATH", text)
	}
	return peer{name, path}, nil
}

const (
	// peerPatience is how long a peer may take until it carries players, and
	// udpPatience how long its UDP may take after its TCP.
	peerPatience = 20 * time.Second
	udpPatience  = 5 * time.Second
)

// startPeer starts another tunnel and waits until players reach the game.
func (f *field) startPeer(ctx context.Context, p peer) error {
	first, err := cluster.FreePorts(ctx, 2)
	if err != nil {
		return err
	}
	cmd := exec.Command(p.Path) //nolint:noctx // f.close ends it
	cmd.Env = append(os.Environ(), "HOST="+f.cable.public, "AT_HOME="+f.cable.home.Enter(),
		fmt.Sprintf("SERVER_PORT=%d", first), fmt.Sprintf("PUBLIC_PORT=%d", first+1), fmt.Sprintf("GAME_PORT=%d", f.gamePort))
	process, err := cluster.StartProcess(p.Name, cmd, nil)
	if err != nil {
		return err
	}
	f.stop = append(f.stop, process.Stop)
	addr := fmt.Sprintf("%s:%d", f.cable.public, first+1)
	reaches := func(d time.Duration, play func(context.Context, string, time.Duration, time.Duration) ([]time.Duration, error)) error {
		ctx, cancel := context.WithTimeout(ctx, d)
		defer cancel()
		return cluster.Until(ctx, "players reach the game", func(ctx context.Context) (bool, error) {
			select {
			case <-process.Done():
				return false, errors.New("it ended")
			default:
			}
			times, err := play(ctx, addr, time.Millisecond, 0)
			return err == nil && len(times) > 0 && times[0] < traffic.LostAfter, nil
		})
	}
	if err := reaches(peerPatience, traffic.Echo); err != nil {
		return fmt.Errorf("%w\n%s", err, process.LastLines(20))
	}
	s := subject{name: p.Name, tcp: addr, udp: addr, uplink: []port{{toPort, first}}}
	if reaches(udpPatience, traffic.EchoDatagrams) != nil {
		s.udp = ""
	}
	running, err := procfs.AllProcs()
	if err != nil {
		return err
	}
	for _, child := range running {
		if stat, err := child.Stat(); err == nil && stat.PPID == process.PID() {
			s.pids = append(s.pids, child.PID)
		}
	}
	f.subjects = append(f.subjects, s)
	return nil
}
