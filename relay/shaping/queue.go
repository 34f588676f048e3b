package shaping

import "container/heap"

// order is what a queue is sorted by; a share is in at most one queue of each.
type order int

const (
	backlogOrder order = iota // By finish.
	turnOrder                 // By finish.
	restOrder                 // By the end of its rest.
	orders
)

// queue is a heap of shares.
type queue struct {
	order  order
	shares []*Share
}

func (q *queue) len() int      { return len(q.shares) }
func (q *queue) first() *Share { return q.shares[0] }

func (q *queue) add(p *Share) { heap.Push((*shareHeap)(q), p) }

// remove removes a share, if it is there.
func (q *queue) remove(p *Share) {
	if i := p.places[q.order]; i > 0 {
		heap.Remove((*shareHeap)(q), i-1)
	}
}

// shareHeap implements heap.Interface.
type shareHeap queue

func (h *shareHeap) Len() int { return len(h.shares) }

func (h *shareHeap) Less(i, j int) bool {
	a, b := h.shares[i], h.shares[j]
	if h.order == restOrder {
		return a.rest < b.rest
	}
	return a.finish < b.finish
}

func (h *shareHeap) Swap(i, j int) {
	h.shares[i], h.shares[j] = h.shares[j], h.shares[i]
	h.shares[i].places[h.order], h.shares[j].places[h.order] = i+1, j+1
}

func (h *shareHeap) Push(x any) {
	p, _ := x.(*Share)
	h.shares = append(h.shares, p)
	p.places[h.order] = len(h.shares)
}

func (h *shareHeap) Pop() any {
	last := len(h.shares) - 1
	p := h.shares[last]
	h.shares[last] = nil
	h.shares = h.shares[:last]
	p.places[h.order] = 0
	return p
}
