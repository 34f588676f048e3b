package link

import (
	"crypto/tls"
	"errors"
	"sync/atomic"

	"github.com/eclitunnel/eclitunnel/internal/dialer"
)

// errNotResumed means that a tunnel server did not resume the TLS session, as after a
// restart.
var errNotResumed = errors.New("it did not resume the TLS session")

// sessions keeps the newest TLS session of a tunnel server. It is safe for concurrent
// use.
type sessions struct {
	tls.ClientSessionCache
	held atomic.Bool // There is one.
}

func newSessions() *sessions {
	return &sessions{ClientSessionCache: tls.NewLRUClientSessionCache(1)}
}

// Put implements [tls.ClientSessionCache].
func (s *sessions) Put(key string, session *tls.ClientSessionState) {
	s.ClientSessionCache.Put(key, session)
	s.held.Store(session != nil)
}

// resumingTLS returns a copy of config whose handshakes fail with errNotResumed unless
// they resume a session.
//
// Their hellos do not offer ML-KEM. The keys of a resumed session follow from those of
// the session before it as well as from the new exchange (RFC 8446 section 2.2), so
// that the link's exchange protects them from later quantum computers too, and the
// hello and what TLS keeps of it for as long as the connection lives are a quarter of
// the size.
func resumingTLS(config *tls.Config) *tls.Config {
	config = dialer.ClassicTLS(config)
	verify := config.VerifyConnection
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if !state.DidResume {
			return errNotResumed
		}
		if verify == nil {
			return nil
		}
		return verify(state)
	}
	return config
}
