package publicport

import (
	"net/netip"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
)

func player(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 50123)
}

// fullPort returns a port with as many flows as it may have, each from an address of its
// own if they are forged, from three otherwise.
func fullPort(b *testing.B, forged bool) *udpPort {
	b.Helper()
	limits := Limits{}.withDefaults()
	p := &udpPort{
		admission: newFlowAdmission(limits, types.ServerAllocation{}, &carried{}, &rules{}, time.Now), flows: map[flowKey]*udptunnel.ServerFlow{},
		atClients: newAtClients(limits.Unanswered),
	}
	for i := range limits.Flows {
		source := player(i)
		if !forged {
			source = netip.AddrPortFrom(player(i%3).Addr(), uint16(i))
		}
		f := &udptunnel.ServerFlow{Source: source, Idle: time.Minute}
		f.Touch(udptunnel.Ticks(time.Now()))
		p.flows[keyOf(f)] = f
		p.admission.opened(f)
	}
	return p
}

// BenchmarkFlowAdmission_Datagram is what each datagram costs before its flow is known.
func BenchmarkFlowAdmission_Datagram(b *testing.B) {
	limit := 1_000_000
	for name, c := range map[string]struct {
		rules types.AllocationRules
		from  netip.Addr
	}{
		"no rule":       {types.AllocationRules{}, player(1).Addr()},
		"a rate":        {types.AllocationRules{DatagramsPerSecondPerSource: &limit}, player(1).Addr()},
		"a rate, of v6": {types.AllocationRules{DatagramsPerSecondPerSource: &limit}, netip.MustParseAddr("2001:db8::1")},
	} {
		b.Run(name, func(b *testing.B) {
			p := fullPort(b, true)
			p.admission.setRules(&rules{AllocationRules: c.rules})
			now := time.Now()
			for b.Loop() {
				_ = p.admission.datagram(c.from, now)
			}
		})
	}
}

// BenchmarkFlowAdmission_Newcomer is what a datagram costs that opens a flow of a full
// port, or is refused.
func BenchmarkFlowAdmission_Newcomer(b *testing.B) {
	for name, forged := range map[string]bool{"of three addresses": false, "of forged addresses": true} {
		b.Run(name, func(b *testing.B) {
			p := fullPort(b, forged)
			opened, i, now := 0, 0, time.Now()
			for b.Loop() {
				i++
				source := player(1<<20 + i)
				now = now.Add(10 * time.Microsecond) // 100,000 per second.
				evicted, refusal := p.admission.flow(source.Addr(), now)
				if refusal != NotRefused {
					continue
				}
				opened++
				if evicted != nil {
					p.forget(evicted)
				}
				f := &udptunnel.ServerFlow{Source: source, Idle: time.Minute}
				p.flows[keyOf(f)] = f
				p.admission.opened(f)
			}
			b.ReportMetric(float64(opened)/float64(b.N), "opened/op")
		})
	}
}

// BenchmarkUDPPort_Idle is what it takes each second to find the silent flows of a full
// port.
func BenchmarkUDPPort_Idle(b *testing.B) {
	p := fullPort(b, true)
	now := udptunnel.Ticks(time.Now())
	for b.Loop() {
		_ = p.idle(now)
	}
}
