package db_test

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// TestEvents_OppositeOrderEndsByTheRetry has two transactions change a device and an allocation, in opposite order. One
// of them is run again, as it would be without events: the counter, which each locks last, is no part of a deadlock.
func TestEvents_OppositeOrderEndsByTheRetry(t *testing.T) {
	d := dbtest.New(t)
	client, server := enroll(t, d, "client", nil), enroll(t, d, "server", nil)
	made := allocate(t, d, client.ID, server.ID)
	f := follow(t, d)
	type change struct {
		query string
		id    any
	}
	device := change{`UPDATE devices SET name = name || 'x' WHERE id = $1`, client.ID}
	allocation := change{`UPDATE allocations SET name = name || 'x' WHERE id = $1`, made.ID}

	var attempts atomic.Int32
	var locked, ended sync.WaitGroup // locked: each has its first row, and not yet the second.
	locked.Add(2)
	for _, changes := range [][2]change{{device, allocation}, {allocation, device}} {
		ended.Go(func() {
			again := false
			err := d.ExecInTransaction(t.Context(), func(exec func(string, ...any) error) error {
				attempts.Add(1)
				err := exec(changes[0].query, changes[0].id)
				if !again {
					again = true
					locked.Done()
					locked.Wait()
				}
				if err != nil {
					return err
				}
				return exec(changes[1].query, changes[1].id)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	ended.Wait()
	if got := attempts.Load(); got != 3 {
		t.Errorf("%d attempts of two transactions, want one of them run again once", got)
	}
	both := []string{"device.updated " + client.ID.String(), fmt.Sprint("allocation.updated ", made.ID)}
	f.want("two transactions", append(both, both...)...)
}
