package publicport_test

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/eclitunnel/eclitunnel"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/relay/publicport"
	"github.com/eclitunnel/eclitunnel/relay/relaytest"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// offline are tunnel clients of which none is linked.
type offline struct{}

func (offline) Carry(context.Context, uuid.UUID, *tcpstream.Player) publicport.Refusal {
	return publicport.RefusedNoLink
}
func (offline) Capacity(uuid.UUID) int                        { return 0 }
func (offline) RoundTrip(uuid.UUID) time.Duration             { return 0 }
func (offline) AtClient(netip.Addr, netip.Addr) bool          { return false }
func (offline) UDPSession(uuid.UUID) *udptunnel.ServerSession { return nil }

// ports are open public ports, the clock of which is the test's.
type ports struct {
	*publicport.Ports
	t      *testing.T
	log    testlog.Buffer
	now    time.Time
	client uuid.UUID
	wanted map[int64]types.ServerAllocation
}

func newPorts(t *testing.T) *ports {
	t.Helper()
	p := &ports{t: t, now: time.Now(), client: uuid.New(), wanted: map[int64]types.ServerAllocation{}}
	p.Ports = publicport.New(publicport.Options{
		BindHost: "127.0.0.1", Clients: offline{}, Logger: slog.New(slog.NewTextHandler(&p.log, nil)),
	})
	t.Cleanup(func() {
		p.Close()
		p.Wait()
	})
	return p
}

// put opens a port, or changes the rules of an open one. closed denies everybody.
func (p *ports) put(id int64, protocol types.Protocol, rules *types.AllocationRules) {
	p.t.Helper()
	a, ok := p.wanted[id]
	if !ok {
		a = relaytest.Allocation(id, p.client, protocol, relaytest.FreePort(p.t))
	}
	a.Rules = rules
	p.wanted[id] = a
	p.Apply(p.wanted)
}

func closed() *types.AllocationRules {
	return &types.AllocationRules{Deny: &types.AddressList{"0.0.0.0/0"}}
}

// flood sends n datagrams, or connects n players, and returns once all have been refused.
func (p *ports) flood(id int64, n int) {
	p.t.Helper()
	a := p.wanted[id]
	before := p.refused()
	var dialer net.Dialer
	udp, err := dialer.DialContext(p.t.Context(), "udp", (&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: a.Port}).String())
	if err != nil {
		p.t.Fatal(err)
	}
	defer udp.Close()
	for i := 1; i <= n; i++ {
		if a.Protocol == types.ProtocolUDP {
			_, err = udp.Write([]byte("hello"))
		} else if c, dialled := dialer.DialContext(p.t.Context(), "tcp", udp.RemoteAddr().String()); dialled == nil {
			_ = c.Close()
		}
		if err != nil {
			p.t.Fatal(err)
		}
		if i%100 == 0 || i == n { // Not to fill the buffer of the socket.
			await.Until(p.t, "everything is refused", func() bool { return p.refused() == before+uint64(i) })
		}
	}
}

// refused is how much all ports have refused.
func (p *ports) refused() (sum uint64) {
	s := p.Stats()
	for _, counts := range []map[publicport.Refusal]uint64{s.PlayersRefused, s.Dropped} {
		for _, n := range counts {
			sum += n
		}
	}
	return sum
}

// pass lets a time pass, as which the owner of the ports calls Tick every second.
func (p *ports) pass(d time.Duration) {
	for end := p.now.Add(d); p.now.Before(end); {
		p.now = p.now.Add(time.Second)
		p.Tick(p.now)
	}
}

// taken returns what Refusals yields.
func (p *ports) taken() map[int64]types.AllocationRefusals {
	all := map[int64]types.AllocationRefusals{}
	for r := range p.Refusals() {
		all[r.ID] = r
	}
	return all
}

const (
	manyLine = "public port refuses much"
	endLine  = "public port no longer refuses much"
)

func TestPorts_LogALineAMinuteForAPortThatRefusesMuch(t *testing.T) {
	p := newPorts(t)
	p.put(1, types.ProtocolUDP, closed())
	p.put(2, types.ProtocolTCP, closed())
	p.put(3, types.ProtocolUDP, closed())
	p.put(4, types.ProtocolUDP, nil) // Its agent is offline, which is no attack.
	want := func(what string, lines, ends int) {
		t.Helper()
		if got, ended := p.log.Count(manyLine), p.log.Count(endLine); got != lines || ended != ends {
			t.Fatalf("%s: %d and %d lines, want %d and %d:\n%s", what, got, ended, lines, ends, p.log.String())
		}
	}
	attack := func() {
		p.flood(1, 3000)
		p.flood(2, 200)
		p.flood(3, 49) // Less than is worth a line.
		p.flood(4, 500)
	}
	p.pass(5 * time.Second)
	want("in calm", 0, 0)
	attack()
	p.pass(time.Second)
	want("at once", 2, 0)
	for range 3 {
		p.flood(1, 1000)
		p.pass(15 * time.Second)
	}
	want("within a minute", 2, 0)
	p.flood(2, 100)
	p.pass(20 * time.Second)
	want("a minute later", 4, 0)
	p.pass(65 * time.Second)
	want("in calm again", 4, 2)
	p.pass(10 * time.Minute)
	want("for long", 4, 2)
	for _, words := range []string{"datagramsDropped.denied=3000", "datagramsDropped.denied=3000", "playersRefused.denied=200", "playersRefused.denied=100"} {
		if !strings.Contains(p.log.String(), words) {
			t.Errorf("no line says %s:\n%s", words, p.log.String())
		}
	}
}

func TestPorts_YieldWhatTheyHaveRefusedOnce(t *testing.T) {
	p := newPorts(t)
	if all := p.taken(); len(all) != 0 {
		t.Errorf("took %v of no ports", all)
	}
	p.put(1, types.ProtocolUDP, closed())
	p.put(2, types.ProtocolTCP, nil)
	p.put(3, types.ProtocolUDP, nil)
	p.flood(1, 10)
	p.flood(2, 2)
	p.flood(3, 3)
	for range p.Refusals() {
		break // What the others have refused is for the next.
	}
	all := p.taken()
	if len(all) != 2 {
		t.Errorf("took %v after one of three", all)
	}
	p.flood(1, 1)
	p.flood(2, 1)
	p.flood(3, 1)
	all = p.taken()
	if len(all) != 3 || all[1].Datagrams["denied"] != 1 || len(all[1].Players) != 0 || all[2].Players["no_link"] != 1 || all[3].Datagrams["no_link"] != 1 {
		t.Errorf("took %v", all)
	}
	if all := p.taken(); len(all) != 0 {
		t.Errorf("took %v again", all)
	}

	// Rules that close the port for a while do not end its counts, another port does.
	p.flood(1, 5)
	p.put(1, "", &types.AllocationRules{Deny: &types.AddressList{"nonsense"}})
	p.put(1, "", closed())
	p.flood(1, 2)
	p.flood(3, 2)
	moved := p.wanted[3]
	moved.Port = relaytest.FreePort(t)
	p.wanted[3] = moved
	p.Apply(p.wanted)
	if all := p.taken(); len(all) != 1 || all[1].Datagrams["denied"] != 7 {
		t.Errorf("took %v", all)
	}
}

func TestPorts_TheBusiestAreFewAndChangeSlowly(t *testing.T) {
	p := newPorts(t)
	const all, few = 24, 20
	p.pass(time.Second)
	for id := int64(1); id <= all; id++ {
		p.put(id, types.ProtocolUDP, closed())
		p.flood(id, 60+int(id))
	}
	if busiest := p.Stats().Busiest; len(busiest) != 0 {
		t.Errorf("%v are the busiest before a minute has passed", busiest)
	}
	p.pass(time.Minute)
	want := func(from, to int64, ids ...int64) {
		t.Helper()
		busiest := p.Stats().Busiest
		for id := from; id <= to; id++ {
			ids = append(ids, id)
		}
		for _, id := range ids {
			if busiest[id].Datagrams["denied"] == 0 {
				t.Errorf("%d is not one of %v", id, busiest)
			}
		}
		if len(busiest) != len(ids) {
			t.Errorf("%v are the busiest", busiest)
		}
	}
	want(all-few+1, all)
	p.flood(2, 60) // Not twice what any of them has refused,
	p.flood(1, 1000)
	for id := int64(all - few + 1); id <= all; id++ {
		p.flood(id, 60)
	}
	p.pass(time.Minute)
	want(all-few+2, all, 1) // and more than that.
	p.pass(time.Minute)
	if n := p.Stats().Busiest[1].Datagrams["denied"]; n != 1061 {
		t.Errorf("counted %d since the port was opened, want 1061", n)
	}
	p.pass(10 * time.Minute)
	want(1, 0)
}

// The contract names every reason, since the API's counts have it as their key.
func TestRefusals_AreInTheContract(t *testing.T) {
	for _, why := range publicport.Refusals() {
		if !why.Valid() || !strings.Contains(string(eclitunnel.OpenAPI), "        | `"+string(why)+"` | ") {
			t.Errorf("RefusalCounts of the contract does not describe %s", why)
		}
	}
	for _, why := range []publicport.Refusal{"", "other", "Denied", "anything"} {
		if why.Valid() {
			t.Errorf("%q is a reason", why)
		}
	}
}
