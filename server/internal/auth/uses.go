package auth

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
)

const (
	// recordPause is the pause between two times that uses are stored.
	recordPause = time.Second
	// maxUses bounds the sessions, and the API keys, whose uses wait to be stored. Beyond it they are dropped.
	maxUses = 4096
	// maxUserAgent is the maximum length of a stored User-Agent, in characters.
	maxUserAgent = 200
)

// uses are the last uses of sessions and API keys that are yet to be stored, for people to see. They are safe
// for concurrent use.
type uses struct {
	added chan struct{} // Has a value if there are some.

	mu       sync.Mutex
	sessions map[uuid.UUID]db.SessionUse
	keys     map[int64]netip.Addr
}

func newUses() *uses {
	return &uses{added: make(chan struct{}, 1), sessions: map[uuid.UUID]db.SessionUse{}, keys: map[int64]netip.Addr{}}
}

// addUse adds the last use of a session or key to those of its kind. It does not block.
func addUse[ID comparable, Use any](u *uses, kind map[ID]Use, id ID, use Use) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, ok := kind[id]; !ok && len(kind) >= maxUses {
		return
	}
	kind[id] = use
	select {
	case u.added <- struct{}{}:
	default:
	}
}

// take returns the uses, and forgets them.
func (u *uses) take() ([]db.SessionUse, map[int64]netip.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	sessions, keys := slices.Collect(maps.Values(u.sessions)), maps.Clone(u.keys)
	clear(u.sessions)
	clear(u.keys)
	return sessions, keys
}

// RecordUses stores when and from where sessions and API keys are used until ctx ends, and then returns nil.
// Without it they appear unused. Requests do not wait for it. What is lost with an unavailable database is
// replaced by later requests.
func (a *Auth) RecordUses(ctx context.Context) error {
	pause := time.NewTicker(recordPause)
	defer pause.Stop()
	for failed := false; ; {
		select {
		case <-a.uses.added:
		case <-ctx.Done():
			return nil
		}
		err := a.storeUses(ctx)
		if err != nil && !failed && ctx.Err() == nil { // Once for each outage.
			a.logger.WarnContext(ctx, "uses of sessions and API keys were not recorded", slog.Any("error", err))
		}
		failed = err != nil
		pause.Reset(recordPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			return nil
		}
	}
}

func (a *Auth) storeUses(ctx context.Context) error {
	sessions, keys := a.uses.take()
	var errs []error
	if len(sessions) > 0 {
		errs = append(errs, a.store.RecordSessionUses(ctx, sessions, a.now()))
	}
	if len(keys) > 0 {
		errs = append(errs, a.store.RecordAPIKeyUses(ctx, keys, a.now()))
	}
	return errors.Join(errs...)
}

// used notes a request with a session, unless a use is stored that is not much older.
func (a *Auth) used(ctx context.Context, session db.Session) {
	if a.now().Sub(session.LastUsedAt) >= db.UseInterval {
		use := db.SessionUse{ID: session.ID, Address: addressText(ctx), UserAgent: userAgent(ctx)}
		addUse(a.uses, a.uses.sessions, session.ID, use)
	}
}

// usedKey notes a request with an API key, unless a use is stored that is not much older.
func (a *Auth) usedKey(ctx context.Context, key db.APIKey) {
	if key.LastUsedAt == nil || a.now().Sub(*key.LastUsedAt) >= db.UseInterval {
		addUse(a.uses, a.uses.keys, key.ID, Address(ctx))
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
