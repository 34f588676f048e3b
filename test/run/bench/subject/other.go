//go:build linux

package subject

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/run/bench/machine"
	"github.com/eclitunnel/eclitunnel/test/run/bench/player"
)

// The tunnels of others that the bench can start.
const (
	FRP    = "frp"
	Chisel = "chisel"
)

const (
	// otherPatience is how long another's tunnel may take until it carries players.
	otherPatience = 20 * time.Second
	otherPoll     = 20 * time.Millisecond
)

// StartFRP starts frps and frpc, which are in the directory bin, as they come: with
// TLS, and one connection for all players.
func StartFRP(ctx context.Context, bin, game string, cable *machine.Cable) (Subject, error) {
	return startOther(ctx, FRP, game, cable, func(o *other) (server, client []string, err error) {
		serverFile, err := o.write("frps.toml", fmt.Sprintf("bindPort = %d\n", o.server))
		if err != nil {
			return nil, nil, err
		}
		text := fmt.Sprintf("serverAddr = %q\nserverPort = %d\n", o.host, o.server)
		for _, protocol := range []string{"tcp", "udp"} {
			text += fmt.Sprintf("\n[[proxies]]\nname = %q\ntype = %[1]q\nlocalIP = \"127.0.0.1\"\nlocalPort = %d\nremotePort = %d\n",
				protocol, o.game, o.public)
		}
		clientFile, err := o.write("frpc.toml", text)
		return []string{filepath.Join(bin, "frps"), "-c", serverFile}, []string{filepath.Join(bin, "frpc"), "-c", clientFile}, err
	})
}

// StartChisel starts a chisel server and its client, of which program is both, as
// they come.
func StartChisel(ctx context.Context, program, game string, cable *machine.Cable) (Subject, error) {
	return startOther(ctx, Chisel, game, cable, func(o *other) (server, client []string, err error) {
		remote := fmt.Sprintf("R:%s:%d:127.0.0.1:%d", o.host, o.public, o.game)
		return []string{program, "server", "--reverse", "--host", o.host, "--port", strconv.Itoa(o.server)},
			[]string{program, "client", fmt.Sprintf("http://%s:%d", o.host, o.server), remote, remote + "/udp"}, nil
	})
}

// other is a tunnel of others: a server on the public side, which takes its client
// on one port and players on another, and a client at home.
type other struct {
	name           string
	dir            string // Of its settings.
	host           string
	server, public int
	game           int
	running        []*cluster.Process
}

// ends makes the command lines that run a tunnel's two ends.
type ends func(*other) (server, client []string, err error)

// startOther starts what commands returns, and waits until players reach the game.
func startOther(ctx context.Context, name, game string, cable *machine.Cable, commands ends) (Subject, error) {
	o := &other{name: name, host: cmp.Or(cable.Public, "127.0.0.1")}
	ctx, cancel := context.WithTimeout(ctx, otherPatience)
	defer cancel()
	s, err := o.start(ctx, game, cable, commands)
	if err != nil {
		return Subject{}, errors.Join(err, o.close())
	}
	return s, nil
}

func (o *other) start(ctx context.Context, game string, cable *machine.Cable, commands ends) (Subject, error) {
	var err error
	if o.game, err = portOf(game); err != nil {
		return Subject{}, err
	}
	if o.dir, err = os.MkdirTemp("", "bench-"+o.name+"-"); err != nil {
		return Subject{}, err
	}
	if o.server, err = cluster.FreePorts(ctx, 2); err != nil {
		return Subject{}, err
	}
	o.public = o.server + 1
	server, client, err := commands(o)
	if err != nil {
		return Subject{}, err
	}
	if err := o.run(ctx, "server", server, cluster.StartProcess, func() error { return takesConnections(ctx, o.at(o.server)) }); err != nil {
		return Subject{}, err
	}
	if err := o.run(ctx, "client", client, cable.Home.Start, func() error { return takesPlayers(ctx, o.at(o.public)) }); err != nil {
		return Subject{}, err
	}
	s := Subject{
		Name: o.name, TCP: o.at(o.public), UDP: o.at(o.public),
		Uplink: []machine.Port{{Direction: machine.To, Number: o.server}},
		close:  o.close,
	}
	for _, p := range o.running {
		s.PIDs = append(s.PIDs, p.PID())
	}
	return s, nil
}

func (o *other) at(port int) string { return net.JoinHostPort(o.host, strconv.Itoa(port)) }

// write writes a file of settings and returns its path.
func (o *other) write(name, text string) (string, error) {
	path := filepath.Join(o.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// run starts one end and waits until works does not fail.
func (o *other) run(ctx context.Context, end string, line []string, start cluster.Starter, works func() error) error {
	cmd := exec.Command(line[0], line[1:]...) //nolint:noctx // close ends it
	p, err := start(o.name+" "+end, cmd, nil)
	if err != nil {
		return err
	}
	o.running = append(o.running, p)
	ticker := time.NewTicker(otherPoll)
	defer ticker.Stop()
	for {
		err := works()
		if err == nil {
			return nil
		}
		select {
		case <-p.Done():
			return fmt.Errorf("%s %s ended at once:\n%s", o.name, end, p.LastLines(20))
		case <-ctx.Done():
			return fmt.Errorf("%s %s does not work: %w\n%s", o.name, end, err, p.LastLines(20))
		case <-ticker.C:
		}
	}
}

func takesConnections(ctx context.Context, addr string) error {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// takesPlayers plays for a moment.
func takesPlayers(ctx context.Context, addr string) error {
	if _, err := player.Echo(ctx, addr, time.Millisecond, 0); err != nil {
		return err
	}
	times, err := player.EchoDatagrams(ctx, addr, time.Millisecond, 0)
	if err == nil && (len(times) == 0 || times[0] >= player.LostAfter) {
		err = errors.New("no datagram is answered")
	}
	return err
}

// close ends both, the client first.
func (o *other) close() error {
	var errs []error
	for i := len(o.running) - 1; i >= 0; i-- {
		errs = append(errs, o.running[i].Stop())
	}
	if o.dir != "" {
		errs = append(errs, os.RemoveAll(o.dir))
	}
	return errors.Join(errs...)
}
