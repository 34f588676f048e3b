package sources

import (
	"net/netip"
	"time"
)

const (
	// Few is how many members a household may have as if it had none, when a [Table]
	// says who gives way.
	Few = 8
	// evictionScanLimit is how many proven members of the busiest source are examined
	// for the idlest.
	evictionScanLimit = 16
)

// Table holds members, such as flows of datagrams, of which some are proven to be a
// user's, and says which of them gives way to a newcomer: those that are not proven
// first, then the idlest of the source that has most. The zero value is empty and ready to
// use. It is not safe for concurrent use.
type Table[M comparable] struct {
	unproven, proven Set[M]
}

// Add adds a member from an address, which is not proven.
func (t *Table[M]) Add(m M, from netip.Addr) { t.unproven.Add(m, from) }

// Prove makes a member from an address proven, if it is there.
func (t *Table[M]) Prove(m M, from netip.Addr) {
	if t.unproven.Remove(m) {
		t.proven.Add(m, from)
	}
}

// Remove removes a member, and reports whether it was there.
func (t *Table[M]) Remove(m M) bool { return t.proven.Remove(m) || t.unproven.Remove(m) }

// Len returns the number of members.
func (t *Table[M]) Len() int { return t.unproven.Len() + t.proven.Len() }

// Proven returns the number of members that are proven.
func (t *Table[M]) Proven() int { return t.proven.Len() }

// Within is [Set.Within] of all members.
func (t *Table[M]) Within(from netip.Addr, limit int) bool {
	return Within(from, limit, &t.unproven, &t.proven)
}

// Weight is [Set.Weight] of all members.
func (t *Table[M]) Weight(from netip.Addr) int {
	return t.unproven.Weight(from) + t.proven.Weight(from)
}

// Evictable returns the member of a table with limit members that gives way to a newcomer
// from an address: the oldest unproven one of the source with most of them, or else the
// idlest of some proven ones. Silence says how long a member has been idle. If none gives
// way, because no source has more than the newcomer's, ok is false.
func (t *Table[M]) Evictable(from netip.Addr, limit int, silence func(M) time.Duration) (m M, ok bool) {
	weight := t.Weight(from)
	unproven := weight
	if weight < Few {
		unproven = t.unproven.Weight(from)
	}
	if t.unproven.Most() >= unproven {
		for m := range t.unproven.Busiest() {
			return m, true
		}
	}
	return t.idlest(weight, limit, silence)
}

// EvictableProven is [Table.Evictable] of the proven members alone.
func (t *Table[M]) EvictableProven(from netip.Addr, limit int, silence func(M) time.Duration) (m M, ok bool) {
	return t.idlest(t.proven.Weight(from), limit, silence)
}

// idlest returns the proven member of the source with most of them that has been silent
// for longest, of some, for a newcomer whose source has so many of a limit. There is none
// if that source has hardly more, or no more than a household may.
func (t *Table[M]) idlest(newcomer, limit int, silence func(M) time.Duration) (idlest M, ok bool) {
	if t.proven.Most() <= max(newcomer+1, min(Few, limit/8)) {
		return idlest, false
	}
	var longest time.Duration
	left := evictionScanLimit
	for m := range t.proven.Busiest() {
		t.proven.Renew(m) // Others are examined the next time.
		if s := silence(m); !ok || s > longest {
			idlest, longest, ok = m, s, true
		}
		if left--; left == 0 {
			break
		}
	}
	return idlest, ok
}
