// Package openfiles shares the files that the system lets a process have open among
// the allocations that it carries, so that one of them takes neither those of others
// nor those that the process needs itself.
package openfiles

import (
	"log/slog"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/lograte"
)

const (
	// maxReserve and minReserve bound what is kept of the limit, otherwise a quarter: for
	// control channels, links, listeners, idle data connections, files and databases.
	maxReserve, minReserve = 2048, 32
	// refusalsPause is the least time between two log lines about one allocation.
	refusalsPause = time.Minute
)

// Share returns how many files of a limit players may take; 0, for a limit of 0: as
// many as they like.
func Share(limit int) int {
	if limit == 0 {
		return 0
	}
	return max(1, limit-max(minReserve, min(maxReserve, limit/4)))
}

// Budget is the files that players may take. An allocation may take half of those that
// others leave it: there are always some for another. It is safe for concurrent use.
type Budget struct {
	share    int // 0: no limit.
	log      *slog.Logger
	refusals *lograte.Limiter // By allocation.

	mu       sync.Mutex
	used     int
	accounts map[int64]int // By allocation.
}

// NewBudget returns the budget of a process that may have limit files open: see
// [Limit]. Refusals are logged, once a minute for an allocation.
func NewBudget(limit int, log *slog.Logger) *Budget {
	return &Budget{share: Share(limit), log: log, refusals: lograte.New(refusalsPause), accounts: map[int64]int{}}
}

// Take takes files for a player of an allocation and reports whether there are any. If
// so, the caller gives them back.
func (b *Budget) Take(allocation int64, files int) bool {
	if b.share == 0 {
		return true
	}
	own, taken := b.take(allocation, files)
	if !taken && b.refusals.Allow(allocation) {
		b.log.Warn("players refused or cut off: the allocation has its share of the files that the system lets this program open; raise the limit (ulimit -n, LimitNOFILE)",
			slog.Int64("allocationId", allocation), slog.Int("files", own), slog.Int("shared", b.share))
	}
	return taken
}

// take takes files if there are any, and returns how many the allocation had before.
func (b *Budget) take(allocation int64, files int) (own int, taken bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	own = b.accounts[allocation]
	if others := b.used - own; 2*(own+files) > b.share-others {
		return own, false
	}
	b.accounts[allocation] += files
	b.used += files
	return own, true
}

// Give gives back what Take has taken.
func (b *Budget) Give(allocation int64, files int) {
	if b.share == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.used -= files
	if b.accounts[allocation] -= files; b.accounts[allocation] == 0 {
		delete(b.accounts, allocation)
	}
}
