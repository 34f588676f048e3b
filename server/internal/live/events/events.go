// Package events streams to people what changes, as server-sent events (WHATWG HTML, "Server-sent
// events"): GET /api/events.
//
// The database has a log of events in the order of their commits, which tells what changed and whose it
// is. Each replica of the panel has one reader of that log, and only while somebody follows it here. On a
// notification it reads what is new once, reads the devices and allocations concerned in one query each,
// renders each event once and hands it to the subscribers that may see it. A subscriber has a bounded
// queue: one that is too slow gets a resync event in place of what it has lost, and holds up nobody.
//
// The reader keeps the last events rendered, so that a thousand subscribers that come from a replica
// which has died go on where they were without a query of their own.
package events

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
)

const (
	// heartbeat is the pause after which a comment is sent.
	heartbeat = 15 * time.Second
	// writeTimeout bounds a write of about writeSize bytes to a subscriber that does not read.
	writeTimeout = 10 * time.Second
	writeSize    = 32 << 10
	// checkPause is the pause between two checks of who may go on. The contract promises that a stream
	// ends within a second of its session.
	checkPause = 400 * time.Millisecond
	// pollPause is the pause after which the log is read without a notification.
	pollPause = 2 * time.Second
	// retryPause is the pause after a failed read.
	retryPause = 250 * time.Millisecond
	// idle is for how long the last events are kept while nobody follows.
	idle = time.Minute

	// maxReplay is how many events a subscriber may have missed; the contract has the same number.
	maxReplay = 5000
	// batch is how many events are read at a time.
	batch = 500
	// maxQueue and maxQueueBytes bound the queue of a subscriber. Its frames are shared with others.
	maxQueue      = 1024
	maxQueueBytes = 1 << 20

	defaultPerAccount = 20
	defaultStreams    = 4096
)

// Store is the part of the database that streams use.
type Store interface {
	ListenLive(ctx context.Context) (<-chan db.LiveNotice, error)
	EventsAfter(ctx context.Context, after int64, limit int) (db.EventLog, error)
	DevicesByID(ctx context.Context, ids []uuid.UUID) ([]db.Device, error)
	AllocationsByID(ctx context.Context, ids []int64) ([]db.OwnedAllocation, error)
	UsageNow(ctx context.Context, serverID uuid.UUID, since time.Time) ([]db.UsageNow, error)
	FollowersNow(ctx context.Context, of db.Followers, now time.Time) (db.FollowersNow, error)
}

// Options configures a Hub.
type Options struct {
	Store Store // Required.
	// Authenticate returns the caller of a request again, for callers whose credential another service
	// has issued. Required.
	Authenticate func(r *http.Request) (auth.Principal, error)
	// Device and Allocation return what the API shows. Required.
	Device     func(db.Device) types.Device
	Allocation func(db.Allocation) types.Allocation
	// PerAccount is the maximum number of streams of an account; 0 is 20. Streams is that of all; 0 is
	// 4096.
	PerAccount, Streams int

	Logger *slog.Logger     // nil discards.
	Now    func() time.Time // nil is time.Now.
}

// Hub serves the streams of one replica. It is safe for concurrent use.
type Hub struct {
	opts Options
	wake chan struct{} // Has a value if the reader has something to do.

	mu          sync.Mutex
	stopped     bool
	subscribers map[*subscriber]struct{}
	accounts    map[string]int
	joining     []*subscriber // Wait for their place in the log.
	log         logPart       // Written by the reader alone.
	lastUse     time.Time     // When there were subscribers.
	usage       liveUsage     // Used by the reader alone.
	stats       Stats
}

// Stats are statistics of a Hub.
type Stats struct {
	Streams int    // Current number.
	Opened  uint64 // Number of streams since the start.
	// Events is the number of events put into queues, and Resyncs that of those in place of lost events.
	Events, Resyncs uint64
}

// New returns a Hub. It serves streams while Run runs.
func New(opts Options) (*Hub, error) {
	if opts.Store == nil || opts.Authenticate == nil || opts.Device == nil || opts.Allocation == nil {
		return nil, errors.New("events: Store, Authenticate, Device and Allocation are required")
	}
	if opts.PerAccount == 0 {
		opts.PerAccount = defaultPerAccount
	}
	if opts.Streams == 0 {
		opts.Streams = defaultStreams
	}
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	return &Hub{
		opts: opts, wake: make(chan struct{}, 1),
		subscribers: map[*subscriber]struct{}{}, accounts: map[string]int{}, usage: liveUsage{},
	}, nil
}

// Run reads the log until ctx ends, then ends all streams and returns nil. It may be called once.
func (h *Hub) Run(ctx context.Context) error {
	defer h.stop()
	notices, err := h.opts.Store.ListenLive(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	var checking sync.WaitGroup
	checking.Go(func() { h.check(ctx) })
	checking.Go(func() { h.checkOthers(ctx) })
	h.follow(ctx, notices)
	h.stop() // With the streams ends what is asked of another service about them.
	checking.Wait()
	for range notices { // Its goroutine ends with ctx.
	}
	return nil
}

// Stats returns the current statistics.
func (h *Hub) Stats() Stats {
	h.mu.Lock()
	defer h.mu.Unlock()
	stats := h.stats
	stats.Streams = len(h.subscribers)
	return stats
}

// stop ends all streams.
func (h *Hub) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	for s := range h.subscribers {
		s.end()
	}
}

// nudge wakes the reader.
func (h *Hub) nudge() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}
