//go:build linux

package attack

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclitunnel/eclitunnel/internal/await"
	"github.com/eclitunnel/eclitunnel/test/lib/cluster"
	"github.com/eclitunnel/eclitunnel/test/lib/traffic"
)

const (
	// attackers is how many requests an attacker of a panel has under way, and
	// loginAttackers how many logins in a long attack.
	attackers, loginAttackers = 300, 3000
	// readyLimit is within which /readyz answers, and loginLimit within which a person
	// from elsewhere is logged in.
	readyLimit = 100 * time.Millisecond
	loginLimit = 2 * time.Second
)

// requests has attackers make requests until ctx ends, each attacker from from(n), with
// a connection for each request, and returns how many were answered.
func requests(ctx context.Context, url string, attackers int, from func(n int) netip.Addr, body func() any) (stop func() int64) {
	var work sync.WaitGroup
	var answered atomic.Int64
	for n := range attackers {
		work.Go(func() {
			client := &http.Client{
				Timeout:   patience,
				Transport: &http.Transport{DialContext: dialerFrom(from(n)).DialContext, DisableKeepAlives: true},
			}
			for ctx.Err() == nil {
				encoded, _ := json.Marshal(body())
				request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(encoded))
				if err != nil {
					return
				}
				request.Header.Set("Content-Type", "application/json")
				response, err := client.Do(request)
				if err != nil {
					// Cut off, as it should be, or over. Attackers do not spin on errors: they
					// share the machine with what they attack. All of them together try 15,000
					// times per second at most.
					select {
					case <-time.After(time.Duration(attackers) * time.Second / 15_000):
					case <-ctx.Done():
					}
					continue
				}
				answered.Add(1)
				_, _ = io.Copy(io.Discard, response.Body)
				response.Body.Close()
			}
		})
	}
	return func() int64 {
		work.Wait()
		return answered.Load()
	}
}

func badLogin() any {
	return map[string]string{"email": cluster.AdminEmail, "password": "not the password"}
}

func TestPanel_EnduresFloodsOfRequests(t *testing.T) {
	w := sharedWorld(t)
	var names atomic.Int64
	logins := attackers
	if attackTime(t) >= longAttack {
		logins = loginAttackers
	}
	for name, a := range map[string]struct {
		path      string
		attackers int
		from      func(n int) netip.Addr
		body      func() any
	}{
		"bad logins of one source": {"/api/auth/login", logins, func(int) netip.Addr { return attacker(6) }, badLogin},
		"enrollments of one source": {"/api/tunnel/device/start", attackers, func(int) netip.Addr { return attacker(7) }, func() any {
			return map[string]string{"name": fmt.Sprint("attacker ", names.Add(1)), "kind": "client"}
		}},
		"polls of unknown codes": {"/api/tunnel/device/poll", attackers, func(int) netip.Addr { return attacker(8) }, func() any {
			return map[string]string{"deviceCode": fmt.Sprint("unknown-code-", names.Add(1))}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			stop := requests(ctx, w.panel.URL+a.path, a.attackers, a.from, a.body)
			w.watchPanel(t)
			cancel()
			wasAttacked(t, "requests that were answered", stop(), attackers/10)
		})
	}
}

// watchPanel looks at a panel under attack for a time: its readiness, its devices, and
// whether a person gets in.
func (w *world) watchPanel(t *testing.T) {
	t.Helper()
	var ready []time.Duration
	ticker := time.NewTicker(pause)
	defer ticker.Stop()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	for end := time.Now().Add(attackTime(t)); time.Now().Before(end); <-ticker.C {
		began := time.Now()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.panel.URL+"/readyz", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Errorf("/readyz: %v", err)
			continue
		}
		response.Body.Close()
		ready = append(ready, time.Since(began))
		if response.StatusCode != http.StatusOK {
			t.Errorf("/readyz: %s", response.Status)
		}
		if online, err := w.online(t.Context()); err != nil || !online {
			t.Errorf("the agent is online: %t, %v", online, err)
		}
	}
	if m := median(ready); m > readyLimit {
		t.Errorf("/readyz answers in %v at the median, want %v", m, readyLimit)
	} else {
		t.Logf("/readyz answers in %v at the median", m.Round(time.Microsecond))
	}
	began := time.Now()
	w.logInFrom(t, netip.MustParseAddr(player4))
	if took := time.Since(began); took > loginLimit {
		t.Errorf("a login from elsewhere took %v, want %v", took, loginLimit)
	} else {
		t.Logf("a login from elsewhere took %v", took.Round(time.Millisecond))
	}
}

func (w *world) logInFrom(t *testing.T, from netip.Addr) {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: dialerFrom(from).DialContext, DisableKeepAlives: true}}
	body, _ := json.Marshal(map[string]string{"email": cluster.AdminEmail, "password": w.panel.Password})
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.panel.URL+"/api/auth/login", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		t.Fatalf("log in: %v", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		answer, _ := io.ReadAll(response.Body)
		t.Fatalf("log in: %s: %s", response.Status, answer)
	}
}

// TestAgents_EndureSilentConnectionsAtTheirPort fills the port at which agents link with
// connections that say nothing, and has the agent start anew meanwhile.
func TestAgents_EndureSilentConnectionsAtTheirPort(t *testing.T) {
	w := sharedWorld(t)
	for name, from := range map[string]func(n int) netip.Addr{
		"of one source":   func(int) netip.Addr { return attacker(9) },
		"of many sources": forged,
	} {
		t.Run(name, func(t *testing.T) {
			address := net.JoinHostPort("127.0.0.1", strconv.Itoa(w.relayPort))
			w.endure(t, func(ctx context.Context) func() {
				stop := flood(ctx, address, from, hold)
				return func() { wasAttacked(t, "connections", stop(), connectionRate/10) }
			})
			ctx, cancel := context.WithCancel(t.Context())
			stop := flood(ctx, address, from, hold)
			defer stop()
			defer cancel()
			if err := w.running.Stop(); err != nil {
				t.Fatal(err)
			}
			if err := w.startAgent(t.Context()); err != nil {
				t.Fatal(err)
			}
			await.Within(t, patience, "a join after the agent has started anew", func(ctx context.Context) (bool, error) {
				return true, traffic.Visit(ctx, w.address(w.tcp), 1)
			})
		})
	}
}
