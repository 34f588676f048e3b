// Package webhooks tells people's URLs of events: it looks for events in the database, writes their messages, signs
// them as the Standard Webhooks specification says (https://www.standardwebhooks.com), and sends them, again and again
// if that fails. What waits to be sent is in the database, so that it outlives the replica.
package webhooks

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/gen/types"
)

// Store is the part of the database that a Service uses.
type Store interface {
	SweepWebhooks(ctx context.Context, sweep db.WebhookSweep) (queued int, err error)
	QueueQuotaReached(ctx context.Context, reached db.QuotaError, at time.Time, message func() (db.WebhookMessage, error)) (queued int, err error)
	ClaimDeliveries(ctx context.Context, limit int, busy db.BusyWebhooks, lease time.Duration, at time.Time) ([]db.DueDelivery, error)
	FinishDelivery(ctx context.Context, due db.DueDelivery, finished db.FinishedDelivery) error
	ReleaseDelivery(ctx context.Context, due db.DueDelivery) error
	BeginWebhookTest(ctx context.Context, scope db.Scope, message db.WebhookMessage, at time.Time) (db.Webhook, db.WebhookDelivery, error)
	FinishWebhookTest(ctx context.Context, id int64, attempt db.WebhookAttempt) (db.WebhookDelivery, error)
	PruneDeliveries(ctx context.Context, at time.Time) error
}

// Options configures a Service.
type Options struct {
	Store Store // Required.
	// PublicURL is the panel's URL for people. Required.
	PublicURL *url.URL
	// Device and Allocation return what the API shows. Required.
	Device     func(db.Device) types.Device
	Allocation func(db.Allocation) types.Allocation
	// Version is that of the panel, for the header User-Agent.
	Version string
	// PrivateTargets permits private addresses, those of the loopback and of this machine, and http.
	PrivateTargets bool
	// Lookup returns the addresses of a host that is a name. nil is the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	Logger *slog.Logger // nil is slog.Default.
	// Now is the clock of delays and retries; nil is time.Now.
	Now func() time.Time
	// Rand returns a number from 0 to 1, for the jitter of retries; nil is math/rand.
	Rand func() float64
	// Every returns a ticker; nil is time.NewTicker. Tests replace it.
	Every func(time.Duration) (ticks <-chan time.Time, stop func())
	// Timeout bounds each attempt; 0 is 10 seconds.
	Timeout time.Duration
}

// Service finds events and sends messages. Any number of replicas have one each. It is safe for concurrent use.
type Service struct {
	opts   Options
	sender *sender
	wake   chan struct{} // Has room for one: something may be due.

	mu      sync.Mutex
	targets map[string]int       // How many messages are being sent to each target,
	owners  map[webhookOwner]int // and of each owner's webhooks.

	delivered, failed, ended atomic.Int64
}

// New returns a Service for Run.
func New(opts Options) (*Service, error) {
	if opts.Store == nil || opts.PublicURL == nil || opts.Device == nil || opts.Allocation == nil {
		return nil, errors.New("webhooks: Store, PublicURL, Device and Allocation are required")
	}
	opts = opts.withDefaults()
	return &Service{opts: opts, sender: newSender(opts), wake: make(chan struct{}, 1), targets: map[string]int{}, owners: map[webhookOwner]int{}}, nil
}

// Stats are numbers since the start.
type Stats struct {
	// Delivered and Failed are the attempts of this replica by how they ended. Ended is the number of messages that
	// are not tried again after the last one failed.
	Delivered, Failed, Ended int64
}

// Stats returns what this replica has sent.
func (s *Service) Stats() Stats {
	return Stats{Delivered: s.delivered.Load(), Failed: s.failed.Load(), Ended: s.ended.Load()}
}

// Wake has messages sent that became due by a change of the database.
func (s *Service) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// QuotaReached tells the webhooks that want to know that something was refused because of a quota.
func (s *Service) QuotaReached(ctx context.Context, reached db.QuotaError) error {
	if reached.Limit == 0 {
		return nil // It is not permitted at all, which nobody has reached.
	}
	queued, err := s.opts.Store.QueueQuotaReached(ctx, reached, s.opts.Now(), func() (db.WebhookMessage, error) {
		return s.quotaMessage(reached)
	})
	if queued > 0 {
		s.Wake()
	}
	return err
}

// Test sends a message to a webhook in scope, and returns what came of it. It returns the errors of
// [db.DB.BeginWebhookTest].
func (s *Service) Test(ctx context.Context, scope db.Scope, id int64) (db.WebhookDelivery, error) {
	message, err := s.message(typeTest, types.WebhookData{WebhookID: &id})
	if err != nil {
		return db.WebhookDelivery{}, err
	}
	message.WebhookID = id
	webhook, delivery, err := s.opts.Store.BeginWebhookTest(ctx, scope, message, s.opts.Now())
	if err != nil {
		return db.WebhookDelivery{}, err
	}
	outcome := s.sender.send(ctx, webhook, delivery)
	// The caller may have gone meanwhile.
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	return s.opts.Store.FinishWebhookTest(finish, delivery.ID, outcome.attempt)
}

// newMessageID returns the id of a message. Later ids are greater.
func newMessageID() (string, error) {
	id, err := uuid.NewV7()
	if err != nil {
		return "", err
	}
	text := id.String()
	return "msg_" + text[:8] + text[9:13] + text[14:18] + text[19:23] + text[24:], nil
}
