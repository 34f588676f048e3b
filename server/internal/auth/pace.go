package auth

import (
	"context"
	"sync"
	"time"
)

const (
	// guessInterval is the time between two attempts on an account under attack.
	guessInterval = 500 * time.Millisecond
	// paceMemory is how long an attempt on such an account counts against its source: who
	// has tried once in an hour comes before who tries again.
	paceMemory = time.Hour
	// maxPaces bounds the accounts under attack, beyond which others share one pace,
	// maxPaceCallers the attempts on all of them that wait or have just gone on, and
	// maxPaceSources the sources that are remembered.
	maxPaces       = 1024
	maxPaceCallers = 8 << 10
	maxPaceSources = 64 << 10
)

// paces slow down attempts on accounts under attack, from places that are not known: one
// for each account in an interval, in the order of a queue. They are safe for concurrent
// use.
type paces struct {
	interval time.Duration

	mu       sync.Mutex
	accounts map[string]*pace
	callers  int       // Of all.
	sources  *attempts // By account and source.
	slowed   uint64
}

// pace is that of one account.
type pace struct {
	queue
	callers int // Those that wait, and the intervals that have not ended.
}

func newPaces(interval time.Duration) *paces {
	return &paces{
		interval: interval,
		accounts: map[string]*pace{},
		sources:  newAttempts(paceMemory, maxPaceSources),
	}
}

// wait waits until an attempt from a source on an account may go on, at most about
// maxQueueWait. Its errors are those of queue.acquire.
func (p *paces) wait(ctx context.Context, account, from string) error {
	entry, account := p.enter(account)
	if entry == nil {
		return errBusy()
	}
	if err := entry.acquire(ctx, account+" "+from, false); err != nil {
		p.leave(entry, account)
		return err
	}
	time.AfterFunc(p.interval, func() {
		entry.release()
		p.leave(entry, account)
	})
	return nil
}

// enter returns the pace of an account, and the name under which it is kept; nil if too
// many attempts wait.
func (p *paces) enter(account string) (*pace, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slowed++
	if p.callers >= maxPaceCallers {
		return nil, ""
	}
	if p.accounts[account] == nil && len(p.accounts) >= maxPaces {
		account = ""
	}
	entry := p.accounts[account]
	if entry == nil {
		entry = &pace{queue: queue{mu: &p.mu, free: 1, sources: p.sources}}
		p.accounts[account] = entry
	}
	entry.callers++
	p.callers++
	return entry, account
}

func (p *paces) leave(entry *pace, account string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.callers--
	if entry.callers--; entry.callers == 0 {
		delete(p.accounts, account)
	}
}

// count returns the number of attempts that were slowed down or refused.
func (p *paces) count() uint64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.slowed
}
