package publicport

import (
	"sync"

	"github.com/google/uuid"
)

// carried counts what tunnel clients carry, TCP players or UDP flows, by allocation. An
// allocation may have half of what others leave of what its tunnel client can carry, so
// that there is always something for another. It is safe for concurrent use. The zero
// value is empty and ready to use.
type carried struct {
	mu      sync.Mutex
	clients map[uuid.UUID]*carriedBy
}

type carriedBy struct {
	all int
	own map[int64]int // By allocation.
}

// share is how many an allocation may have of a capacity of which others have some. One
// is always in it.
func share(capacity, others int) int { return max(1, (capacity-others)/2) }

// share returns how many of a capacity an allocation may have now.
func (c *carried) share(client uuid.UUID, allocation int64, capacity int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shareLocked(client, allocation, capacity)
}

func (c *carried) shareLocked(client uuid.UUID, allocation int64, capacity int) int {
	by := c.clients[client]
	if by == nil {
		return share(capacity, 0)
	}
	return share(capacity, by.all-by.own[allocation])
}

// take counts one of a tunnel client that can carry capacity of them, unless the
// allocation has its share. Capacity 0 is unknown.
func (c *carried) take(client uuid.UUID, allocation int64, capacity int) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if by := c.clients[client]; by != nil && capacity > 0 && by.own[allocation] >= c.shareLocked(client, allocation, capacity) {
		return false
	}
	c.addLocked(client, allocation)
	return true
}

// add counts one of a tunnel client, whatever the allocation's share.
func (c *carried) add(client uuid.UUID, allocation int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addLocked(client, allocation)
}

func (c *carried) addLocked(client uuid.UUID, allocation int64) {
	by := c.clients[client]
	if by == nil {
		if c.clients == nil {
			c.clients = map[uuid.UUID]*carriedBy{}
		}
		by = &carriedBy{own: map[int64]int{}}
		c.clients[client] = by
	}
	by.all++
	by.own[allocation]++
}

// give counts one off that take or add has counted.
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
