// Package servertest runs real panels in tests: on 127.0.0.1, with a database of
// the test's own. Every response is checked against the contract.
package servertest

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/db/dbtest"
	"github.com/eclitunnel/eclitunnel/gen/client"
	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/contracttest"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
)

// The credentials of the admin of every panel.
const (
	AdminEmail    = "admin@example.com"
	AdminPassword = "correct horse battery staple"
)

// Panel is a running panel. It belongs to the test's goroutine.
type Panel struct {
	// URL is the panel's URL, without a trailing slash.
	URL string
	// HTTP checks every response against the contract.
	HTTP *http.Client

	t       testing.TB
	options server.Options
	cancel  context.CancelFunc
	ended   chan error
	stopped bool
}

// Start starts a panel, waits until it is ready, and stops it when the test ends. Its
// database is new, the system chooses its ports and no name has addresses, unless the
// options are changed.
func Start(t testing.TB, change ...func(*server.Options)) *Panel {
	t.Helper()
	options := server.Options{
		FirstAdmin: server.Account{Email: AdminEmail, Password: AdminPassword},
		Listen:     "127.0.0.1:0",
		TunnelServer: server.TunnelServer{
			Name:     "embedded",
			Listen:   "127.0.0.1:0",
			BindHost: "127.0.0.1",
		},
		Ports:   somePorts(),
		Version: "0.0.0-test",
		Commit:  "test",
		Logger:  slog.New(slog.DiscardHandler),
		Lookup:  noAddresses,
	}
	for _, f := range change {
		f(&options)
	}
	if options.Database == (server.Database{}) {
		options.Database.URL = dbtest.URL(t)
	}
	p := &Panel{t: t, options: options}
	p.run()
	t.Cleanup(p.Stop)
	return p
}

// noAddresses is a lookup that finds nothing, so that tests do not depend on a resolver.
func noAddresses(context.Context, string) ([]netip.Addr, error) { return nil, nil }

// somePorts returns a random range, so that concurrent tests rarely collide.
func somePorts() server.PortRange {
	first := 20000 + 100*rand.IntN(100)
	return server.PortRange{First: first, Last: first + 99}
}

func (p *Panel) run() {
	p.t.Helper()
	panel, err := server.New(p.options)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p.cancel, p.stopped = cancel, false
	p.ended = make(chan error, 1)
	go func() { p.ended <- panel.Run(ctx) }()
	select {
	case <-panel.Ready():
	case err := <-p.ended:
		cancel()
		p.stopped = true
		p.t.Fatalf("panel ended: %v", err)
	case <-time.After(controltest.Patience):
		p.t.Fatal("panel is not ready")
	}
	p.URL = panel.URL().String()
	transport := &http.Transport{}
	p.t.Cleanup(transport.CloseIdleConnections)
	p.Over(transport)
}

// Over makes HTTP send requests through a transport.
func (p *Panel) Over(transport http.RoundTripper) {
	p.t.Helper()
	p.HTTP = &http.Client{Transport: contracttest.Transport(p.t, transport)}
}

// DatabaseURL returns the URL of the panel's database.
func (p *Panel) DatabaseURL() string { return p.options.Database.URL }

// Leave tells the panel to stop and does not wait for it. Stop waits.
func (p *Panel) Leave() { p.cancel() }

// Stop stops the panel and fails the test if it does not stop cleanly. A second Stop does nothing.
func (p *Panel) Stop() {
	p.t.Helper()
	if p.stopped {
		return
	}
	p.stopped = true
	p.cancel()
	if err := <-p.ended; err != nil {
		p.t.Errorf("panel ended: %v", err)
	}
}

// Restart stops the panel and starts it again on the same database. Its address
// changes.
func (p *Panel) Restart() {
	p.t.Helper()
	p.Stop()
	p.run()
}

// Client returns a client with a bearer token; an empty token means none.
func (p *Panel) Client(token string) *client.ClientWithResponses {
	p.t.Helper()
	c, err := client.NewClientWithResponses(p.URL, client.WithHTTPClient(p.HTTP),
		client.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
			if token != "" {
				r.Header.Set("Authorization", "Bearer "+token)
			}
			return nil
		}))
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

// Login returns a new session token of the admin.
func (p *Panel) Login() string {
	p.t.Helper()
	resp, err := p.Client("").LoginWithResponse(p.t.Context(), types.LoginRequest{Email: AdminEmail, Password: AdminPassword})
	if err != nil {
		p.t.Fatal(err)
	}
	if resp.JSON200 == nil {
		p.t.Fatalf("login: %s", resp.Body)
	}
	return resp.JSON200.Token
}

// Admin returns a client with a session of the admin.
func (p *Panel) Admin() *client.ClientWithResponses {
	p.t.Helper()
	return p.Client(p.Login())
}
