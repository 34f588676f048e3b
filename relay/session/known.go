package session

import (
	"net/netip"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/sources"
)

const (
	// remembered is for how long a source stays known after its last peer has left:
	// longer than networks and machines take to come back.
	remembered = 10 * time.Minute
	// maxRemembered bounds those sources, of about 100 bytes each.
	maxRemembered = 16 << 10
)

// knownSources are the sources of peers that have shown who they are, and of those that had
// lately. It is safe for concurrent use. The zero value is empty and ready to use.
type knownSources struct {
	mu      sync.Mutex
	present map[netip.Prefix]int
	left    map[netip.Prefix]time.Time
}

// enter notes that a peer at an address has shown who it is. Leave is called for it.
func (k *knownSources) enter(a netip.Addr) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.present == nil {
		k.present, k.left = map[netip.Prefix]int{}, map[netip.Prefix]time.Time{}
	}
	source := sources.Of(a)
	k.present[source]++
	delete(k.left, source)
}

// leave notes that a peer at an address has left at a time.
func (k *knownSources) leave(a netip.Addr, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	source := sources.Of(a)
	if k.present[source]--; k.present[source] > 0 {
		return
	}
	delete(k.present, source)
	if len(k.left) >= maxRemembered {
		k.forgetOne(now)
	}
	k.left[source] = now
}

// forgetOne forgets one of the sources that were left, of a few one that was left first.
func (k *knownSources) forgetOne(now time.Time) {
	const few = 8
	var first netip.Prefix
	at, n := now, 0
	for source, left := range k.left {
		if n == 0 || left.Before(at) {
			first, at = source, left
		}
		if n++; n == few {
			break
		}
	}
	delete(k.left, first)
}

// has reports whether the source of an address is known at a time.
func (k *knownSources) has(a netip.Addr, now time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	source := sources.Of(a)
	if k.present[source] > 0 {
		return true
	}
	left, ok := k.left[source]
	return ok && now.Sub(left) < remembered
}
