package webhooks

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
)

const (
	// sweepEvery is how often some replica looks for events.
	sweepEvery = 5 * time.Second
	// pollEvery is how often a replica looks for messages that are due, besides when it knows of one.
	pollEvery = 2 * time.Second
	// pruneEvery is how often old deliveries are deleted.
	pruneEvery = 10 * time.Minute
	// maxSending is how many messages a replica sends at a time, maxPerTarget how many of them to one host, and
	// maxPerOwner how many of one owner's webhooks: whose receivers are slow must not hold up all others. To one webhook
	// it is one, so that its messages arrive in order unless some fail.
	maxSending   = 32
	maxPerTarget = 4
	maxPerOwner  = 8
	// leaseTime is for how long a message is a replica's to send: longer than the time-out and the statement after it.
	leaseTime = time.Minute
	// finishTimeout bounds the statement that stores what came of a message, also while the panel stops.
	finishTimeout = 5 * time.Second
	// stopGrace is for how long a message is sent on when the panel stops.
	stopGrace = 3 * time.Second
	// disableAfter is for how long all attempts must have failed until the webhook is disabled.
	disableAfter = 5 * 24 * time.Hour
	// maxHold bounds for how long a webhook is left alone after failures.
	maxHold = 5 * time.Minute
)

// retries are the pauses after the first, the second, … attempt at a message: three days in all.
var retries = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour,
	10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Rand == nil {
		o.Rand = rand.Float64
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.Lookup == nil {
		o.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if o.Every == nil {
		o.Every = func(d time.Duration) (<-chan time.Time, func()) {
			ticker := time.NewTicker(d)
			return ticker.C, ticker.Stop
		}
	}
	return o
}

// Run looks for events and sends messages until ctx ends, and then returns nil. What is being sent then has three
// seconds to end; otherwise another replica sends it.
func (s *Service) Run(ctx context.Context) error {
	defer s.sender.close()
	var loops sync.WaitGroup
	loops.Go(func() { s.repeat(ctx, sweepEvery, "look for events of webhooks", s.sweep) })
	loops.Go(func() { s.repeat(ctx, pruneEvery, "prune deliveries of webhooks", s.prune) })
	s.deliver(ctx)
	loops.Wait()
	return nil
}

// repeat calls f regularly until ctx ends. While the database does not respond it logs one line.
func (s *Service) repeat(ctx context.Context, every time.Duration, what string, f func(ctx context.Context) error) {
	ticks, stop := s.opts.Every(every)
	defer stop()
	failing := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		err := f(ctx)
		if err != nil && !failing && ctx.Err() == nil {
			s.opts.Logger.WarnContext(ctx, "webhooks wait for the database", slog.String("operation", what), slog.Any("error", err))
		}
		failing = err != nil
	}
}

func (s *Service) sweep(ctx context.Context) error {
	queued, err := s.opts.Store.SweepWebhooks(ctx, db.WebhookSweep{At: s.opts.Now(), Every: sweepEvery / 2, Message: s.eventMessage})
	if queued > 0 {
		s.Wake()
	}
	return err
}

func (s *Service) prune(ctx context.Context) error {
	return s.opts.Store.PruneDeliveries(ctx, s.opts.Now())
}

// deliver sends what is due until ctx ends, and waits for what is being sent.
func (s *Service) deliver(ctx context.Context) {
	ticks, stop := s.opts.Every(pollEvery)
	defer stop()
	slots := make(chan struct{}, maxSending)
	var sending sync.WaitGroup
	defer sending.Wait()
	failing := false
	for {
		more, err := s.claim(ctx, slots, &sending)
		if err != nil && !failing && ctx.Err() == nil {
			s.opts.Logger.WarnContext(ctx, "webhooks wait for the database", slog.String("operation", "send messages of webhooks"), slog.Any("error", err))
		}
		failing = err != nil
		if more && ctx.Err() == nil {
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		case <-s.wake:
		}
	}
}

// claim begins to send messages that are due, and reports whether there may be more that can be sent now.
func (s *Service) claim(ctx context.Context, slots chan struct{}, sending *sync.WaitGroup) (more bool, err error) {
	free := cap(slots) - len(slots)
	if free == 0 || ctx.Err() != nil {
		return false, nil
	}
	due, err := s.opts.Store.ClaimDeliveries(ctx, free, s.busy(), leaseTime, s.opts.Now())
	if err != nil {
		return false, err
	}
	for _, d := range due {
		slots <- struct{}{} // Has room: only this goroutine takes one.
		s.count(d.Webhook, 1)
		sending.Go(func() {
			defer func() {
				s.count(d.Webhook, -1)
				<-slots
				s.Wake()
			}()
			s.sendOne(ctx, d)
		})
	}
	return len(due) > 0, nil
}

// webhookOwner is whose a webhook is: a user's, an organisation's, or, with neither, the whole site's.
type webhookOwner struct{ user, organisation int64 }

func ownerOf(webhook db.Webhook) (owner webhookOwner) {
	if webhook.UserID != nil {
		owner.user = *webhook.UserID
	}
	if webhook.OrganisationID != nil {
		owner.organisation = *webhook.OrganisationID
	}
	return owner
}

// count notes that n more messages of a webhook are being sent.
func (s *Service) count(webhook db.Webhook, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	add(s.targets, webhook.Target, n)
	add(s.owners, ownerOf(webhook), n)
}

// add adds to a count. One of nothing is not kept.
func add[K comparable](counts map[K]int, key K, n int) {
	if counts[key] += n; counts[key] == 0 {
		delete(counts, key)
	}
}

// busy returns the webhooks with as many messages being sent to their target, or of their owner, as may be.
func (s *Service) busy() (busy db.BusyWebhooks) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for target, count := range s.targets {
		if count >= maxPerTarget {
			busy.Targets = append(busy.Targets, target)
		}
	}
	for owner, count := range s.owners {
		switch {
		case count < maxPerOwner:
		case owner.user != 0:
			busy.Users = append(busy.Users, owner.user)
		case owner.organisation != 0:
			busy.Organisations = append(busy.Organisations, owner.organisation)
		default:
			busy.Site = true
		}
	}
	return busy
}

// sendOne sends a message and stores what came of it. If that cannot be stored, the lease expires and the message is
// sent once more.
func (s *Service) sendOne(ctx context.Context, due db.DueDelivery) {
	if due.Webhook.URL == "" || due.Webhook.Secret == "" {
		return // Encrypted with a key that another replica has, which gets its turn when the lease expires.
	}
	// A receiver that has begun to answer when the panel stops gets some time, because the message is sent again if not.
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	release := context.AfterFunc(ctx, func() { time.AfterFunc(stopGrace, end) })
	defer release()
	o := s.sender.send(life, due.Webhook, due.Delivery)
	finish, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	var err error
	if o.attempt.Status == nil && life.Err() != nil {
		err = s.opts.Store.ReleaseDelivery(finish, due)
	} else {
		err = s.opts.Store.FinishDelivery(finish, due, s.judge(due, o))
	}
	if err != nil {
		s.opts.Logger.WarnContext(ctx, "what came of a webhook's message is not stored; it is sent again",
			slog.Int64("webhookId", due.Webhook.ID), slog.String("messageId", due.Delivery.MessageID), slog.Any("error", err))
	}
}

// judge decides what becomes of a message after an attempt.
func (s *Service) judge(due db.DueDelivery, o outcome) db.FinishedDelivery {
	finished := db.FinishedDelivery{Attempt: o.attempt}
	if o.attempt.Error == "" {
		s.delivered.Add(1)
		return finished
	}
	s.failed.Add(1)
	at, webhook := o.attempt.At, due.Webhook
	switch {
	case o.gone:
		finished.Disable = "the receiver answered 410: it wants no more messages"
	case webhook.FailingSince != nil && at.Sub(*webhook.FailingSince) >= disableAfter:
		finished.Disable = "all attempts of five days failed; the last: " + o.attempt.Error
	}
	if finished.Disable != "" {
		s.opts.Logger.Info("webhook disabled", slog.Int64("webhookId", webhook.ID), slog.String("reason", finished.Disable))
	}
	if due.Delivery.Attempts >= len(retries) || finished.Disable != "" {
		s.ended.Add(1)
	} else {
		again := at.Add(max(o.retryAfter, s.jitter(retries[due.Delivery.Attempts])))
		finished.Again = &again
	}
	// A receiver that is down must not take the slots of others, however many messages wait for it.
	hold := maxHold
	if webhook.Failures < 6 {
		hold = retries[0] << webhook.Failures
	}
	until := at.Add(max(o.retryAfter, s.jitter(hold)))
	finished.Hold = &until
	return finished
}

// jitter returns a duration between 90 and 110 % of d, so that receivers are not asked all at once.
func (s *Service) jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*s.opts.Rand()))
}
