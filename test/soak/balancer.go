//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	// healthInterval is how often the balancer asks each replica whether it is ready.
	healthInterval = 200 * time.Millisecond
	healthTimeout  = time.Second
	controlChannel = "/api/tunnel/ws"
)

// balancer is an HTTP load balancer as stands before replicas of the panel. It
// sends requests to those that say on /readyz that they are ready, and a request
// whose connection is refused to the next. It notes on which replica each
// device's control channel is.
type balancer struct {
	backends  []string // Host and port of each replica.
	transport *http.Transport
	server    *http.Server
	cancel    context.CancelFunc
	done      sync.WaitGroup

	mu    sync.Mutex
	ready []bool
	next  int
	on    map[uuid.UUID]int
}

func newBalancer(ctx context.Context, addr string, backends []string) (*balancer, error) {
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	b := &balancer{
		backends: backends,
		// A connection for each request: what one that dies does is then plain.
		transport: &http.Transport{
			DisableKeepAlives:     true,
			DialContext:           (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
			ResponseHeaderTimeout: 30 * time.Second,
		},
		ready: make([]bool, len(backends)),
		on:    map[uuid.UUID]int{},
	}
	b.server = &http.Server{
		Handler: &httputil.ReverseProxy{
			Rewrite: func(r *httputil.ProxyRequest) {
				r.Out.URL.Scheme, r.Out.URL.Host = "http", "panel"
				r.Out.Host = r.In.Host
				r.SetXForwarded()
			},
			Transport: b,
			ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
				http.Error(w, err.Error(), http.StatusBadGateway)
			},
			ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		},
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	watching, cancel := context.WithCancel(context.WithoutCancel(ctx))
	b.cancel = cancel
	for i := range backends {
		b.done.Go(func() { b.watch(watching, i) })
	}
	b.done.Go(func() {
		//nolint:errcheck // it is closed
		b.server.Serve(listener)
	})
	return b, nil
}

func (b *balancer) close() error {
	b.cancel()
	err := b.server.Close()
	b.done.Wait()
	return err
}

// watch asks a replica whether it is ready.
func (b *balancer) watch(ctx context.Context, i int) {
	client := &http.Client{Transport: b.transport, Timeout: healthTimeout}
	tick := time.NewTicker(healthInterval)
	defer tick.Stop()
	for {
		ready := false
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+b.backends[i]+"/readyz", nil)
		if err == nil {
			var answer *http.Response
			if answer, err = client.Do(request); err == nil {
				answer.Body.Close()
				ready = answer.StatusCode == http.StatusOK
			}
		}
		b.mu.Lock()
		b.ready[i] = ready
		b.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// candidates are the replicas to try, the one whose turn it is first.
func (b *balancer) candidates() []int {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.next++
	var found []int
	for i := range b.backends {
		if n := (b.next + i) % len(b.backends); b.ready[n] {
			found = append(found, n)
		}
	}
	return found
}

// maxBody is more than any request's body here.
const maxBody = 1 << 20

// RoundTrip implements http.RoundTripper for the proxy.
func (b *balancer) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(io.LimitReader(r.Body, maxBody)); err != nil {
			return nil, err
		}
		r.Body.Close()
	}
	err := errors.New("no replica of the panel is ready")
	for _, i := range b.candidates() {
		try := r.Clone(r.Context())
		try.URL.Host = b.backends[i]
		if r.Body != nil {
			try.Body = io.NopCloser(bytes.NewReader(body))
		}
		var answer *http.Response
		answer, err = b.transport.RoundTrip(try)
		if err == nil {
			if answer.StatusCode == http.StatusSwitchingProtocols && r.URL.Path == controlChannel {
				b.note(deviceOf(r), i)
			}
			return answer, nil
		}
		var op *net.OpError
		if !errors.As(err, &op) || op.Op != "dial" {
			break // It may have been done.
		}
	}
	return nil, err
}

func (b *balancer) note(device uuid.UUID, replica int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.on[device] = replica
}

// replicaOf is where a device's control channel was last opened.
func (b *balancer) replicaOf(device uuid.UUID) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.on[device]
}

// deviceOf reads a device token's subject; whether it is valid the panel says.
func deviceOf(r *http.Request) uuid.UUID {
	parts := strings.Split(r.Header.Get("Authorization"), ".")
	if len(parts) != 3 {
		return uuid.Nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return uuid.Nil
	}
	var claims struct {
		Subject uuid.UUID `json:"sub"`
	}
	if json.Unmarshal(payload, &claims) != nil {
		return uuid.Nil
	}
	return claims.Subject
}
