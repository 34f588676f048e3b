package agent

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/link/linktest"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/relay"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
)

// awaitMetrics waits until a registry shows exactly the series wanted under the
// names of their TYPE lines. A count may lag behind what a player sees, and there
// is no signal for it.
func awaitMetrics(t *testing.T, registry *prometheus.Registry, series string) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	help := map[string]string{}
	for _, family := range families {
		help[family.GetName()] = family.GetHelp()
	}
	var want strings.Builder
	var names []string
	for line := range strings.Lines(series) {
		line = strings.TrimSpace(line)
		if name, ok := strings.CutPrefix(line, "# TYPE "); ok {
			name, _, _ = strings.Cut(name, " ")
			names = append(names, name)
			want.WriteString("# HELP " + name + " " + help[name] + "\n") // The comparison asks for it.
		}
		want.WriteString(line + "\n")
	}
	for deadline := time.Now().Add(timeout); ; time.Sleep(2 * time.Millisecond) {
		if err = testutil.GatherAndCompare(registry, strings.NewReader(want.String()), names...); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func TestMetrics_BothEndsCountWhatPasses(t *testing.T) {
	atServer, atAgent := prometheus.NewPedanticRegistry(), prometheus.NewPedanticRegistry()
	d := linktest.New(t, linktest.Options{Server: func(o *relay.Options) { o.Metrics = atServer }})
	if err := atAgent.Register(metrics{control: new(control), links: d.Links, targets: d.Targets}); err != nil {
		t.Fatal(err)
	}
	tcp := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) {
		_, _ = io.Copy(c, io.LimitReader(c, 5))
		_, _ = io.WriteString(c, "!!!")
		_, _ = io.Copy(io.Discard, c)
	}), nil)
	udp := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, linktest.EchoUDP), nil)
	player := d.Join(tcp)
	linktest.Write(t, player, "hello")
	linktest.Expect(t, player, "hello!!!")
	linktest.Ask(t, linktest.DialUDP(t, "127.0.0.1", udp), make([]byte, 1000))

	awaitMetrics(t, atServer, `
		# TYPE eclitunnel_relay_control_channel_up gauge
		eclitunnel_relay_control_channel_up 1
		# TYPE eclitunnel_relay_control_channel_reconnects_total counter
		eclitunnel_relay_control_channel_reconnects_total 0
		# TYPE eclitunnel_relay_ports gauge
		eclitunnel_relay_ports{protocol="tcp",state="open"} 1
		eclitunnel_relay_ports{protocol="tcp",state="draining"} 0
		eclitunnel_relay_ports{protocol="tcp",state="failed"} 0
		eclitunnel_relay_ports{protocol="udp",state="open"} 1
		eclitunnel_relay_ports{protocol="udp",state="draining"} 0
		eclitunnel_relay_ports{protocol="udp",state="failed"} 0
		# TYPE eclitunnel_relay_links gauge
		eclitunnel_relay_links 1
		# TYPE eclitunnel_relay_players gauge
		eclitunnel_relay_players 1
		# TYPE eclitunnel_relay_flows gauge
		eclitunnel_relay_flows 1
		# TYPE eclitunnel_relay_player_bytes_total counter
		eclitunnel_relay_player_bytes_total{direction="from_players",protocol="tcp"} 5
		eclitunnel_relay_player_bytes_total{direction="to_players",protocol="tcp"} 8
		eclitunnel_relay_player_bytes_total{direction="from_players",protocol="udp"} 1000
		eclitunnel_relay_player_bytes_total{direction="to_players",protocol="udp"} 1000
		`)
	awaitMetrics(t, atAgent, `
		# TYPE eclitunnel_agent_links gauge
		eclitunnel_agent_links{state="dialling"} 0
		eclitunnel_agent_links{state="down"} 0
		eclitunnel_agent_links{state="up"} 1
		# TYPE eclitunnel_agent_allocations gauge
		eclitunnel_agent_allocations{state="failed"} 0
		eclitunnel_agent_allocations{state="pending"} 0
		eclitunnel_agent_allocations{state="ready"} 2
		# TYPE eclitunnel_agent_flows gauge
		eclitunnel_agent_flows 1
		# TYPE eclitunnel_agent_player_bytes_total counter
		eclitunnel_agent_player_bytes_total{direction="from_players",protocol="tcp"} 5
		eclitunnel_agent_player_bytes_total{direction="to_players",protocol="tcp"} 8
		eclitunnel_agent_player_bytes_total{direction="from_players",protocol="udp"} 1000
		eclitunnel_agent_player_bytes_total{direction="to_players",protocol="udp"} 1000
		`)

	for name, registry := range map[string]*prometheus.Registry{"tunnel server": atServer, "agent": atAgent} {
		problems, err := testutil.GatherAndLint(registry)
		if err != nil || len(problems) > 0 {
			t.Errorf("metrics of the %s: %v %v", name, problems, err)
		}
	}
	if err := d.Server.Stop(); err != nil {
		t.Fatal(err)
	}
	if families, err := atServer.Gather(); err != nil || len(families) != 0 {
		t.Errorf("after the tunnel server's end: %d metrics, %v", len(families), err)
	}
}

func TestMetrics_SayWhyPlayersAndDatagramsAreLost(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	d := linktest.New(t, linktest.Options{Server: func(o *relay.Options) {
		o.Metrics = registry
		o.Limits.Players, o.Limits.FlowsPerSource = 1, 1
	}})
	tcp := d.Publish(types.ProtocolTCP, linktest.Game(t, "127.0.0.1", func(c *net.TCPConn) { _, _ = io.Copy(c, c) }), nil)
	udp := d.Publish(types.ProtocolUDP, linktest.UDPGame(t, 0, linktest.EchoUDP), nil)
	player := d.Greet(tcp)
	if err := linktest.Refusal(t, tcp); err == nil {
		t.Error("a second player was served")
	}
	linktest.Ask(t, linktest.DialUDP(t, "127.0.0.1", udp), []byte("x"))
	crowded := linktest.DialUDP(t, "127.0.0.1", udp)
	_, _ = crowded.Write([]byte("x"))
	d.Server.AwaitStats(t, "the drop", func(s relay.Stats) bool { return s.Dropped["flow_limit"] == 1 })
	if err := d.Stop(); err != nil {
		t.Fatal(err)
	}
	d.Server.AwaitStats(t, "the link's end", func(s relay.Stats) bool { return s.Links == 0 && s.Players == 0 && s.Flows == 0 })
	late, err := net.Dial("tcp", player.RemoteAddr().String())
	if err == nil {
		_ = late.SetDeadline(time.Now().Add(relaytest.Patience))
		_, err = io.Copy(io.Discard, late)
		_ = late.Close()
	}
	if err == nil || errors.Is(err, io.EOF) {
		t.Errorf("a player without a tunnel client: %v", err)
	}
	_, _ = crowded.Write([]byte("x"))

	awaitMetrics(t, registry, `
		# TYPE eclitunnel_relay_players_refused_total counter
		eclitunnel_relay_players_refused_total{reason="denied"} 0
		eclitunnel_relay_players_refused_total{reason="files"} 0
		eclitunnel_relay_players_refused_total{reason="gave_way"} 0
		eclitunnel_relay_players_refused_total{reason="kept_out"} 0
		eclitunnel_relay_players_refused_total{reason="limit"} 1
		eclitunnel_relay_players_refused_total{reason="loop"} 0
		eclitunnel_relay_players_refused_total{reason="no_data_connection"} 0
		eclitunnel_relay_players_refused_total{reason="no_link"} 1
		eclitunnel_relay_players_refused_total{reason="source_limit"} 0
		eclitunnel_relay_players_refused_total{reason="source_rate"} 0
		eclitunnel_relay_players_refused_total{reason="waiting_limit"} 0
		# TYPE eclitunnel_relay_datagrams_dropped_total counter
		eclitunnel_relay_datagrams_dropped_total{reason="bandwidth"} 0
		eclitunnel_relay_datagrams_dropped_total{reason="denied"} 0
		eclitunnel_relay_datagrams_dropped_total{reason="draining"} 0
		eclitunnel_relay_datagrams_dropped_total{reason="flow_limit"} 1
		eclitunnel_relay_datagrams_dropped_total{reason="kept_out"} 0
		eclitunnel_relay_datagrams_dropped_total{reason="limit"} 0
		eclitunnel_relay_datagrams_dropped_total{reason="loop"} 0
		eclitunnel_relay_datagrams_dropped_total{reason="no_data_connection"} 0
		eclitunnel_relay_datagrams_dropped_total{reason="no_flow"} 0
		eclitunnel_relay_datagrams_dropped_total{reason="no_link"} 1
		eclitunnel_relay_datagrams_dropped_total{reason="queue_full"} 0
		eclitunnel_relay_datagrams_dropped_total{reason="rate"} 0
		eclitunnel_relay_datagrams_dropped_total{reason="too_long"} 0
		eclitunnel_relay_datagrams_dropped_total{reason="unproven"} 0
		eclitunnel_relay_datagrams_dropped_total{reason="unsendable"} 0
		`)
}

func TestMetrics_FollowTheControlChannel(t *testing.T) {
	r := start(t)
	up := func(up, reconnects int) {
		t.Helper()
		awaitMetrics(t, r.metrics, fmt.Sprintf(`
			# TYPE eclitunnel_agent_control_channel_up gauge
			eclitunnel_agent_control_channel_up %d
			# TYPE eclitunnel_agent_control_channel_reconnects_total counter
			eclitunnel_agent_control_channel_reconnects_total %d
			`, up, reconnects))
	}
	for reconnects := range 3 {
		c := r.channel(t)
		c.send(t, snapshot(1))
		up(1, reconnects)
		c.Close(channel.CloseRestarting, "restarting")
		up(0, reconnects)
	}
}
