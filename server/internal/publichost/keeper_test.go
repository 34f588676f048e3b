package publichost_test

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/eclitunnel/eclitunnel/db"
	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/internal/testlog"
	"github.com/eclitunnel/eclitunnel/relay/session"
	"github.com/eclitunnel/eclitunnel/server/internal/publichost"
)

// keeper is a Keeper whose rounds a test triggers, on a real database.
type keeper struct {
	t       *testing.T
	db      *db.DB
	replica uuid.UUID
	log     testlog.Buffer
	ticks   chan time.Time

	mu      sync.Mutex
	answers map[string]any // Addresses or an error, by name.
	lookups []string
}

func newKeeper(t *testing.T) *keeper {
	t.Helper()
	k := &keeper{t: t, db: dbtest.New(t), replica: uuid.New(), ticks: make(chan time.Time), answers: map[string]any{}}
	check(t, k.db.RenewLease(t.Context(), k.replica, time.Hour))
	keeper, err := publichost.New(publichost.Options{
		Store: k.db, Lookup: k.lookup, Logger: slog.New(slog.NewTextHandler(&k.log, nil)),
		Every: func(time.Duration) (<-chan time.Time, func()) { return k.ticks, func() {} },
	})
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := keeper.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(running.Wait)
	t.Cleanup(cancel)
	return k
}

func (k *keeper) lookup(_ context.Context, host string) ([]netip.Addr, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.lookups = append(k.lookups, host)
	if err, ok := k.answers[host].(error); ok {
		return nil, err
	}
	var addresses []netip.Addr
	for _, text := range k.answers[host].([]string) {
		addresses = append(addresses, netip.MustParseAddr(text))
	}
	return addresses, nil
}

func (k *keeper) answer(host string, answer any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.answers[host] = answer
}

// round runs a whole round: the Keeper takes the second tick after the round of the first.
func (k *keeper) round() {
	k.ticks <- time.Time{}
	k.ticks <- time.Time{}
}

// server creates a tunnel server.
func (k *keeper) server(host string, guessed bool) db.Device {
	k.t.Helper()
	now := time.Now()
	device, err := k.db.CreateDevice(k.t.Context(), db.NewDevice{
		Name: "edge", Kind: db.KindServer, CreatedAt: now, ExpiresAt: now, Approved: true, CodeHash: []byte(rand.Text()),
		PublicHost: host, HostGuessed: guessed, PortFirst: 20000, PortLast: 29999,
	})
	check(k.t, err)
	return device
}

// call connects a tunnel server from an address.
func (k *keeper) call(device db.Device, from string, port int, fingerprint string) {
	k.t.Helper()
	_, err := k.db.Connect(k.t.Context(), device.ID, db.Hello{
		TokenVersion: device.TokenVersion, ReplicaID: k.replica, RelayPort: port, Fingerprint: fingerprint, CalledFrom: from,
	})
	check(k.t, err)
}

func (k *keeper) read(device db.Device) db.Device {
	k.t.Helper()
	now, err := k.db.DeviceByID(k.t.Context(), device.ID)
	check(k.t, err)
	return now
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// accept accepts TLS connections with a key at host and port, until the test ends.
func accept(t *testing.T, key tls.Certificate, host string, port int) (used int) {
	t.Helper()
	listener, err := tls.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)), &tls.Config{
		Certificates: []tls.Certificate{key}, MinVersion: tls.VersionTLS13,
	})
	check(t, err)
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				_, _ = conn.Read(make([]byte, 1)) // It performs the handshake.
				_ = conn.Close()
			})
		}
	})
	t.Cleanup(serving.Wait)
	t.Cleanup(func() { _ = listener.Close() })
	return listener.Addr().(*net.TCPAddr).Port
}

func newKey(t *testing.T) (key tls.Certificate, fingerprint string) {
	t.Helper()
	key, err := session.SelfSigned()
	check(t, err)
	leaf, err := x509.ParseCertificate(key.Certificate[0])
	check(t, err)
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return key, hex.EncodeToString(sum[:])
}

func TestKeeper_AGuessFollowsTheTunnelServerAndDoesNotFlap(t *testing.T) {
	const here, there, six = "127.0.0.2", "127.0.0.3", "::1"
	k := newKeeper(t)
	other, _ := newKey(t)
	k.answer("localhost", []string{})
	for name, test := range map[string]struct {
		host    string
		given   bool
		from    string
		leads   []string // The hosts that lead to the tunnel server.
		foreign string   // A host at which another machine answers.
		want    string
	}{
		"it moved":                              {host: here, from: there, leads: []string{there}, want: there},
		"another machine has its old address":   {host: here, from: there, leads: []string{there}, foreign: here, want: there},
		"two addresses of one machine":          {host: here, from: there, leads: []string{here, there}, want: here},
		"two families of one machine":           {host: here, from: six, leads: []string{here, six}, want: here},
		"IPv4 reaches more players":             {host: six, from: here, leads: []string{here, six}, want: here},
		"IPv4 of a provider with many machines": {host: six, from: here, leads: []string{six}, want: six},
		"it has no IPv4 any more":               {host: here, from: six, leads: []string{six}, want: six},
		"the panel reaches nothing":             {host: here, from: there, want: there},
		"the panel reaches nothing, IPv6":       {host: here, from: six, want: here},
		"it left the panel's machine":           {host: "localhost", from: there, want: there},
		"it calls through an unknown proxy":     {host: here, from: "localhost", want: here},
		"the same address":                      {host: here, from: here, want: here},
		"unknown address":                       {host: here, from: "", want: here},
		"given":                                 {host: here, given: true, from: there, leads: []string{there}, want: here},
	} {
		t.Run(name, func(t *testing.T) {
			key, fingerprint := newKey(t)
			port := 0
			for _, host := range test.leads {
				port = accept(t, key, host, port)
			}
			if test.foreign != "" {
				accept(t, other, test.foreign, port)
			}
			if port == 0 {
				port = closedPort(t)
			}
			server := k.server(test.host, !test.given)
			for range 3 { // The machine reconnects again and again.
				k.call(server, test.from, port, fingerprint)
				k.round()
				if got := k.read(server); got.PublicHost != test.want || got.HostGuessed == test.given {
					t.Fatalf("called from %s, the host %s becomes %s, guessed %v; want %s", test.from, test.host, got.PublicHost, got.HostGuessed, test.want)
				}
			}
		})
	}
}

// closedPort returns a port at which nothing listens.
func closedPort(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(t, err)
	defer func() { _ = listener.Close() }()
	return listener.Addr().(*net.TCPAddr).Port
}

func TestKeeper_KeepsTheAddressesOfANameUntilThereAreOthers(t *testing.T) {
	k := newKeeper(t)
	missing := &net.DNSError{Err: "no such host", IsNotFound: true}
	server := k.server("fra1.example.com", false)
	step := func(what string, answer any, unresolved bool, want ...string) {
		t.Helper()
		k.answer("fra1.example.com", answer)
		k.call(server, "198.51.100.7", 7443, "ab")
		k.round()
		got := k.read(server)
		if addresses := publichost.Addresses(got.PublicHost, got.PublicAddresses); !slices.Equal(addresses, want) || (got.UnresolvedSince != nil) != unresolved {
			t.Errorf("%s: addresses %v, missing since %v; want %v", what, addresses, got.UnresolvedSince, want)
		}
	}
	timeout := &net.DNSError{Err: "i/o timeout", IsTimeout: true}
	step("no answer yet", timeout, false)
	step("a name that never existed", missing, true)
	if k.log.Count("fra1.example.com has not existed since") != 1 {
		t.Errorf("said %s", k.log.String())
	}
	step("IPv6 only", []string{"2001:db8::7"}, false, "2001:db8::7")
	step("IPv6 only, again", []string{"2001:db8::7"}, false, "2001:db8::7")
	if k.log.Count("players without IPv6") != 1 {
		t.Errorf("said %s", k.log.String())
	}
	both := []string{"203.0.113.7", "2001:db8::7"}
	step("in any order", []string{"2001:db8::7", "::ffff:203.0.113.7", "203.0.113.7"}, false, both...)
	step("with the machine's own", []string{"127.0.1.1", "fe80::1", "2001:db8::7", "203.0.113.7"}, false, both...)
	step("only the machine's own", []string{"127.0.1.1"}, false, both...)
	step("no answer", timeout, false, both...)
	step("the name is gone", missing, true, both...)
	step("the name is back", []string{"203.0.113.8"}, false, "203.0.113.8")
	if k.log.Count("has not existed") != 1 {
		t.Errorf("a name that is gone for a moment was warned of: %s", k.log.String())
	}
}

func TestKeeper_LooksNoAddressUp(t *testing.T) {
	k := newKeeper(t)
	for _, host := range []string{"203.0.113.7", "2001:db8::7", "::ffff:203.0.113.7"} {
		server := k.server(host, false)
		for range 2 {
			k.call(server, host, 7443, "ab")
			k.round()
		}
		got := k.read(server)
		if addresses := publichost.Addresses(got.PublicHost, got.PublicAddresses); !slices.Equal(addresses, []string{host}) {
			t.Errorf("%s has the addresses %v", host, addresses)
		}
	}
	if len(k.lookups) > 0 || k.log.Count("players without IPv6 cannot join at 2001:db8::7") != 1 || k.log.Count("level=WARN") != 1 {
		t.Errorf("looked up %v, said %s", k.lookups, k.log.String())
	}
}

func TestWarning_SaysThatANameIsGoneAfterAWhile(t *testing.T) {
	now := time.Now()
	for name, test := range map[string]struct {
		addresses db.Addresses
		missing   time.Duration
		warns     bool
	}{
		"it exists":            {"203.0.113.7", 0, false},
		"gone for a moment":    {"203.0.113.7", time.Minute, false},
		"gone for long":        {"203.0.113.7", time.Hour, true},
		"it has never existed": {"", time.Second, true},
		"not looked up yet":    {"", 0, false},
	} {
		host := db.Host{PublicHost: "fra1.example.com", PublicAddresses: test.addresses}
		if test.missing > 0 {
			since := now.Add(-test.missing)
			host.UnresolvedSince = &since
		}
		if warning := publichost.Warning(host, now); (warning != "") != test.warns {
			t.Errorf("%s: %q", name, warning)
		}
	}
}

func TestGuess_IsTheCallersAddressOrThePanelsHost(t *testing.T) {
	for from, want := range map[string]string{
		"198.51.100.7": "198.51.100.7", "2001:db8::7": "2001:db8::7", "192.168.1.5": "192.168.1.5",
		"127.0.0.1": "panel.example.com", "::1": "panel.example.com",
	} {
		if got := publichost.Guess(netip.MustParseAddr(from), "panel.example.com"); got != want {
			t.Errorf("from %s: %q, want %q", from, got, want)
		}
	}
	if got := publichost.Guess(netip.Addr{}, "panel.example.com"); got != "" {
		t.Errorf("from nowhere: %q", got)
	}
}
