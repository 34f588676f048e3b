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

func TestPanel_EnduresFloodsOfRequests(t *testing.T) {
	w := sharedWorld(t)
	logins := attackers
	if attackTime(t) >= longAttack {
		logins = loginAttackers
	}
	badLogin := fmt.Sprintf(`{"email":%q,"password":"guess %%d"}`, cluster.AdminEmail)
	for name, r := range map[string]requests{
		"bad logins of one source":   {Path: "/api/auth/login", Body: badLogin, Attackers: logins, From: attacker(6)},
		"bad logins of many sources": {Path: "/api/auth/login", Body: badLogin, Attackers: attackers},
		"enrollments of one source":  {Path: "/api/tunnel/device/start", Body: `{"name":"attacker %d","kind":"client"}`, Attackers: attackers, From: attacker(7)},
		"polls of unknown codes":     {Path: "/api/tunnel/device/poll?deviceCode=unknown-code-%d", Attackers: attackers, From: attacker(8)},
		"polls from many sources":    {Path: "/api/tunnel/device/poll?deviceCode=unknown-code-%d", Attackers: attackers},
		"requests with unknown keys": {Path: "/api/tunnel/devices", Token: "unknown-%d", Attackers: attackers, From: attacker(10)},
	} {
		t.Run(name, func(t *testing.T) {
			r.URL = w.panel.URL
			stop := r.start(t)
			w.watchPanel(t)
			wasAttacked(t, "requests that were answered", stop(), int64(r.Attackers/10))
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
				return true, new(traffic.Player).Visit(ctx, w.address(w.tcp), 1)
			})
		})
	}
}
