package link

import (
	"slices"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/clients/agent/internal/target"
)

// Link is the state of the link to one tunnel server.
type Link struct {
	Server  uuid.UUID
	Address string // Of the tunnel server, as the panel names it.
	// Up is whether it is linked, and Dialled whether the outcome of the first dial is
	// known.
	Up, Dialled bool
	Reason      string    // Why it is down.
	Since       time.Time // When Up, or Dialled, last changed.
	Remote      string    // The IP address and port of the tunnel server, or proxy; "": not connected yet.
}

// Links returns the links, by address.
func (m *Manager) Links() []Link {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []Link
	for _, l := range m.links {
		all = append(all, l.view())
	}
	slices.SortFunc(all, func(a, b Link) int {
		if a.Address != b.Address {
			if a.Address < b.Address {
				return -1
			}
			return 1
		}
		return slices.Compare(a.Server[:], b.Server[:])
	})
	return all
}

// Carried returns what each allocation has carried.
func (m *Manager) Carried() map[int64]target.Carried { return m.config.Targets.Carried() }

func (l *link) view() Link {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Link{
		Server: l.server, Address: l.address, Up: l.state == up, Dialled: l.state != dialling,
		Reason: l.reason, Since: l.since, Remote: l.linked,
	}
}
