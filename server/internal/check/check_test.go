package check_test

import (
	"context"
	"encoding/json"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/check"
)

// fleet answers probes. A nil answer is that of a device which takes none.
type fleet struct {
	target *types.ProbedTarget
	ports  []types.ProbedPort // The answers of the tunnel server, one after the other.
	// replies are what is found at an address; nil: no other tunnel server is connected.
	replies map[string]types.ProbeReply
	// address is that of the other tunnel server's control channel.
	address string
	// arrivesAt has the tunnel server count what is sent to this address.
	arrivesAt string

	tried   []string
	answers map[uuid.UUID]json.RawMessage
}

func (f *fleet) ProbeServers(context.Context, uuid.UUID, int) ([]db.ProbeServer, error) {
	if f.replies == nil {
		return nil, nil
	}
	return []db.ProbeServer{{ID: uuid.New(), Name: "other", Address: &f.address}}, nil
}

func (f *fleet) AskProbes(_ context.Context, probes []db.Probe) error {
	for _, p := range probes {
		var m types.Probe
		if err := json.Unmarshal(p.Question, &m); err != nil {
			return err
		}
		answer, err := json.Marshal(f.answer(m))
		if err != nil {
			return err
		}
		f.answers[p.ID] = answer
	}
	return nil
}

func (f *fleet) answer(m types.Probe) *types.ProbeResult {
	switch m.Subject {
	case types.ProbeTarget:
		if f.target != nil {
			return &types.ProbeResult{Target: f.target}
		}
	case types.ProbePort:
		if len(f.ports) > 0 {
			port := f.ports[0]
			f.ports = f.ports[min(1, len(f.ports)-1):]
			return &types.ProbeResult{Port: &port}
		}
	case types.ProbeAddresses:
		var replies []types.ProbeReply
		for _, address := range *m.Addresses {
			f.tried = append(f.tried, address)
			if address == f.arrivesAt {
				f.ports = []types.ProbedPort{{Open: true, Arrived: 1000}}
			}
			replies = append(replies, f.replies[address])
		}
		return &types.ProbeResult{Addresses: &replies}
	}
	return nil
}

func (f *fleet) ProbeAnswers(_ context.Context, ids []uuid.UUID) (map[uuid.UUID]json.RawMessage, error) {
	found := map[uuid.UUID]json.RawMessage{}
	for _, id := range ids {
		found[id] = f.answers[id]
	}
	return found, nil
}

func (f *fleet) ForgetProbes(_ context.Context, ids []uuid.UUID) error {
	for _, id := range ids {
		delete(f.answers, id)
	}
	return nil
}

func ptr[T any](v T) *T { return &v }

func reply(state types.ProbeReplyState) types.ProbeReply { return types.ProbeReply{State: state} }

func answering(kind types.GameStatusKind) types.ProbeReply {
	return types.ProbeReply{State: types.ProbeAnswered, Game: &types.GameStatus{Kind: kind, Name: ptr("Home")}}
}

func targets(tcp, udp types.ProbeReply) *types.ProbedTarget {
	return &types.ProbedTarget{Allowed: true, TCP: &tcp, UDP: &udp}
}

func counted(arrived ...int64) []types.ProbedPort {
	var ports []types.ProbedPort
	for _, n := range arrived {
		ports = append(ports, types.ProbedPort{Open: true, Arrived: n})
	}
	return ports
}

func refusing(why string) []types.ProbedPort {
	ports := counted(5, 6)
	ports[0].Refused, ports[1].Refused = &types.RefusalCounts{"limit": 2}, &types.RefusalCounts{"limit": 2, why: 1}
	return ports
}

// working is an allocation that works, at 198.51.100.7.
func working() db.CheckedAllocation {
	return db.CheckedAllocation{
		Allocation: db.Allocation{
			ID: 42, DeviceID: uuid.New(), ServerID: uuid.New(), Protocol: "tcp", Port: 25565, LocalHost: "127.0.0.1", LocalPort: 25566, Enabled: true,
			PublicHost: "play.example.com", DeviceOnline: true, ServerOnline: true, ServerState: db.StateReady, ClientState: db.StateReady, Target: db.TargetUp,
		},
		ServerAddress: ptr("198.51.100.7"),
	}
}

const (
	public = "198.51.100.7:25565"
	stray  = "198.51.100.99:25565" // Not the tunnel server.
)

var (
	java    = targets(answering(types.GameMinecraftJava), reply(types.ProbeRefused))
	silence = map[string]types.ProbeReply{public: reply(types.ProbeSilent)}
)

func TestCheck_NamesTheFirstBrokenHop(t *testing.T) {
	udp := func(row *db.CheckedAllocation) { row.Protocol = "udp" }
	for name, c := range map[string]struct {
		row    func(*db.CheckedAllocation)
		fleet  fleet
		host   string // What the name leads to; "": 198.51.100.7, "-": nothing.
		want   types.CheckOutcome
		broken types.CheckHopHop
		says   string
	}{
		"a game answers": {
			fleet: fleet{target: java, ports: counted(5, 6), replies: map[string]types.ProbeReply{public: answering(types.GameMinecraftJava)}},
			want:  types.CheckReachable, says: "Minecraft (Java Edition) answers at play.example.com port 25565",
		},
		"old devices, and a game answers": {
			fleet: fleet{replies: map[string]types.ProbeReply{public: answering(types.GameMinecraftJava)}}, want: types.CheckReachable,
		},
		"something accepts": {
			fleet: fleet{target: targets(reply(types.ProbeOpen), reply(types.ProbeRefused)), ports: counted(5, 6), replies: map[string]types.ProbeReply{public: reply(types.ProbeOpen)}},
			want:  types.CheckOpen,
		},
		"something accepts and closes": {
			fleet: fleet{target: targets(reply(types.ProbeClosed), reply(types.ProbeRefused)), ports: counted(5, 6), replies: map[string]types.ProbeReply{public: reply(types.ProbeClosed)}},
			want:  types.CheckOpen,
		},
		"datagrams arrive at a silent game": {
			row: udp, fleet: fleet{target: targets(reply(types.ProbeRefused), reply(types.ProbeSilent)), ports: counted(5, 6), replies: silence}, want: types.CheckOpen,
		},
		"paused":       {row: func(row *db.CheckedAllocation) { row.Enabled = false }, want: types.CheckPaused, broken: types.HopPort},
		"draining":     {row: func(row *db.CheckedAllocation) { row.Draining = true }, want: types.CheckDraining, broken: types.HopTunnelServer},
		"no server":    {row: func(row *db.CheckedAllocation) { row.ServerOnline = false }, want: types.CheckTunnelServerOffline, broken: types.HopTunnelServer},
		"not reported": {row: func(row *db.CheckedAllocation) { row.ServerState = db.StatePending }, want: types.CheckUnknown},
		"not bound": {
			row: func(row *db.CheckedAllocation) {
				row.ServerState, row.ServerReason = db.StateFailed, "port 25565 is in use"
			},
			want: types.CheckPortNotBound, broken: types.HopTunnelServer, says: "port 25565 is in use",
		},
		"no agent": {row: func(row *db.CheckedAllocation) { row.DeviceOnline = false }, want: types.CheckAgentOffline, broken: types.HopAgent},
		"not allowed": {
			row:   func(row *db.CheckedAllocation) { row.ClientState, row.ClientReason = db.StateFailed, "not on the list" },
			fleet: fleet{target: &types.ProbedTarget{Reason: ptr("127.0.0.1:25566 is not on the allow-list")}},
			want:  types.CheckTargetNotAllowed, broken: types.HopLink, says: "not on the allow-list",
		},
		"no link": {
			row:   func(row *db.CheckedAllocation) { row.ClientState, row.ClientReason = db.StateFailed, "no answer" },
			fleet: fleet{target: java}, want: types.CheckLinkDown, broken: types.HopLink, says: "no answer",
		},
		"the link is lost": {
			fleet: fleet{target: java, ports: refusing("no_link"), replies: map[string]types.ProbeReply{public: reply(types.ProbeClosed)}},
			want:  types.CheckLinkDown, broken: types.HopLink,
		},
		"no game": {
			fleet: fleet{target: targets(reply(types.ProbeRefused), reply(types.ProbeRefused))}, want: types.CheckGameNotRunning, broken: types.HopGame, says: "127.0.0.1:25566",
		},
		"no game, by an old agent": {
			row: func(row *db.CheckedAllocation) { row.Target, row.TargetReason = db.TargetDown, "refused" }, want: types.CheckGameNotRunning, broken: types.HopGame,
		},
		"a UDP port for a TCP game": {
			row: udp, fleet: fleet{target: targets(answering(types.GameMinecraftJava), reply(types.ProbeRefused))}, want: types.CheckWrongProtocol, broken: types.HopGame, says: "over TCP (Minecraft (Java Edition))",
		},
		"a TCP port for a UDP game": {
			fleet: fleet{target: targets(reply(types.ProbeRefused), answering(types.GameMinecraftBedrock))}, want: types.CheckWrongProtocol, broken: types.HopGame, says: "over UDP",
		},
		"no name": {host: "-", fleet: fleet{target: java}, want: types.CheckNameNotResolving, broken: types.HopName},
		"a name that leads to a machine that does not answer": {
			host: "198.51.100.99", want: types.CheckNamePointsElsewhere, broken: types.HopPublicPort,
			fleet: fleet{target: java, ports: counted(5, 5), replies: map[string]types.ProbeReply{stray: reply(types.ProbeSilent), public: answering(types.GameMinecraftJava)}},
		},
		"a name that leads to a machine that answers": {
			host: "198.51.100.99", want: types.CheckNamePointsElsewhere, broken: types.HopPublicPort,
			fleet: fleet{target: java, ports: counted(5, 5), replies: map[string]types.ProbeReply{stray: reply(types.ProbeOpen)}},
		},
		"a name that leads elsewhere, of a silent game": {
			row: udp, host: "198.51.100.99", want: types.CheckNamePointsElsewhere, broken: types.HopPublicPort,
			fleet: fleet{
				target: targets(reply(types.ProbeRefused), reply(types.ProbeSilent)), ports: counted(5, 5), arrivesAt: public,
				replies: map[string]types.ProbeReply{stray: reply(types.ProbeSilent), public: reply(types.ProbeSilent)},
			},
		},
		"a firewall drops":          {fleet: fleet{target: java, ports: counted(5, 5), replies: silence}, want: types.CheckFirewall, broken: types.HopPublicPort},
		"a firewall drops, old":     {fleet: fleet{target: java, replies: silence}, want: types.CheckFirewall, broken: types.HopPublicPort},
		"a firewall rejects":        {fleet: fleet{target: java, ports: counted(5, 5), replies: map[string]types.ProbeReply{public: reply(types.ProbeRefused)}}, want: types.CheckFirewall, broken: types.HopPublicPort},
		"a firewall drops UDP":      {row: udp, fleet: fleet{target: targets(reply(types.ProbeRefused), answering(types.GameSource)), ports: counted(5, 5), replies: silence}, want: types.CheckFirewall, broken: types.HopPublicPort},
		"rules refuse":              {fleet: fleet{target: java, ports: refusing("denied"), replies: map[string]types.ProbeReply{public: reply(types.ProbeClosed)}}, want: types.CheckRefusedByRules, broken: types.HopPublicPort, says: "(denied)"},
		"rules refuse UDP":          {row: udp, fleet: fleet{target: targets(reply(types.ProbeRefused), answering(types.GameSource)), ports: refusing("kept_out"), replies: silence}, want: types.CheckRefusedByRules, broken: types.HopPublicPort},
		"the game refuses players":  {fleet: fleet{target: java, ports: counted(5, 6), replies: map[string]types.ProbeReply{public: reply(types.ProbeClosed)}}, want: types.CheckNotAnswering, broken: types.HopPublicPort},
		"datagrams get no answer":   {row: udp, fleet: fleet{target: targets(reply(types.ProbeRefused), answering(types.GameSource)), ports: counted(5, 6), replies: silence}, want: types.CheckNotAnswering, broken: types.HopPublicPort},
		"UDP, and an old server":    {row: udp, fleet: fleet{target: targets(reply(types.ProbeRefused), answering(types.GameSource)), replies: silence}, want: types.CheckNotAnswering, broken: types.HopPublicPort},
		"UDP, and all of it is old": {row: udp, fleet: fleet{replies: silence}, want: types.CheckUnknown},
		"no way to try":             {fleet: fleet{target: java, ports: counted(5, 5), replies: map[string]types.ProbeReply{public: reply(types.ProbeUnreachable)}}, want: types.CheckUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			row := working()
			if c.row != nil {
				c.row(&row)
			}
			c.fleet.answers = map[uuid.UUID]json.RawMessage{}
			found := run(t, &c.fleet, c.host, row)
			if found.Outcome != c.want || !strings.Contains(found.Message, c.says) || !strings.HasSuffix(found.Message, ".") {
				t.Errorf("%s: %s", found.Outcome, found.Message)
			}
			var broken types.CheckHopHop
			for _, hop := range found.Hops {
				if hop.State == types.HopFailed && broken == "" {
					broken = hop.Hop
				}
			}
			if broken != c.broken || len(found.Hops) != 7 {
				t.Errorf("the first broken hop is %q: %+v", broken, found.Hops)
			}
			if len(c.fleet.answers) > 0 {
				t.Errorf("%d probes are left", len(c.fleet.answers))
			}
		})
	}
}

// run checks an allocation whose name leads to an address.
func run(t *testing.T, f *fleet, host string, row db.CheckedAllocation) types.AllocationCheck {
	t.Helper()
	checker := check.New(check.Options{Store: f, Lookup: func(context.Context, string) ([]netip.Addr, error) {
		switch host {
		case "-":
			return nil, &net.DNSError{IsNotFound: true}
		case "":
			return []netip.Addr{netip.MustParseAddr("198.51.100.7")}, nil
		}
		return []netip.Addr{netip.MustParseAddr(host)}, nil
	}})
	found, err := checker.Check(t.Context(), row)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestCheck_TriesNoAddressThatTheFleetDoesNotKnow(t *testing.T) {
	for name, c := range map[string]struct {
		host, server, prober string
		tried                bool
	}{
		"the Internet":                        {"198.51.100.99", "10.0.0.1", "10.0.0.2", true},
		"a private network":                   {"10.0.0.99", "10.0.0.1", "10.0.0.2", false},
		"the tunnel server's private address": {"10.0.0.1", "10.0.0.1", "10.0.0.2", true},
		"the prober's loopback":               {"127.0.0.1", "198.51.100.7", "198.51.100.8", false},
		"a loopback that is not shared":       {"127.0.0.1", "127.0.0.1", "198.51.100.8", false},
		"the panel's machine":                 {"127.0.0.1", "127.0.0.1", "127.0.0.1", true},
		"link-local":                          {"169.254.169.254", "198.51.100.7", "127.0.0.1", false},
		"multicast":                           {"224.0.0.1", "224.0.0.1", "127.0.0.1", false},
	} {
		f := &fleet{target: java, address: c.prober, answers: map[uuid.UUID]json.RawMessage{}, replies: map[string]types.ProbeReply{c.host + ":1": answering(types.GameMinecraftJava)}}
		row := working()
		row.ServerAddress, row.Port = &c.server, 1
		run(t, f, c.host, row)
		if tried := slices.Contains(f.tried, c.host+":1"); tried != c.tried {
			t.Errorf("%s: tried is %v", name, tried)
		}
	}
}

func TestCheck_ByThePanelWithoutAnotherTunnelServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		if conn, err := listener.Accept(); err == nil {
			_, _ = conn.Write([]byte("hello"))
			_ = conn.Close()
		}
	}()
	row := working()
	row.ServerAddress, row.PublicHost, row.Port = ptr("127.0.0.1"), "127.0.0.1", listener.Addr().(*net.TCPAddr).Port
	found := run(t, &fleet{target: java, ports: counted(5, 6), answers: map[uuid.UUID]json.RawMessage{}}, "", row)
	if detail := found.Hops[6].Detail; found.Outcome != types.CheckOpen || !strings.Contains(detail, "the panel itself") {
		t.Errorf("%s: %s", found.Outcome, detail)
	}
}
