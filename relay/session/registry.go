package session

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/internal/channel"
	"github.com/eclitunnel/eclitunnel/internal/sources"
	"github.com/eclitunnel/eclitunnel/relay/udptunnel"
	"github.com/eclitunnel/eclitunnel/relay/wire"
)

var (
	errOff     = errors.New("the tunnel server is suspended")
	errClosing = errors.New("the tunnel server is closing")
	errUnknown = errors.New("the tunnel client has nothing here")
	errVersion = errors.New("the ticket is of another token")
	errNewer   = errors.New("the ticket is newer than the current state")
)

// stateSyncTimeout is how long a ticket that is ahead of the desired state is held:
// the panel tells both ends of an allocation at once, and the tunnel client may be
// the faster one.
const stateSyncTimeout = 2 * time.Second

// registry says which tunnel clients may link, by the desired state, and which are
// linked.
type registry struct {
	mu       sync.Mutex
	closing  bool
	off      bool                // Suspended: nobody may link.
	allowed  map[uuid.UUID]int64 // Token versions.
	updated  chan struct{}       // Closed, and replaced, when allowed is.
	linked   map[uuid.UUID]*link
	secrets  map[secretHash]*link
	detached map[uuid.UUID]detached
	from     map[netip.Addr]int // How many are linked from an address: see peerAddress.
}

func newRegistry() *registry {
	return &registry{
		allowed:  map[uuid.UUID]int64{},
		updated:  make(chan struct{}),
		linked:   map[uuid.UUID]*link{},
		secrets:  map[secretHash]*link{},
		detached: map[uuid.UUID]detached{},
		from:     map[netip.Addr]int{},
	}
}

// admit reports whether a ticket fits the desired state. It gives a state update
// that may be on its way a moment to arrive.
func (r *registry) admit(ctx context.Context, t ticket) error {
	ctx, cancel := context.WithTimeout(ctx, stateSyncTimeout)
	defer cancel()
	for {
		r.mu.Lock()
		err, updated := r.admitsLocked(t), r.updated
		r.mu.Unlock()
		if !errors.Is(err, errUnknown) && !errors.Is(err, errNewer) {
			return err
		}
		select {
		case <-updated:
		case <-ctx.Done():
			return err
		}
	}
}

func (r *registry) admitsLocked(t ticket) error {
	version, ok := r.allowed[t.client]
	switch {
	case r.closing:
		return errClosing
	case r.off:
		return errOff
	case !ok:
		return errUnknown
	case version < t.version:
		return errNewer
	case version != t.version:
		return errVersion
	}
	return nil
}

// allow makes the clients of a desired state the ones that may be linked, and ends
// the links of others.
func (r *registry) allow(clients map[uuid.UUID]int64) {
	r.mu.Lock()
	r.off = false
	r.allowed = clients
	close(r.updated)
	r.updated = make(chan struct{})
	var replaced, deleted []*link
	for id, l := range r.linked {
		if version, ok := clients[id]; !ok {
			deleted = append(deleted, l)
		} else if version != l.version {
			replaced = append(replaced, l)
		}
	}
	r.mu.Unlock()
	for _, l := range replaced {
		l.end(channel.CloseTokenDead, "the device's token was replaced")
	}
	for _, l := range deleted {
		l.end(channel.CloseDeleted, "the device is not served here any more")
	}
	r.endDetached(func(id uuid.UUID, d detached) bool {
		version, ok := clients[id]
		return !ok || version != d.version
	})
}

// suspend refuses all tunnel clients until allow, and reports whether it did not
// already.
func (r *registry) suspend() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.off
	r.off = true
	return !was
}

// close refuses further links.
func (r *registry) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closing = true
}

// endAll ends all links and detached UDP sessions.
func (r *registry) endAll(code int, reason string) {
	for _, l := range r.all() {
		l.end(code, reason)
	}
	r.endDetached(func(uuid.UUID, detached) bool { return true })
}

// all returns all links.
func (r *registry) all() []*link {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*link, 0, len(r.linked))
	for _, l := range r.linked {
		all = append(all, l)
	}
	return all
}

// link returns the link of a tunnel client, or nil.
func (r *registry) link(client uuid.UUID) *link {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.linked[client]
}

// find returns the link of a tunnel client and its detached UDP session; either may
// be nil.
func (r *registry) find(client uuid.UUID) (*link, *udptunnel.ServerSession) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.linked[client], r.detached[client].session
}

// linkedFrom reports whether a tunnel client is linked from an address.
func (r *registry) linkedFrom(address netip.Addr) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.from[address] > 0
}

func (r *registry) leftLocked(from netip.Addr) {
	if r.from[from]--; r.from[from] == 0 {
		delete(r.from, from)
	}
}

// withSecret returns the link of a secret, or nil.
func (r *registry) withSecret(hash secretHash) *link {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.secrets[hash]
}

// enlist welcomes l, makes it the link of its tunnel client and ends the one before
// it.
func (r *registry) enlist(l *link, secret string, hash secretHash) error {
	r.mu.Lock()
	// Again: the desired state may have changed since the ticket was examined.
	if err := r.admitsLocked(ticket{client: l.client, version: l.version}); err != nil {
		r.mu.Unlock()
		return err
	}
	before := r.linked[l.client]
	if before != nil {
		r.leftLocked(before.from)
	}
	r.from[l.from]++
	// The UDP session of the link before, in one step with taking its place: were it
	// detached in between, it would not be resumed.
	kept := r.takeDetachedLocked(l.client)
	if before != nil {
		kept = before.takeUDPSession()
	}
	welcome := wire.LinkMessage{Type: wire.LinkWelcome, Secret: secret}
	resumed := kept != nil && kept.Name() == l.resumes
	if resumed {
		l.udp = kept
		welcome.Session = kept.Name()
	}
	// Before the link can be found: a player who waits would have it ask for a data
	// connection, and a client that is asked before it is welcomed has no secret to
	// open one with. An error ends the link where it is served.
	_ = l.channel.Send(welcome)
	l.secret = hash
	r.linked[l.client] = l
	r.secrets[hash] = l
	r.mu.Unlock()
	switch {
	case resumed:
		kept.Resume(time.Now())
		l.dialDatagrams(kept)
	case kept != nil:
		kept.End() // The tunnel client has started anew: its old flows lead nowhere.
	}
	if before != nil {
		before.end(channel.CloseTakenOver, "a newer link of this tunnel client took over")
	}
	return nil
}

// delist forgets l, which may have been replaced long ago. With keep its UDP
// session is kept for the tunnel client's next link.
func (r *registry) delist(l *link, keep bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.secrets, l.secret)
	if r.linked[l.client] != l {
		return
	}
	delete(r.linked, l.client)
	r.leftLocked(l.from)
	if keep && r.admitsLocked(ticket{client: l.client, version: l.version}) == nil {
		if udp := l.takeUDPSession(); udp != nil {
			r.detached[l.client] = detached{session: udp, version: l.version, since: time.Now()}
		}
	}
}

// loopback4 stands for this machine, however a peer on it has reached it.
var loopback4 = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// peerAddress returns what counts as the address of a peer, by which the links and the
// players of one machine or network are known: see package sources. Local is the
// address that the peer reached.
func peerAddress(remote, local netip.Addr) netip.Addr {
	remote = remote.Unmap()
	if remote.IsLoopback() || remote == local.Unmap() {
		return loopback4
	}
	return sources.Of(remote).Addr()
}
