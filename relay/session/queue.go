package session

import (
	"container/list"
	"net/netip"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/sources"
	"github.com/eclitunnel/eclitunnel/relay/tcpstream"
)

// waiting is a player who waits for a data connection.
type waiting struct {
	allocation int64
	source     netip.Addr
	conn       chan *tcpstream.Conn // Closed if there will be none,
	err        error                // and why.
	wait       time.Duration        // From the last request for the player
	next       time.Time            // to the next one.

	byAge, inTurn *list.Element // nil: the player does not wait any more.
}

// queue holds the players who wait for a data connection. Allocations have turns, and
// within an allocation networks of sources: a flood at one delays the others by one
// player at a time. The zero value is empty.
type queue struct {
	byAge       list.List // Of waiting, those who have waited longest first.
	allocations turns[int64, *allocationQueue]
}

// allocationQueue holds the players of one allocation.
type allocationQueue struct {
	bySource sources.Set[*waiting]
	networks turns[netip.Prefix, *list.List] // Of waiting, by their outermost network.
}

func networkOf(a netip.Addr) netip.Prefix {
	networks := sources.Networks(a)
	return networks[len(networks)-1]
}

// len returns how many players wait.
func (q *queue) len() int { return q.byAge.Len() }

// add adds a player, and reports whether it did. If limit players wait already, another
// one is removed with an error: of the allocation that has most, unless the player's own
// would have as many, and of that one's source that has most.
func (q *queue) add(w *waiting, limit int) bool {
	if q.len() >= limit && !q.evictFor(w) {
		return false
	}
	of := q.allocations.of(w.allocation, func() *allocationQueue { return &allocationQueue{} })
	of.bySource.Add(w, w.source)
	w.inTurn = of.networks.of(networkOf(w.source), list.New).PushBack(w)
	w.byAge = q.byAge.PushBack(w)
	return true
}

// evictFor removes a player in favour of another one, and reports whether it did.
func (q *queue) evictFor(w *waiting) bool {
	own, mine := 1, 1
	if of, ok := q.allocations.get(w.allocation); ok {
		own, mine = of.bySource.Len()+1, of.bySource.Weight(w.source)+1
	}
	var busiest *allocationQueue
	for of := range q.allocations.all() {
		if busiest == nil || of.bySource.Len() > busiest.bySource.Len() {
			busiest = of
		}
	}
	if busiest == nil {
		return false
	}
	if own >= busiest.bySource.Len() {
		of, ok := q.allocations.get(w.allocation)
		if !ok || mine >= of.bySource.Most() {
			return false
		}
		busiest = of
	}
	for evicted := range busiest.bySource.Busiest() {
		q.remove(evicted)
		evicted.err = ErrTooManyWaiting
		close(evicted.conn)
		break
	}
	return true
}

// next removes the player whose turn it is and returns them; nil: nobody waits.
func (q *queue) next() *waiting {
	of, ok := q.allocations.next()
	if !ok {
		return nil
	}
	network, _ := of.networks.next()
	w, _ := network.Front().Value.(*waiting)
	q.remove(w)
	return w
}

// remove removes a player, and reports whether they waited.
func (q *queue) remove(w *waiting) bool {
	if w.byAge == nil {
		return false
	}
	q.byAge.Remove(w.byAge)
	of, _ := q.allocations.get(w.allocation)
	of.bySource.Remove(w)
	network, _ := of.networks.get(networkOf(w.source))
	network.Remove(w.inTurn)
	w.byAge, w.inTurn = nil, nil
	if network.Len() == 0 {
		of.networks.drop(networkOf(w.source))
	}
	if of.bySource.Len() == 0 {
		q.allocations.drop(w.allocation)
	}
	return true
}

// close removes all players with an error.
func (q *queue) close(err error) {
	for w := q.next(); w != nil; w = q.next() {
		w.err = err
		close(w.conn)
	}
}
