package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/game"
)

const motd = "A game behind NAT"

// fleet is everything the demo runs, in the order in which it was started.
type fleet struct {
	out io.Writer
	bin string

	dir     string
	game    *game.Server
	panel   *cluster.Panel
	agent   *cluster.Agent
	running *cluster.Process
	public  map[types.Protocol]types.Allocation
}

func (f *fleet) say(format string, args ...any) { fmt.Fprintf(f.out, format+"\n", args...) }

// open starts everything, until players can join.
func (f *fleet) open(ctx context.Context) error {
	var err error
	if f.dir, err = cluster.NewDir(); err != nil {
		return err
	}
	port, err := cluster.FreePort(ctx, 25565)
	if err != nil {
		return err
	}
	if f.game, err = game.Listen(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), motd); err != nil {
		return err
	}
	f.say("sample game      listens on %s, TCP and UDP", f.game.Addr())
	if err := f.startPanel(ctx); err != nil {
		return err
	}
	f.agent = cluster.NewAgent(f.bin, f.dir, "home-server", nil)
	if err := f.agent.Enroll(ctx, f.panel); err != nil {
		return err
	}
	f.say("agent            enrolled as %q by device code, approved by %s", f.agent.Name, cluster.AdminEmail)
	if f.running, err = f.agent.Start(); err != nil {
		return err
	}
	if err := f.panel.AwaitOnline(ctx, f.agent.Device.ID, f.running); err != nil {
		return err
	}
	if _, err := f.agent.Run(ctx, "open", "tcp+udp", strconv.Itoa(port)); err != nil {
		return err
	}
	opened, err := f.panel.AwaitListening(ctx, f.agent.Device.ID, port, 2)
	if err != nil {
		return err
	}
	f.public = make(map[types.Protocol]types.Allocation)
	for _, a := range opened {
		f.public[a.Protocol] = a
		f.say("allocation       %s %s leads to %s:%d beside the agent", a.Protocol, a.PublicAddress, a.LocalHost, a.LocalPort)
	}
	return nil
}

func (f *fleet) startPanel(ctx context.Context) error {
	listen, err := cluster.FreePort(ctx, 8080)
	if err != nil {
		return err
	}
	relay, err := cluster.FreePort(ctx, 7443)
	if err != nil {
		return err
	}
	started := time.Now()
	f.panel, err = cluster.StartPanel(ctx, cluster.PanelOptions{
		Bin: f.bin, Dir: f.dir, Listen: listen, Relay: relay, PortFirst: 20000, PortLast: 29999,
	})
	if err != nil {
		return err
	}
	f.say("panel            %s, with its own Postgres, ready after %.1f s", f.panel.URL, time.Since(started).Seconds())
	return nil
}

type ping func(context.Context, string) (game.Status, time.Duration, error)

// play asks the game for its status as two real games' server lists would,
// through the public port and then directly, and prints both.
func (f *fleet) play(ctx context.Context) error {
	f.say("\nWhat went through:")
	for _, player := range []struct {
		protocol types.Protocol
		game     string
		ask      ping
	}{
		{types.ProtocolTCP, "Minecraft Java Edition (Server List Ping)", game.PingJava},
		{types.ProtocolUDP, "Minecraft Bedrock Edition (RakNet unconnected ping)", game.PingBedrock},
	} {
		f.say("\n  the server list of %s, over %s", player.game, strings.ToUpper(string(player.protocol)))
		if err := f.ask(ctx, "through the tunnel", f.public[player.protocol].PublicAddress, player.ask); err != nil {
			return err
		}
		if err := f.ask(ctx, "asked directly", f.game.Addr(), player.ask); err != nil {
			return err
		}
	}
	return nil
}

// ask pings addr and fails unless this demo's game answered.
func (f *fleet) ask(ctx context.Context, how, addr string, ask ping) error {
	before := f.game.Pings()
	status, rtt, err := ask(ctx, addr)
	if err != nil {
		return fmt.Errorf("%s: %w", how, err)
	}
	if !strings.HasPrefix(status.MOTD, motd) || f.game.Pings() == before {
		return fmt.Errorf("%s: %s answered %q, which is not the sample game", how, addr, status.MOTD)
	}
	f.say("    %-18s  %-15s  %6.2f ms  %q", how, addr, float64(rtt.Microseconds())/1000, status.MOTD)
	return nil
}

func (f *fleet) printWhereToLook() {
	cli, config := filepath.Join(f.bin, "eclitunnel"), f.agent.Config()
	f.say("\nWhere to look:")
	f.say("  the API        %s/openapi.json", f.panel.URL)
	f.say("  approval       %s/device is where an admin enters a device's code", f.panel.URL)
	f.say("  its admin      %s, password %s", cluster.AdminEmail, f.panel.Password)
	f.say("  the devices    curl -H 'Cookie: session=%s' %s/api/tunnel/devices", f.panel.Token, f.panel.URL)
	f.say("  the agent      ECLITUNNEL_CONFIG=%s %s status", config, cli)
	f.say("  more ports     ECLITUNNEL_CONFIG=%s %s open tcp 22", config, cli)
	for _, protocol := range []types.Protocol{types.ProtocolTCP, types.ProtocolUDP} {
		f.say("  the game       add %s (%s) to a Minecraft server list", f.public[protocol].PublicAddress, protocol)
	}
}

// printLogs shows how each process ended, to find out why.
func (f *fleet) printLogs(w io.Writer) {
	if f.panel != nil {
		fmt.Fprintf(w, "\n%s\n", f.panel.LastLines(30))
	}
	if f.running != nil {
		fmt.Fprintf(w, "\n%s\n", f.running.LastLines(30))
	}
}

// close ends everything, the last started first.
func (f *fleet) close() error {
	var errs []error
	if f.running != nil {
		errs = append(errs, f.running.Stop())
	}
	if f.panel != nil {
		errs = append(errs, f.panel.Stop())
	}
	if f.game != nil {
		errs = append(errs, f.game.Close())
	}
	if f.dir != "" {
		errs = append(errs, os.RemoveAll(f.dir))
	}
	return errors.Join(errs...)
}
