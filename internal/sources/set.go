package sources

import (
	"container/list"
	"iter"
	"net/netip"
)

// Set holds members, such as connections, by their source. Its methods take constant
// time, apart from Busiest's, which take what its caller asks for. The zero value is
// empty and ready to use. It is not safe for concurrent use.
type Set[M comparable] struct {
	all     map[M]place[M]
	sources map[netip.Prefix]*source[M] // By /32 or /64.
	counts  map[netip.Prefix]int        // Of the networks around sources.
	outer   ranking                     // Of sources of IPv4, and of /48s of IPv6,
	inner   map[netip.Prefix]*ranking   // and of the sources of each /48.
}

// place is where a member is kept.
type place[M comparable] struct {
	from    netip.Addr
	element *list.Element
}

type source[M comparable] struct{ members list.List } // Oldest first.

// Add adds a member from an address. A member that is there already is not changed.
func (s *Set[M]) Add(m M, from netip.Addr) {
	if _, ok := s.all[m]; ok {
		return
	}
	if s.all == nil {
		s.all = map[M]place[M]{}
		s.sources = map[netip.Prefix]*source[M]{}
		s.counts = map[netip.Prefix]int{}
		s.inner = map[netip.Prefix]*ranking{}
	}
	n := networksOf(from)
	in := s.sources[n.list[0]]
	if in == nil {
		in = &source[M]{}
		s.sources[n.list[0]] = in
	}
	s.all[m] = place[M]{from: from, element: in.members.PushBack(m)}
	s.count(n, 1)
}

// Remove removes a member, and reports whether it was there.
func (s *Set[M]) Remove(m M) bool {
	p, ok := s.all[m]
	if !ok {
		return false
	}
	delete(s.all, m)
	n := networksOf(p.from)
	in := s.sources[n.list[0]]
	in.members.Remove(p.element)
	if in.members.Len() == 0 {
		delete(s.sources, n.list[0])
	}
	s.count(n, -1)
	return true
}

// Renew makes a member the newest of its source, if it is there.
func (s *Set[M]) Renew(m M) {
	if p, ok := s.all[m]; ok {
		s.sources[Of(p.from)].members.MoveToBack(p.element)
	}
}

// count adds to the counts of networks.
func (s *Set[M]) count(n networks, by int) {
	for _, network := range n.list[1:n.n] {
		if s.counts[network] += by; s.counts[network] == 0 {
			delete(s.counts, network)
		}
	}
	outermost := n.list[n.n-1]
	s.outer.add(outermost, by)
	if n.n == 1 {
		return
	}
	within := s.inner[outermost]
	if within == nil {
		within = &ranking{}
		s.inner[outermost] = within
	}
	within.add(n.list[0], by)
	if len(within.counts) == 0 {
		delete(s.inner, outermost)
	}
}

// Len returns the number of members.
func (s *Set[M]) Len() int { return len(s.all) }

// Has reports whether a member is there.
func (s *Set[M]) Has(m M) bool {
	_, ok := s.all[m]
	return ok
}

// Count returns how many members the source of an address has.
func (s *Set[M]) Count(a netip.Addr) int { return s.countOf(networksOf(a), 0) }

// Within reports whether the source of an address, and each network around it, has
// fewer members than its bound: limit, times its [Width].
func (s *Set[M]) Within(a netip.Addr, limit int) bool { return Within(a, limit, s) }

// Within is [Set.Within] for what several sets have together.
func Within[M comparable](a netip.Addr, limit int, sets ...*Set[M]) bool {
	n := networksOf(a)
	for i := range n.n {
		count := 0
		for _, s := range sets {
			count += s.countOf(n, i)
		}
		if count >= limit*Width[i] {
			return false
		}
	}
	return true
}

func (s *Set[M]) countOf(n networks, i int) int {
	if i > 0 {
		return s.counts[n.list[i]]
	}
	if in := s.sources[n.list[0]]; in != nil {
		return in.members.Len()
	}
	return 0
}

// Busiest returns the members of the source that has most, oldest first. The /48s of
// IPv6 compete with addresses of IPv4: it is the busiest source of the busiest /48 if
// that has more than any address of IPv4. Of equals it is one that came to its count
// first.
func (s *Set[M]) Busiest() iter.Seq[M] {
	return func(yield func(M) bool) {
		key, ok := s.outer.top()
		if within := s.inner[key]; ok && within != nil {
			key, ok = within.top()
		}
		if !ok {
			return
		}
		members := &s.sources[key].members
		for e := members.Front(); e != nil; {
			next := e.Next() // The caller may remove or renew the member.
			if !yield(e.Value.(M)) {
				return
			}
			e = next
		}
	}
}

// Most returns how many members the busiest network has: see [Set.Busiest].
func (s *Set[M]) Most() int { return s.outer.most }

// Weight returns how many members count against a newcomer from an address when
// sources compete: those of its /48, or of its address of IPv4.
func (s *Set[M]) Weight(a netip.Addr) int {
	n := networksOf(a)
	return s.countOf(n, n.n-1)
}

// ranking knows the network with the highest count. Counts change by one at a time,
// so that the highest moves by one too. The zero value is empty.
type ranking struct {
	counts map[netip.Prefix]rank
	equals map[int]*list.List // Of prefixes, by their count; those that came first are first.
	most   int
}

type rank struct {
	count   int
	element *list.Element
}

// add adds 1 or -1 to a count.
func (r *ranking) add(network netip.Prefix, by int) {
	if r.counts == nil {
		r.counts, r.equals = map[netip.Prefix]rank{}, map[int]*list.List{}
	}
	before := r.counts[network]
	if before.element != nil {
		equals := r.equals[before.count]
		equals.Remove(before.element)
		if equals.Len() == 0 {
			delete(r.equals, before.count)
		}
	}
	count := before.count + by
	if count == 0 {
		delete(r.counts, network)
	} else {
		equals := r.equals[count]
		if equals == nil {
			equals = list.New()
			r.equals[count] = equals
		}
		r.counts[network] = rank{count: count, element: equals.PushBack(network)}
	}
	switch {
	case count > r.most:
		r.most = count
	case before.count == r.most && r.equals[r.most] == nil:
		r.most = count // The network itself is the next.
	}
}

func (r *ranking) top() (netip.Prefix, bool) {
	equals := r.equals[r.most]
	if equals == nil {
		return netip.Prefix{}, false
	}
	return equals.Front().Value.(netip.Prefix), true
}
