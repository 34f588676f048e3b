// Package dialer connects to hosts of which a part fails: some of their addresses, on a
// network that carries one IP version alone or only the first packets of a connection,
// or the large TLS hellos of today.
//
// All addresses of a host are tried, each shortly after the one before it (RFC 8305). A
// [Dialer] remembers the addresses that failed and begins with the others next time.
// That an address failed can show late: it accepts the connection and then says nothing.
// An [Attempt] covers the TLS handshake and the request that follow a connection, and
// [Dialer.Failed] is for what shows later still.
package dialer

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/netaddr"
)

const (
	// freshDelay is the head start of an address over the next one, the value of
	// net.Dialer (RFC 8305 section 5 has 250 ms).
	freshDelay = 300 * time.Millisecond
	// failedDelay is the head start over an address whose last connection was of no
	// use. It connects fast perhaps, and must not win against a slow one that works.
	failedDelay = 2 * time.Second
	// maxFailures bounds the memory. Beyond it, it starts over.
	maxFailures = 256
)

// DialFunc opens a connection, as net.Dialer.DialContext does.
type DialFunc = func(ctx context.Context, network, address string) (net.Conn, error)

// Options configure a Dialer. The zero value is ready for use.
type Options struct {
	// Dial connects to one address, an IP address with a port. It must return soon
	// after its context has ended. nil: net.Dialer.
	Dial DialFunc
	// Resolver resolves names; nil: net.DefaultResolver.
	Resolver *net.Resolver
	// Timeout bounds one DialContext, the resolution of the name included; 0: only
	// its context does.
	Timeout time.Duration
	// ModernInterval is the time between two tries of a TLS hello with ML-KEM on a
	// network that passes only classic ones; 0: an hour.
	ModernInterval time.Duration
	// Addresses returns the addresses of this machine; nil: net.InterfaceAddrs.
	Addresses func() ([]net.Addr, error)
}

// Dialer connects to hosts. It is safe for concurrent use. Make one with New.
type Dialer struct {
	opts Options

	mu       sync.Mutex
	sequence uint64
	failures map[endpoint]failure
	hellos   map[string]hello // By destination. None: the modern one works, as far as is known.
}

// endpoint is an address of a host.
type endpoint struct {
	network string // tcp or udp.
	address netip.AddrPort
}

// failure is how an address failed last.
type failure struct {
	sequence  uint64 // Its place in the order of all failures.
	connected bool   // The connection was made and of no use.
}

// New returns a Dialer.
func New(o Options) *Dialer {
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	if o.Resolver == nil {
		o.Resolver = net.DefaultResolver
	}
	if o.ModernInterval == 0 {
		o.ModernInterval = modernInterval
	}
	if o.Addresses == nil {
		o.Addresses = net.InterfaceAddrs
	}
	return &Dialer{opts: o, failures: map[endpoint]failure{}, hellos: map[string]hello{}}
}

// DialContext connects to a host and port, as net.Dialer.DialContext does. The network
// is one of TCP or UDP. Addresses whose last connection failed come last, the one whose
// failure is oldest first. UDP begins with IPv4: it cannot find out which address
// answers, and more programs listen on IPv4 alone than on IPv6 alone. So does a host
// that is on the loopback alone, whose IPv6 is one address. Names are resolved as by
// Lookup. The error is that of the first address that failed.
func (d *Dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if d.opts.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, d.opts.Timeout)
		defer cancel()
	}
	conn, err := d.dial(ctx, network, address)
	if a := attemptOf(ctx); a != nil && err == nil {
		a.dialed(conn)
	}
	return conn, err
}

func (d *Dialer) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, service, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(service, 10, 16)
	if _, literal := netip.ParseAddr(host); literal == nil || host == "" || err != nil {
		return d.opts.Dial(ctx, network, address)
	}
	addresses, err := d.Lookup(ctx, "ip"+network[len("tcp"):], host)
	if err != nil {
		return nil, err
	}
	var race race
	for _, a := range addresses {
		e := endpoint{network: network[:len("tcp")], address: netip.AddrPortFrom(a.Unmap(), uint16(port))}
		if !slices.ContainsFunc(race.candidates, func(c candidate) bool { return c.endpoint == e }) {
			race.candidates = append(race.candidates, candidate{endpoint: e, failure: d.failure(e)})
		}
	}
	race.order(network)
	return d.run(ctx, network, &race)
}

// Lookup returns the addresses of a name, as net.Resolver.LookupNetIP does. For the
// names that mean this machine it asks no resolver: see [netaddr.IsLocalhost].
func (d *Dialer) Lookup(ctx context.Context, network, host string) ([]netip.Addr, error) {
	if !netaddr.IsLocalhost(host) {
		return d.opts.Resolver.LookupNetIP(ctx, network, host)
	}
	loopback4, loopback6 := netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()
	switch network {
	case "ip4":
		return []netip.Addr{loopback4}, nil
	case "ip6":
		return []netip.Addr{loopback6}, nil
	default:
		return []netip.Addr{loopback4, loopback6}, nil
	}
}

func (d *Dialer) failure(e endpoint) failure {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.failures[e]
}

// Failed records that a connection to an address was of no use: the next DialContext
// begins with another address of the host. It is for what shows after an Attempt; an
// address of another kind than TCP and UDP is ignored.
func (d *Dialer) Failed(remote net.Addr) {
	if e, ok := endpointOf(remote); ok {
		d.failed(e, true)
	}
}

// Worked records that a connection to an address is of use, and so that the address has
// not failed last.
func (d *Dialer) Worked(remote net.Addr) {
	if e, ok := endpointOf(remote); ok {
		d.mu.Lock()
		delete(d.failures, e)
		d.mu.Unlock()
	}
}

func (d *Dialer) failed(e endpoint, connected bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.failures) >= maxFailures {
		clear(d.failures)
	}
	d.sequence++
	d.failures[e] = failure{sequence: d.sequence, connected: connected}
}

func endpointOf(remote net.Addr) (endpoint, bool) {
	var address netip.AddrPort
	switch a := remote.(type) {
	case *net.TCPAddr:
		address = a.AddrPort()
	case *net.UDPAddr:
		address = a.AddrPort()
	default:
		return endpoint{}, false
	}
	return endpoint{network: remote.Network(), address: netip.AddrPortFrom(address.Addr().Unmap(), address.Port())}, true
}

// race is one DialContext to a host with several addresses.
type race struct {
	candidates []candidate
	started    int
	running    int
	results    chan result
	err        error // The first.
}

type candidate struct {
	endpoint
	failure
}

type result struct {
	endpoint
	conn net.Conn
	err  error
}

// order sorts the candidates, which are in the order of the resolver.
func (r *race) order(network string) {
	if network[:len("udp")] == "udp" || !slices.ContainsFunc(r.candidates, func(c candidate) bool { return !c.address.Addr().IsLoopback() }) {
		slices.SortStableFunc(r.candidates, func(a, b candidate) int { return a.address.Addr().BitLen() - b.address.Addr().BitLen() })
	} else {
		interleave(r.candidates)
	}
	slices.SortStableFunc(r.candidates, func(a, b candidate) int { return cmp.Compare(a.sequence, b.sequence) })
}

// interleave alternates between the two families, the first one's first, and keeps the
// order within each.
func interleave(candidates []candidate) {
	var families [2][]candidate
	for _, c := range candidates {
		family := 0
		if c.address.Addr().Is4() != candidates[0].address.Addr().Is4() {
			family = 1
		}
		families[family] = append(families[family], c)
	}
	for i, turn := 0, 0; i < len(candidates); turn = 1 - turn {
		if f := families[turn]; len(f) > 0 {
			candidates[i], families[turn] = f[0], f[1:]
			i++
		}
	}
}

// run connects to the first candidate that accepts. Every dial has ended when it
// returns.
func (d *Dialer) run(ctx context.Context, network string, r *race) (net.Conn, error) {
	dialCtx, cancel := context.WithCancel(ctx)
	r.results = make(chan result, len(r.candidates))
	next := time.NewTimer(0)
	defer next.Stop()
	defer func() {
		cancel()
		for ; r.running > 0; r.running-- {
			if late := <-r.results; late.conn != nil {
				_ = late.conn.Close()
			}
		}
	}()
	for r.started < len(r.candidates) || r.running > 0 {
		select {
		case <-next.C:
			d.start(dialCtx, network, r)
			if r.started < len(r.candidates) {
				next.Reset(r.candidates[r.started].delay())
			}
		case got := <-r.results:
			r.running--
			if got.err == nil {
				d.reached(got.endpoint)
				return got.conn, nil
			}
			if r.err == nil {
				r.err = got.err
			}
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil, r.err
			}
			d.failed(got.endpoint, false)
			if ctx.Err() != nil {
				r.started = len(r.candidates) // The time is over.
			} else if r.started < len(r.candidates) {
				next.Reset(0)
			}
		}
	}
	return nil, r.err
}

func (d *Dialer) start(ctx context.Context, network string, r *race) {
	e := r.candidates[r.started].endpoint
	r.started++
	r.running++
	go func() {
		conn, err := d.opts.Dial(ctx, network, e.address.String())
		r.results <- result{endpoint: e, conn: conn, err: err}
	}()
}

// delay is the head start of the candidate before c.
func (c candidate) delay() time.Duration {
	if c.connected {
		return failedDelay
	}
	return freshDelay
}

// reached records that an address accepts connections.
func (d *Dialer) reached(e endpoint) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.failures[e].connected {
		delete(d.failures, e)
	}
}
