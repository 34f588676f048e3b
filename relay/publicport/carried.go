package publicport

import (
	"sync"

	"github.com/google/uuid"
)

// carried counts the TCP players that tunnel clients carry, by allocation. An
// allocation may have half of what others leave of its tunnel client's data
// connections, so that there are always some for another. It is safe for concurrent
// use. The zero value is empty and ready to use.
type carried struct {
	mu      sync.Mutex
	clients map[uuid.UUID]*carriedBy
}

type carriedBy struct {
	all int
	own map[int64]int // By allocation.
}

// take counts a player of a tunnel client that can carry capacity of them, unless the
// allocation has its share. One player is always in it. Capacity 0 is unknown.
func (c *carried) take(client uuid.UUID, allocation int64, capacity int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	by := c.clients[client]
	if by == nil {
		by = &carriedBy{own: map[int64]int{}}
	}
	own := by.own[allocation]
	if capacity > 0 && own > 0 && 2*(own+1) > capacity-(by.all-own) {
		return false
	}
	by.all++
	by.own[allocation]++
	if c.clients == nil {
		c.clients = map[uuid.UUID]*carriedBy{}
	}
	c.clients[client] = by
	return true
}

// give counts a player off whom take has counted.
func (c *carried) give(client uuid.UUID, allocation int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	by := c.clients[client]
	by.all--
	if by.own[allocation]--; by.own[allocation] == 0 {
		delete(by.own, allocation)
	}
	if by.all == 0 {
		delete(c.clients, client)
	}
}
