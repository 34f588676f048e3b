package publicport

import (
	"net/netip"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/openfiles"
)

// Limits bound what players can make a public port hold. The zero value of each
// means its default.
type Limits struct {
	// Players is how many TCP connections one allocation may have, if its rules do not
	// say less. For a further one the source that has most gives way, if that has more
	// than the newcomer's would. Default 10,000.
	Players int
	// UnspokenWait is how long a TCP player who has sent nothing is left alone. After it,
	// one gives way to a newcomer even if no source has more than the newcomer's would.
	// Default 10 s.
	UnspokenWait time.Duration
	// Flows is how many UDP flows one allocation may have, or half of those that other
	// allocations leave of what its tunnel client can have open. Source addresses of UDP
	// cost an attacker nothing: beyond the limit a flow gives way to the next, one that
	// is not proven first, of the source that has most. A flow is proven once its player
	// has spoken after an answer of the game. From half of the limit on, flows end after
	// less silence the more there are. Default 16,384.
	Flows int
	// FlowsPerSource is how many of those may come from one source, an address of IPv4
	// or a /64 of IPv6. The /56 and the /48 around it may have two and four times as
	// many. Default 8192.
	FlowsPerSource int
	// UnprovenBytes is how many bytes per second go to the players of one allocation
	// whose flows are not proven: it is what somebody can have sent to addresses that
	// they forge. A first answer of up to 1,500 bytes is not counted, and nothing that
	// goes to an address with a TCP connection on a public port. Four seconds' worth may
	// go at once. Default 1 MiB.
	UnprovenBytes int
	// UnprovenBytesPerSource is how many bytes per second go to those of one source,
	// first answers included; two and four times as many to its /56 and /48. Four
	// seconds' worth, but no less than one datagram, may go at once. Default 16 KiB.
	UnprovenBytesPerSource int
	// Files is how many files this process may have open; players of one allocation may
	// take half of those that the process and other allocations leave it. Default: what
	// the system says.
	Files int
	// Unanswered is how many players of one allocation may come from the addresses of
	// linked tunnel clients without an answer of the game, for each of TCP and UDP: in a
	// tunnel that leads to itself each such player causes the next, and none is ever
	// answered. Each that is answered admits one more, up to eight times as many. Further
	// players wait until one of them is answered or leaves, for UnansweredWait; those of
	// TCP until none has been answered for as long. Defaults 8 and 5 s.
	Unanswered     int
	UnansweredWait time.Duration
}

func (l Limits) withDefaults() Limits {
	setDefault := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	setDefault(&l.Players, 10_000)
	setDefault(&l.Flows, 16_384)
	setDefault(&l.FlowsPerSource, 8192)
	setDefault(&l.UnprovenBytes, 1<<20)
	setDefault(&l.UnprovenBytesPerSource, 16<<10)
	setDefault(&l.Files, openfiles.Limit())
	setDefault(&l.Unanswered, 8)
	if l.UnansweredWait == 0 {
		l.UnansweredWait = 5 * time.Second
	}
	if l.UnspokenWait == 0 {
		l.UnspokenWait = 10 * time.Second
	}
	return l
}

// answeringFactor is how many times Limits.Unanswered players may be unanswered where
// the game is known to answer.
const answeringFactor = 8

// admission decides who may enter one public port, as far as that does not depend on the
// protocol: see tcpAdmission and flowAdmission, which every decision about a player is one
// of. It is guarded by the lock of its port.
type admission struct {
	limits Limits
	rules  *rules
	now    func() time.Time // For what is kept out until a time.
}

// permits decides whether a player of an address may be in at all.
func (a *admission) permits(player netip.Addr) Refusal {
	switch {
	case !a.rules.permits(player):
		return RefusedDenied
	case a.rules.keptOut.has(player, a.now()):
		return RefusedKeptOut
	}
	return NotRefused
}
