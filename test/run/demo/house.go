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

// house is everything the demo runs, in the order in which it was started.
type house struct {
	out io.Writer
	bin string

	dir     string
	game    *game.Server
	panel   *cluster.Panel
	agent   *cluster.Agent
	running *cluster.Process
	public  map[types.Protocol]types.Allocation
}

func (h *house) say(format string, args ...any) { fmt.Fprintf(h.out, format+"\n", args...) }

// open starts everything, until players can join.
func (h *house) open(ctx context.Context) error {
	var err error
	if h.dir, err = cluster.NewDir(); err != nil {
		return err
	}
	port, err := cluster.FreePort(ctx, 25565)
	if err != nil {
		return err
	}
	if h.game, err = game.Listen(ctx, net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), motd); err != nil {
		return err
	}
	h.say("sample game      listens on %s, TCP and UDP", h.game.Addr())
	if err := h.startPanel(ctx); err != nil {
		return err
	}
	h.agent = cluster.NewAgent(h.bin, h.dir, "home-server", nil)
	if err := h.agent.Enroll(ctx, h.panel); err != nil {
		return err
	}
	h.say("agent            enrolled as %q by device code, approved by %s", h.agent.Name, cluster.AdminEmail)
	if h.running, err = h.agent.Start(); err != nil {
		return err
	}
	if err := h.panel.AwaitOnline(ctx, h.agent.Device.ID, h.running); err != nil {
		return err
	}
	if _, err := h.agent.Run(ctx, "open", "tcp+udp", strconv.Itoa(port)); err != nil {
		return err
	}
	opened, err := h.panel.AwaitListening(ctx, h.agent.Device.ID, port, 2)
	if err != nil {
		return err
	}
	h.public = make(map[types.Protocol]types.Allocation)
	for _, a := range opened {
		h.public[a.Protocol] = a
		h.say("allocation       %s %s leads to %s:%d beside the agent", a.Protocol, a.PublicAddress, a.LocalHost, a.LocalPort)
	}
	return nil
}

func (h *house) startPanel(ctx context.Context) error {
	listen, err := cluster.FreePort(ctx, 8080)
	if err != nil {
		return err
	}
	relay, err := cluster.FreePort(ctx, 7443)
	if err != nil {
		return err
	}
	started := time.Now()
	h.panel, err = cluster.StartPanel(ctx, cluster.PanelOptions{
		Bin: h.bin, Dir: h.dir, Listen: listen, Relay: relay, PortFirst: 20000, PortLast: 29999,
	})
	if err != nil {
		return err
	}
	h.say("panel            %s, with its own Postgres, ready after %.1f s", h.panel.URL, time.Since(started).Seconds())
	return nil
}

type ping func(context.Context, string) (game.Status, time.Duration, error)

// play asks the game for its status as two real games' server lists would,
// through the public port and then directly, and prints both.
func (h *house) play(ctx context.Context) error {
	h.say("\nWhat went through:")
	for _, player := range []struct {
		protocol types.Protocol
		game     string
		ask      ping
	}{
		{types.ProtocolTCP, "Minecraft Java Edition (Server List Ping)", game.PingJava},
		{types.ProtocolUDP, "Minecraft Bedrock Edition (RakNet unconnected ping)", game.PingBedrock},
	} {
		h.say("\n  the server list of %s, over %s", player.game, strings.ToUpper(string(player.protocol)))
		if err := h.ask(ctx, "through the tunnel", h.public[player.protocol].PublicAddress, player.ask); err != nil {
			return err
		}
		if err := h.ask(ctx, "asked directly", h.game.Addr(), player.ask); err != nil {
			return err
		}
	}
	return nil
}

// ask pings addr and fails unless the game of this house, and no other, answered.
func (h *house) ask(ctx context.Context, how, addr string, ask ping) error {
	before := h.game.Pings()
	status, rtt, err := ask(ctx, addr)
	if err != nil {
		return fmt.Errorf("%s: %w", how, err)
	}
	if !strings.HasPrefix(status.MOTD, motd) || h.game.Pings() == before {
		return fmt.Errorf("%s: %s answered %q, which is not the sample game", how, addr, status.MOTD)
	}
	h.say("    %-18s  %-15s  %6.2f ms  %q", how, addr, float64(rtt.Microseconds())/1000, status.MOTD)
	return nil
}

func (h *house) printWhereToLook() {
	cli, config := filepath.Join(h.bin, "eclitunnel"), h.agent.Config()
	h.say("\nWhere to look:")
	h.say("  the API        %s/openapi.json", h.panel.URL)
	h.say("  approval       %s/device is where an admin enters a device's code", h.panel.URL)
	h.say("  its admin      %s, password %s", cluster.AdminEmail, h.panel.Password)
	h.say("  the devices    curl -H 'Cookie: session=%s' %s/api/tunnel/devices", h.panel.Token, h.panel.URL)
	h.say("  the agent      ECLITUNNEL_CONFIG=%s %s status", config, cli)
	h.say("  more ports     ECLITUNNEL_CONFIG=%s %s open tcp 22", config, cli)
	for _, protocol := range []types.Protocol{types.ProtocolTCP, types.ProtocolUDP} {
		h.say("  the game       add %s (%s) to a Minecraft server list", h.public[protocol].PublicAddress, protocol)
	}
}

// printLogs shows how each process ended, for whoever must find out why.
func (h *house) printLogs(w io.Writer) {
	if h.panel != nil {
		fmt.Fprintf(w, "\n%s\n", h.panel.LastLines(30))
	}
	if h.running != nil {
		fmt.Fprintf(w, "\n%s\n", h.running.LastLines(30))
	}
}

// close ends everything, the last started first.
func (h *house) close() error {
	var errs []error
	if h.running != nil {
		errs = append(errs, h.running.Stop())
	}
	if h.panel != nil {
		errs = append(errs, h.panel.Stop())
	}
	if h.game != nil {
		errs = append(errs, h.game.Close())
	}
	if h.dir != "" {
		errs = append(errs, os.RemoveAll(h.dir))
	}
	return errors.Join(errs...)
}
