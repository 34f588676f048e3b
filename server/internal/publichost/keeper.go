package publichost

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
)

const (
	// lookAround is how often a Keeper looks for hosts that are due to be checked.
	lookAround = 2 * time.Second
	// checkInterval is the time between two checks of a host, more or less.
	checkInterval = 5 * time.Minute
	// maxChecks is the maximum number of checks at a time.
	maxChecks = 32
	// lookupTimeout bounds the lookup of a name.
	lookupTimeout = 5 * time.Second
	// maxAddresses is the maximum number of addresses of a name.
	maxAddresses = 16
)

// Store is the part of the database that a Keeper uses.
type Store interface {
	DueHosts(ctx context.Context, limit int, again time.Duration) ([]db.HostCheck, error)
	MoveGuess(ctx context.Context, server uuid.UUID, from, to string) error
	SaveAddresses(ctx context.Context, server uuid.UUID, host string, addresses db.Addresses) error
	SaveUnresolved(ctx context.Context, server uuid.UUID, host string) error
}

// Options configures a Keeper.
type Options struct {
	Store Store // Required.
	// Lookup returns the addresses of a name. nil is the system's resolver.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	Logger *slog.Logger // nil is slog.Default.
	// Every returns a ticker; nil is time.NewTicker. Tests replace it.
	Every func(time.Duration) (ticks <-chan time.Time, stop func())
}

// Keeper checks the public hosts of tunnel servers: it has guesses follow the tunnel
// servers, and keeps the addresses of names. Any number of replicas run one each, and
// the database gives each check to one of them.
type Keeper struct {
	opts Options

	mu     sync.Mutex
	warned map[uuid.UUID]string // The last warning about each tunnel server.
}

// New returns a Keeper for Run.
func New(opts Options) (*Keeper, error) {
	if opts.Store == nil {
		return nil, errors.New("publichost: Store is required")
	}
	if opts.Lookup == nil {
		opts.Lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		}
	}
	if opts.Logger == nil {
		opts.Logger = slog.Default()
	}
	if opts.Every == nil {
		opts.Every = func(d time.Duration) (<-chan time.Time, func()) {
			ticker := time.NewTicker(d)
			return ticker.C, ticker.Stop
		}
	}
	return &Keeper{opts: opts, warned: map[uuid.UUID]string{}}, nil
}

// Run checks hosts until ctx ends, and then returns nil.
func (k *Keeper) Run(ctx context.Context) error {
	ticks, stop := k.opts.Every(lookAround)
	defer stop()
	failing := false
	for {
		select {
		case <-ticks:
		case <-ctx.Done():
			return nil
		}
		more, err := true, error(nil)
		for more && err == nil {
			more, err = k.round(ctx)
		}
		if err != nil && !failing && ctx.Err() == nil {
			k.opts.Logger.WarnContext(ctx, "public hosts not checked yet", slog.Any("error", err))
		}
		failing = err != nil
	}
}

// round checks hosts that are due, and reports whether there may be more.
func (k *Keeper) round(ctx context.Context) (more bool, err error) {
	due, err := k.opts.Store.DueHosts(ctx, maxChecks, checkInterval)
	if err != nil {
		return false, err
	}
	errs := make([]error, len(due))
	var checks sync.WaitGroup
	for i, c := range due {
		checks.Go(func() { errs[i] = k.check(ctx, c) })
	}
	checks.Wait()
	return len(due) == maxChecks, errors.Join(errs...)
}

// check checks the host of one tunnel server.
func (k *Keeper) check(ctx context.Context, c db.HostCheck) error {
	log := k.opts.Logger.With(slog.String("serverId", c.ID.String()), slog.String("name", c.Name))
	if c.HostGuessed && c.Called && c.CalledFrom != "" && c.CalledFrom != c.PublicHost && follows(ctx, c) {
		err := k.opts.Store.MoveGuess(ctx, c.ID, c.PublicHost, c.CalledFrom)
		switch {
		case errors.Is(err, db.ErrConflict):
			return nil // It was changed meanwhile, and is due again.
		case err != nil:
			return err
		}
		log.WarnContext(ctx, "tunnel server calls from another address; its public host, which was guessed, follows",
			slog.String("from", c.PublicHost), slog.String("to", c.CalledFrom))
		c.Host = db.Host{PublicHost: c.CalledFrom, HostGuessed: true}
	}
	if err := k.resolve(ctx, &c, log); err != nil {
		return err
	}
	k.warn(ctx, c, log)
	return nil
}

// resolve looks the host up if it is a name, and stores the result. An answer that says
// nothing, as while a resolver is down, changes nothing.
func (k *Keeper) resolve(ctx context.Context, c *db.HostCheck, log *slog.Logger) error {
	if _, err := netip.ParseAddr(c.PublicHost); err == nil || c.PublicHost == "" {
		return nil
	}
	lookup, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := k.opts.Lookup(lookup, c.PublicHost)
	addresses := usable(c.PublicHost, found)
	var missing *net.DNSError
	switch {
	case errors.As(err, &missing) && missing.IsNotFound:
		if c.UnresolvedSince == nil {
			now := time.Now()
			c.UnresolvedSince = &now
		}
		return k.opts.Store.SaveUnresolved(ctx, c.ID, c.PublicHost)
	case err != nil || len(addresses) == 0:
		log.DebugContext(ctx, "public host not looked up", slog.String("host", c.PublicHost), slog.Any("error", err))
		return nil
	}
	c.PublicAddresses, c.UnresolvedSince = db.JoinAddresses(addresses), nil
	return k.opts.Store.SaveAddresses(ctx, c.ID, c.PublicHost, c.PublicAddresses)
}

// usable returns the addresses of a name at which others reach it, IPv4 before IPv6. On
// the panel's machine a name may also have an address that has a meaning there only:
// Debian's /etc/hosts has 127.0.1.1 for the machine's own name.
func usable(host string, found []netip.Addr) []string {
	var addresses []netip.Addr
	for _, address := range found {
		address = address.Unmap().WithZone("")
		own := address.IsLoopback() && host != "localhost"
		if !own && !address.IsUnspecified() && !address.IsMulticast() && !address.IsLinkLocalUnicast() {
			addresses = append(addresses, address)
		}
	}
	slices.SortFunc(addresses, netip.Addr.Compare) // Answers are in any order.
	addresses = slices.Compact(addresses)
	texts := make([]string, 0, len(addresses))
	for _, address := range addresses[:min(len(addresses), maxAddresses)] {
		texts = append(texts, address.String())
	}
	return texts
}

// warn logs what keeps players from the host, once.
func (k *Keeper) warn(ctx context.Context, c db.HostCheck, log *slog.Logger) {
	warning := Warning(c.Host, time.Now())
	k.mu.Lock()
	defer k.mu.Unlock()
	if warning == k.warned[c.ID] {
		return
	}
	if k.warned[c.ID] = warning; warning == "" {
		delete(k.warned, c.ID)
		return
	}
	log.WarnContext(ctx, "players may not reach a tunnel server", slog.String("reason", warning))
}
