package server_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/eclitunnel/eclitunnel/gen/types"
	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/server"
	"github.com/eclitunnel/eclitunnel/server/internal/control/controltest"
	"github.com/eclitunnel/eclitunnel/server/servertest"
)

// login sends a login from an address behind a trusted proxy, and returns the status.
func login(ctx context.Context, c *http.Client, url, address, email, password string) int {
	body := fmt.Sprintf(`{"email":%q,"password":%q}`, email, password)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/api/auth/login", strings.NewReader(body))
	if err != nil {
		return 0
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-Forwarded-For", address)
	response, err := c.Do(r)
	if err != nil {
		return 0
	}
	_ = response.Body.Close()
	return response.StatusCode
}

func TestServer_AFloodOfLoginsConcernsNoDeviceAndNoHealthCheck(t *testing.T) {
	registry := prometheus.NewRegistry()
	p := servertest.Start(t, func(o *server.Options) {
		o.Metrics, o.TrustedProxies = registry, []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	device := p.Enroll("gaming-rig")
	agent := p.Connect(device)
	controltest.Next[types.ClientSnapshot](agent)
	admin := p.Admin()
	waits := `panel_database_lane_waits_total{lane="leases"}`
	calm := series(t, registry)[waits]
	started := time.Now()
	good := func() int {
		return login(t.Context(), p.HTTP, p.URL, "192.0.2.7", servertest.AdminEmail, servertest.AdminPassword)
	}
	if status := good(); status != http.StatusOK {
		t.Fatalf("a login: %d", status)
	}
	limit := 2*time.Second + 10*time.Since(started) // A busy machine and the race detector.

	transport := &http.Transport{MaxIdleConnsPerHost: 200}
	defer transport.CloseIdleConnections()
	flooder := &http.Client{Transport: transport}
	ctx, cancel := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	defer flood.Wait()
	defer cancel()
	begun := make(chan struct{}, 200)
	for i := range 200 {
		flood.Go(func() {
			for ctx.Err() == nil {
				// Half from one address, half from many.
				address := "203.0.113.1"
				if i%2 == 0 {
					address = fmt.Sprintf("198.51.100.%d", i)
				}
				status := login(ctx, flooder, p.URL, address, fmt.Sprintf("user%d@example.com", i), "wrong")
				if ctx.Err() == nil && status != http.StatusUnauthorized && status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable {
					t.Errorf("a wrong login: %d", status)
				}
				select {
				case begun <- struct{}{}:
				default:
				}
			}
		})
	}
	for range cap(begun) {
		<-begun
	}
	for _, check := range []string{"/healthz", "/readyz"} { // Without and with a query: the machine's part, and the database's.
		started = time.Now()
		for range 50 {
			response, err := p.HTTP.Get(p.URL + check)
			if err != nil {
				t.Fatal(err)
			}
			if _ = response.Body.Close(); response.StatusCode != http.StatusOK {
				t.Fatalf("%s: %d", check, response.StatusCode)
			}
		}
		t.Logf("%s took %v", check, time.Since(started)/50)
		limit += time.Since(started) / 2 // A login is some 25 times as much as a check, which shows how busy the machine is.
	}
	started = time.Now()
	if status := good(); status != http.StatusOK || time.Since(started) > limit {
		t.Errorf("a good login from elsewhere: %d after %v, more than %v", status, time.Since(started), limit)
	}
	resp, err := admin.ListDevicesWithResponse(t.Context(), nil)
	if err != nil || resp.JSON200 == nil {
		t.Fatalf("devices: %v", err)
	}
	for _, d := range *resp.JSON200 {
		if !d.Online {
			t.Errorf("%s is shown offline", d.Name)
		}
	}
	if got := series(t, registry)[waits]; got != calm {
		t.Errorf("leases and health checks waited %v times for a connection", got-calm)
	}
}

// Guessers have more addresses than any limit, so that no one of them is over its own.
func TestServer_OwnersLogInWhileThousandsGuess(t *testing.T) {
	p := servertest.Start(t, func(o *server.Options) {
		o.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	browser := &http.Client{Transport: p.HTTP.Transport, Jar: jar}
	started := time.Now()
	good := func(c *http.Client, address string) int {
		return login(t.Context(), c, p.URL, address, servertest.AdminEmail, servertest.AdminPassword)
	}
	if status := good(browser, "192.0.2.7"); status != http.StatusOK {
		t.Fatalf("a login: %d", status)
	}
	limit := 2*time.Second + 10*time.Since(started) // A busy machine and the race detector.

	transport := &http.Transport{MaxIdleConnsPerHost: 100}
	defer transport.CloseIdleConnections()
	guesser := &http.Client{Transport: transport}
	ctx, cancel := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	defer flood.Wait()
	defer cancel()
	var next atomic.Uint32
	for range 100 {
		flood.Go(func() {
			for ctx.Err() == nil {
				n := next.Add(1)
				address := netip.AddrFrom4([4]byte{10, byte(n >> 16), byte(n >> 8), byte(n)}).String()
				status := login(ctx, guesser, p.URL, address, servertest.AdminEmail, "wrong")
				if ctx.Err() == nil && status != http.StatusUnauthorized && status != http.StatusTooManyRequests && status != http.StatusServiceUnavailable {
					t.Errorf("a guess: %d", status)
				}
			}
		})
	}
	for i := range 3 {
		await.Within(t, time.Minute, "guesses", func(context.Context) (bool, error) {
			return next.Load() > uint32(400*(i+1)), nil //nolint:gosec // few
		})
		for name, owner := range map[string]struct {
			client  *http.Client
			address string
		}{
			"an address that has logged in before": {p.HTTP, "192.0.2.7"},
			"a browser that has logged in before":  {browser, fmt.Sprint("198.51.100.", i)},
		} {
			started := time.Now()
			status := good(owner.client, owner.address)
			if took := time.Since(started); status != http.StatusOK || took > limit {
				t.Errorf("%s: %d after %v, more than %v", name, status, took, limit)
			} else {
				t.Logf("%s took %v beside %d guesses", name, took, next.Load())
			}
		}
	}
}
