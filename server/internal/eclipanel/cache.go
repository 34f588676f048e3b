package eclipanel

import (
	"crypto/sha256"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

const (
	// maxEntries bounds each cache, of about 150 bytes an entry. Refused credentials have a
	// cache of their own, so that a flood of them displaces no accepted ones.
	maxEntries = 16 << 10
	// evictScan bounds how many entries of a full cache are searched for an expired one. The
	// last of them is dropped if there is none.
	evictScan = 16
)

// key is the hash of a credential. The credential itself is not stored.
type key [sha256.Size]byte

func keyOf(credential auth.Credential) key {
	return sha256.Sum256([]byte(credential.Header + "\x00" + credential.Value))
}

// verdict is EcliPanel's answer about a credential.
type verdict struct {
	userID  int64
	session bool  // The credential is a session, and not a key or an app's token.
	err     error // Why the caller is refused; nil if userID is set.
	until   time.Time
}

// holder returns whose the credential is.
func (v verdict) holder(user db.User) auth.Holder {
	return auth.Holder{User: user, Session: v.session, Until: v.until}
}

// cache holds verdicts until they expire. It is safe for concurrent use.
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
