package auth

import (
	"context"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
)

const (
	// useInterval is how old the stored last use of a session gets before another is stored.
	useInterval = time.Minute
	// recordPause is the pause between two statements that store uses.
	recordPause = time.Second
	// maxUses bounds the uses that wait to be stored. Beyond it they are dropped.
	maxUses = 4096
	// maxUserAgent is the maximum length of a stored User-Agent, in characters.
	maxUserAgent = 200
)

// uses are those of sessions that are yet to be stored. They are safe for concurrent use.
type uses struct {
	added chan struct{} // Has a value if there are some.

	mu      sync.Mutex
	pending map[uuid.UUID]db.SessionUse
}

func newUses() *uses {
	return &uses{added: make(chan struct{}, 1), pending: map[uuid.UUID]db.SessionUse{}}
}

// add adds the last use of a session. It does not block.
func (u *uses) add(use db.SessionUse) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := u.pending[use.ID]; !ok && len(u.pending) >= maxUses {
		return
	}
	u.pending[use.ID] = use
	select {
	case u.added <- struct{}{}:
	default:
	}
}

// take returns the uses, and forgets them.
func (u *uses) take() []db.SessionUse {
	u.mu.Lock()
	defer u.mu.Unlock()
	all := make([]db.SessionUse, 0, len(u.pending))
	for _, use := range u.pending {
		all = append(all, use)
	}
	clear(u.pending)
	return all
}

// RecordUses stores when and from where sessions are used until ctx ends, and then returns nil.
// Without it, sessions appear unused since their login. Requests do not wait for it.
func (a *Auth) RecordUses(ctx context.Context) error {
	pause := time.NewTicker(recordPause)
	defer pause.Stop()
	for {
		select {
		case <-a.uses.added:
		case <-ctx.Done():
			return nil
		}
		// What is lost with an unavailable database is replaced by the sessions' next requests.
		_ = a.store.RecordSessionUses(ctx, a.uses.take(), a.now())
		pause.Reset(recordPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// used notes a request with a session, unless the last one is stored that is not much older.
func (a *Auth) used(ctx context.Context, session db.Session) {
	if a.now().Sub(session.LastUsedAt) >= useInterval {
		a.uses.add(db.SessionUse{ID: session.ID, Address: addressText(ctx), UserAgent: userAgent(ctx)})
	}
}

// addressText returns the caller's address for people, "" if it is not known.
func addressText(ctx context.Context) string {
	if address := Address(ctx); address.IsValid() {
		return address.String()
	}
	return ""
}

type userAgentKey struct{}

// userAgent returns the beginning of the caller's User-Agent as text that can be shown.
func userAgent(ctx context.Context) string {
	header, _ := ctx.Value(userAgentKey{}).(string)
	// Bytes before characters: a header may have 32 KiB.
	header = header[:min(len(header), 4*maxUserAgent)]
	// It drops what terminals and browsers would obey: control characters, changes of direction.
	text := strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) || r == unicode.ReplacementChar {
			return -1
		}
		return r
	}, header)
	if runes := []rune(text); len(runes) > maxUserAgent {
		text = string(runes[:maxUserAgent])
	}
	return strings.TrimSpace(text)
}
