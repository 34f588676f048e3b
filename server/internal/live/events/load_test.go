package events_test

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
)

// TestLoad_AThousandSubscribers follow one replica, while a device changes at another.
func TestLoad_AThousandSubscribers(t *testing.T) {
	const subscribers, events = 1000, 20
	d := dbtest.New(t)
	r := newReplica(t, d)
	ada := newUser(t, d, "ada")
	p := r.principal(follower{user: ada})
	device := newDevice(t, d, db.KindClient, "rig", ada, 0)
	streams := make([]*stream, subscribers)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for i := range streams {
		streams[i] = r.follow(p, "/", "")
	}
	for _, s := range streams {
		s.want("ready")
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	kib := (after.HeapInuse + after.StackInuse - before.HeapInuse - before.StackInuse) / subscribers / 1024
	var mu sync.Mutex
	var took []time.Duration
	var last time.Duration
	for n := range events {
		var readers sync.WaitGroup
		began := time.Now()
		rename(t, d, device, numbered("name", n))
		for _, s := range streams {
			readers.Go(func() {
				if got := s.next(); got != "device.updated "+numbered("name", n) {
					t.Errorf("got %q", got)
				}
				mu.Lock()
				defer mu.Unlock()
				took = append(took, time.Since(began))
			})
		}
		readers.Wait()
		last = max(last, time.Since(began))
	}
	slices.Sort(took)
	median := took[len(took)/2]
	t.Logf("%d subscribers: median %v, 99th percentile %v, last %v; %d KiB each, with both ends", subscribers, median, took[len(took)*99/100], last, kib)
	if median > time.Second {
		t.Errorf("half of the events took more than %v", median)
	}
	if kib > 256 {
		t.Errorf("a subscriber takes %d KiB", kib)
	}
}
