package events

import (
	"context"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

const (
	// foreignPause is the pause between two checks of credentials that another service has issued, whose answers are
	// kept for longer.
	foreignPause = time.Second
	// foreignChecks is the number of those at a time.
	foreignChecks = 8
)

// check ends the streams of those who may not go on, and has those who may see other things now read everything
// again. While the database does not answer, nobody's credential ends either.
func (h *Hub) check(ctx context.Context) {
	var failed bool
	every(ctx, checkPause, func() {
		own, _ := h.callers()
		err := h.checkOwn(ctx, own)
		if err != nil && !failed && ctx.Err() == nil { // Once for each outage.
			h.opts.Logger.WarnContext(ctx, "callers of event streams were not checked", slog.Any("error", err))
		}
		failed = err != nil
	})
}

// checkOthers is check for the credentials of another service, which may be slow to answer.
func (h *Hub) checkOthers(ctx context.Context) {
	every(ctx, foreignPause, func() {
		_, foreign := h.callers()
		h.checkForeign(ctx, foreign)
	})
}

// every calls f with pauses until ctx ends.
func every(ctx context.Context, pause time.Duration, f func()) {
	ticks := time.NewTicker(pause)
	defer ticks.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
			f()
		}
	}
}

// callers returns the subscribers with credentials of the panel's own, and others.
func (h *Hub) callers() (own, foreign []*subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subscribers {
		if isForeign(s.principal) {
			foreign = append(foreign, s)
		} else {
			own = append(own, s)
		}
	}
	return own, foreign
}

// isForeign reports whether the credential is that of an auth.Provider.
func isForeign(p auth.Principal) bool {
	return p.Session != nil && p.Session.ID == uuid.Nil || p.Key != nil && p.Key.ID == 0
}

// checkOwn checks subscribers in one query.
func (h *Hub) checkOwn(ctx context.Context, subscribers []*subscriber) error {
	if len(subscribers) == 0 {
		return nil
	}
	var of db.Followers
	for _, s := range subscribers {
		if s.principal.Session != nil {
			of.Sessions = append(of.Sessions, s.principal.Session.ID)
		}
		if s.principal.Key != nil {
			of.Keys = append(of.Keys, s.principal.Key.ID)
		}
		if s.principal.User != nil {
			of.Users = append(of.Users, s.principal.User.ID)
		}
	}
	now, err := h.opts.Store.FollowersNow(ctx, of, h.opts.Now())
	if err != nil {
		return err
	}
	for _, s := range subscribers {
		p := s.principal
		if p.Session != nil && !now.Sessions[p.Session.ID] || p.Key != nil && !now.Keys[p.Key.ID] {
			s.end()
			continue
		}
		h.update(s, p, now)
	}
	return nil
}

// checkForeign asks again whose the credentials of subscribers are.
func (h *Hub) checkForeign(ctx context.Context, subscribers []*subscriber) {
	turns := make(chan struct{}, foreignChecks)
	var checks sync.WaitGroup
	for _, s := range subscribers {
		turns <- struct{}{}
		checks.Go(func() {
			defer func() { <-turns }()
			p, err := h.opts.Authenticate(s.request)
			switch {
			case ended(err) || err == nil && p.Account() != s.principal.Account():
				s.end()
				return
			case err != nil: // The other service does not answer.
				return
			}
			now, err := h.opts.Store.FollowersNow(ctx, db.Followers{Users: []int64{p.User.ID}}, h.opts.Now())
			if err == nil {
				h.update(s, p, now)
			}
		})
	}
	checks.Wait()
}

// ended reports whether a credential is not valid any more.
func ended(err error) bool {
	if err == nil {
		return false
	}
	status := problem.From(err).Status
	return status == http.StatusUnauthorized || status == http.StatusForbidden
}

// update gives a subscriber what it may see now.
func (h *Hub) update(s *subscriber, p auth.Principal, now db.FollowersNow) {
	var organisations []int64
	if p.User != nil {
		user, ok := now.Users[p.User.ID]
		if !ok {
			s.end()
			return
		}
		changed := *p.User
		changed.Role = user.Role
		p.User, organisations = &changed, user.Organisations
	}
	seen := viewOf(p, organisations)
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.view.equal(seen) {
		return
	}
	s.view = seen
	if s.admitted {
		h.resync(s, h.log.at.id)
	}
}
