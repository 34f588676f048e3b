package target

import (
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/openfiles"
	"github.com/eclitunnel/eclitunnel/internal/sources"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
)

// udpFiles is how many files a UDP flow takes.
const udpFiles = 1

// openFlows are the UDP flows of all allocations and tunnel servers that have files. For a
// flow of an allocation that has its share of the files, another one of the same
// allocation gives way, in the order in which tunnel servers evict. Those do so first if
// they know how many files there are, and as long as TCP players and other tunnel servers
// take none of them. It is safe for concurrent use.
type openFlows struct {
	files *openfiles.Budget

	mu          sync.Mutex
	allocations map[int64]*sources.Table[*flowSocket]
}

// enter admits a flow, if need be in place of another one, which it ends. It reports
// whether it did. The caller calls leave once the flow's socket is closed.
func (o *openFlows) enter(s *flowSocket) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	of := o.allocations[s.allocation.ID]
	if of == nil {
		of = &sources.Table[*flowSocket]{}
	}
	if !o.files.Take(s.allocation.ID, udpFiles) {
		now := udptunnel.Ticks(time.Now())
		evicted, ok := of.Evictable(s.player.Addr(), of.Len(), func(s *flowSocket) time.Duration { return s.flow.Silence(now) })
		if !ok {
			return false
		}
		// Its file is the newcomer's, although it is closed a moment later.
		of.Remove(evicted)
		evicted.holds = false
		evicted.flow.End()
	}
	s.holds = true
	of.Add(s, s.player.Addr())
	if o.allocations == nil {
		o.allocations = map[int64]*sources.Table[*flowSocket]{}
	}
	o.allocations[s.allocation.ID] = of
	return true
}

// prove notes that a flow is that of a player.
func (o *openFlows) prove(s *flowSocket) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.proven.Swap(true) || s.ended {
		return
	}
	s.joined = true
	s.dialer.traffic.join(s.counted)
	if of := o.allocations[s.allocation.ID]; of != nil {
		of.Prove(s, s.player.Addr())
	}
}

// leave notes that the socket of a flow is closed, or was never opened.
func (o *openFlows) leave(s *flowSocket) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if of := o.allocations[s.allocation.ID]; of != nil {
		of.Remove(s)
		if of.Len() == 0 {
			delete(o.allocations, s.allocation.ID)
		}
	}
	if s.holds {
		s.holds = false
		o.files.Give(s.allocation.ID, udpFiles)
	}
	s.ended = true
	if s.joined {
		s.dialer.traffic.part(s.counted)
	}
}
