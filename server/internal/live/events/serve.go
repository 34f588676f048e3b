package events

import (
	"context"
	"net/http"
	"strings"
	"time"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/server/internal/auth"
	"github.com/eclitunnel/eclitunnel/server/internal/problem"
)

// busyPause is what a caller with too many streams is told to wait.
const busyPause = 10 * time.Second

var (
	errStopping = problem.Unavailable("The panel is stopping.", nil)
	errFull     = problem.Unavailable("This replica has the maximum number of event streams.", nil)
)

// ServeHTTP serves a stream to the caller in the request's context, until the caller goes, may not go on, or the Hub
// stops. The request has been checked against the contract.
func (h *Hub) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := auth.FromContext(r.Context())
	query := r.URL.Query()
	after := r.Header.Get("Last-Event-ID")
	if after == "" {
		after = query.Get("lastEventId")
	}
	var wanted []string
	if list := query.Get("types"); list != "" {
		wanted = strings.Split(list, ",")
	}
	s := newSubscriber(r, p, after, permittedKinds(p).only(wanted))
	if err := h.subscribe(r.Context(), s); err != nil {
		problem.Write(w, r, err)
		return
	}
	defer h.unsubscribe(s)
	header := w.Header()
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store")
	header.Set("X-Accel-Buffering", "no") // Of nginx, which would keep events back until there are many.
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	// An error means that the caller has gone, or reads too slowly: there is nobody to tell.
	_ = s.stream(r.Context(), w)
}

// stream writes the events of a subscriber until it ends.
func (s *subscriber) stream(ctx context.Context, w http.ResponseWriter) error {
	out := http.NewResponseController(w)
	// The server's time limits are for requests that end.
	if err := out.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	write := func(frames ...[]byte) error { return writeFrames(w, out, frames) }
	if err := write([]byte("retry: 1000\n\n")); err != nil {
		return err
	}
	silence := time.NewTimer(heartbeat)
	defer silence.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ended:
			return nil
		case <-s.wake:
			err = write(s.take()...)
		case <-silence.C:
			err = write([]byte(": heartbeat\n\n"))
		}
		if err != nil {
			return err
		}
		silence.Reset(heartbeat)
	}
}

// writeFrames writes frames and flushes them. The time limit is for a part of them at a time: there may be megabytes
// for a caller on a slow line.
func writeFrames(w http.ResponseWriter, out *http.ResponseController, frames [][]byte) error {
	for len(frames) > 0 {
		if err := out.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
			return err
		}
		for size := 0; len(frames) > 0 && size < writeSize; frames = frames[1:] {
			if _, err := w.Write(frames[0]); err != nil {
				return err
			}
			size += len(frames[0])
		}
	}
	return out.Flush()
}

// subscribe adds a subscriber, which waits for its place in the log.
func (h *Hub) subscribe(ctx context.Context, s *subscriber) error {
	seen, err := h.viewNow(ctx, s)
	if err != nil {
		return err
	}
	account := s.principal.Account()
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.stopped:
		return errStopping
	case len(h.subscribers) >= h.opts.Streams:
		return errFull
	case h.accounts[account] >= h.opts.PerAccount:
		return problem.RateLimited(busyPause)
	}
	s.view = seen
	h.accounts[account]++
	h.subscribers[s] = struct{}{}
	h.joining = append(h.joining, s)
	h.stats.Opened++
	h.nudge()
	return nil
}

// unsubscribe removes a subscriber.
func (h *Hub) unsubscribe(s *subscriber) {
	account := s.principal.Account()
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.subscribers, s)
	if h.accounts[account]--; h.accounts[account] == 0 {
		delete(h.accounts, account)
	}
}

// viewNow returns what a new subscriber may see. That it may subscribe has just been checked.
func (h *Hub) viewNow(ctx context.Context, s *subscriber) (view, error) {
	var of db.Followers
	if s.principal.User == nil {
		return viewOf(s.principal, nil), nil
	}
	of.Users = []int64{s.principal.User.ID}
	now, err := h.opts.Store.FollowersNow(ctx, of, h.opts.Now())
	if err != nil {
		return view{}, err
	}
	return viewOf(s.principal, now.Users[s.principal.User.ID].Organisations), nil
}
