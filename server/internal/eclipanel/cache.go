package eclipanel

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

const (
	// maxEntries bounds each of the two caches, of about 150 bytes an entry. Those who were
	// refused have one of their own, so that a flood of them displaces nobody else.
	maxEntries = 16 << 10
	// evictScan bounds the entries that are looked at for one that has ended, to be dropped
	// when there are too many.
	evictScan = 16
)

// key stands for a credential, which is kept nowhere itself.
type key [sha256.Size]byte

func keyOf(credential auth.Credential) key {
	return sha256.Sum256([]byte(credential.Header + "\x00" + credential.Value))
}

// verdict is what EcliPanel said of a credential.
type verdict struct {
	userID int64
	err    error // Why the caller is refused; nil if userID is set.
	until  time.Time
}

// cache has verdicts until they end. It is safe for concurrent use.
type cache struct {
	mu      sync.Mutex
	entries map[key]verdict
}

func newCache() *cache { return &cache{entries: map[key]verdict{}} }

func (c *cache) get(k key, now time.Time) (verdict, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v, ok := c.entries[k]
	if ok && !now.Before(v.until) {
		delete(c.entries, k)
		ok = false
	}
	return v, ok
}

func (c *cache) put(k key, v verdict, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.entries[k]; !ok && len(c.entries) >= maxEntries {
		looked := 0
		for other, entry := range c.entries { // In no order.
			if looked++; !now.Before(entry.until) || looked == evictScan {
				delete(c.entries, other)
				break
			}
		}
	}
	c.entries[k] = v
}

func (c *cache) drop(k key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.entries, k)
}
