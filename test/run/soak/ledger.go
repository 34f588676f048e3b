//go:build linux

package main

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
)

const (
	ledgerName = "ledger"
	// ledgerPause is between two changes, ledgerLength how many allocations are kept.
	ledgerPause  = 200 * time.Millisecond
	ledgerLength = 10
	// ledgerTimeout bounds one change.
	ledgerTimeout = 5 * time.Second
)

// ledger makes and deletes allocations all the time and notes what the panel has
// acknowledged. What it has not may have been done or not.
type ledger struct {
	fleet                *fleet
	acknowledged, failed atomic.Int64

	mu   sync.Mutex // Held while a change is under way.
	have []int64
	gone map[int64]bool
}

func newLedger(fl *fleet) *ledger { return &ledger{fleet: fl, gone: map[int64]bool{}} }

func (l *ledger) run(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		l.change(ctx, n)
		pause(ctx, ledgerPause)
	}
}

// change makes an allocation, or deletes the oldest where there are enough.
func (l *ledger) change(ctx context.Context, n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, ledgerTimeout)
	defer cancel()
	fl := l.fleet
	if len(l.have) >= ledgerLength {
		oldest := l.have[0]
		l.have = l.have[1:] // If this fails, it may exist or not.
		answer, err := fl.api.DeleteAllocationWithResponse(ctx, oldest)
		if err != nil || answer.StatusCode() != http.StatusOK {
			l.failed.Add(1)
			return
		}
		l.gone[oldest] = true
		l.acknowledged.Add(1)
		return
	}
	made, err := fl.allocate(ctx, fl.agents[n%len(fl.agents)], fl.servers[n%len(fl.servers)], types.CreateTCP, ledgerName)
	if err != nil {
		l.failed.Add(1)
		return
	}
	l.have = append(l.have, made.ID)
	l.acknowledged.Add(1)
}

// verify checks that everything acknowledged is so, and forgets the rest.
func (l *ledger) verify(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, recoveryPatience)
	defer cancel()
	var rows []types.Allocation
	if err := cluster.Until(ctx, "the panel lists allocations", func(ctx context.Context) (bool, error) {
		answer, err := l.fleet.api.ListAllocationsWithResponse(ctx, nil)
		if err != nil || answer.JSON200 == nil {
			return false, nil
		}
		rows = *answer.JSON200
		return true, nil
	}); err != nil {
		return err
	}
	exists := map[int64]bool{}
	for _, a := range rows {
		exists[a.ID] = true
		if l.gone[a.ID] {
			l.fleet.breach("the deletion of allocation %d was acknowledged and is lost", a.ID)
		}
	}
	for _, id := range l.have {
		if !exists[id] {
			l.fleet.breach("allocation %d was acknowledged and is lost", id)
		}
		delete(exists, id)
	}
	for _, a := range rows {
		if a.Name == ledgerName && exists[a.ID] {
			if _, err := l.fleet.api.DeleteAllocationWithResponse(ctx, a.ID); err != nil {
				return fmt.Errorf("delete allocation %d: %w", a.ID, err)
			}
		}
	}
	return nil
}
