package session

import (
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

// detached is a UDP session whose link was lost. It waits for the next link of the
// same tunnel client, whose address may have changed; its path works meanwhile.
type detached struct {
	session *udptunnel.ServerSession
	version int64 // Of the token.
	since   time.Time
}

// takeDetachedLocked returns a tunnel client's detached UDP session, which is not
// detached any more, or nil.
func (r *registry) takeDetachedLocked(client uuid.UUID) *udptunnel.ServerSession {
	d := r.detached[client]
	delete(r.detached, client)
	return d.session
}

// endDetached ends the detached UDP sessions for which done returns true. It is
// called with mu held.
func (r *registry) endDetached(done func(uuid.UUID, detached) bool) {
	r.mu.Lock()
	var ended []*udptunnel.ServerSession
	for id, d := range r.detached {
		if done(id, d) {
			ended = append(ended, d.session)
			delete(r.detached, id)
		}
	}
	r.mu.Unlock()
	for _, session := range ended {
		session.End()
	}
}

// tickDetached does for detached UDP sessions what links do for theirs.
func (r *registry) tickDetached(now time.Time) {
	r.endDetached(func(_ uuid.UUID, d detached) bool { return now.Sub(d.since) > wire.SessionGrace })
	r.mu.Lock()
	left := make([]*udptunnel.ServerSession, 0, len(r.detached))
	for _, d := range r.detached {
		left = append(left, d.session)
	}
	r.mu.Unlock()
	for _, session := range left {
		session.Tick(now) // There is no link to ask for a data connection.
	}
}
